//! What is remembered, and how it is asked for: plain values, without a word of SQL.

use std::time::Duration;

use crate::core::care::{CheckId, IncidentId, RemedyId, RemedyResult, Story, Target, Verdict};
use crate::time::Wall;

/// One thing to remember.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Somebody asked for a change.
    Asked(Asked),
    /// The story of an incident goes on: [`CareAction::Tell`](crate::core::care::CareAction::Tell)
    /// with its time. The first one opens the incident, [`Story::Closed`] ends it.
    Told { at: Wall, incident: IncidentId, target: Target, story: Story },
    /// Which incidents the daemon knows to be in progress: after a start in which it forgot the
    /// others, these end, nobody knows how.
    InProgress { at: Wall, incidents: Vec<IncidentId> },
    /// A check has run.
    Checked { at: Wall, check: CheckId, verdict: Verdict, detail: String, took: Duration },
    /// A number was measured.
    Sampled { at: Wall, series: String, value: f64 },
    /// A remedy is over: [`CareAction::RemedyOver`](crate::core::care::CareAction::RemedyOver)
    /// with its time; `what` is the word of the remedy, as in the story.
    RemedyOver {
        at: Wall,
        remedy: RemedyId,
        target: Target,
        what: String,
        result: RemedyResult,
        took: Duration,
    },
}

/// A request for a change, who made it and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub at: Wall,
    /// The kernel's word on the peer; `None` when nobody stands behind it, as with a signal.
    pub uid: Option<u32>,
    pub user: String,
    pub pid: Option<i32>,
    pub executable: Option<String>,
    pub request: String,
    pub reason: Option<String>,
    pub outcome: String,
}

/// Which requests are wanted; the newest come first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AskedQuery {
    pub since: Option<Wall>,
    pub until: Option<Wall>,
    /// A user's name or number.
    pub user: Option<String>,
    /// Most that are returned.
    pub limit: usize,
}

/// Which incidents are wanted; the newest come first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IncidentQuery {
    /// Those that were not over before.
    pub since: Option<Wall>,
    pub until: Option<Wall>,
    /// A program, or one of its processes.
    pub program: Option<String>,
    /// Only those that are not over.
    pub open: bool,
    /// Most that are returned.
    pub limit: usize,
}

/// One incident, without its story.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    pub id: IncidentId,
    /// `web:0`, or `host`.
    pub target: String,
    /// `None` for the host.
    pub program: Option<String>,
    pub opened: Wall,
    /// The sentence that opened it, which goes on from the target's name.
    pub opening: String,
    /// The check that opened it; `None` when a run ended, or the host's panic began.
    pub check: Option<String>,
    pub cause: Option<FoundCause>,
    /// How many remedies were begun.
    pub remedies: u32,
    /// The remedy that was proven to have helped.
    pub healed_by: Option<String>,
    /// When it was well again; an incident is over only when that has lasted.
    pub recovered: Option<Wall>,
    pub closed: Option<Wall>,
    /// `healed`, `by-itself`, `stopped`, `removed`, `panic-over` or `unknown`.
    pub closing: Option<String>,
}

/// What an incident was taken for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCause {
    /// `out-of-memory`.
    pub word: String,
    /// `guess`, `likely` or `certain`.
    pub confidence: String,
    /// Goes on from the target's name.
    pub sentence: String,
    pub facts: Vec<String>,
}

/// One entry of an incident's story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub at: Wall,
    /// What kind of entry it is: `failed`, `cause`, `began`, `verified`, `closed`.
    pub kind: String,
    /// Goes on from the target's name.
    pub sentence: String,
}

/// An incident with its story, in the order in which it happened.
pub type WholeStory = (Incident, Vec<Step>);

/// Which results of checks are wanted; the newest come first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckedQuery {
    /// A program, or one of its processes; `None` takes the host's checks too.
    pub program: Option<String>,
    /// The check's own name.
    pub check: Option<String>,
    pub since: Option<Wall>,
    pub until: Option<Wall>,
    /// Most that are returned.
    pub limit: usize,
}

/// Results of one check that say the same, one after the other.
///
/// Passes and warnings are told together whatever their details, other verdicts while the
/// details are equal.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    pub target: String,
    pub check: String,
    pub verdict: String,
    /// The newest one's line.
    pub detail: String,
    pub first: Wall,
    pub last: Wall,
    pub runs: u64,
    pub took_least: Duration,
    pub took_most: Duration,
    pub took_mean: Duration,
}

/// A measured number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    pub at: Wall,
    pub value: f64,
}

/// Which time, and whose incidents, statistics are wanted of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StatisticsQuery {
    /// Incidents that began, and remedies that ended, since then.
    pub since: Option<Wall>,
    /// A program, or one of its processes.
    pub program: Option<String>,
}

/// What one remedy has achieved.
#[derive(Debug, Clone, PartialEq)]
pub struct RemedyStatistics {
    pub what: String,
    /// Carried out, and proven to have helped.
    pub verified: u64,
    /// Carried out without effect.
    pub not_verified: u64,
    pub not_done: u64,
    pub abandoned: u64,
    /// Of the verified ones, from their beginning to the proof.
    pub took_total: Duration,
}

/// What befell one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetStatistics {
    /// `web:0`, or `host`.
    pub target: String,
    pub incidents: u64,
    pub open: u64,
    pub recovered: u64,
    pub recovery_total: Duration,
    /// How long it was not well within the period: from the beginning of each incident until it
    /// was well again.
    pub down: Duration,
}

/// What healing has achieved.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statistics {
    pub incidents: u64,
    pub open: u64,
    pub healed: u64,
    pub by_itself: u64,
    /// Those whose target is well again.
    pub recovered: u64,
    /// From the beginning of each until its target was well again.
    pub recovery_total: Duration,
    pub remedies: Vec<RemedyStatistics>,
    /// Those that something befell, the most afflicted first.
    pub targets: Vec<TargetStatistics>,
    /// What the numbers are of: since when something is known, or since when it was asked for,
    /// until now. `None` when nothing is known.
    pub period: Option<(Wall, Wall)>,
}

impl RemedyStatistics {
    /// Returns the mean time from the beginning of the remedy to the proof that it helped.
    pub fn took_mean(&self) -> Option<Duration> {
        mean(self.took_total, self.verified)
    }
}

impl Statistics {
    /// Returns the mean time to recovery.
    pub fn mean_recovery(&self) -> Option<Duration> {
        mean(self.recovery_total, self.recovered)
    }
}

impl TargetStatistics {
    /// Returns the mean time to recovery.
    pub fn mean_recovery(&self) -> Option<Duration> {
        mean(self.recovery_total, self.recovered)
    }

    /// Returns the part of the period in which it was well, from 0 to 1.
    pub fn availability(&self, period: (Wall, Wall)) -> Option<f64> {
        let whole = period.1.since(period.0).as_secs_f64();
        (whole > 0.0).then(|| (1.0 - self.down.as_secs_f64() / whole).clamp(0.0, 1.0))
    }
}

fn mean(total: Duration, count: u64) -> Option<Duration> {
    total.checked_div(u32::try_from(count).ok()?)
}

/// The highest numbers that were ever given, so that none is given twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastNumbers {
    pub incident: u64,
    pub remedy: u64,
}
