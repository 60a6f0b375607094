//! The orderly end of the daemon: whether it is under way, until when, with which code.

use std::time::Duration;

use tracing::{error, info, warn};

use super::HappeningKind;
use super::core_loop::Engine;
use crate::core::{Actor, Command, Event, Exit, StateCode};
use crate::name::ProcessName;
use crate::os::clock;
use crate::time::Instant;

/// How long the last output may take to reach the logs once nothing runs any more.
const OUTPUT_PATIENCE: Duration = Duration::from_secs(10);

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Ending {
    #[default]
    Not,
    UnderWay {
        /// When patience ends; `None` once it has.
        until: Option<Instant>,
        code: u8,
    },
    /// The core has nothing left that runs; the last output is being written.
    Complete {
        /// When patience with the logs ends; `None` once it has.
        until: Option<Instant>,
        code: u8,
    },
}

impl Ending {
    pub(super) fn begin(&mut self, until: Instant, code: u8) {
        *self = Self::UnderWay { until: Some(until), code };
    }

    pub(super) fn is_under_way(&self) -> bool {
        *self != Self::Not
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::UnderWay { until, .. } | Self::Complete { until, .. } => *until,
            Self::Not => None,
        }
    }

    /// Returns whether patience has just ended.
    pub(super) fn take_deadline(&mut self, now: Instant) -> bool {
        match self {
            Self::UnderWay { until, .. } | Self::Complete { until, .. } => {
                until.take_if(|at| *at <= now).is_some()
            }
            Self::Not => false,
        }
    }

    pub(super) fn complete(&mut self, now: Instant) {
        if let Self::UnderWay { code, .. } = *self {
            *self = Self::Complete { until: Some(now + OUTPUT_PATIENCE), code };
        }
    }

    pub(super) fn code(&self) -> Option<u8> {
        match self {
            Self::Complete { code, .. } => Some(*code),
            Self::Not | Self::UnderWay { .. } => None,
        }
    }
}

impl Engine {
    /// Begins the orderly end; `code` is what the daemon will exit with.
    pub(super) fn begin_shutdown(&mut self, by: Actor, code: Option<u8>) {
        if self.ending.is_under_way() {
            return;
        }
        info!(by = %by.name, "shutting down");
        self.systemd.stopping(self.config.supervisor.shutdown_timeout);
        self.happened(HappeningKind::Daemon {
            what: "stopping".into(),
            detail: format!("asked for by {}", by.name),
        });
        self.interrupt_apply();
        self.healing.freeze();
        let until = clock::now() + self.config.supervisor.shutdown_timeout;
        let code = code.unwrap_or(0);
        self.books.note_shutdown(&by, code);
        self.ending.begin(until, code);
        self.tell(Event::Operator(Command::Shutdown { by }));
    }

    pub(super) fn end_with(&mut self, exit: Option<Exit>) {
        let code = match exit {
            Some(Exit::Code(code)) => u8::try_from(code & 0xff).unwrap_or(1),
            // The shell's convention for a death by signal.
            Some(Exit::Signal { signal, .. }) => u8::try_from(128 + signal).unwrap_or(1),
            Some(Exit::Unknown) | None => 1,
        };
        let by = Actor { uid: None, name: "--exit-when".into(), reason: None, at: clock::wall() };
        self.begin_shutdown(by, Some(code));
    }

    /// Ends the daemon when the program of `--exit-when` has ended already: a brain that was
    /// killed between noting that and the shutdown told nobody.
    pub(super) fn end_if_exited(&mut self) {
        let Some(program) = &self.exit_when else { return };
        let has_ended = |name: &&ProcessName| {
            name.program() == program
                && matches!(self.core.state(name), Some(StateCode::Exited | StateCode::Fatal))
        };
        let ended = self.core.names().find(has_ended);
        if let Some(status) = ended.and_then(|name| self.core.status(name)) {
            self.end_with(status.last_exit.map(|(exit, _)| exit));
        }
    }

    /// Acts when patience with the shutdown has ended.
    pub(super) fn on_late_shutdown(&mut self) {
        if self.ending.code().is_some() {
            self.give_up_output();
        } else {
            self.kill_everything("the shutdown took longer than `shutdown_timeout`");
        }
    }

    /// Lets go of runs whose last output cannot be written: a full disk holds up no shutdown.
    fn give_up_output(&mut self) {
        for run in self.runs.keys().copied().collect::<Vec<_>>() {
            if let Some(hands) = self.runs.get(&run) {
                error!(
                    process = %hands.process, %run,
                    "its log could not be written within {OUTPUT_PATIENCE:?}; the end of its \
                     output is lost"
                );
            }
            self.close_run(run);
        }
    }

    pub(super) fn kill_everything(&mut self, why: &str) {
        warn!("{why}: what is left is killed");
        let runs: Vec<_> = self.runs.keys().copied().collect();
        for run in runs {
            let Some(hands) = self.runs.get(&run) else { continue };
            if hands.exit.is_some() {
                if let Some(event) = self.sweep(run, libc::SIGKILL) {
                    self.tell(event);
                }
            } else {
                self.kill_tree(run);
            }
        }
    }
}
