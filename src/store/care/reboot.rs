//! From the clock of one boot to that of the next: the monotonic clock begins anew, civil time
//! goes on.

use std::time::Duration;

use super::Remembered;
use crate::core::BreakerState;
use crate::core::care::brakes::PanicState;
use crate::core::care::health::Phase;
use crate::core::care::{CheckFacts, HostFacts, Target, TargetFacts};
use crate::time::{Instant, Wall};

/// Where a time of the old clock lies on the new one.
struct Shift {
    /// The moment of writing on the old clock.
    written: Instant,
    /// The same moment on the new clock, were that old enough.
    elapsed: Duration,
    now: Instant,
}

impl Shift {
    /// What lies further back than the new clock reaches becomes its beginning, which makes a
    /// cool-down longer and never shorter.
    fn time(&self, at: &mut Instant) {
        *at = if *at >= self.written {
            let rest = at.since(self.written).saturating_sub(self.elapsed);
            self.now + rest
        } else {
            self.now - (self.written.since(*at) + self.elapsed)
        };
    }

    fn times<'a>(&self, times: impl IntoIterator<Item = &'a mut Instant>) {
        times.into_iter().for_each(|at| self.time(at));
    }
}

impl Remembered {
    /// Returns what is remembered with its times on the clock of this boot. The runs are others
    /// in any case: what was seen of the old ones says nothing of them.
    pub fn at(mut self, boot: &str, now: (Instant, Wall)) -> Self {
        let (written, wall) = self.written;
        let shift = match self.boot == boot {
            true => None,
            // A civil clock that was set back must not make anything last longer.
            false => Some(Shift { written, elapsed: now.1.since(wall), now: now.0 }),
        };
        for target in &mut self.targets {
            if target.target != Target::Host {
                target.run = None;
            }
            if let Some(shift) = &shift {
                move_target(shift, target);
            }
        }
        if let Some(shift) = &shift {
            move_host(shift, &mut self.host);
        }
        boot.clone_into(&mut self.boot);
        self.written = now;
        self
    }
}

fn move_target(shift: &Shift, facts: &mut TargetFacts) {
    shift.times(facts.hold.iter_mut().map(|hold| &mut hold.until));
    shift.times(&mut facts.last_attempt);
    shift.times(&mut facts.attempts.times);
    shift.times(&mut facts.failing_since);
    if let Some(incident) = &mut facts.incident {
        shift.time(&mut incident.opened);
        shift.times(&mut incident.evidence_by);
        shift.times(&mut incident.recovered);
    }
    if let Some(course) = &mut facts.course {
        shift.time(&mut course.began);
        shift.times(&mut course.acting_until);
    }
    facts.checks.values_mut().for_each(|check| move_check(shift, check));
}

fn move_check(shift: &Shift, facts: &mut CheckFacts) {
    let (health, ladder) = (&mut facts.health, &mut facts.ladder);
    match &mut health.phase {
        Phase::Starting { until } => shift.time(until),
        Phase::Verifying { until, grace } => shift.times([until, grace]),
        Phase::None | Phase::Up | Phase::Suspect | Phase::Down | Phase::Healing => {}
    }
    shift.time(&mut health.since);
    shift.times(&mut health.changes.times);
    shift.times(ladder.uses.iter_mut().map(|(at, _)| at));
    shift.times(&mut ladder.stable_at);
    shift.times(&mut ladder.quarantine.failures);
    if let BreakerState::Open { until } = &mut ladder.quarantine.state {
        shift.time(until);
    }
}

fn move_host(shift: &Shift, facts: &mut HostFacts) {
    shift.times(facts.brakes.recent.iter_mut().map(|(at, _)| at));
    shift.time(&mut facts.panic.seen_until);
    if let PanicState::Panic { since, last_failure, better_since } = &mut facts.panic.state {
        shift.times([since, last_failure]);
        shift.times(better_since);
    }
    // Another boot is not the episode of pressure before.
    facts.gate.episode = None;
    shift.times(&mut facts.mode.degraded.differs_since);
    shift.times(&mut facts.mode.emergency.differs_since);
    shift.time(&mut facts.evidence.due);
}
