//! All processes together: events find their process, starts and stops find their order.
//!
//! Every change of a process goes through [`Supervisor::update`], which keeps the indexes
//! (deadlines, counts of the dependency graph) true. What follows from a change for others is
//! done by [`Supervisor::settle`] before the event is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::order::Graph;
use super::program::{Process, Standing};
use super::snapshot::{Snapshot, State};
use super::switches::Switch;
use super::{Action, Actor, Event, Goal, Mix, ProcessStatus, StateCode};
use crate::config::Program;
use crate::name::{ProcessName, ProgramName, RunId};
use crate::time::Instant;

/// Decides about all processes. Takes events and the time, returns actions.
#[derive(Debug, Clone)]
pub struct Supervisor {
    pub(super) processes: BTreeMap<ProcessName, Entry>,
    pub(super) graph: Graph,
    /// Which process a run belongs to, for every run that is not known to be gone.
    pub(super) runs: BTreeMap<RunId, ProcessName>,
    pub(super) deadlines: BTreeSet<(Instant, ProcessName)>,
    /// All processes in start order.
    pub(super) order: BTreeSet<(i32, ProcessName)>,
    /// Processes that may have something to do, in start order.
    pub(super) stirred: BTreeSet<(i32, ProcessName)>,
    /// Goals of before the reboot, until the first configuration takes them up.
    pub(super) remembered: BTreeMap<ProcessName, (Goal, Actor)>,
    /// What operators enabled and disabled.
    pub(super) switches: BTreeMap<ProgramName, Switch>,
    pub(super) live: usize,
    pub(super) shutdown: Option<Actor>,
    pub(super) shutdown_complete: bool,
    pub(super) next_run: RunId,
    random: fastrand::Rng,
}

/// A process and what the indexes hold of it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) process: Process,
    deadline: Option<Instant>,
    standing: Standing,
    priority: i32,
}

impl Supervisor {
    /// Makes a supervisor of nothing. The seed decides over the jitter of delays.
    pub fn new(seed: u64) -> Self {
        Self {
            processes: BTreeMap::new(),
            graph: Graph::default(),
            runs: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            order: BTreeSet::new(),
            stirred: BTreeSet::new(),
            remembered: BTreeMap::new(),
            switches: BTreeMap::new(),
            live: 0,
            shutdown: None,
            shutdown_complete: false,
            next_run: RunId(1),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// Takes one event and returns what the engine must do about it, in order.
    ///
    /// A report on a run that is not known, or is known to be gone, has no effect.
    pub fn on_event(&mut self, now: Instant, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Configure(programs) => {
                let programs = programs.into_iter().map(|p| (p.name.clone(), p)).collect();
                self.configure(now, &Mix::whole(programs), &mut actions);
            }
            Event::ConfigureMix(mix) => self.configure(now, &mix, &mut actions),
            Event::Operator(command) => self.command(now, command, &mut actions),
            Event::Mend { what, processes, by } => {
                self.mend(now, what, processes, &by, &mut actions);
            }
            Event::FilesChanged { program, cause } => {
                self.renew(now, &program, &cause, &mut actions);
            }
            Event::Spawned { run, pid } => self.on_run(run, |process, _| {
                process.on_spawned(now, run, pid, &mut actions);
            }),
            Event::SpawnFailed { run, failure } => {
                let random = self.random.f64();
                let awaited = |process: &Process| matches!(process.facts.state, State::Starting { run: ours, born: None } if ours == run);
                if self.owner(run).is_some_and(|owner| self.get(&owner).is_some_and(awaited)) {
                    self.on_run(run, |process, stop_wanted| {
                        process.on_spawn_failed(now, failure, stop_wanted, random, &mut actions);
                    });
                    self.runs.remove(&run);
                }
            }
            Event::Exited { run, exit } => {
                let random = self.random.f64();
                self.on_run(run, |process, stop_wanted| {
                    if !process.on_stray_exited(run, &mut actions) {
                        process.on_exited(now, exit, stop_wanted, random, &mut actions);
                    }
                });
            }
            Event::Ready { run } => {
                self.on_run(run, |process, _| process.on_ready(now, run, &mut actions));
            }
            Event::Told { run, word } => {
                self.on_run(run, |process, _| process.on_told(now, run, word, &mut actions));
            }
            Event::Gone { run } => {
                let (random, shutting_down) = (self.random.f64(), self.is_shutting_down());
                let mut gone = false;
                self.on_run(run, |process, _| {
                    gone = process.on_gone(now, run, shutting_down, random, &mut actions);
                });
                if gone {
                    self.runs.remove(&run);
                }
            }
            // What follows may be due at once too, such as a grace of zero.
            Event::DeadlineReached => {
                while self.next_deadline().is_some_and(|at| at <= now) {
                    self.on_deadlines(now, &mut actions);
                    self.settle(now, &mut actions);
                }
            }
        }
        self.settle(now, &mut actions);
        actions
    }

    /// Returns the living runs about which [`Event::DeadlineReached`] will decide.
    pub fn due_runs(&self, now: Instant) -> Vec<RunId> {
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now);
        due.filter_map(|(_, name)| self.get(name)?.run()).collect()
    }

    /// Returns when [`Event::DeadlineReached`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Returns what is known of one process.
    pub fn status(&self, name: &ProcessName) -> Option<ProcessStatus> {
        self.processes.get(name).map(|entry| self.status_of(&entry.process))
    }

    /// Returns all processes in start order: by priority, then name.
    pub fn statuses(&self) -> impl Iterator<Item = ProcessStatus> {
        self.order.iter().filter_map(|(_, name)| self.status(name))
    }

    /// Returns the names of all processes in start order, at little cost.
    pub fn names(&self) -> impl Iterator<Item = &ProcessName> {
        self.order.iter().map(|(_, name)| name)
    }

    /// Returns what a process shows to clients of its state, at little cost.
    pub fn state(&self, name: &ProcessName) -> Option<StateCode> {
        self.get(name).map(Process::code)
    }

    /// Returns the processes of a program, those on their way out included.
    pub fn processes_of(&self, program: &ProgramName) -> impl Iterator<Item = &ProcessName> {
        self.graph.node(program).into_iter().flat_map(|node| &node.processes)
    }

    /// Returns what a process is declared to be.
    pub fn program(&self, name: &ProcessName) -> Option<&Arc<Program>> {
        self.get(name).map(|process| &process.program)
    }

    /// Returns the living run of a process that is not ready yet, with its program.
    pub fn unready(&self, name: &ProcessName) -> Option<(RunId, &Arc<Program>)> {
        let process = self.get(name)?;
        match (&process.facts.state, &process.program.lifecycle.ready) {
            (State::Starting { run, born: Some(_) }, Some(_)) => Some((*run, &process.program)),
            (State::Starting { .. } | State::Running { .. } | State::Stopping { .. }, _) => None,
            (State::Stopped | State::Waiting { .. } | State::Backoff { .. }, _) => None,
            (State::Exited | State::Fatal, _) => None,
        }
    }

    /// Returns whose run this is, until it is gone.
    pub fn process_of_run(&self, run: RunId) -> Option<&ProcessName> {
        self.runs.get(&run)
    }

    pub fn is_shutting_down(&self) -> bool {
        self.shutdown.is_some()
    }

    /// Returns the number of the next run; no run has had it or a higher one.
    pub fn next_run(&self) -> RunId {
        self.next_run
    }

    /// Returns all that must be written down of one process.
    pub fn snapshot(&self, name: &ProcessName) -> Option<&Snapshot> {
        self.get(name).map(|process| &process.facts)
    }

    /// Returns the goals that operators set; they hold over a reboot.
    pub fn explicit_goals(&self) -> Vec<(ProcessName, Goal, Actor)> {
        let goal = |facts: &Snapshot| {
            // What a standby was started for may be long over.
            let by = facts.goal_by.clone().filter(|by| !by.is_mend())?;
            Some((facts.process.clone(), facts.goal, by))
        };
        self.processes.values().filter_map(|entry| goal(&entry.process.facts)).collect()
    }

    /// Hands over the goals of before a reboot, after the switches. The first configuration takes
    /// up those of its processes and drops the rest.
    pub fn remember_goals_of_before(&mut self, mut goals: Vec<(ProcessName, Goal, Actor)>) {
        // A start by hand does not outlive the boot of a program that is disabled.
        goals.retain(|(name, goal, _)| {
            *goal == Goal::Down || self.disabled_by(name.program()).is_none()
        });
        self.remember_goals(goals);
    }

    /// Hands over the goals of processes that were taken away and may come back with the next
    /// configuration.
    pub fn remember_goals(&mut self, goals: Vec<(ProcessName, Goal, Actor)>) {
        self.remembered.extend(goals.into_iter().map(|(name, goal, by)| (name, (goal, by))));
    }

    pub(super) fn get(&self, name: &ProcessName) -> Option<&Process> {
        self.processes.get(name).map(|entry| &entry.process)
    }

    fn owner(&self, run: RunId) -> Option<ProcessName> {
        self.runs.get(&run).cloned()
    }

    /// Whether the process must not have a run now.
    pub(super) fn is_stop_wanted(&self, process: &Process) -> bool {
        !process.is_wanted()
            || self.is_shutting_down()
            || self.graph.summary(&process.program.name).held
    }

    /// Whether the process may not run because something that it requires is not wanted.
    pub(super) fn is_held(&self, process: &ProcessName) -> bool {
        self.graph.summary(process.program()).held
    }

    fn on_run(&mut self, run: RunId, change: impl FnOnce(&mut Process, bool)) {
        let Some(owner) = self.owner(run) else { return };
        let stop_wanted = self.get(&owner).is_some_and(|process| self.is_stop_wanted(process));
        self.update(&owner, |process| change(process, stop_wanted));
    }

    /// Puts a process into all indexes.
    pub(super) fn insert(&mut self, process: Process) {
        let name = process.facts.process.clone();
        let priority = process.program.lifecycle.priority;
        self.graph.add_process(&name);
        self.order.insert((priority, name.clone()));
        let entry = Entry { process, deadline: None, standing: Standing::default(), priority };
        self.processes.insert(name.clone(), entry);
        self.update(&name, |_| ());
    }

    /// Changes a process and keeps the indexes true. The only way to change one.
    pub(super) fn update(&mut self, name: &ProcessName, change: impl FnOnce(&mut Process)) {
        let Some(entry) = self.processes.get_mut(name) else { return };
        change(&mut entry.process);
        let priority = entry.process.program.lifecycle.priority;
        if priority != entry.priority {
            self.order.remove(&(entry.priority, name.clone()));
            self.stirred.remove(&(entry.priority, name.clone()));
            self.order.insert((priority, name.clone()));
            entry.priority = priority;
        }
        let deadline = entry.process.deadline();
        if deadline != entry.deadline {
            if let Some(old) = entry.deadline {
                self.deadlines.remove(&(old, name.clone()));
            }
            if let Some(new) = deadline {
                self.deadlines.insert((new, name.clone()));
            }
            entry.deadline = deadline;
        }
        self.stirred.insert((priority, name.clone()));
        let (before, after) = (entry.standing, entry.process.standing());
        if before != after {
            entry.standing = after;
            self.live =
                (self.live + usize::from(after.live)).saturating_sub(usize::from(before.live));
            self.graph.count(name.program(), before, after);
        }
    }

    fn on_deadlines(&mut self, now: Instant, actions: &mut Vec<Action>) {
        while let Some((at, name)) = self.deadlines.first().cloned() {
            if at > now {
                return;
            }
            let stop_wanted = self.get(&name).is_some_and(|process| self.is_stop_wanted(process));
            self.update(&name, |process| process.on_deadline(now, stop_wanted, actions));
        }
    }

    /// Begins every stop and start that may begin now, and forgets what is over.
    ///
    /// Stops go in reverse start order, starts in start order.
    pub(super) fn settle(&mut self, now: Instant, actions: &mut Vec<Action>) {
        loop {
            for program in std::mem::take(&mut self.graph.stirred) {
                let Some(node) = self.graph.node(&program) else { continue };
                for name in &node.processes {
                    if let Some(entry) = self.processes.get(name) {
                        self.stirred.insert((entry.priority, name.clone()));
                    }
                }
            }
            let stirred = std::mem::take(&mut self.stirred);
            if stirred.is_empty() {
                break;
            }
            for (_, name) in &stirred {
                self.try_replace(name, actions);
            }
            for (_, name) in stirred.iter().rev() {
                self.try_stop(now, name, actions);
            }
            for (_, name) in &stirred {
                self.try_start(now, name, actions);
            }
        }
        if self.is_shutting_down() && self.live == 0 && !self.shutdown_complete {
            self.shutdown_complete = true;
            actions.push(Action::ShutdownComplete);
        }
    }

    /// Wants a run replaced that is older than one of a program it restarts with, as soon as
    /// nothing of that program is on its way any more.
    ///
    /// Numbers of runs only grow, so that nothing has to be remembered.
    fn try_replace(&mut self, name: &ProcessName, actions: &mut Vec<Action>) {
        let Some(process) = self.get(name) else { return };
        let others = &process.program.lifecycle.restart_with;
        if others.is_empty() || self.is_stop_wanted(process) {
            return;
        }
        let Some(run) = process.replaceable() else { return };
        let known = run.max(process.facts.known);
        let is_newer = |other: &ProcessName| {
            let other = self.get(other).filter(|other| other.standing().running);
            other.and_then(Process::run).is_some_and(|run| run > known)
        };
        let is_replaced = |other: &ProcessName| self.get(other).is_some_and(|o| o.facts.restart);
        let is_back = |program: &&ProgramName| {
            let summary = self.graph.summary(program);
            (summary.satisfied || !summary.on_way)
                && self.processes_of(program).any(is_newer)
                && !self.processes_of(program).any(is_replaced)
                && !self.is_between_declarations(program)
        };
        if let Some(program) = others.iter().find(is_back) {
            let because = format!("`{program}` was replaced");
            self.update(name, |process| process.replace(because, actions));
        }
    }

    /// Whether some replicas of a program are still declared otherwise than the rest: its others
    /// are about to be replaced as well.
    fn is_between_declarations(&self, program: &ProgramName) -> bool {
        let replicas = self.processes_of(program).filter_map(|name| self.get(name));
        let mut declared = replicas.filter(|it| !it.facts.removed).map(|it| &it.program);
        let Some(first) = declared.next() else { return false };
        declared.any(|other| !Arc::ptr_eq(first, other) && first.spawn != other.spawn)
    }

    fn try_stop(&mut self, now: Instant, name: &ProcessName, actions: &mut Vec<Action>) {
        let Some(process) = self.get(name) else { return };
        let live = process.standing().live;
        if process.facts.removed && !live {
            return self.forget(name, actions);
        }
        if !self.is_stop_wanted(process) {
            return;
        }
        let shutting_down = self.is_shutting_down();
        match process.facts.state {
            State::Starting { born: Some(_), .. } | State::Running { .. } => {
                if !self.graph.is_needed_by_stopping(name.program()) {
                    let why = self.why_stopping(process);
                    self.update(name, |process| process.begin_stop(now, &why, actions));
                }
            }
            State::Waiting { .. } | State::Backoff { .. } => {
                if shutting_down || process.facts.goal == Goal::Down || process.facts.removed {
                    let why = self.why_stopping(process);
                    self.update(name, |process| process.give_up_waiting(now, &why, actions));
                }
            }
            State::Starting { born: None, .. } | State::Stopped | State::Stopping { .. } => {}
            State::Exited | State::Fatal => {}
        }
    }

    fn try_start(&mut self, now: Instant, name: &ProcessName, actions: &mut Vec<Action>) {
        let Some(process) = self.get(name) else { return };
        let State::Waiting { told, .. } = process.facts.state else { return };
        let blocked = self.is_stop_wanted(process)
            || !process.facts.remains.is_empty()
            || self.graph.obstacles(&process.program).next().is_some();
        if !blocked {
            let run = self.next_run;
            self.next_run = RunId(run.0 + 1);
            self.runs.insert(run, name.clone());
            self.update(name, |process| process.begin_start(now, run, actions));
        } else if !told {
            let why = self.why_waiting(process);
            self.update(name, |process| process.tell_waiting(now, why, actions));
        }
    }

    fn forget(&mut self, name: &ProcessName, actions: &mut Vec<Action>) {
        let Some(entry) = self.processes.remove(name) else { return };
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, name.clone()));
        }
        self.order.remove(&(entry.priority, name.clone()));
        self.graph.count(name.program(), entry.standing, Standing::default());
        self.graph.remove_process(name);
        actions.push(Action::Forget { process: name.clone() });
    }
}
