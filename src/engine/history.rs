//! The door to the history: whatever is to be remembered goes through a bounded queue to a thread
//! of its own, so that the loop never waits for a disk.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

pub use crate::store::history::*;

/// Most records that wait to be written; beyond it the oldest are dropped, and counted.
const MAX_WAITING: usize = 10_000;

/// A cheap, cloneable door to the history.
#[derive(Debug, Clone, Default)]
pub struct History(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Record>,
    dropped: u64,
}

impl History {
    /// Remembers something. Never waits, and never fails: what the disk refuses is kept in memory
    /// as long as there is room, and written later.
    pub fn record(&self, record: Record) {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.records.len() >= MAX_WAITING {
            queue.records.pop_front();
            queue.dropped += 1;
        }
        queue.records.push_back(record);
    }
}
