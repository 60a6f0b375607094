//! A new configuration: what is new starts, what vanished stops, what runs is left alone
//! unless the way it is spawned changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::program::Process;
use super::supervisor::{Entry, Supervisor};
use super::{Action, Goal, Mix, State};
use crate::config::Program;
use crate::name::{ProcessName, RunId};
use crate::time::Instant;

/// Names the processes of a program.
pub(super) fn process_names(program: &Program) -> Vec<ProcessName> {
    match program.replicas {
        None => vec![ProcessName::new(program.name.clone(), None)],
        Some(count) => {
            (0..count).map(|n| ProcessName::new(program.name.clone(), Some(n))).collect()
        }
    }
}

impl Supervisor {
    pub(super) fn configure(&mut self, now: Instant, mix: &Mix, actions: &mut Vec<Action>) {
        let spawns = mix.spawns();
        let differs = |entry: &Entry| {
            let spawn = spawns.get(&entry.process.facts.process);
            spawn.is_some_and(|spawn| entry.process.program.spawn != **spawn)
        };
        let known = self.processes.iter();
        let changed: BTreeSet<ProcessName> =
            known.filter(|(_, entry)| differs(entry)).map(|(name, _)| name.clone()).collect();
        let programs: Vec<Arc<Program>> = mix.programs.values().cloned().collect();
        let kept = self.declare(&programs);
        self.remove_all_but(&kept, actions);
        for name in &kept {
            if let Some(program) = mix.of(name) {
                self.declare_process(now, name, program, actions);
            }
        }
        self.remembered.clear();
        self.graph.rebuild();
        self.start_wanted(now, &programs, actions);
        self.replace_changed(now, &changed, actions);
    }

    /// Declares these programs and no others. Returns the names of all their processes.
    pub(super) fn declare(&mut self, programs: &[Arc<Program>]) -> BTreeSet<ProcessName> {
        self.graph.mark_all_removed();
        let mut kept = BTreeSet::new();
        for program in programs {
            self.graph.declare(program.clone(), true);
            kept.extend(process_names(program));
        }
        kept
    }

    /// Marks every process that is not in `kept` as removed.
    pub(super) fn remove_all_but(
        &mut self,
        kept: &BTreeSet<ProcessName>,
        actions: &mut Vec<Action>,
    ) {
        let vanished: Vec<ProcessName> = self
            .processes
            .iter()
            .filter(|(name, entry)| !kept.contains(*name) && !entry.process.facts.removed)
            .map(|(name, _)| name.clone())
            .collect();
        for name in vanished {
            self.update(&name, |process| {
                process.facts.removed = true;
                process.persist(actions);
            });
        }
    }

    /// Adds a process that is new, or hands its new declaration to one that is not.
    pub(super) fn declare_process(
        &mut self,
        now: Instant,
        name: &ProcessName,
        program: &Arc<Program>,
        actions: &mut Vec<Action>,
    ) {
        if self.get(name).is_none() {
            let mut process = Process::new(name.clone(), program.clone(), now);
            (process.facts.goal, process.facts.goal_by) = self.first_goal(name, program);
            process.persist(actions);
            return self.insert(process);
        }
        let newest = RunId(self.next_run.0.saturating_sub(1));
        let enabled = self.is_enabled(program);
        self.update(name, |process| {
            let partners = &process.program.lifecycle.restart_with;
            if *partners != program.lifecycle.restart_with && process.run().is_some() {
                // What it has lived with so far is no reason to replace it now.
                process.facts.known = newest;
                process.persist(actions);
            }
            let awaited = process.program.lifecycle.ready.clone();
            process.program = program.clone();
            if awaited != process.program.lifecycle.ready && process.facts.said.look.is_some() {
                // What was seen of something that nobody waits for any more.
                process.facts.said.look = None;
                process.persist(actions);
            }
            // It may have said what only now is asked of it.
            process.settle_ready(now, actions);
            if process.facts.removed {
                process.facts.removed = false;
                if process.facts.goal_by.is_none() {
                    process.facts.goal = if enabled { Goal::Up } else { Goal::Down };
                }
                process.persist(actions);
            }
        });
    }

    /// Starts what is wanted and has never been started, with what it requires and wants.
    pub(super) fn start_wanted(
        &mut self,
        now: Instant,
        programs: &[Arc<Program>],
        actions: &mut Vec<Action>,
    ) {
        if self.is_shutting_down() {
            return;
        }
        let names: Vec<ProcessName> = programs
            .iter()
            .flat_map(|program| self.processes_of(&program.name))
            .filter(|name| {
                let facts = self.get(name).map(|process| &process.facts);
                facts.is_some_and(|facts| facts.goal == Goal::Up && !facts.removed)
            })
            .cloned()
            .collect();
        self.raise_requirements(now, &names, None, actions);
        for name in names {
            let stopped =
                self.get(&name).is_some_and(|process| process.facts.state == State::Stopped);
            if stopped {
                self.raise(now, &name, None, actions);
            }
        }
    }

    /// Restarts what runs of these processes; tries again at once what had failed.
    pub(super) fn replace_changed(
        &mut self,
        now: Instant,
        changed: &BTreeSet<ProcessName>,
        actions: &mut Vec<Action>,
    ) {
        for name in changed {
            let Some(process) = self.get(name) else { continue };
            let facts = &process.facts;
            let concerned = match facts.state {
                State::Starting { .. } | State::Running { .. } => true,
                State::Backoff { .. } | State::Fatal => true,
                State::Stopped | State::Waiting { .. } => false,
                State::Stopping { .. } | State::Exited => false,
            };
            if concerned && facts.goal == Goal::Up && !facts.removed && !self.is_shutting_down() {
                self.update(name, |process| process.restart(now, None, actions));
            }
        }
    }
}
