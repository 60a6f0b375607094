//! How often something may happen: an even rate with bursts, or a count within a window.
//!
//! [`Rate`] remembers one point in time and suits what happens often. [`Window`] remembers each
//! time and suits budgets that must never be exceeded in *any* stretch of the window's length.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Instant;

/// `burst` at once, and one more each `every` (the generic cell rate algorithm).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub every: Duration,
    pub burst: u32,
}

/// What an even rate remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// When the next one would be due if they came evenly.
    pub due: Instant,
}

impl Rate {
    /// Takes one if the limit allows.
    ///
    /// # Errors
    ///
    /// When the next one may be taken.
    pub fn try_take(&mut self, now: Instant, limit: &RateLimit) -> Result<(), Instant> {
        let credit = limit.every.saturating_mul(limit.burst.saturating_sub(1));
        let due = self.due.max(now);
        if due.since(now) > credit {
            return Err(due - credit);
        }
        self.due = due + limit.every;
        Ok(())
    }
}

/// At most `count` within any stretch of `length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowLimit {
    pub count: usize,
    pub length: Duration,
}

/// The times of what happened within a window, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Window {
    pub times: VecDeque<Instant>,
}

impl Window {
    /// Returns when the next one may happen, which is `now` or later.
    pub fn free_at(&self, now: Instant, limit: &WindowLimit) -> Instant {
        match self.times.len().checked_sub(limit.count.max(1)) {
            Some(index) => self.times.get(index).map_or(now, |at| (*at + limit.length).max(now)),
            None => now,
        }
    }

    /// Notes that it happened, and forgets what no longer matters.
    pub fn note(&mut self, now: Instant, limit: &WindowLimit) {
        while self.times.front().is_some_and(|at| now.since(*at) >= limit.length) {
            self.times.pop_front();
        }
        self.times.push_back(now);
    }

    /// Returns how many happened within `length` before `now`.
    pub fn count(&self, now: Instant, length: Duration) -> usize {
        self.times.iter().rev().take_while(|at| now.since(**at) < length).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_burst_passes_at_once_and_then_one_at_a_time() {
        let limit = RateLimit { every: Duration::from_secs(10), burst: 3 };
        let mut rate = Rate::default();
        let mut take =
            |second| rate.try_take(at(second), &limit).map_err(|t| t.as_nanos() / 1_000_000_000);
        assert_eq!([100, 100, 100].map(&mut take), [Ok(()); 3]);
        assert_eq!([100, 105, 110, 110].map(&mut take), [Err(110), Err(110), Ok(()), Err(120)]);
        assert_eq!([200, 200, 200, 200].map(&mut take), [Ok(()), Ok(()), Ok(()), Err(210)]);
    }

    #[test]
    fn no_stretch_of_the_window_holds_more_than_the_count() {
        let limit = WindowLimit { count: 2, length: Duration::from_secs(60) };
        let mut window = Window::default();
        let mut taken = Vec::new();
        for second in 0..300 {
            if window.free_at(at(second), &limit) == at(second) {
                window.note(at(second), &limit);
                taken.push(second);
            }
        }
        assert_eq!(taken, [0, 1, 60, 61, 120, 121, 180, 181, 240, 241]);
        assert_eq!(window.free_at(at(250), &limit), at(300));
        assert_eq!(window.count(at(241), Duration::from_secs(2)), 2);
    }

    #[test]
    fn a_window_keeps_no_more_than_it_needs() {
        let limit = WindowLimit { count: 6, length: Duration::from_secs(60) };
        let mut window = Window::default();
        (0..10_000).for_each(|second| window.note(at(second), &limit));
        assert!(window.times.len() <= 60);
    }
}
