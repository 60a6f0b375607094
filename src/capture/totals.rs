//! How much output has gone where, counted for those who measure.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts the bytes of all logs together, since the pump began.
#[derive(Debug, Default)]
pub struct Totals {
    moved: AtomicU64,
    dropped: AtomicU64,
}

impl Totals {
    pub(super) fn on_moved(&self, bytes: u64) {
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn on_dropped(&self, bytes: u64) {
        self.dropped.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns how many bytes were written into logs.
    pub fn moved_bytes(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// Returns how many bytes were read and given up, because their log could not be written.
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}
