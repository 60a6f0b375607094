//! Everything that can happen to the core and everything it can ask for.

use std::sync::Arc;
use std::time::Duration;

use super::care::{HealthState, IncidentId};
use super::{Mending, Mix};
use crate::config::Program;
use crate::name::{ProcessName, ProgramName, RunId};
use crate::time::{Instant, Wall};

/// Everything that can happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// These programs exist from now on, in place of all earlier ones. New ones start if they
    /// are `autostart`, vanished ones stop, one whose `spawn` changed restarts if it runs; all
    /// other changes take effect in place.
    Configure(Vec<Arc<Program>>),
    /// The same for a moment of an apply, in which some processes keep another declaration than
    /// their program's.
    ConfigureMix(Mix),
    /// An operator asked for something.
    Operator(Command),
    /// A remedy asked for something; the processes are known to exist.
    Mend { what: Mending, processes: Vec<ProcessName>, by: Actor },
    /// Files that the program watches have changed; the sentence says which.
    FilesChanged { program: ProgramName, cause: String },
    /// [`Action::Spawn`] worked: the program's `main()` is being executed.
    Spawned { run: RunId, pid: u32 },
    /// [`Action::Spawn`] did not work; the run never existed.
    SpawnFailed { run: RunId, failure: SpawnFailure },
    /// The run is ready, as the `ready` of its program says.
    Ready { run: RunId },
    /// The living run, or what watches it, has said something.
    Told { run: RunId, word: Word },
    /// The main process of the run has ended; others of its tree may live on.
    Exited { run: RunId, exit: Exit },
    /// Nothing of the run's tree is alive any more. Comes once, after [`Event::Exited`], as the
    /// answer to [`Action::Sweep`].
    Gone { run: RunId },
    /// The time that [`next_deadline`](super::Supervisor::next_deadline) named has come.
    DeadlineReached,
}

/// What is heard from a living run, or about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// What the last look at its readiness found.
    Look(String),
    /// It is ready (`READY=1`).
    Ready,
    /// What it has said of its readiness may be lost: whoever held its socket or pipe was killed.
    Unheard,
    /// One line about what it does (`STATUS=`).
    Status(String),
    /// Its start, or its stop, needs this much time from now on (`EXTEND_TIMEOUT_USEC=`).
    Extend(Duration),
    /// It feeds its watchdog (`WATCHDOG=1`).
    Alive,
    /// It calls its watchdog (`WATCHDOG=trigger`).
    Hung,
    /// It sets the time of its watchdog (`WATCHDOG_USEC=`); zero turns it off.
    Watchdog(Duration),
}

/// What an operator can ask for. The processes are known to exist.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    Start {
        processes: Vec<ProcessName>,
        by: Actor,
    },
    Stop {
        processes: Vec<ProcessName>,
        by: Actor,
    },
    /// Stops what runs, in order, and starts it again; starts what does not run.
    Restart {
        processes: Vec<ProcessName>,
        by: Actor,
    },
    /// Sends a signal without any change of goal.
    Signal {
        processes: Vec<ProcessName>,
        signal: i32,
        by: Actor,
    },
    /// Decides whether these programs start by themselves from the next boot on.
    Switch {
        programs: Vec<ProgramName>,
        enabled: bool,
        by: Actor,
    },
    /// Stops everything in order; the goals stay as they are for the next start.
    Shutdown {
        by: Actor,
    },
}

/// Who asked, for the record and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// `None` when the request came from Mend itself (a signal, the configuration).
    pub uid: Option<u32>,
    pub name: String,
    pub reason: Option<String>,
    pub at: Wall,
}

/// How a main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Code(i32),
    Signal {
        signal: i32,
        core_dumped: bool,
    },
    /// It ended while nobody could see its status; nothing is guessed.
    Unknown,
}

/// Why a run could not be brought to life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnFailure {
    /// A whole sentence with the errno, the stage and the way out.
    pub message: String,
    /// `true` when trying again later may help (EAGAIN, ENOMEM, a full disk, ETXTBSY);
    /// `false` leads to FATAL (the command does not exist, may not be executed, …).
    pub transient: bool,
}

/// Everything that the engine can be asked to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Bring the run to life; answered by [`Event::Spawned`] or [`Event::SpawnFailed`].
    Spawn { process: ProcessName, run: RunId },
    /// Send `signal` to the main process, or to its whole process group.
    Signal { run: RunId, signal: i32, group: bool },
    /// SIGKILL everything of the run's tree, the main process too. [`Event::Exited`] follows.
    KillTree { run: RunId },
    /// After the main process has ended: send `signal` to whatever is left of the tree and
    /// answer with [`Event::Gone`] when nothing is. SIGKILL is repeated until it has worked;
    /// any other signal is sent once; 0 sends nothing and only waits. A later `Sweep` of the
    /// same run replaces this one. The answer comes also when nothing was left to begin with.
    Sweep { run: RunId, signal: i32 },
    /// Something about this process changed: record it and tell those who watch.
    Announce(Change),
    /// Something about this process changed that only the record needs to know (a deadline, a
    /// counter, who wants what): write its snapshot down.
    Persist { process: ProcessName },
    /// The process is no longer part of the configuration and nothing of it is left.
    Forget { process: ProcessName },
    /// The answer to [`Command::Shutdown`]: nothing runs any more.
    ShutdownComplete,
}

/// A change worth recording, in the operator's terms.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub process: ProcessName,
    pub run: Option<RunId>,
    pub from: StateCode,
    pub to: StateCode,
    /// `exited with code 3 (unexpected); next try in 4.2 s, 3rd of 5`.
    pub detail: String,
}

/// The states of supervisord, with its numbers, as every client knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum StateCode {
    Stopped = 0,
    Starting = 10,
    Running = 20,
    Backoff = 30,
    Stopping = 40,
    Exited = 100,
    Fatal = 200,
    Unknown = 1000,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    Up,
    Down,
}

/// Everything a person or a client may want to know of one process, beside the machine.
///
/// Made by [`Supervisor::status`](super::Supervisor::status); times are monotonic, the engine
/// adds civil time.
#[derive(Debug, Clone, PartialEq)]
pub struct ProcessStatus {
    pub process: ProcessName,
    pub program: Arc<Program>,
    pub state: StateCode,
    pub goal: Goal,
    /// Who set the goal, when it was not the configuration.
    pub goal_by: Option<Actor>,
    /// Whether it starts with the daemon: the operator's word, else `autostart`.
    pub enabled: bool,
    /// Who enabled or disabled it.
    pub enabled_by: Option<Actor>,
    /// The run that lives, or that is being stopped.
    pub run: Option<RunId>,
    pub pid: Option<u32>,
    /// When the current state was entered.
    pub since: Instant,
    /// When the living run was spawned.
    pub started: Option<Instant>,
    /// Starts after the first one since the supervisor first saw this process.
    pub restarts: u64,
    /// How the last run ended, and when.
    pub last_exit: Option<(Exit, Instant)>,
    /// Why the last start did not work, or the run was killed, while it is the reason for the
    /// state.
    pub failure: Option<SpawnFailure>,
    /// Whether it is ready; `None` when nothing is declared that would show it.
    pub ready: Option<bool>,
    /// What the living run says that it does.
    pub status_text: Option<String>,
    /// It waits for what nothing brings: somebody has to act first.
    pub blocked: bool,
    /// When a start that is not ready fails.
    pub gives_up_at: Option<Instant>,
    /// When the next try is due (backoff or open breaker).
    pub retry_at: Option<Instant>,
    /// Failures counted now, and how many open the breaker.
    pub failures: (u32, u32),
    pub breaker: BreakerState,
    /// One sentence: why it is in this state, what happens next, what to do.
    pub reason: String,
    /// The programs that a start waits for.
    pub waiting_for: Vec<ProcessName>,
    /// How its checks see it; the engine adds it.
    pub health: HealthState,
    /// Its incident in progress; the engine adds it.
    pub incident: Option<IncidentId>,
}

/// The restart breaker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    /// No restart before this time.
    Open {
        until: Instant,
    },
    /// One try is under way; it decides.
    HalfOpen,
}

impl StateCode {
    /// Returns supervisord's name of the state.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "STOPPED",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Backoff => "BACKOFF",
            Self::Stopping => "STOPPING",
            Self::Exited => "EXITED",
            Self::Fatal => "FATAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// Returns supervisord's number of the state.
    pub fn code(self) -> u16 {
        self as u16
    }
}

impl ProcessStatus {
    /// Whether it does not run, and will not by itself.
    pub fn has_ended(&self) -> bool {
        match self.state {
            StateCode::Stopped => self.goal == Goal::Down || self.blocked,
            StateCode::Exited | StateCode::Fatal => true,
            StateCode::Backoff => self.blocked,
            StateCode::Starting | StateCode::Running | StateCode::Stopping => false,
            StateCode::Unknown => false,
        }
    }

    /// Returns how long the living run has been up.
    pub fn uptime(&self, now: Instant) -> Option<Duration> {
        self.started.map(|started| now.since(started))
    }
}
