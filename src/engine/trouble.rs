//! Trouble that an operator should know: in the status while it lasts, once in the events and in
//! the daemon's log; and what the history has to say, or should keep.

use tracing::{info, warn};

use super::HappeningKind;
use super::core_loop::Engine;
use super::history::{Asked, Record, Said, Word};
use super::run::Mark;
use crate::capture::Notice;
use crate::os::clock;

impl Engine {
    pub(super) fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Ended { run } => self.close_run(run),
            Notice::Marked { run, log, channel, from } => {
                if let Some(hands) = self.runs.get_mut(&run) {
                    hands.marks.push(Mark { log, channel, from });
                    let process = hands.process.clone();
                    self.attend(&process);
                }
            }
            Notice::Trouble { process, message } => {
                self.note_trouble(&format!("log {process}"), Some(format!("{process}: {message}")));
            }
            Notice::Recovered { process, message } => {
                info!(%process, "{message}");
                self.note_trouble(&format!("log {process}"), None);
            }
        }
    }

    pub(super) fn on_said(&mut self, said: Said) {
        match said {
            Said::Trouble(message) => self.note_trouble("history", message),
            // Shown until the daemon is started again: something is gone, and stays gone.
            Said::Word(Word::Warning(text)) => {
                self.note_trouble(&format!("history {text}"), Some(text));
            }
            Said::Word(Word::Info(detail)) => {
                info!("{detail}");
                self.happened(HappeningKind::Daemon { what: "history".into(), detail });
            }
        }
    }

    /// Keeps in the history that a signal asked for something; nobody knows who sent it.
    pub(super) fn note_signal(&self, signal: i32) {
        let request = match signal {
            libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => "shutdown",
            libc::SIGHUP => "reload the configuration",
            libc::SIGUSR1 => "open the log files again",
            libc::SIGUSR2 => "upgrade",
            _ => return,
        };
        self.history.record(Record::Asked(Asked {
            at: clock::wall(),
            uid: None,
            user: format!("signal {}", crate::config::signal_name(signal)),
            pid: None,
            executable: None,
            request: request.to_owned(),
            reason: None,
            outcome: "begun".to_owned(),
        }));
    }

    /// Notes trouble under a subject, or its end, and tells it once.
    pub(super) fn note_trouble(&mut self, subject: &str, message: Option<String>) {
        let before = match &message {
            Some(message) => self.trouble.insert(subject.to_owned(), message.clone()),
            None => self.trouble.remove(subject),
        };
        if before != message {
            let recovered = message.is_none();
            let detail = message.unwrap_or_else(|| format!("{subject}: recovered"));
            if recovered {
                info!("{detail}");
            } else {
                warn!("{detail}");
            }
            self.happened(HappeningKind::Daemon { what: "warning".into(), detail });
        }
    }
}
