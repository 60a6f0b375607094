//! A pool with a limited number of places: who is in, who waits, who was turned away.
//!
//! It only counts. Whoever asks acts on the answer; a place that becomes free is handed to the
//! first who waits, and [`Bulkhead::leave`] says to whom.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::time::Instant;

/// The places of one kind of work.
#[derive(Debug, Clone)]
pub struct Bulkhead<T> {
    places: usize,
    /// Longest queue; who comes then is turned away.
    longest: usize,
    inside: BTreeSet<T>,
    queue: VecDeque<(Instant, T)>,
    statistics: BulkheadStatistics,
}

/// What a pool has seen since it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BulkheadStatistics {
    pub running: usize,
    pub queued: usize,
    pub admitted: u64,
    pub rejected: u64,
    /// How many had to wait before they came in, how long all together and at most.
    pub waited: u64,
    pub waited_time: Duration,
    pub longest_wait: Duration,
}

/// The answer to [`Bulkhead::enter`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Admitted,
    Queued,
    Rejected,
}

impl<T: Ord + Clone> Bulkhead<T> {
    /// Makes an empty pool with `places` (at least one) and a queue of at most `longest`.
    pub fn new(places: usize, longest: usize) -> Self {
        Self {
            places: places.max(1),
            longest,
            inside: BTreeSet::new(),
            queue: VecDeque::new(),
            statistics: BulkheadStatistics::default(),
        }
    }

    /// Changes the number of places. Who is in stays in; who waits comes in at the next
    /// [`Bulkhead::leave`].
    pub fn set_places(&mut self, places: usize) {
        self.places = places.max(1);
    }

    /// Asks for a place. Who is in or waits already must not ask again.
    pub fn enter(&mut self, now: Instant, who: T) -> Entry {
        if self.inside.len() < self.places && self.queue.is_empty() {
            self.inside.insert(who);
            self.statistics.admitted += 1;
            return Entry::Admitted;
        }
        if self.queue.len() >= self.longest {
            self.statistics.rejected += 1;
            return Entry::Rejected;
        }
        self.queue.push_back((now, who));
        Entry::Queued
    }

    /// Gives up a place in the pool or in the queue; returns who comes in now.
    pub fn leave(&mut self, now: Instant, who: &T) -> Vec<T> {
        if !self.inside.remove(who) {
            self.queue.retain(|(_, waiting)| waiting != who);
        }
        let mut admitted = Vec::new();
        while self.inside.len() < self.places {
            let Some((since, next)) = self.queue.pop_front() else { break };
            let wait = now.since(since);
            self.statistics.admitted += 1;
            self.statistics.waited += 1;
            self.statistics.waited_time += wait;
            self.statistics.longest_wait = self.statistics.longest_wait.max(wait);
            self.inside.insert(next.clone());
            admitted.push(next);
        }
        admitted
    }

    pub fn statistics(&self) -> BulkheadStatistics {
        BulkheadStatistics {
            running: self.inside.len(),
            queued: self.queue.len(),
            ..self.statistics
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn the_limit_holds_and_a_free_place_goes_to_the_first_who_waits() {
        let mut pool = Bulkhead::new(2, 2);
        let entries = ["a", "b", "c", "d", "e"].map(|who| pool.enter(at(0), who));
        use Entry::{Admitted, Queued, Rejected};
        assert_eq!(entries, [Admitted, Admitted, Queued, Queued, Rejected]);
        assert_eq!(pool.leave(at(3), &"b"), ["c"]);
        assert_eq!(pool.leave(at(5), &"a"), ["d"]);
        assert!(pool.leave(at(6), &"c").is_empty());
        let expected = BulkheadStatistics {
            running: 1,
            queued: 0,
            admitted: 4,
            rejected: 1,
            waited: 2,
            waited_time: Duration::from_secs(8),
            longest_wait: Duration::from_secs(5),
        };
        assert_eq!(pool.statistics(), expected);
    }

    #[test]
    fn who_gives_up_waiting_is_not_admitted_later() {
        let mut pool = Bulkhead::new(1, 9);
        for who in ["a", "b", "c"] {
            pool.enter(at(0), who);
        }
        assert!(pool.leave(at(1), &"b").is_empty());
        assert_eq!(pool.leave(at(1), &"a"), ["c"]);
    }

    #[test]
    fn a_pool_of_no_places_still_has_one() {
        let mut pool = Bulkhead::new(0, 0);
        assert_eq!(pool.enter(at(0), 1), Entry::Admitted);
        assert_eq!(pool.enter(at(0), 2), Entry::Rejected);
    }
}
