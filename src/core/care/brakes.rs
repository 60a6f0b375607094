//! What keeps healing from becoming the illness: budgets of one target and of the host, and the
//! panic brake.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::event::Target;
use crate::core::rate::WindowLimit;
use crate::time::Instant;

/// The remedies of one target.
pub const TARGET_BUDGET: WindowLimit = WindowLimit { count: 6, length: Duration::from_secs(3600) };
/// Remedies that may be in progress on the host, their verification included.
pub const AT_ONCE: usize = 2;
/// The share of all targets that may be healed within this time: one in so many, at least one.
const SHARE: (usize, Duration) = (5, Duration::from_secs(600));

/// The budget of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Brakes {
    /// Who is being healed.
    pub running: BTreeSet<Target>,
    /// When which target was healed, oldest first.
    pub recent: VecDeque<(Instant, Target)>,
}

/// Why a remedy has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Others are being healed; asks again when one of them is done.
    Busy,
    /// Too many different targets were healed lately.
    Share { until: Instant },
}

impl Brakes {
    /// Says whether a remedy for `target` may begin, of `targets` that have checks.
    ///
    /// # Errors
    ///
    /// Why not, and until when.
    pub fn permit(&self, now: Instant, target: &Target, targets: usize) -> Result<(), Refusal> {
        if self.running.len() >= AT_ONCE || self.running.contains(target) {
            return Err(Refusal::Busy);
        }
        if *target == Target::Host {
            return Ok(());
        }
        let mut last: BTreeMap<&Target, Instant> = BTreeMap::new();
        for (at, other) in self.recent.iter().filter(|(at, _)| now.since(*at) < SHARE.1) {
            if other != target && *other != Target::Host {
                last.insert(other, *at);
            }
        }
        let most = (targets / SHARE.0).max(1);
        let Some(over) = (last.len() + 1).checked_sub(most + 1) else { return Ok(()) };
        let mut times: Vec<Instant> = last.into_values().collect();
        times.sort_unstable();
        let until = times.get(over).map_or(now, |at| *at + SHARE.1);
        Err(Refusal::Share { until })
    }

    /// Notes that a remedy begins.
    pub fn begin(&mut self, now: Instant, target: &Target) {
        while self.recent.front().is_some_and(|(at, _)| now.since(*at) >= SHARE.1) {
            self.recent.pop_front();
        }
        self.recent.push_back((now, target.clone()));
        self.running.insert(target.clone());
    }

    /// Notes that it is over, proved or failed.
    pub fn end(&mut self, target: &Target) {
        self.running.remove(target);
    }
}

/// So many new failures, and this share of all targets, within this time are a panic.
const PANIC: (usize, usize, Duration) = (3, 2, Duration::from_secs(60));
/// It is over when fewer fail for so long…
const PANIC_LEAVE: Duration = Duration::from_secs(30);
/// …or when nothing new failed for so long: the storm has passed, the budgets pace what follows.
const PANIC_QUIET: Duration = Duration::from_secs(300);

/// The panic brake: when half of everything fails at once, the cause is elsewhere, and healing
/// one by one would add to the trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Panic {
    pub state: PanicState,
    /// Failures from before this time no longer count: an operator has seen them.
    pub seen_until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PanicState {
    #[default]
    Calm,
    Panic {
        since: Instant,
        last_failure: Instant,
        /// Since when fewer fail.
        better_since: Option<Instant>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PanicEdge {
    Began,
    Ended,
}

impl Panic {
    pub fn is_on(&self) -> bool {
        matches!(self.state, PanicState::Panic { .. })
    }

    /// Takes since when which targets fail by their own fault, of `targets` that have checks.
    pub fn update(
        &mut self,
        now: Instant,
        onsets: &[Instant],
        targets: usize,
    ) -> Option<PanicEdge> {
        let enough = PANIC.0.max(targets.div_ceil(PANIC.1));
        let latest = onsets.iter().max().copied();
        match &mut self.state {
            PanicState::Calm => {
                let new = |at: &&Instant| now.since(**at) < PANIC.2 && **at > self.seen_until;
                if onsets.iter().filter(new).count() < enough {
                    return None;
                }
                let last_failure = latest.unwrap_or(now);
                self.state = PanicState::Panic { since: now, last_failure, better_since: None };
                Some(PanicEdge::Began)
            }
            PanicState::Panic { last_failure, better_since, .. } => {
                *last_failure = latest.unwrap_or(*last_failure).max(*last_failure);
                *better_since = match onsets.len() < enough {
                    true => Some(better_since.unwrap_or(now)),
                    false => None,
                };
                let over = self.next_time().is_some_and(|at| at <= now);
                over.then(|| self.end(now))
            }
        }
    }

    /// Ends it, by time or by an operator.
    pub fn end(&mut self, now: Instant) -> PanicEdge {
        self.state = PanicState::Calm;
        self.seen_until = now;
        PanicEdge::Ended
    }

    /// Returns when it ends if nothing changes.
    pub fn next_time(&self) -> Option<Instant> {
        match self.state {
            PanicState::Calm => None,
            PanicState::Panic { last_failure, better_since, .. } => {
                let quiet = last_failure + PANIC_QUIET;
                Some(better_since.map_or(quiet, |since| quiet.min(since + PANIC_LEAVE)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos(seconds * 1_000_000_000)
    }

    fn target(name: &str) -> Target {
        Target::Process(name.parse().unwrap())
    }

    #[test]
    fn two_are_healed_at_once_and_no_target_twice() {
        let mut brakes = Brakes::default();
        brakes.begin(at(0), &target("a"));
        assert_eq!(brakes.permit(at(0), &target("a"), 100), Err(Refusal::Busy));
        brakes.begin(at(0), &target("b"));
        assert_eq!(brakes.permit(at(0), &target("c"), 100), Err(Refusal::Busy));
        brakes.end(&target("a"));
        assert_eq!(brakes.permit(at(0), &target("c"), 100), Ok(()));
    }

    #[test]
    fn a_fifth_of_the_targets_is_healed_within_ten_minutes_and_at_least_one() {
        let mut brakes = Brakes::default();
        for (second, name) in [(0, "a"), (60, "b"), (120, "a")] {
            assert_eq!(brakes.permit(at(second), &target(name), 10), Ok(()));
            brakes.begin(at(second), &target(name));
            brakes.end(&target(name));
        }
        let share = |until| Err(Refusal::Share { until: at(until) });
        assert_eq!(brakes.permit(at(130), &target("c"), 10), share(660));
        assert_eq!(brakes.permit(at(130), &target("c"), 4), share(720));
        assert_eq!(brakes.permit(at(130), &target("b"), 10), Ok(()));
        assert_eq!(brakes.permit(at(130), &Target::Host, 4), Ok(()));
        assert_eq!(brakes.permit(at(660), &target("c"), 10), Ok(()));
    }

    #[test]
    fn half_of_the_targets_failing_within_a_minute_are_a_panic_and_three_at_least() {
        let begins = |onsets: &[u64], targets| {
            let onsets: Vec<Instant> = onsets.iter().map(|second| at(*second)).collect();
            Panic::default().update(at(100), &onsets, targets) == Some(PanicEdge::Began)
        };
        assert!(begins(&[50, 60, 100], 6));
        assert!(!begins(&[50, 60, 100], 7));
        assert!(!begins(&[50, 60], 2));
        assert!(!begins(&[40, 60, 100], 6));
    }

    #[test]
    fn a_panic_ends_when_fewer_fail_or_nothing_new_does_or_somebody_says_so() {
        let onsets = [at(1), at(2), at(3)];
        let panic = || {
            let mut panic = Panic::default();
            panic.update(at(3), &onsets, 6);
            panic
        };
        let mut better = panic();
        assert_eq!(better.update(at(10), &onsets[..2], 6), None);
        assert_eq!(better.next_time(), Some(at(40)));
        assert_eq!(better.update(at(20), &onsets, 6), None);
        assert_eq!(better.update(at(25), &onsets[..2], 6), None);
        assert_eq!(better.update(at(55), &onsets[..2], 6), Some(PanicEdge::Ended));
        let mut quiet = panic();
        assert_eq!(quiet.update(at(302), &onsets, 6), None);
        assert_eq!(quiet.update(at(303), &onsets, 6), Some(PanicEdge::Ended));
        let mut told = panic();
        told.end(at(10));
        assert_eq!(told.update(at(10), &onsets, 6), None);
    }
}
