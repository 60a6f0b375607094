//! How long to wait before the next try: exponential delays with jitter.
//!
//! The machine only counts; the rule's numbers come from the configuration at each call, so a
//! changed configuration takes effect at the next failure. The random number comes from the
//! caller.

use std::time::Duration;

use crate::config::Backoff as Rule;

/// What the delays depend on: how many failures in a row there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backoff {
    /// Failures since the last long run.
    pub failures: u32,
    /// Delays given since then; one less than `failures` when the first restart was free.
    pub delays: u32,
    /// The last delay, jitter included.
    pub last_delay: Duration,
}

impl Backoff {
    /// Counts a failure and returns the delay before the next try.
    ///
    /// `counted_as_running` says that the run had reached its start period: the first such
    /// failure is answered at once. `random` is in `0.0..1.0`.
    pub fn on_failure(&mut self, rule: &Rule, counted_as_running: bool, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 && counted_as_running {
            self.last_delay = Duration::ZERO;
            return Duration::ZERO;
        }
        let exponent = i32::try_from(self.delays).unwrap_or(i32::MAX);
        self.delays = self.delays.saturating_add(1);
        let factor = rule.factor.max(1.0).powi(exponent);
        let seconds = (rule.initial.as_secs_f64() * factor).min(rule.max.as_secs_f64());
        let spread = 1.0 + rule.jitter.clamp(0.0, 1.0) * (2.0 * random - 1.0);
        self.last_delay = Duration::try_from_secs_f64(seconds * spread).unwrap_or(rule.max);
        self.last_delay
    }

    /// Returns how long a run must last until earlier failures are forgotten.
    pub fn settle_time(&self, rule: &Rule) -> Duration {
        rule.reset_after.max(self.last_delay.saturating_mul(2))
    }

    /// Forgets all failures.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Whether there is nothing to forget.
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule {
        initial: Duration::from_millis(500),
        max: Duration::from_secs(4),
        factor: 2.0,
        jitter: 0.25,
        reset_after: Duration::from_secs(60),
    };
    const MIDDLE: f64 = 0.5;

    fn delays(counted_as_running: bool) -> Vec<u128> {
        let mut backoff = Backoff::default();
        (0..6).map(|_| backoff.on_failure(&RULE, counted_as_running, MIDDLE).as_millis()).collect()
    }

    #[test]
    fn the_first_restart_after_a_running_run_is_immediate_and_then_delays_double_to_the_maximum() {
        assert_eq!(delays(true), [0, 500, 1000, 2000, 4000, 4000]);
    }

    #[test]
    fn a_failed_start_is_delayed_from_the_first_one_on() {
        assert_eq!(delays(false), [500, 1000, 2000, 4000, 4000, 4000]);
    }

    #[test]
    fn jitter_spreads_a_delay_evenly_around_its_middle() {
        let delay = |random| Backoff::default().on_failure(&RULE, false, random).as_millis();
        assert_eq!((delay(0.0), delay(0.5), delay(1.0)), (375, 500, 625));
    }

    #[test]
    fn a_run_must_last_twice_the_last_delay_when_that_is_longer_than_reset_after() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.settle_time(&RULE), RULE.reset_after);
        let long = Rule { initial: Duration::from_secs(50), max: Duration::from_secs(50), ..RULE };
        backoff.on_failure(&long, false, MIDDLE);
        assert_eq!(backoff.settle_time(&long), Duration::from_secs(100));
    }

    #[test]
    fn counting_never_overflows() {
        let mut backoff = Backoff { failures: u32::MAX, delays: u32::MAX, ..Backoff::default() };
        assert_eq!(backoff.on_failure(&RULE, true, MIDDLE), RULE.max);
        assert!(!backoff.is_clean());
        backoff.reset();
        assert!(backoff.is_clean());
    }
}
