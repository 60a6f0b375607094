//! One target in a record: times in nanoseconds, absent members are their defaults.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::remedy::{RemedyRecord, TransactionRecord};
use super::{CareError, name_of, target_of};
use crate::core::care::cause::{Cause, Confidence, Finding};
use crate::core::care::health::{Health, Phase, Recent};
use crate::core::care::ladder::Ladder;
use crate::core::care::{CheckFacts, Course, Hold, Incident, IncidentId, RemedyId, TargetFacts};
use crate::core::rate::Window;
use crate::name::RunId;
use crate::store::decisions::{BreakerRecord, By, is_false, is_zero, nanos_of};
use crate::time::Instant;

/// The mirror of [`TargetFacts`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TargetRecord {
    target: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<u64>,
    /// Until when, and by whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<(u64, By)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_attempt: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attempts: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failing_since: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    incident: Option<IncidentRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    course: Option<CourseRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    fallbacks: Vec<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    sheds_others: bool,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    checks: BTreeMap<String, CheckRecord>,
}

/// The mirror of [`Incident`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct IncidentRecord {
    id: u64,
    opened: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evidence_by: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finding: Option<FindingRecord>,
    #[serde(default, skip_serializing_if = "is_zero_count")]
    begun: u32,
    #[serde(default, skip_serializing_if = "is_zero_count")]
    failed: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    alerted: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recovered: Option<u64>,
}

/// The mirror of [`Finding`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct FindingRecord {
    cause: String,
    confidence: ConfidenceRecord,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    facts: Vec<String>,
    sentence: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ConfidenceRecord {
    Guess,
    Likely,
    Certain,
}

/// The mirror of [`Course`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CourseRecord {
    remedy: u64,
    incident: u64,
    check: String,
    rung: usize,
    what: RemedyRecord,
    limit: u64,
    began: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acting_until: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transaction: Option<TransactionRecord>,
}

/// The mirror of [`CheckFacts`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CheckRecord {
    phase: PhaseRecord,
    since: u64,
    /// Passes, failures, unknown verdicts.
    #[serde(default)]
    counts: (u32, u32, u32),
    #[serde(default, skip_serializing_if = "is_zero")]
    recent: u64,
    #[serde(default, skip_serializing_if = "is_false")]
    warning: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    failing: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    changes: Vec<u64>,
    #[serde(default, skip_serializing_if = "is_false")]
    flapping: bool,
    #[serde(default, skip_serializing_if = "LadderRecord::is_at_its_foot")]
    ladder: LadderRecord,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PhaseRecord {
    None,
    Starting { until: u64 },
    Up,
    Suspect,
    Down,
    Healing,
    Verifying { until: u64, grace: u64 },
}

/// The mirror of [`Ladder`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct LadderRecord {
    #[serde(default)]
    next: usize,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    uses: Vec<(u64, usize)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    confirming: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stable_at: Option<u64>,
    #[serde(default)]
    quarantine: BreakerRecord,
    #[serde(default, skip_serializing_if = "is_false")]
    alerted: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero_count(number: &u32) -> bool {
    *number == 0
}

impl LadderRecord {
    fn is_at_its_foot(&self) -> bool {
        *self == Self::default()
    }
}

fn nanos(at: Option<Instant>) -> Option<u64> {
    at.map(Instant::as_nanos)
}

fn time(nanos: Option<u64>) -> Option<Instant> {
    nanos.map(Instant::from_nanos)
}

pub(super) fn window_nanos(window: &Window) -> Vec<u64> {
    window.times.iter().map(|at| at.as_nanos()).collect()
}

fn window(times: Vec<u64>) -> Window {
    Window { times: times.into_iter().map(Instant::from_nanos).collect() }
}

impl From<&TargetFacts> for TargetRecord {
    fn from(facts: &TargetFacts) -> Self {
        let hold = facts.hold.as_ref();
        Self {
            target: name_of(&facts.target),
            run: facts.run.map(|run| run.0),
            hold: hold.map(|hold| (hold.until.as_nanos(), By::from(&hold.by))),
            last_attempt: nanos(facts.last_attempt),
            attempts: window_nanos(&facts.attempts),
            failing_since: nanos(facts.failing_since),
            incident: facts.incident.as_ref().map(IncidentRecord::from),
            course: facts.course.as_ref().map(CourseRecord::from),
            fallbacks: facts.fallbacks.iter().map(ToString::to_string).collect(),
            sheds_others: facts.sheds_others,
            checks: facts
                .checks
                .iter()
                .map(|(name, facts)| (name.to_string(), CheckRecord::from(&**facts)))
                .collect(),
        }
    }
}

impl TryFrom<TargetRecord> for TargetFacts {
    type Error = CareError;

    fn try_from(record: TargetRecord) -> Result<Self, CareError> {
        let hold =
            |(until, by): (u64, By)| Hold { until: Instant::from_nanos(until), by: by.into() };
        let mut checks = BTreeMap::new();
        for (name, check) in record.checks {
            checks.insert(name.parse()?, Box::new(CheckFacts::from(check)));
        }
        let fallbacks = record.fallbacks.iter().map(|name| name.parse());
        Ok(Self {
            target: target_of(&record.target)?,
            run: record.run.map(RunId),
            hold: record.hold.map(hold),
            last_attempt: time(record.last_attempt),
            attempts: window(record.attempts),
            failing_since: time(record.failing_since),
            incident: record.incident.map(Incident::try_from).transpose()?,
            course: record.course.map(Course::try_from).transpose()?,
            fallbacks: fallbacks.collect::<Result<_, _>>()?,
            sheds_others: record.sheds_others,
            checks,
        })
    }
}

impl From<&Incident> for IncidentRecord {
    fn from(incident: &Incident) -> Self {
        Self {
            id: incident.id.0,
            opened: incident.opened.as_nanos(),
            evidence_by: nanos(incident.evidence_by),
            finding: incident.finding.as_ref().map(FindingRecord::from),
            begun: incident.begun,
            failed: incident.failed,
            alerted: incident.alerted,
            recovered: nanos(incident.recovered),
        }
    }
}

impl TryFrom<IncidentRecord> for Incident {
    type Error = CareError;

    fn try_from(record: IncidentRecord) -> Result<Self, CareError> {
        Ok(Self {
            id: IncidentId(record.id),
            opened: Instant::from_nanos(record.opened),
            evidence_by: time(record.evidence_by),
            finding: record.finding.map(Finding::try_from).transpose()?,
            begun: record.begun,
            failed: record.failed,
            alerted: record.alerted,
            recovered: time(record.recovered),
        })
    }
}

impl From<&Finding> for FindingRecord {
    fn from(finding: &Finding) -> Self {
        Self {
            cause: finding.cause.word().to_owned(),
            confidence: match finding.confidence {
                Confidence::Guess => ConfidenceRecord::Guess,
                Confidence::Likely => ConfidenceRecord::Likely,
                Confidence::Certain => ConfidenceRecord::Certain,
            },
            facts: finding.facts.clone(),
            sentence: finding.sentence.clone(),
        }
    }
}

impl TryFrom<FindingRecord> for Finding {
    type Error = CareError;

    fn try_from(record: FindingRecord) -> Result<Self, CareError> {
        let cause = Cause::of_word(&record.cause);
        Ok(Self {
            cause: cause.ok_or_else(|| CareError::Cause(record.cause.clone()))?,
            confidence: match record.confidence {
                ConfidenceRecord::Guess => Confidence::Guess,
                ConfidenceRecord::Likely => Confidence::Likely,
                ConfidenceRecord::Certain => Confidence::Certain,
            },
            facts: record.facts,
            sentence: record.sentence,
        })
    }
}

impl From<&Course> for CourseRecord {
    fn from(course: &Course) -> Self {
        Self {
            remedy: course.remedy.0,
            incident: course.incident.0,
            check: course.check.to_string(),
            rung: course.rung,
            what: RemedyRecord::from(&course.what),
            limit: nanos_of(course.limit),
            began: course.began.as_nanos(),
            acting_until: nanos(course.acting_until),
            transaction: course.transaction.as_ref().map(TransactionRecord::from),
        }
    }
}

impl TryFrom<CourseRecord> for Course {
    type Error = CareError;

    fn try_from(record: CourseRecord) -> Result<Self, CareError> {
        Ok(Self {
            remedy: RemedyId(record.remedy),
            incident: IncidentId(record.incident),
            check: record.check.parse()?,
            rung: record.rung,
            what: record.what.try_into()?,
            limit: Duration::from_nanos(record.limit),
            began: Instant::from_nanos(record.began),
            acting_until: time(record.acting_until),
            transaction: record.transaction.map(Into::into),
        })
    }
}

impl From<&CheckFacts> for CheckRecord {
    fn from(facts: &CheckFacts) -> Self {
        let health = &facts.health;
        Self {
            phase: health.phase.into(),
            since: health.since.as_nanos(),
            counts: (health.passes, health.fails, health.unknowns),
            recent: health.recent.0,
            warning: health.warning,
            failing: health.failing,
            changes: window_nanos(&health.changes),
            flapping: health.flapping,
            ladder: (&facts.ladder).into(),
        }
    }
}

impl From<CheckRecord> for CheckFacts {
    fn from(record: CheckRecord) -> Self {
        let (passes, fails, unknowns) = record.counts;
        let health = Health {
            phase: record.phase.into(),
            since: Instant::from_nanos(record.since),
            passes,
            fails,
            unknowns,
            recent: Recent(record.recent),
            warning: record.warning,
            failing: record.failing,
            changes: window(record.changes),
            flapping: record.flapping,
        };
        Self { health, ladder: record.ladder.into() }
    }
}

impl From<Phase> for PhaseRecord {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::None => Self::None,
            Phase::Starting { until } => Self::Starting { until: until.as_nanos() },
            Phase::Up => Self::Up,
            Phase::Suspect => Self::Suspect,
            Phase::Down => Self::Down,
            Phase::Healing => Self::Healing,
            Phase::Verifying { until, grace } => {
                Self::Verifying { until: until.as_nanos(), grace: grace.as_nanos() }
            }
        }
    }
}

impl From<PhaseRecord> for Phase {
    fn from(record: PhaseRecord) -> Self {
        let time = Instant::from_nanos;
        match record {
            PhaseRecord::None => Self::None,
            PhaseRecord::Starting { until } => Self::Starting { until: time(until) },
            PhaseRecord::Up => Self::Up,
            PhaseRecord::Suspect => Self::Suspect,
            PhaseRecord::Down => Self::Down,
            PhaseRecord::Healing => Self::Healing,
            PhaseRecord::Verifying { until, grace } => {
                Self::Verifying { until: time(until), grace: time(grace) }
            }
        }
    }
}

impl From<&Ladder> for LadderRecord {
    fn from(ladder: &Ladder) -> Self {
        Self {
            next: ladder.next,
            uses: ladder.uses.iter().map(|(at, rung)| (at.as_nanos(), *rung)).collect(),
            confirming: ladder.confirming,
            stable_at: nanos(ladder.stable_at),
            quarantine: (&ladder.quarantine).into(),
            alerted: ladder.alerted,
        }
    }
}

impl From<LadderRecord> for Ladder {
    fn from(record: LadderRecord) -> Self {
        let used = |(at, rung)| (Instant::from_nanos(at), rung);
        Self {
            next: record.next,
            uses: record.uses.into_iter().map(used).collect(),
            confirming: record.confirming,
            stable_at: time(record.stable_at),
            quarantine: record.quarantine.into(),
            alerted: record.alerted,
        }
    }
}
