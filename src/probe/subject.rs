//! Whom a look is about, as far as only its supervisor knows.

use std::path::PathBuf;
use std::time::Duration;

use super::Commands;

/// The target of a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Host,
    Process(ProcessSubject),
}

/// A process with all that it has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessSubject {
    /// The main process.
    pub pid: u32,
    /// The control group of this run alone, where it has one.
    pub group: Option<PathBuf>,
    /// What `limits.memory` says.
    pub memory_limit: Option<u64>,
    /// Since its last output, or its start where there was none.
    pub quiet_for: Duration,
    /// Since its last `WATCHDOG=1`, or its start where there was none.
    pub watchdog_age: Duration,
    /// How many lines of output match, see [`MatchCounter`](super::MatchCounter).
    pub matches: u32,
}

/// Everything that a look needs besides its check.
#[derive(Clone, Copy)]
pub struct Asker<'a> {
    pub subject: &'a Subject,
    /// Runs commands in the target's surroundings, as the user that the check names.
    pub commands: &'a dyn Commands,
    /// Returns a variable of the target's environment.
    pub variable: &'a (dyn Fn(&str) -> Option<String> + Send + Sync),
}

impl Subject {
    pub fn process(&self) -> Option<&ProcessSubject> {
        match self {
            Self::Host => None,
            Self::Process(process) => Some(process),
        }
    }
}

impl ProcessSubject {
    /// Makes the subject of a process that has just started.
    pub fn new(pid: u32) -> Self {
        Self {
            pid,
            group: None,
            memory_limit: None,
            quiet_for: Duration::ZERO,
            watchdog_age: Duration::ZERO,
            matches: 0,
        }
    }
}
