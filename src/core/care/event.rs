//! Everything that can happen to the healer and everything it can ask for.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::evidence::Evidence;
use super::gate::Pressure;
use super::health::{HealthState, Verdict};
use super::mode::Mode;
use super::pace::{Places, Pool};
use super::story::Story;
use crate::config::{Check, Impact, ModeRules, Remedy};
use crate::core::{Actor, Exit};
use crate::name::{CheckName, ProcessName, ProgramName, RunId};
use crate::time::Instant;

/// What is looked after.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Host,
    Process(ProcessName),
}

/// One check of one target.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckId {
    pub target: Target,
    pub check: CheckName,
}

/// One incident; numbers grow and are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IncidentId(pub u64);

/// One carrying out of one remedy; numbers grow and are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RemedyId(pub u64);

/// A question of somebody who waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskId(pub u64);

/// What is configured for one target.
#[derive(Debug, Clone, PartialEq)]
pub struct Charge {
    pub target: Target,
    pub checks: Vec<Arc<Check>>,
    /// What must be well for this target to be.
    pub requires: Vec<Target>,
    /// Of two programs the one with the higher number is shed first.
    pub priority: i32,
    pub impact: Impact,
}

/// What is configured for all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    pub places: Places,
    pub mode: ModeRules,
}

/// What a target's process is doing, as far as healing is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Nobody wants it to run: it is left alone. So is what has ended as its policy allows.
    Stopped { by_operator: bool },
    /// It is wanted, does not run, and needs no help: waits for a dependency, is being restarted.
    Waiting,
    /// Runs since a moment ago.
    Starting { run: RunId },
    /// Has run for its start period.
    Running { run: RunId },
    /// Ended, or never came to life, and nobody had asked for that.
    Failed { exit: Option<Exit>, retry: Retry },
}

/// When the supervisor starts it again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    Soon,
    /// The breaker is open.
    Later,
    /// It has given up.
    Never,
}

/// Everything that can happen.
#[derive(Debug, Clone, PartialEq)]
pub enum CareEvent {
    /// These targets are looked after from now on, in place of all earlier ones.
    Configure {
        charges: Vec<Charge>,
        settings: Settings,
    },
    /// A target's process changed.
    Life {
        target: Target,
        life: Life,
    },
    /// [`CareAction::RunCheck`] has ended. A result of an earlier ticket is dropped.
    Result {
        check: CheckId,
        ticket: u64,
        verdict: Verdict,
        /// One line for people.
        detail: String,
        took: Duration,
        /// Read together with a timeout.
        pressure: Option<Pressure>,
    },
    /// The answer to [`CareAction::CollectEvidence`].
    Evidence {
        target: Target,
        incident: IncidentId,
        evidence: Box<Evidence>,
    },
    /// [`CareAction::TakeRemedy`] or [`CareAction::ResumeRemedy`] has ended.
    RemedyEnded {
        remedy: RemedyId,
        outcome: RemedyOutcome,
    },
    /// A step of a transaction, or its undo command, has ended.
    StepEnded {
        remedy: RemedyId,
        step: usize,
        undo: bool,
        result: Result<(), String>,
    },
    /// The program says that its start takes until then.
    MoreTime {
        target: Target,
        until: Instant,
    },
    Operator(CareCommand),
    /// The time that [`next_deadline`](super::Care::next_deadline) named has come.
    DeadlineReached,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemedyOutcome {
    Done,
    Failed(String),
    /// Nobody knows what became of it; the checks will tell.
    Lost,
}

/// How a remedy ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemedyResult {
    /// Carried out, and the checks have proved it.
    Verified,
    /// Carried out, and it did not help.
    NotVerified,
    /// Could not be carried out, or took too long.
    NotDone,
    /// Nobody wanted it any more.
    Abandoned,
}

/// What an operator can ask for.
#[derive(Debug, Clone, PartialEq)]
pub enum CareCommand {
    /// Wants a result that is at most `max_age` old; many who ask share one probe.
    Run {
        check: CheckId,
        max_age: Duration,
        ask: AskId,
    },
    /// Wants a target that is down to be healed, beginning with this rung.
    Heal {
        target: Target,
        rung: Option<usize>,
        by: Actor,
        ask: AskId,
    },
    /// Wants no remedy and no alert until then.
    Hold {
        target: Target,
        until: Instant,
        by: Actor,
    },
    Release {
        target: Target,
        by: Actor,
    },
    /// Has seen the panic and wants healing to go on.
    EndPanic {
        by: Actor,
    },
}

/// Maintenance: no remedy, no alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub until: Instant,
    pub by: Actor,
}

/// What one run of a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    pub verdict: Verdict,
    pub detail: String,
    pub at: Instant,
    pub took: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Result(Sample),
    /// The target is being healed, or will be; the sentence says when.
    Accepted(String),
    Refused(String),
}

/// Everything that the engine can be asked to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum CareAction {
    RunCheck {
        check: CheckId,
        pool: Pool,
        ticket: u64,
    },
    /// Stop the probe, with all its processes.
    CancelCheck {
        check: CheckId,
        ticket: u64,
    },
    Answer {
        ask: AskId,
        answer: Answer,
    },
    /// Answered by [`CareEvent::Evidence`]; healing waits a few seconds for it.
    CollectEvidence {
        incident: IncidentId,
        target: Target,
        check: Option<CheckName>,
    },
    /// Carry it out; answered by [`CareEvent::RemedyEnded`]. A restart is a command of the actor
    /// `mend`, and has ended when the new run lives.
    TakeRemedy {
        remedy: RemedyId,
        incident: IncidentId,
        target: Target,
        what: Remedy,
        until: Instant,
    },
    /// Say what became of a remedy that an earlier brain began; never begin it again.
    ResumeRemedy {
        remedy: RemedyId,
        target: Target,
        what: Remedy,
    },
    /// Stop what is being done for it.
    CancelRemedy {
        remedy: RemedyId,
    },
    /// The remedy is over, for the statistics.
    RemedyOver {
        remedy: RemedyId,
        target: Target,
        what: Remedy,
        result: RemedyResult,
        took: Duration,
    },
    /// Run a step of a transaction (`undo`: its undo command).
    RunStep {
        remedy: RemedyId,
        incident: IncidentId,
        target: Target,
        step: usize,
        undo: bool,
        argv: Vec<String>,
    },
    /// The program is well again: stop its standby.
    EndFallback {
        target: Target,
        program: ProgramName,
    },
    /// Stop it until [`CareAction::Unshed`], without touching what its operator wants.
    Shed {
        target: Target,
        why: String,
    },
    Unshed {
        target: Target,
    },
    /// Add to the story of an incident.
    Tell {
        incident: IncidentId,
        target: Target,
        story: Story,
    },
    Announce(HealthChange),
    Alert(Alert),
    ModeChanged {
        from: Mode,
        to: Mode,
        reasons: Vec<String>,
    },
    /// Write down what is remembered of it: [`target_facts`](super::Care::target_facts).
    Persist {
        target: Target,
    },
    /// Write down what is remembered of the host: [`host_facts`](super::Care::host_facts).
    PersistHost,
    /// Nothing is remembered of it any more.
    Forget {
        target: Target,
    },
}

/// A change of health worth showing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthChange {
    pub check: CheckId,
    pub from: HealthState,
    pub to: HealthState,
    /// The last result's line.
    pub detail: String,
}

/// Something a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    pub kind: AlertKind,
    pub target: Target,
    pub incident: Option<IncidentId>,
    pub sentence: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertKind {
    /// A rung of the ladder says so.
    Asked,
    /// The first remedy did not help.
    RemedyFailed,
    /// Nothing is left to try for a while.
    Quarantined,
    /// Down, and nothing is configured to heal it.
    Unhealable,
    CheckBroken,
    Flapping,
    /// The supervisor's breaker is open, or it has given up.
    KeepsFailing,
    UndoFailed,
    Panic,
    PanicOver,
    Recovered,
}

impl AlertKind {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::RemedyFailed => "remedy-failed",
            Self::Quarantined => "quarantined",
            Self::Unhealable => "unhealable",
            Self::CheckBroken => "check-broken",
            Self::Flapping => "flapping",
            Self::KeepsFailing => "keeps-failing",
            Self::UndoFailed => "undo-failed",
            Self::Panic => "panic",
            Self::PanicOver => "panic-over",
            Self::Recovered => "recovered",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.pad("the host"),
            Self::Process(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for CheckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.target, self.check)
    }
}

impl Life {
    /// Returns the run that lives.
    pub fn run(&self) -> Option<RunId> {
        match self {
            Self::Starting { run } | Self::Running { run } => Some(*run),
            Self::Stopped { .. } | Self::Waiting | Self::Failed { .. } => None,
        }
    }

    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Stopped { .. })
    }
}
