//! One target: what is configured, what its process does, and all that must be remembered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::cause::Finding;
use super::event::{Charge, Hold, IncidentId, Life, RemedyId, Sample, Target};
use super::health::{Health, HealthState, Phase};
use super::ladder::Ladder;
use super::transaction::Transaction;
use crate::config::{Check, CheckKind, CheckRole, HealMode, Impact, Remedy};
use crate::core::rate::Window;
use crate::core::text;
use crate::name::{CheckName, ProgramName, RunId};
use crate::time::Instant;

/// Results kept of each check.
const SAMPLES: usize = 10;
/// How long a program without checks must run until its incident is over.
const STABLE: Duration = Duration::from_secs(60);

/// All that is remembered of one target: enough for the next brain to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetFacts {
    pub target: Target,
    /// The run that the healths below are about.
    pub run: Option<RunId>,
    pub hold: Option<Hold>,
    /// The last start of a remedy or of a run; cool-downs count from here.
    pub last_attempt: Option<Instant>,
    /// The remedies of the last hour.
    pub attempts: Window,
    /// Since when it fails, in the eyes of a check that may heal.
    pub failing_since: Option<Instant>,
    pub incident: Option<Incident>,
    pub course: Option<Course>,
    /// Standbys that were started for it.
    pub fallbacks: Vec<ProgramName>,
    /// Programs of lower priority are stopped on its behalf.
    pub sheds_others: bool,
    /// Boxed, as a node of the map has room for eleven.
    pub checks: BTreeMap<CheckName, Box<CheckFacts>>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CheckFacts {
    pub health: Health,
    pub ladder: Ladder,
}

/// The incident in progress.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    pub id: IncidentId,
    pub opened: Instant,
    /// Evidence is on its way; healing waits for it until then.
    pub evidence_by: Option<Instant>,
    pub finding: Option<Finding>,
    /// Remedies begun, and those that did not help.
    pub begun: u32,
    pub failed: u32,
    /// People were told.
    pub alerted: bool,
    /// Well since then; it is over when that has lasted.
    pub recovered: Option<Instant>,
}

/// A remedy in progress, until it is proved or has failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Course {
    pub remedy: RemedyId,
    pub incident: IncidentId,
    pub check: CheckName,
    pub rung: usize,
    pub what: Remedy,
    pub limit: Duration,
    pub began: Instant,
    /// `None`: it has been carried out, and its verification decides.
    pub acting_until: Option<Instant>,
    pub transaction: Option<Transaction>,
}

/// Why a target that is down is not being healed at this moment, and what happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is down.
    Well,
    /// A remedy is in progress.
    Healing,
    Held {
        until: Instant,
    },
    /// The last probe could not look; the next one decides.
    Doubt,
    /// Evidence is being collected.
    Diagnosing {
        until: Instant,
    },
    /// Something it requires is not well.
    Blocked {
        by: Target,
    },
    /// Half of the host fails.
    Panic {
        until: Instant,
    },
    Confirming,
    Cooling {
        until: Instant,
    },
    /// Too many remedies for this target.
    OverBudget {
        until: Instant,
    },
    /// Too many targets were healed lately.
    HostBudget {
        until: Instant,
    },
    /// Others are being healed.
    HostBusy,
    /// Nothing helped; people were told.
    Quarantined {
        until: Instant,
    },
    /// Nothing is configured that could heal it; people were told.
    Unhealable,
}

/// One target.
#[derive(Debug)]
pub(super) struct Patient {
    pub(super) charge: Charge,
    pub(super) checks: BTreeMap<CheckName, Arc<Check>>,
    pub(super) life: Life,
    pub(super) facts: TargetFacts,
    /// What was last asked to be written down.
    pub(super) saved: Option<TargetFacts>,
    pub(super) wake: Option<Instant>,
    pub(super) standing: Standing,
    /// Whether dependants should not be healed because of it.
    pub(super) obstructs: bool,
    /// Whether it is one of those that the host's budgets are shares of.
    pub(super) counts: bool,
    pub(super) shown: BTreeMap<CheckName, HealthState>,
    pub(super) samples: BTreeMap<CheckName, VecDeque<Sample>>,
}

impl TargetFacts {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            run: None,
            hold: None,
            last_attempt: None,
            attempts: Window::default(),
            failing_since: None,
            incident: None,
            course: None,
            fallbacks: Vec::new(),
            sheds_others: false,
            checks: BTreeMap::new(),
        }
    }
}

impl Patient {
    pub(super) fn new(now: Instant, charge: Charge, facts: TargetFacts) -> Self {
        let life = match charge.target {
            Target::Host => Life::Running { run: RunId(0) },
            Target::Process(_) => Life::Stopped { by_operator: false },
        };
        let mut patient = Self {
            charge,
            checks: BTreeMap::new(),
            life,
            facts,
            saved: None,
            wake: None,
            standing: Standing::Well,
            obstructs: false,
            counts: false,
            shown: BTreeMap::new(),
            samples: BTreeMap::new(),
        };
        patient.take_checks(now);
        patient
    }

    /// Makes what is remembered agree with what is configured.
    pub(super) fn take_checks(&mut self, now: Instant) {
        self.checks = self.charge.checks.iter().map(|c| (c.name.clone(), c.clone())).collect();
        let checks = &self.checks;
        self.facts.checks.retain(|name, _| checks.contains_key(name));
        self.shown.retain(|name, _| checks.contains_key(name));
        self.samples.retain(|name, _| checks.contains_key(name));
        for name in checks.keys() {
            let fresh =
                || Box::new(CheckFacts { health: Health::new(now), ladder: Ladder::default() });
            self.facts.checks.entry(name.clone()).or_insert_with(fresh);
        }
    }

    pub(super) fn is_host(&self) -> bool {
        self.charge.target == Target::Host
    }

    pub(super) fn is_held(&self) -> bool {
        self.facts.hold.is_some()
    }

    /// Whether there is a process that a probe could look at.
    pub(super) fn is_alive(&self) -> bool {
        self.life.run().is_some()
    }

    /// Whether a start check has yet to pass; the others wait for it.
    pub(super) fn is_gated(&self) -> bool {
        self.facts.checks.iter().any(|(name, facts)| {
            self.checks[name].role == CheckRole::Start && facts.health.phase != Phase::Up
        })
    }

    /// Whether this check is probed now.
    pub(super) fn is_active(&self, check: &Check) -> bool {
        let turn = match check.role {
            CheckRole::Start => self
                .facts
                .checks
                .get(&check.name)
                .is_some_and(|facts| facts.health.phase != Phase::Up),
            CheckRole::Live | CheckRole::Ready => !self.is_gated(),
        };
        check.kind != CheckKind::Process && self.is_alive() && turn
    }

    /// Whether any check that may heal finds it down, or a remedy is in progress.
    pub(super) fn is_failing(&self) -> bool {
        self.facts.checks.iter().any(|(name, facts)| {
            self.checks[name].role != CheckRole::Ready && facts.health.is_failed()
        })
    }

    /// Whether what requires it should wait for it.
    pub(super) fn is_obstacle(&self) -> bool {
        let in_trouble = |health: &Health| match health.phase {
            Phase::Down | Phase::Healing | Phase::Verifying { .. } => true,
            Phase::Starting { .. } | Phase::Suspect => !health.is_broken(),
            Phase::None | Phase::Up => false,
        };
        !self.is_alive() || self.facts.checks.values().any(|facts| in_trouble(&facts.health))
    }

    /// Whether everything that is known of it says that it works.
    pub(super) fn is_well(&self) -> bool {
        matches!(self.life, Life::Running { .. })
            && self
                .facts
                .checks
                .values()
                .all(|facts| matches!(facts.health.phase, Phase::Up | Phase::Suspect))
    }

    /// Returns how much it matters that it is down; `None` when nothing is.
    pub(super) fn down_impact(&self) -> Option<Impact> {
        if self.is_held() || self.life.is_stopped() {
            return None;
        }
        let gone = match self.life {
            Life::Failed { retry, .. } => retry != super::event::Retry::Soon,
            Life::Stopped { .. } | Life::Waiting => false,
            Life::Starting { .. } | Life::Running { .. } => false,
        };
        let checks = self.facts.checks.iter();
        let checks = checks.filter(|(_, facts)| facts.health.is_failed());
        let checks = checks.map(|(name, _)| self.checks[name].impact);
        checks.chain(gone.then_some(self.charge.impact)).max()
    }

    /// Returns how long it must be well until its incident is over.
    pub(super) fn stable(&self) -> Duration {
        self.checks.values().map(|check| check.stable).max().unwrap_or(STABLE)
    }

    pub(super) fn note_sample(&mut self, check: &CheckName, sample: Sample) {
        let samples = self.samples.entry(check.clone()).or_default();
        samples.push_back(sample);
        if samples.len() > SAMPLES {
            samples.pop_front();
        }
    }

    pub(super) fn last_sample(&self, check: &CheckName) -> Option<&Sample> {
        self.samples.get(check)?.back()
    }

    /// Returns the checks that are down, those first that may heal and matter most.
    pub(super) fn down_checks(&self) -> Vec<Arc<Check>> {
        let is_down = |check: &&Arc<Check>| {
            self.facts.checks.get(&check.name).is_some_and(|f| f.health.phase == Phase::Down)
        };
        let mut down: Vec<Arc<Check>> = self.checks.values().filter(is_down).cloned().collect();
        down.sort_by_key(|check| (!may_heal(check), std::cmp::Reverse(check.impact)));
        down
    }

    /// Returns the time at which something of it is due.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let facts = &self.facts;
        let of_checks = facts
            .checks
            .values()
            .flat_map(|check| check.health.next_time().into_iter().chain(check.ladder.stable_at));
        let of_incident = facts.incident.as_ref().into_iter().flat_map(|incident| {
            let close = incident.recovered.map(|at| at + self.stable());
            close.into_iter().chain(incident.evidence_by)
        });
        let of_course = facts.course.as_ref().and_then(|course| course.acting_until);
        let of_hold = facts.hold.as_ref().map(|hold| hold.until);
        of_checks
            .chain(of_incident)
            .chain(of_course)
            .chain(of_hold)
            .chain(self.standing.until())
            .min()
    }
}

/// Whether a check may lead to remedies that are carried out.
pub fn may_act(check: &Check) -> bool {
    may_heal(check) && !only_observes(check)
}

/// Whether a check may lead to remedies at all.
pub(super) fn may_heal(check: &Check) -> bool {
    check.role != CheckRole::Ready && !check.heal.is_empty()
}

/// Whether a check only says what it would do.
pub(super) fn only_observes(check: &Check) -> bool {
    check.mode == HealMode::Observe
}

impl Standing {
    /// Returns when it ends at the latest, where that is known.
    pub fn until(&self) -> Option<Instant> {
        match self {
            Self::Held { until }
            | Self::Diagnosing { until }
            | Self::Cooling { until }
            | Self::OverBudget { until }
            | Self::HostBudget { until }
            | Self::Panic { until }
            | Self::Quarantined { until } => Some(*until),
            Self::Well | Self::Healing | Self::Doubt | Self::Blocked { .. } => None,
            Self::Confirming | Self::HostBusy | Self::Unhealable => None,
        }
    }

    /// Says it in a sentence that goes on from the target's name.
    pub fn sentence(&self, now: Instant) -> String {
        let within = |until: &Instant| text::duration(until.since(now));
        match self {
            Self::Well => "has nothing that is down".to_owned(),
            Self::Healing => "is being healed".to_owned(),
            Self::Held { until } => format!("is on hold for another {}", within(until)),
            Self::Doubt => "is left alone until a check can look again".to_owned(),
            Self::Diagnosing { .. } => "is being examined".to_owned(),
            Self::Blocked { by } => format!("waits for `{by}`, which it requires, to be well"),
            Self::Panic { .. } => "waits until the host's panic is over".to_owned(),
            Self::Confirming => "is looked at twice more before anything is done".to_owned(),
            Self::Cooling { until } => format!("gets its next remedy in {}", within(until)),
            Self::OverBudget { until } => {
                format!("has had all remedies that an hour allows; the next in {}", within(until))
            }
            Self::HostBudget { until } => {
                format!(
                    "waits because many programs were healed lately; the next in {}",
                    within(until)
                )
            }
            Self::HostBusy => "waits until others have been healed".to_owned(),
            Self::Quarantined { until } => format!("is tried again in {}", within(until)),
            Self::Unhealable => "is down, and nothing is configured to heal it".to_owned(),
        }
    }

    /// Whether both are the same reason, whatever the times.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Blocked { by: one }, Self::Blocked { by: other }) => one == other,
            (one, other) => std::mem::discriminant(one) == std::mem::discriminant(other),
        }
    }
}
