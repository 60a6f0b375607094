//! What is known of one process, as plain data: enough for the next brain to go on.

use super::backoff::Backoff;
use super::breaker::Breaker;
use super::{Actor, Exit, Goal, SpawnFailure, StateCode};
use crate::name::{ProcessName, RunId};
use crate::time::Instant;

/// What is. A variant holds only the data that has a meaning in that state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    Stopped,
    /// A start is wanted but something else comes first: requirements, order, leftovers.
    Waiting {
        /// The state that clients see meanwhile.
        shows: StateCode,
        /// Whether the wait has been announced.
        told: bool,
    },
    /// The spawn was asked for; `born` is known once it has worked.
    Starting {
        run: RunId,
        born: Option<Born>,
    },
    Running {
        run: RunId,
        born: Born,
    },
    /// A stop has begun. It always goes on to its end.
    Stopping {
        run: RunId,
        born: Born,
        phase: StopPhase,
    },
    Backoff {
        retry_at: Instant,
    },
    Exited,
    /// Will not start again by itself.
    Fatal,
}

/// The birth of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Born {
    pub pid: u32,
    pub at: Instant,
}

/// How far a stop has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopPhase {
    /// The signal of this step was sent; the next one is due at `until`.
    Signalled { step: usize, until: Instant },
    /// SIGKILL was sent to the whole tree `times` times; once more at `again_at`.
    Killing { again_at: Instant, times: u32 },
    /// The main process has ended. What it left gets SIGKILL at `kill_at`; `None`: it was sent.
    Sweeping { kill_at: Option<Instant> },
}

/// A run that is over, but whose tree is not known to be gone. No run starts before it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remains {
    pub run: RunId,
    /// The main process was killed but has not ended; killed again at this time.
    pub kill_again_at: Option<Instant>,
}

/// All that the core knows of one process: enough for the next brain to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    pub process: ProcessName,
    pub goal: Goal,
    /// Who set the goal, when it was not the configuration.
    pub goal_by: Option<Actor>,
    pub state: State,
    pub since: Instant,
    /// The living run is to be replaced: stop, then start again.
    pub restart: bool,
    /// The process is no longer configured: stop, then forget.
    pub removed: bool,
    pub remains: Vec<Remains>,
    /// Runs that came to life since the process is known.
    pub starts: u64,
    pub last_exit: Option<(Exit, Instant)>,
    pub failure: Option<SpawnFailure>,
    pub backoff: Backoff,
    pub breaker: Breaker,
    /// What the latest run has said.
    pub said: Said,
    /// The run is being stopped because it has failed.
    pub failing: Option<Failing>,
    /// Why the run was, or is to be, replaced; `None` when an operator wanted it.
    pub because: Option<String>,
    /// Who stops it for the good of others; it is not wanted as long as that lasts.
    pub shed: Option<Actor>,
    /// Runs up to this one are no reason to replace the living run, although they are newer.
    pub known: RunId,
}

/// What a run has said of itself, and what was seen of its readiness.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    pub status: Option<String>,
    /// What the last look at its readiness found.
    pub look: Option<String>,
    /// It has said `READY=1`, whether or not that is what shows that it is ready.
    pub ready: bool,
    /// What it has said may be lost: whoever listened was killed with all that was not heard.
    pub unheard: bool,
    /// The start may take until then, because the run said so.
    pub start_until: Option<Instant>,
    /// The time of the watchdog that the run has set.
    pub watchdog: Option<std::time::Duration>,
}

/// Why a living run is a failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    pub why: String,
    pub counted_as_running: bool,
}
