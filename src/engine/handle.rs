//! The engine's front door: what the control API asks, and what it gets back.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, oneshot};

use super::counts::Counts;
use super::healing::HealingRequest;
use crate::config::show::Shown;
use crate::core::{Actor, Plan, ProcessStatus};
pub use crate::core::{Happening, HappeningKind};
use crate::name::ProcessName;
pub use crate::store::generations::{Generation, How, Outcome as GenerationOutcome};
use crate::time::{Instant, Wall};

/// A cheap, cloneable door to the engine.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    /// Live events; a receiver that lags re-reads from [`Handle::events_after`].
    events: broadcast::Sender<Arc<Happening>>,
}

/// What can be asked of the engine. Each carries where its answer goes.
#[derive(Debug)]
pub enum Request {
    Status {
        names: Vec<String>,
        reply: oneshot::Sender<Result<Status, Refusal>>,
    },
    Act {
        act: Act,
        reply: oneshot::Sender<Result<Vec<Outcome>, Refusal>>,
    },
    /// Reads the configuration again and applies it if it is good.
    Reload {
        by: Actor,
        reply: oneshot::Sender<Result<Reloaded, Refusal>>,
    },
    /// Compares the files, or two generations, with each other or with what is active.
    Plan {
        between: Compared,
        reply: oneshot::Sender<Result<Planned, Refusal>>,
    },
    /// Begins an apply; how it ends is told by events.
    Apply {
        request: ApplyRequest,
        reply: oneshot::Sender<Result<ApplyBegun, Refusal>>,
    },
    /// The generations of the configuration that are kept.
    History {
        reply: oneshot::Sender<History>,
    },
    /// Stops everything in order, then the daemon ends. Answered when nothing runs any more.
    Shutdown {
        by: Actor,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Changes the level of the daemon's own log; answers with the level before.
    LogLevel {
        level: String,
        by: Actor,
        reply: oneshot::Sender<Result<String, Refusal>>,
    },
    /// Checks an executable (`None`: the file that this daemon was started from) and becomes it.
    /// Answered with its version when the check has passed and the switch begins; how that went
    /// is an event, because this brain does not see it.
    Upgrade {
        by: Actor,
        binary: Option<PathBuf>,
        /// How long the new brain may take to serve before everything goes back.
        patience: Option<Duration>,
        reply: oneshot::Sender<Result<UpgradeBegun, Refusal>>,
    },
    /// The events after this id that are still kept, oldest first.
    EventsAfter {
        id: u64,
        reply: oneshot::Sender<Vec<Arc<Happening>>>,
    },
    /// What runs, key by key, with where each value comes from and without secrets.
    Config {
        reply: oneshot::Sender<Result<Vec<Shown>, Refusal>>,
    },
    /// What was counted.
    Counts {
        reply: oneshot::Sender<Counts>,
    },
    /// Something about checks and healing.
    Healing(HealingRequest),
    /// Where the logs of these processes are.
    LogPlaces {
        names: Vec<String>,
        reply: oneshot::Sender<Result<Vec<LogPlace>, Refusal>>,
    },
}

/// One change that an operator asks for.
#[derive(Debug, Clone)]
pub struct Act {
    pub verb: Verb,
    /// Processes, programs, `program:*`, `@group`, globs, `all`; never empty.
    pub names: Vec<String>,
    pub by: Actor,
    /// `None` answers at once, `Some` when the effect is reached or the time is over.
    pub wait: Option<Duration>,
    /// A second request of the same key waits for what the first one does.
    pub key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Start,
    Stop,
    Restart,
    /// Sends the program's reload signal.
    Reload,
    Signal(i32),
    /// Starts by itself from the next boot on, with `now` also at once.
    Enable {
        now: bool,
    },
    /// Does not start by itself any more, with `now` it is stopped too.
    Disable {
        now: bool,
    },
}

/// What an act did to one process.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub process: ProcessName,
    pub result: OutcomeKind,
    /// `started (was stopped)`, `already running`, `exited with code 1 before it counted as
    /// running; …`.
    pub message: String,
    pub status: ProcessStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeKind {
    /// The effect is reached (or, without waiting, under way).
    Done,
    /// It was so already.
    Unchanged,
    /// It will not happen: spawn failure, FATAL, killed by something else.
    Failed,
    /// The wait is over, the job goes on.
    TimedOut,
}

/// Why the engine will not do something; the API turns it into problem details.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No process, program or group is called so; `suggestion` is the nearest name there is.
    #[error("no program, process or group is called `{name}`")]
    UnknownName { name: String, suggestion: Option<String> },
    #[error("{0}")]
    Invalid(String),
    #[error("the supervisor is shutting down")]
    ShuttingDown,
    /// The configuration is bad; the text is the rendered list of mistakes.
    #[error("the configuration was not applied")]
    BadConfiguration { rendered: String, mistakes: usize },
    /// Something else must end or be done first.
    #[error("{0}")]
    Busy(String),
    #[error("{0}")]
    Failed(String),
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// The files with what is active.
    Files,
    /// The generation before the current one with what is active.
    Previous,
    /// A generation with what is active.
    Generation(u64),
    /// Two generations, the older first.
    Generations(u64, u64),
}

/// What would change.
#[derive(Debug, Clone)]
pub struct Planned {
    pub plan: Plan,
    /// Tells whether an apply goes to the same texts.
    pub fingerprint: String,
    pub warnings: Vec<String>,
    /// What became of these texts when they were applied before, if they were given up.
    pub given_up: Option<String>,
}

/// What an apply should do.
#[derive(Debug, Clone)]
pub struct ApplyRequest {
    pub by: Actor,
    pub target: ApplyTarget,
    /// How long it may take; `None` takes the usual time.
    pub patience: Option<Duration>,
    /// `false` keeps the new configuration whatever becomes of it.
    pub roll_back: bool,
    /// Of the plan that was looked at: other texts are refused.
    pub fingerprint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyTarget {
    /// What the files hold.
    Files,
    /// The generation before the current one.
    Previous,
    Generation(u64),
}

/// An apply that has begun, or had nothing to do.
#[derive(Debug, Clone)]
pub struct ApplyBegun {
    /// The generation that is being applied; without a change the current one.
    pub generation: u64,
    /// `false` when there was nothing to do.
    pub begun: bool,
    /// The events of the apply come after this one.
    pub event: u64,
    pub plan: Plan,
    pub warnings: Vec<String>,
}

/// What is kept of the configurations before.
#[derive(Debug, Clone)]
pub struct History {
    /// Oldest first.
    pub generations: Vec<Generation>,
    /// The one that counts.
    pub current: Option<u64>,
    /// The one that is being applied.
    pub applying: Option<u64>,
}

/// The answer to [`Request::Status`].
#[derive(Debug, Clone)]
pub struct Status {
    pub daemon: DaemonStatus,
    /// In start order: by priority, then name.
    pub processes: Vec<ProcessStatus>,
    /// The pair that turns monotonic times into civil ones.
    pub now: (Instant, Wall),
}

#[derive(Debug, Clone)]
pub struct DaemonStatus {
    pub version: &'static str,
    pub brain_pid: u32,
    pub keeper_pid: u32,
    pub started: Wall,
    pub config: PathBuf,
    /// Trouble that an operator should know: a full disk, a store that cannot be written, a
    /// configuration file that is broken or newer than what runs.
    pub warnings: Vec<String>,
    /// `running`, `stopping`.
    pub phase: &'static str,
    /// `NORMAL`, `DEGRADED`, `EMERGENCY`.
    pub mode: &'static str,
}

/// What a reload changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub restarted: Vec<String>,
    /// Changed in place, without a restart.
    pub updated: Vec<String>,
    /// Rendered warnings about the new configuration.
    pub warnings: Vec<String>,
}

/// An upgrade whose switch begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeBegun {
    /// The version of the new executable.
    pub version: String,
    /// The event that says so; the one with the outcome comes after it.
    pub event: u64,
}

/// Where one process's output is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogPlace {
    pub process: ProcessName,
    /// The current segment of standard output; with merged stderr of both. `None`: sink `none`.
    pub stdout: Option<PathBuf>,
    pub stderr: Option<PathBuf>,
}

/// The other end of a [`Handle`], owned by the engine's loop.
#[derive(Debug)]
pub struct Door {
    pub requests: mpsc::Receiver<Request>,
    pub events: broadcast::Sender<Arc<Happening>>,
}

/// Makes the two ends of the engine's front door.
pub fn door() -> (Handle, Door) {
    let (requests, receiver) = mpsc::channel(256);
    let (events, _) = broadcast::channel(1024);
    (Handle { requests, events: events.clone() }, Door { requests: receiver, events })
}

impl Handle {
    pub(super) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.map_err(|_| Refusal::ShuttingDown)?;
        answer.await.map_err(|_| Refusal::ShuttingDown)
    }

    /// Returns the status of the named processes, of all when `names` is empty.
    pub async fn status(&self, names: Vec<String>) -> Result<Status, Refusal> {
        self.ask(|reply| Request::Status { names, reply }).await?
    }

    pub async fn act(&self, act: Act) -> Result<Vec<Outcome>, Refusal> {
        self.ask(|reply| Request::Act { act, reply }).await?
    }

    pub async fn reload(&self, by: Actor) -> Result<Reloaded, Refusal> {
        self.ask(|reply| Request::Reload { by, reply }).await?
    }

    pub async fn plan(&self, between: Compared) -> Result<Planned, Refusal> {
        self.ask(|reply| Request::Plan { between, reply }).await?
    }

    /// Begins an apply; answers when it is under way.
    pub async fn apply(&self, request: ApplyRequest) -> Result<ApplyBegun, Refusal> {
        self.ask(|reply| Request::Apply { request, reply }).await?
    }

    pub async fn history(&self) -> Result<History, Refusal> {
        self.ask(|reply| Request::History { reply }).await
    }

    pub async fn shutdown(&self, by: Actor) -> Result<(), Refusal> {
        self.ask(|reply| Request::Shutdown { by, reply }).await?
    }

    pub async fn log_level(&self, level: String, by: Actor) -> Result<String, Refusal> {
        self.ask(|reply| Request::LogLevel { level, by, reply }).await?
    }

    /// Begins an upgrade; answers with what takes over.
    pub async fn upgrade(
        &self,
        by: Actor,
        binary: Option<PathBuf>,
        patience: Option<Duration>,
    ) -> Result<UpgradeBegun, Refusal> {
        self.ask(|reply| Request::Upgrade { by, binary, patience, reply }).await?
    }

    pub async fn events_after(&self, id: u64) -> Result<Vec<Arc<Happening>>, Refusal> {
        self.ask(|reply| Request::EventsAfter { id, reply }).await
    }

    /// Returns every key of the configuration that runs.
    pub async fn config(&self) -> Result<Vec<Shown>, Refusal> {
        self.ask(|reply| Request::Config { reply }).await?
    }

    /// Returns what was counted, for those who measure.
    pub async fn counts(&self) -> Result<Counts, Refusal> {
        self.ask(|reply| Request::Counts { reply }).await
    }

    pub async fn log_places(&self, names: Vec<String>) -> Result<Vec<LogPlace>, Refusal> {
        self.ask(|reply| Request::LogPlaces { names, reply }).await?
    }

    /// Returns a receiver of everything that happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Arc<Happening>> {
        self.events.subscribe()
    }
}
