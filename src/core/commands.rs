//! What an operator can ask for.

use std::collections::BTreeSet;

use super::supervisor::Supervisor;
use super::{Action, Actor, Command, Goal, State};
use crate::name::{ProcessName, ProgramName};
use crate::time::Instant;

impl Supervisor {
    pub(super) fn command(&mut self, now: Instant, command: Command, actions: &mut Vec<Action>) {
        match command {
            Command::Start { processes, by } => {
                let processes = self.sorted(processes);
                self.raise_requirements(now, &processes, Some(&by), actions);
                for name in &processes {
                    self.raise(now, name, Some(&by), actions);
                }
            }
            Command::Stop { processes, by } => {
                for name in self.sorted(processes).iter().rev() {
                    self.update(name, |process| process.stop(now, &by, actions));
                }
            }
            Command::Restart { processes, by } => {
                let processes = self.sorted(processes);
                self.raise_requirements(now, &processes, Some(&by), actions);
                for name in &processes {
                    self.update(name, |process| process.restart(now, Some(&by), actions));
                }
            }
            Command::Signal { processes, signal, by: _ } => {
                for name in self.sorted(processes) {
                    if let Some(run) = self.get(&name).and_then(|process| process.signallable()) {
                        actions.push(Action::Signal { run, signal, group: false });
                    }
                }
            }
            Command::Switch { programs, enabled, by } => {
                self.switch(programs, enabled, &by, actions);
            }
            Command::Shutdown { by } => self.begin_shutdown(by),
        }
    }

    /// From now on nothing starts any more; the goals stay.
    pub(super) fn begin_shutdown(&mut self, by: Actor) {
        if self.shutdown.is_none() {
            self.shutdown = Some(by);
            self.graph.shutting_down = true;
            self.graph.rebuild();
        }
    }

    /// Brings names that exist and are configured into start order.
    pub(super) fn sorted(&self, names: Vec<ProcessName>) -> Vec<ProcessName> {
        let places: BTreeSet<(i32, ProcessName)> = names
            .into_iter()
            .filter_map(|name| {
                let process = self.get(&name)?;
                let place = (process.program.lifecycle.priority, name);
                (!process.facts.removed).then_some(place)
            })
            .collect();
        places.into_iter().map(|(_, name)| name).collect()
    }

    /// Wants a process up; one that is on its way or running is left alone.
    pub(super) fn raise(
        &mut self,
        now: Instant,
        name: &ProcessName,
        by: Option<&Actor>,
        actions: &mut Vec<Action>,
    ) {
        let Some(process) = self.get(name) else { return };
        let under_way =
            matches!(process.facts.state, State::Starting { .. } | State::Running { .. });
        if process.facts.removed {
            return;
        }
        if under_way && process.facts.goal == Goal::Up && process.facts.shed.is_none() {
            let is_mends = process.facts.goal_by.as_ref().is_some_and(Actor::is_mend);
            if let Some(by) = by.filter(|by| is_mends && !by.is_mend()) {
                self.update(name, |process| {
                    process.facts.goal_by = Some(by.clone());
                    process.persist(actions);
                });
            }
            return;
        }
        self.update(name, |process| process.start(now, by, actions));
    }

    /// Wants up what these processes require and want, and so on down.
    ///
    /// An operator's start takes everything with it but what is disabled; without an operator,
    /// what one has stopped stays stopped.
    pub(super) fn raise_requirements(
        &mut self,
        now: Instant,
        names: &[ProcessName],
        by: Option<&Actor>,
        actions: &mut Vec<Action>,
    ) {
        let mut queue: BTreeSet<ProgramName> =
            names.iter().map(|name| name.program().clone()).collect();
        let mut seen = BTreeSet::new();
        while let Some(name) = queue.pop_first() {
            let Some(node) = self.graph.node(&name) else { continue };
            if !seen.insert(name) {
                continue;
            }
            let lifecycle = node.program.lifecycle.clone();
            for needed in lifecycle.requires.iter().chain(&lifecycle.wants) {
                self.raise_program(now, needed, by, actions);
                queue.insert(needed.clone());
            }
        }
    }

    /// Wants a whole program up because something needs it: all processes when none is wanted,
    /// else those that have ended for good.
    fn raise_program(
        &mut self,
        now: Instant,
        program: &ProgramName,
        by: Option<&Actor>,
        actions: &mut Vec<Action>,
    ) {
        if self.disabled_by(program).is_some() {
            return;
        }
        let names: Vec<ProcessName> = self.processes_of(program).cloned().collect();
        let facts = |name: &ProcessName| self.get(name).map(|process| &process.facts);
        let is_up =
            |name: &ProcessName| facts(name).is_some_and(|f| f.goal == Goal::Up && !f.removed);
        let none_is_wanted = !names.iter().any(is_up);
        let chosen: Vec<ProcessName> = names
            .iter()
            .filter(|name| match facts(name) {
                None => false,
                Some(facts) if facts.goal == Goal::Down => {
                    none_is_wanted && (by.is_some() || facts.goal_by.is_none())
                }
                Some(facts) => {
                    by.is_some()
                        && matches!(facts.state, State::Exited | State::Fatal | State::Stopped)
                }
            })
            .cloned()
            .collect();
        for name in chosen {
            self.raise(now, &name, by, actions);
        }
    }
}
