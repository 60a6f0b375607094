//! Where on its ladder a check stands: which remedy comes next, and when none does for a while.
//!
//! The ladder is climbed while the target is down. Success leads back to its foot only when it
//! has lasted; a rung that was used twice within half an hour is passed over, so that one that
//! helps for ten minutes only does not hide the next. Past the last rung is quarantine: a
//! breaker that lets one attempt through now and then, and never gives up.

use std::collections::VecDeque;
use std::time::Duration;

use crate::config::{Breaker as BreakerRule, Remedy, Rung};
use crate::core::BreakerState;
use crate::core::breaker::Breaker;
use crate::time::Instant;

/// A rung that was used so often within this time is passed over.
const REPEATS: (usize, Duration) = (2, Duration::from_secs(1800));
/// How many failures a `confirm` wants to see.
pub const CONFIRMATIONS: u32 = 2;
/// Quarantine opens at once, and for longer each time.
const QUARANTINE: BreakerRule = BreakerRule {
    failures: 1,
    window: Duration::from_secs(3600),
    open: Duration::from_secs(300),
    max_open: Duration::from_secs(3600),
};

/// What the ladder of one check remembers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ladder {
    /// The rung that comes next.
    pub next: usize,
    /// When which rung was used, oldest first, of the last half hour.
    pub uses: VecDeque<(Instant, usize)>,
    /// Failures seen by the `confirm` in progress.
    pub confirming: Option<u32>,
    /// When the target will have been well for long enough.
    pub stable_at: Option<Instant>,
    pub quarantine: Breaker,
    /// People were told that it is in quarantine, or that nothing can be done.
    pub alerted: bool,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pick {
    Rung(usize),
    Quarantine,
}

impl Ladder {
    /// Returns what comes next on a ladder of these rungs.
    pub fn pick(&self, now: Instant, rungs: &[Rung]) -> Pick {
        let worn = |index: usize| {
            let recent = self.uses.iter().filter(|(at, _)| now.since(*at) < REPEATS.1);
            recent.filter(|(_, used)| *used == index).count() >= REPEATS.0
        };
        let next = (self.next..rungs.len()).find(|index| !worn(*index));
        match next {
            Some(index) if rungs[index].remedy == Remedy::Quarantine => Pick::Quarantine,
            Some(index) => Pick::Rung(index),
            None => Pick::Quarantine,
        }
    }

    /// Begins no lower than at this rung.
    pub fn begin_at(&mut self, index: usize) {
        self.next = self.next.max(index);
    }

    /// Notes that a remedy begins.
    pub fn climb(&mut self, now: Instant, index: usize) {
        while self.uses.front().is_some_and(|(at, _)| now.since(*at) >= REPEATS.1) {
            self.uses.pop_front();
        }
        self.uses.push_back((now, index));
        self.pass_over(index);
    }

    /// Goes on to the rung after this one without counting a use.
    pub fn pass_over(&mut self, index: usize) {
        self.next = index + 1;
        self.confirming = None;
    }

    /// A remedy did not help. Returns until when the quarantine lasts that follows if this was
    /// its single attempt.
    pub fn on_failed(&mut self, now: Instant) -> Option<Instant> {
        match self.quarantine.state {
            BreakerState::HalfOpen => Some(self.close_in(now)),
            BreakerState::Closed | BreakerState::Open { .. } => None,
        }
    }

    /// Enters quarantine, or lengthens it; returns until when it lasts.
    pub fn close_in(&mut self, now: Instant) -> Instant {
        self.next = 0;
        self.confirming = None;
        self.quarantine.on_failure(now, &QUARANTINE).unwrap_or(now + QUARANTINE.open)
    }

    /// Returns until when nothing is tried. Once that time has come, one attempt is free.
    pub fn quarantined_until(&mut self, now: Instant) -> Option<Instant> {
        match self.quarantine.state {
            BreakerState::Open { until } if now < until => Some(until),
            BreakerState::Open { .. } => {
                self.quarantine.on_try();
                None
            }
            BreakerState::Closed | BreakerState::HalfOpen => None,
        }
    }

    /// The target is down.
    pub fn on_down(&mut self) {
        self.stable_at = None;
    }

    /// The target is well; if that lasts, all is forgotten but the uses.
    pub fn on_up(&mut self, now: Instant, stable: Duration) {
        self.confirming = None;
        self.stable_at = Some(now + stable);
    }

    /// Forgets when it is time; tells whether it did.
    pub fn on_time(&mut self, now: Instant) -> bool {
        let stable = self.stable_at.is_some_and(|at| at <= now);
        if stable {
            self.reset();
        }
        stable
    }

    /// Begins at the foot again; the uses are still known.
    pub fn reset(&mut self) {
        let uses = std::mem::take(&mut self.uses);
        *self = Self { uses, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn rungs() -> Vec<Rung> {
        let rung = |remedy| Rung { remedy, timeout: Duration::from_secs(30) };
        [Remedy::Reload, Remedy::Restart, Remedy::CleanRestart].map(rung).to_vec()
    }

    #[test]
    fn each_failure_leads_one_rung_up_and_past_the_last_is_quarantine() {
        let mut ladder = Ladder::default();
        for index in 0..3 {
            assert_eq!(ladder.pick(at(0), &rungs()), Pick::Rung(index));
            ladder.climb(at(0), index);
            assert_eq!(ladder.on_failed(at(0)), None);
        }
        assert_eq!(ladder.pick(at(0), &rungs()), Pick::Quarantine);
    }

    #[test]
    fn success_leads_back_to_the_foot_only_when_it_lasts() {
        let mut ladder = Ladder::default();
        ladder.climb(at(0), 0);
        ladder.on_up(at(10), Duration::from_secs(60));
        assert!(!ladder.on_time(at(69)));
        ladder.on_down();
        assert!(!ladder.on_time(at(1000)));
        assert_eq!(ladder.pick(at(1000), &rungs()), Pick::Rung(1));
        ladder.on_up(at(1000), Duration::from_secs(60));
        assert!(ladder.on_time(at(1060)));
        assert_eq!(ladder.pick(at(1060), &rungs()), Pick::Rung(0));
    }

    #[test]
    fn a_rung_used_twice_in_half_an_hour_is_passed_over_until_that_is_over() {
        let mut ladder = Ladder::default();
        for second in [0, 600] {
            ladder.climb(at(second), 0);
            ladder.reset();
        }
        assert_eq!(ladder.pick(at(1200), &rungs()), Pick::Rung(1));
        assert_eq!(ladder.pick(at(1800), &rungs()), Pick::Rung(0));
    }

    #[test]
    fn quarantine_lets_one_attempt_through_and_grows_when_it_fails() {
        let mut ladder = Ladder::default();
        assert_eq!(ladder.close_in(at(0)), at(300));
        assert_eq!(ladder.quarantined_until(at(299)), Some(at(300)));
        assert_eq!(ladder.quarantined_until(at(300)), None);
        assert_eq!(ladder.pick(at(300), &rungs()), Pick::Rung(0));
        ladder.climb(at(300), 0);
        assert_eq!(ladder.on_failed(at(330)), Some(at(930)));
        let mut times = Vec::new();
        for _ in 0..4 {
            let BreakerState::Open { until } = ladder.quarantine.state else {
                panic!("it is open")
            };
            assert_eq!(ladder.quarantined_until(until), None);
            times.push(ladder.on_failed(until).unwrap().since(until).as_secs());
        }
        assert_eq!(times, [1200, 2400, 3600, 3600]);
    }

    #[test]
    fn a_ladder_without_rungs_is_quarantine_at_once() {
        assert_eq!(Ladder::default().pick(at(0), &[]), Pick::Quarantine);
    }

    #[test]
    fn a_cause_only_ever_moves_the_beginning_up() {
        let mut ladder = Ladder { next: 1, ..Ladder::default() };
        ladder.begin_at(0);
        assert_eq!(ladder.next, 1);
        ladder.begin_at(9);
        assert_eq!(ladder.pick(at(0), &rungs()), Pick::Quarantine);
    }
}
