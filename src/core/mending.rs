//! What a remedy asks for. It never touches what operators want: what one has stopped or disabled
//! stays down, and whatever one starts is his from then on.

use super::supervisor::Supervisor;
use super::{Action, Actor, Goal, State};
use crate::name::ProcessName;
use crate::time::Instant;

/// What is to be done to processes so that something is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mending {
    /// Replaces what runs, and tries at once what waits to be tried again.
    Replace,
    /// Stops them for the good of others until [`Mending::Unshed`].
    Shed,
    Unshed,
    /// Starts a standby.
    Engage,
    /// Stops a standby that [`Mending::Engage`] has started.
    Disengage,
}

impl Actor {
    /// The healer, acting for this reason.
    pub fn mend(reason: String, at: crate::time::Wall) -> Self {
        Self { uid: None, name: "mend".to_owned(), reason: Some(reason), at }
    }

    /// Whether it is the healer. Whoever asks through the control socket has a uid.
    pub fn is_mend(&self) -> bool {
        self.uid.is_none() && self.name == "mend"
    }
}

impl Supervisor {
    pub(super) fn mend(
        &mut self,
        now: Instant,
        what: Mending,
        processes: Vec<ProcessName>,
        by: &Actor,
        actions: &mut Vec<Action>,
    ) {
        if self.is_shutting_down() {
            return;
        }
        for name in self.sorted(processes) {
            match what {
                Mending::Replace => self.replace_to_mend(now, &name, by, actions),
                Mending::Shed => self.update(&name, |process| {
                    if process.facts.goal == Goal::Up && process.facts.shed.is_none() {
                        process.facts.shed = Some(by.clone());
                        process.wait_anew();
                        process.persist(actions);
                    }
                }),
                Mending::Unshed => self.update(&name, |process| {
                    if process.facts.shed.take().is_some() {
                        process.wait_anew();
                        process.persist(actions);
                    }
                }),
                Mending::Engage => self.engage(now, &name, by, actions),
                Mending::Disengage => {
                    let facts = self.get(&name).map(|process| &process.facts);
                    let is_ours = facts.is_some_and(|facts| {
                        facts.goal == Goal::Up && facts.goal_by.as_ref().is_some_and(Actor::is_mend)
                    });
                    if is_ours {
                        self.update(&name, |process| process.stop(now, by, actions));
                    }
                }
            }
        }
    }

    fn replace_to_mend(
        &mut self,
        now: Instant,
        name: &ProcessName,
        by: &Actor,
        actions: &mut Vec<Action>,
    ) {
        let Some(process) = self.get(name) else { return };
        if process.facts.goal != Goal::Up || process.facts.shed.is_some() {
            return;
        }
        match process.facts.state {
            State::Starting { .. } | State::Running { .. } => {}
            State::Stopped | State::Backoff { .. } | State::Exited | State::Fatal => {}
            // It starts anew anyway.
            State::Waiting { .. } | State::Stopping { .. } => return,
        }
        self.update(name, |process| {
            process.restart(now, None, actions);
            process.facts.because = by.reason.clone();
            process.persist(actions);
        });
    }

    fn engage(&mut self, now: Instant, name: &ProcessName, by: &Actor, actions: &mut Vec<Action>) {
        if self.disabled_by(name.program()).is_some() {
            return;
        }
        let Some(process) = self.get(name) else { return };
        let facts = &process.facts;
        let under_way = matches!(facts.state, State::Starting { .. } | State::Running { .. });
        // A standby rests while nobody needs it, and a stop by hand brings it back to rest.
        let is_standby = !process.program.lifecycle.autostart;
        let stopped = facts.goal == Goal::Down
            && facts.goal_by.as_ref().is_some_and(|by| !by.is_mend())
            && !is_standby;
        if stopped || (facts.goal == Goal::Up && under_way) {
            return;
        }
        self.raise_requirements(now, std::slice::from_ref(name), None, actions);
        self.update(name, |process| process.start(now, Some(by), actions));
    }
}
