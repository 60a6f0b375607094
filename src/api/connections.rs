//! The open connections, so that a full house always has room for one more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// What a connection is doing. The order is the order in which they are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Activity {
    /// No request is being answered; nothing is lost when it is closed.
    Idle,
    /// Follows logs or events; such a client resumes.
    Streaming,
    /// Waits for the answer to a request.
    Busy,
}

#[derive(Debug)]
struct Entry {
    activity: Activity,
    /// Whether the peer has no role at all; its connections are the first to go.
    is_stranger: bool,
    /// When the activity began, in steps of the registry.
    since: u64,
    close: CancellationToken,
}

#[derive(Debug, Default)]
struct Registry {
    entries: BTreeMap<u64, Entry>,
    steps: u64,
}

/// Every open connection and what it is doing.
#[derive(Debug, Clone, Default)]
pub(super) struct Connections(Arc<Mutex<Registry>>);

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> usize {
        self.lock().entries.len()
    }

    /// Enters a new connection, idle until its first request.
    pub(super) fn enter(&self, is_stranger: bool) -> Slot {
        let mut registry = self.lock();
        registry.steps += 1;
        let id = registry.steps;
        let close = CancellationToken::new();
        let entry =
            Entry { activity: Activity::Idle, is_stranger, since: id, close: close.clone() };
        registry.entries.insert(id, entry);
        Slot { id, connections: self.clone(), close }
    }

    /// Closes the connection that is missed least: a stranger's, else the one that is idle for
    /// longest, else the oldest stream. Returns `false` when all of them wait for answers.
    pub(super) fn evict(&self) -> bool {
        let mut registry = self.lock();
        let victim = registry
            .entries
            .iter()
            .filter(|(_, entry)| entry.is_stranger || entry.activity != Activity::Busy)
            .min_by_key(|(_, entry)| (!entry.is_stranger, entry.activity, entry.since))
            .map(|(id, _)| *id);
        match victim.and_then(|id| registry.entries.remove(&id)) {
            Some(entry) => {
                entry.close.cancel();
                true
            }
            None => false,
        }
    }

    fn set(&self, id: u64, activity: Activity) {
        let mut registry = self.lock();
        registry.steps += 1;
        let since = registry.steps;
        if let Some(entry) = registry.entries.get_mut(&id) {
            entry.activity = activity;
            entry.since = since;
        }
    }
}

/// One connection's place in the registry; leaving it is dropping it.
#[derive(Debug)]
pub(super) struct Slot {
    id: u64,
    connections: Connections,
    close: CancellationToken,
}

impl Slot {
    /// Resolves when the connection must make room for another one.
    pub(super) async fn evicted(&self) {
        self.close.cancelled().await;
    }

    /// Marks the connection as busy until the returned mark is dropped.
    pub(super) fn begin(&self) -> Mark {
        self.connections.set(self.id, Activity::Busy);
        Mark { id: self.id, connections: self.connections.clone() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.lock().entries.remove(&self.id);
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Mark {
    id: u64,
    connections: Connections,
}

impl Mark {
    /// The answer goes on for as long as the client likes.
    pub(super) fn stream(&self) {
        self.connections.set(self.id, Activity::Streaming);
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.connections.set(self.id, Activity::Idle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_go_first_then_the_longest_idle_then_streams_and_never_the_busy() {
        let connections = Connections::default();
        let busy = connections.enter(false);
        let streaming = connections.enter(false);
        let rested = connections.enter(false);
        let idle = connections.enter(false);
        let stranger = connections.enter(true);
        let _answering = busy.begin();
        let stream = streaming.begin();
        stream.stream();
        drop(rested.begin());

        for slot in [&stranger, &idle, &rested, &streaming] {
            assert!(!slot.close.is_cancelled());
            assert!(connections.evict());
            assert!(slot.close.is_cancelled());
        }
        assert!(!connections.evict());
        assert!(!busy.close.is_cancelled());
        assert_eq!(connections.count(), 1);
    }

    #[test]
    fn a_dropped_slot_leaves_nothing_behind() {
        let connections = Connections::default();
        let slot = connections.enter(false);
        let mark = slot.begin();
        drop(slot);
        drop(mark);
        assert_eq!(connections.count(), 0);
    }
}
