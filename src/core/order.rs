//! The dependency graph of the programs: who must run before whom, who must stop before whom.
//!
//! Each program keeps counts of its processes and a [`Summary`] made of them, so that an event
//! costs as much as what it changes: only when a summary flips are the neighbours looked at.
//! The configuration has refused cycles.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::program::Standing;
use crate::config::Program;
use crate::name::{ProcessName, ProgramName};

/// What its neighbours need to know of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Summary {
    /// None of its processes is wanted, or something it requires is withdrawn.
    pub(super) withdrawn: bool,
    /// All its wanted processes run, and there is at least one.
    pub(super) satisfied: bool,
    /// It is about to run, as far as can be seen.
    pub(super) on_way: bool,
    /// Something of it lives that is to stop; what it depends on must live on meanwhile.
    pub(super) stopping: bool,
    /// Something it requires is withdrawn, so it may not run.
    pub(super) held: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    wanted: usize,
    live: usize,
    live_unwanted: usize,
    running: usize,
    starting: usize,
    waiting: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) program: Arc<Program>,
    pub(super) configured: bool,
    pub(super) processes: BTreeSet<ProcessName>,
    tally: Tally,
    pub(super) summary: Summary,
    dependants: Vec<ProgramName>,
    dependants_stopping: usize,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Graph {
    nodes: BTreeMap<ProgramName, Node>,
    pub(super) shutting_down: bool,
    /// Summaries are made later, all at once.
    pub(super) is_being_built: bool,
    /// Programs whose processes may have something to do now.
    pub(super) stirred: BTreeSet<ProgramName>,
}

/// Returns every program that `program` depends on, in whatever way.
fn edges(program: &Program) -> BTreeSet<&ProgramName> {
    let lifecycle = &program.lifecycle;
    lifecycle
        .requires
        .iter()
        .chain(&lifecycle.wants)
        .chain(&lifecycle.after)
        .chain(&lifecycle.restart_with)
        .collect()
}

impl Graph {
    pub(super) fn node(&self, name: &ProgramName) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// Puts a program into the graph, or replaces its declaration.
    pub(super) fn declare(&mut self, program: Arc<Program>, configured: bool) {
        let node = self.nodes.entry(program.name.clone()).or_insert_with(|| Node {
            program: program.clone(),
            configured,
            processes: BTreeSet::new(),
            tally: Tally::default(),
            summary: Summary::default(),
            dependants: Vec::new(),
            dependants_stopping: 0,
        });
        node.program = program;
        node.configured = configured;
    }

    pub(super) fn mark_all_removed(&mut self) {
        for node in self.nodes.values_mut() {
            node.configured = false;
        }
    }

    pub(super) fn add_process(&mut self, name: &ProcessName) {
        if let Some(node) = self.nodes.get_mut(name.program()) {
            node.processes.insert(name.clone());
        }
    }

    /// Takes a process away, and its program with the last process of one that is gone from
    /// the configuration.
    pub(super) fn remove_process(&mut self, name: &ProcessName) {
        let Some(node) = self.nodes.get_mut(name.program()) else { return };
        node.processes.remove(name);
        if node.processes.is_empty() && !node.configured {
            let program = node.program.clone();
            self.nodes.remove(name.program());
            for target in edges(&program) {
                if let Some(node) = self.nodes.get_mut(target) {
                    node.dependants.retain(|dependant| dependant != name.program());
                }
            }
        }
    }

    /// Makes the reverse edges and all summaries anew after declarations changed.
    pub(super) fn rebuild(&mut self) {
        self.is_being_built = false;
        let mut dependants: BTreeMap<ProgramName, Vec<ProgramName>> = BTreeMap::new();
        for (name, node) in &self.nodes {
            for target in edges(&node.program) {
                dependants.entry(target.clone()).or_default().push(name.clone());
            }
        }
        let stopping: BTreeSet<ProgramName> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.summary.stopping)
            .map(|(name, _)| name.clone())
            .collect();
        for (name, node) in &mut self.nodes {
            node.dependants = dependants.remove(name).unwrap_or_default();
            node.dependants_stopping =
                node.dependants.iter().filter(|dependant| stopping.contains(*dependant)).count();
        }
        self.refresh(self.nodes.keys().cloned().collect());
        self.stir_all();
    }

    /// Has all processes looked at.
    pub(super) fn stir_all(&mut self) {
        self.stirred = self.nodes.keys().cloned().collect();
    }

    /// Counts a process whose standing changed.
    pub(super) fn count(&mut self, name: &ProgramName, before: Standing, after: Standing) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let tally = &mut node.tally;
        let adjust = |count: &mut usize, before: bool, after: bool| {
            *count = (*count + usize::from(after)).saturating_sub(usize::from(before));
        };
        adjust(&mut tally.wanted, before.wanted, after.wanted);
        adjust(&mut tally.live, before.live, after.live);
        let unwanted = |standing: Standing| standing.live && !standing.wanted;
        adjust(&mut tally.live_unwanted, unwanted(before), unwanted(after));
        adjust(&mut tally.running, before.running, after.running);
        adjust(&mut tally.starting, before.starting, after.starting);
        adjust(&mut tally.waiting, before.waiting, after.waiting);
        if !self.is_being_built {
            self.refresh([name.clone()].into());
        }
    }

    /// Whether something must stop before the processes of this program may.
    pub(super) fn is_needed_by_stopping(&self, name: &ProgramName) -> bool {
        self.nodes.get(name).is_some_and(|node| node.dependants_stopping > 0)
    }

    /// Returns the dependants that must stop first.
    pub(super) fn stopping_dependants(&self, name: &ProgramName) -> Vec<&ProgramName> {
        let Some(node) = self.nodes.get(name) else { return Vec::new() };
        let stopping = |name: &&ProgramName| self.summary(name).stopping;
        node.dependants.iter().filter(stopping).collect()
    }

    /// Returns the programs that a start of `program` has to wait for.
    pub(super) fn obstacles<'a>(
        &'a self,
        program: &'a Program,
    ) -> impl Iterator<Item = &'a ProgramName> {
        let lifecycle = &program.lifecycle;
        let required = lifecycle.requires.iter().filter(|name| !self.summary(name).satisfied);
        let ordered = lifecycle
            .wants
            .iter()
            .chain(&lifecycle.after)
            .chain(&lifecycle.restart_with)
            .filter(|name| self.summary(name).on_way && !lifecycle.requires.contains(name));
        required.chain(ordered)
    }

    pub(super) fn summary(&self, name: &ProgramName) -> Summary {
        self.nodes
            .get(name)
            .map_or_else(|| Summary { withdrawn: true, ..Summary::default() }, |node| node.summary)
    }

    fn summarize(&self, node: &Node) -> Summary {
        let requires = || node.program.lifecycle.requires.iter().map(|name| self.summary(name));
        let tally = node.tally;
        let held = requires().any(|required| required.withdrawn);
        let stuck = requires().any(|required| !required.satisfied && !required.on_way);
        let withdrawn = self.shutting_down || held || tally.wanted == 0;
        let to_stop = if self.shutting_down || held { tally.live } else { tally.live_unwanted };
        Summary {
            withdrawn,
            satisfied: !withdrawn && tally.running == tally.wanted,
            on_way: !withdrawn && (tally.starting > 0 || (tally.waiting > 0 && !stuck)),
            stopping: to_stop > 0,
            held,
        }
    }

    /// Brings summaries up to date, from these programs to all whom it concerns.
    fn refresh(&mut self, mut queue: BTreeSet<ProgramName>) {
        while let Some(name) = queue.pop_first() {
            let Some(node) = self.nodes.get(&name) else { continue };
            let (before, after) = (node.summary, self.summarize(node));
            if before == after {
                continue;
            }
            let program = node.program.clone();
            if before.stopping != after.stopping {
                for target in edges(&program) {
                    self.count_stopping(target, after.stopping);
                }
            }
            let own = before.held != after.held;
            let outward = Summary { stopping: false, held: false, ..before }
                != Summary { stopping: false, held: false, ..after };
            if let Some(node) = self.nodes.get_mut(&name) {
                node.summary = after;
                if outward {
                    queue.extend(node.dependants.iter().cloned());
                    self.stirred.extend(node.dependants.iter().cloned());
                }
            }
            if own {
                self.stirred.insert(name);
            }
        }
    }

    fn count_stopping(&mut self, target: &ProgramName, more: bool) {
        let Some(node) = self.nodes.get_mut(target) else { return };
        if more {
            node.dependants_stopping += 1;
        } else {
            node.dependants_stopping = node.dependants_stopping.saturating_sub(1);
            if node.dependants_stopping == 0 {
                self.stirred.insert(target.clone());
            }
        }
    }
}
