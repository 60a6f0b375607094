//! Enabled or disabled: what an operator decided about the starts of a program that nobody asks
//! for by hand.
//!
//! A disabled program is not started when the daemon starts, nor by a new configuration, nor
//! because another program requires it; an operator may still start it, and that holds until the
//! next boot. The decision outranks `autostart` in both directions and belongs to the program as
//! a whole, also while it is not configured.

use std::collections::BTreeMap;

use super::supervisor::Supervisor;
use super::{Action, Actor, Goal};
use crate::config::Program;
use crate::name::{ProcessName, ProgramName};

/// What an operator decided about a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    pub enabled: bool,
    pub by: Actor,
}

impl Supervisor {
    /// Returns the decisions of operators; they hold over a reboot.
    pub fn switches(&self) -> &BTreeMap<ProgramName, Switch> {
        &self.switches
    }

    /// Hands over the decisions of before. Meant for a supervisor that is still empty.
    pub fn remember_switches(&mut self, switches: BTreeMap<ProgramName, Switch>) {
        self.switches = switches;
    }

    /// Whether a program is started without anybody asking for it.
    pub(super) fn is_enabled(&self, program: &Program) -> bool {
        let switch = self.switches.get(&program.name);
        switch.map_or(program.lifecycle.autostart, |switch| switch.enabled)
    }

    /// Returns who disabled a program.
    pub(super) fn disabled_by(&self, program: &ProgramName) -> Option<&Actor> {
        self.switches.get(program).filter(|switch| !switch.enabled).map(|switch| &switch.by)
    }

    /// Enables or disables programs. What runs and what does not is left as it is.
    pub(super) fn switch(
        &mut self,
        programs: Vec<ProgramName>,
        enabled: bool,
        by: &Actor,
        actions: &mut Vec<Action>,
    ) {
        for program in programs {
            let names: Vec<ProcessName> = self.processes_of(&program).cloned().collect();
            self.switches.insert(program, Switch { enabled, by: by.clone() });
            if !enabled {
                continue;
            }
            // The stop was before: from the next boot on the newer word holds.
            for name in names {
                self.update(&name, |process| {
                    if process.facts.goal == Goal::Down && process.facts.goal_by.take().is_some() {
                        process.persist(actions);
                    }
                });
            }
        }
    }

    /// Chooses what a process that is new is wanted to be, and who said so.
    pub(super) fn first_goal(
        &mut self,
        name: &ProcessName,
        program: &Program,
    ) -> (Goal, Option<Actor>) {
        match self.remembered.remove(name) {
            Some((goal, by)) => (goal, Some(by)),
            None if self.is_enabled(program) => (Goal::Up, None),
            None => (Goal::Down, None),
        }
    }
}
