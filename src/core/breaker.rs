//! The restart breaker: too many failures in a window, and tries become rare.
//!
//! It never gives up: an open breaker always has a time at which one try is made (half-open),
//! and that try decides. The times of open double up to a limit.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::Breaker as Rule;
use crate::core::BreakerState;
use crate::time::Instant;

/// What the breaker remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Breaker {
    pub state: BreakerState,
    /// The failures of the window, oldest first; never more than the rule's `failures`.
    pub failures: VecDeque<Instant>,
    /// How often it opened since it was last closed.
    pub opened: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: BreakerState::Closed, failures: VecDeque::new(), opened: 0 }
    }
}

impl Breaker {
    /// Counts a failure. Returns until when no try may be made, `None` while closed.
    pub fn on_failure(&mut self, now: Instant, rule: &Rule) -> Option<Instant> {
        match self.state {
            BreakerState::Closed => {
                self.failures.push_back(now);
                let limit = usize::try_from(rule.failures).unwrap_or(usize::MAX);
                while self.failures.len() > limit.max(1) {
                    self.failures.pop_front();
                }
                self.forget_old(now, rule);
                if rule.failures == 0 || self.failures.len() < limit {
                    return None;
                }
                Some(self.open(now, rule))
            }
            BreakerState::HalfOpen => Some(self.open(now, rule)),
            BreakerState::Open { until } => Some(until),
        }
    }

    /// Says that a try is made: an open breaker becomes half-open.
    pub fn on_try(&mut self) {
        if let BreakerState::Open { .. } = self.state {
            self.state = BreakerState::HalfOpen;
        }
    }

    /// Closes and forgets everything: the run has settled, or an operator said so.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether there is nothing to forget.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }

    /// Returns how many failures of the window count at `now`.
    pub fn count(&self, now: Instant, rule: &Rule) -> u32 {
        let recent = self.failures.iter().filter(|at| now.since(**at) < rule.window).count();
        u32::try_from(recent).unwrap_or(u32::MAX)
    }

    fn open(&mut self, now: Instant, rule: &Rule) -> Instant {
        let doubled = 2_u32.checked_pow(self.opened).map(|factor| rule.open.saturating_mul(factor));
        let time = doubled.unwrap_or(Duration::MAX).min(rule.max_open.max(rule.open));
        self.opened = self.opened.saturating_add(1);
        let until = now + time;
        self.state = BreakerState::Open { until };
        until
    }

    fn forget_old(&mut self, now: Instant, rule: &Rule) {
        while self.failures.front().is_some_and(|at| now.since(*at) >= rule.window) {
            self.failures.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        failures: 3,
        window: Duration::from_secs(10),
        open: Duration::from_secs(60),
        max_open: Duration::from_secs(200),
    };

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn opened_at_2() -> Breaker {
        let mut breaker = Breaker::default();
        for second in 0..3 {
            breaker.on_failure(at(second), &RULE);
        }
        breaker
    }

    #[test]
    fn the_last_allowed_failure_in_the_window_opens_it() {
        let mut breaker = Breaker::default();
        assert_eq!(breaker.on_failure(at(0), &RULE), None);
        assert_eq!(breaker.on_failure(at(1), &RULE), None);
        assert_eq!(breaker.on_failure(at(2), &RULE), Some(at(62)));
        assert_eq!(breaker.state, BreakerState::Open { until: at(62) });
    }

    #[test]
    fn failures_that_left_the_window_do_not_count() {
        let mut breaker = Breaker::default();
        for second in [0, 1, 10, 19, 28, 37] {
            assert_eq!(breaker.on_failure(at(second), &RULE), None, "at {second} s");
        }
        assert_eq!(breaker.count(at(37), &RULE), 2);
        assert_eq!(breaker.count(at(38), &RULE), 1);
        assert_eq!(breaker.count(at(60), &RULE), 0);
    }

    #[test]
    fn each_failed_try_doubles_the_time_up_to_the_limit() {
        let mut breaker = opened_at_2();
        let mut times = Vec::new();
        for second in [100, 300, 600] {
            breaker.on_try();
            assert_eq!(breaker.state, BreakerState::HalfOpen);
            times
                .push(breaker.on_failure(at(second), &RULE).map(|t| t.since(at(second)).as_secs()));
        }
        assert_eq!(times, [Some(120), Some(200), Some(200)]);
    }

    #[test]
    fn a_failure_while_open_changes_nothing() {
        let mut breaker = opened_at_2();
        let before = breaker.clone();
        assert_eq!(breaker.on_failure(at(5), &RULE), Some(at(62)));
        assert_eq!(breaker, before);
    }

    #[test]
    fn a_settled_run_closes_it_and_forgets_the_doubling() {
        let mut breaker = opened_at_2();
        breaker.on_try();
        breaker.reset();
        assert!(breaker.is_clean());
        assert_eq!(breaker.on_failure(at(100), &RULE), None);
    }

    #[test]
    fn a_limit_of_no_failures_means_that_it_never_opens() {
        let rule = Rule { failures: 0, ..RULE };
        let mut breaker = Breaker::default();
        for second in 0..100 {
            assert_eq!(breaker.on_failure(at(second), &rule), None);
        }
        assert!(breaker.failures.len() <= 1);
    }
}
