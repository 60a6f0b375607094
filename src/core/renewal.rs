//! Files that a program watches have changed: what that means for its processes.
//!
//! What an operator has stopped stays stopped. What has ended or is to be tried again later is
//! started at once, because the change is most likely the repair.

use super::supervisor::Supervisor;
use super::{Action, Goal, State};
use crate::config::OnWatch;
use crate::name::{ProcessName, ProgramName};
use crate::time::Instant;

impl Supervisor {
    /// Renews every process of a program that should be up; `cause` is a sentence without a stop.
    pub(super) fn renew(
        &mut self,
        now: Instant,
        program: &ProgramName,
        cause: &str,
        actions: &mut Vec<Action>,
    ) {
        if self.is_shutting_down() {
            return;
        }
        let Some(node) = self.graph.node(program) else { return };
        let Some(act) = node.program.watch.as_ref().map(|watch| watch.act) else { return };
        let names: Vec<ProcessName> = node.processes.iter().cloned().collect();
        for name in names {
            let Some(process) = self.get(&name) else { continue };
            if process.facts.goal != Goal::Up || process.facts.removed {
                continue;
            }
            match (&process.facts.state, act) {
                (State::Running { run, .. }, OnWatch::Signal(signal)) => {
                    actions.push(Action::Signal { run: *run, signal, group: false });
                }
                // Whoever takes a signal may not be listening yet; the engine comes back.
                (State::Starting { .. }, OnWatch::Signal(_)) => {}
                (State::Starting { .. } | State::Running { .. }, OnWatch::Restart)
                | (State::Stopped | State::Backoff { .. } | State::Exited | State::Fatal, _) => {
                    self.update(&name, |process| {
                        process.restart(now, None, actions);
                        process.facts.because = Some(cause.to_owned());
                        process.persist(actions);
                    });
                }
                // It starts anew anyway.
                (State::Waiting { .. } | State::Stopping { .. }, _) => {}
            }
        }
    }
}
