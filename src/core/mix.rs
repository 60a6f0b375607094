//! Programs as they are declared at one moment of an apply: those of the old configuration,
//! those of the new one, and what lies between them.
//!
//! A process that is not replaced yet keeps its old `spawn` below everything else that is new,
//! so that order and requirements are always those of one configuration.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::configure::process_names;
use super::plan::{Changes, Programs};
use crate::config::{Program, Spawn};
use crate::name::{ProcessName, ProgramName};

/// What is declared: the programs, and processes that are spawned otherwise for now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mix {
    pub programs: Programs,
    /// Processes whose declaration is not that of their program.
    pub except: BTreeMap<ProcessName, Arc<Program>>,
}

impl Mix {
    /// Returns a configuration that is whole.
    pub fn whole(programs: Programs) -> Self {
        Self { programs, except: BTreeMap::new() }
    }

    /// Returns what one process is declared as.
    pub fn of(&self, process: &ProcessName) -> Option<&Arc<Program>> {
        self.except.get(process).or_else(|| self.programs.get(process.program()))
    }

    /// Returns all processes with the way they are spawned.
    pub fn spawns(&self) -> BTreeMap<ProcessName, &Spawn> {
        let names = self.programs.values().flat_map(|program| process_names(program));
        names.filter_map(|name| self.of(&name).map(|p| (name.clone(), &p.spawn))).collect()
    }

    /// What stays of the old programs, with everything new but the way they are spawned.
    pub(super) fn without_removed(old: &Programs, new: &Programs, changes: &Changes) -> Self {
        let stays = |name: &ProgramName| {
            new.contains_key(name) && old.contains_key(name) && !changes.removed.contains(name)
        };
        let program = |(name, old): (&ProgramName, &Arc<Program>)| {
            let mut program = Program::clone(new.get(name).filter(|_| stays(name))?);
            keep_spawn(&mut program, old);
            program.replicas = old.replicas;
            let lifecycle = &mut program.lifecycle;
            for names in [&mut lifecycle.requires, &mut lifecycle.wants, &mut lifecycle.after] {
                names.retain(stays);
            }
            Some((name.clone(), Arc::new(program)))
        };
        Self::whole(old.iter().filter_map(program).collect())
    }

    /// The new programs, of which those with replicas are replaced as far as `turns` says.
    /// Replicas are taken away last.
    pub(super) fn changing(
        old: &Programs,
        new: &Programs,
        changes: &Changes,
        turns: &BTreeMap<ProgramName, u32>,
    ) -> Self {
        let mut mix = Self::whole(new.clone());
        for (name, program) in new {
            let Some(before) = old.get(name).filter(|_| !changes.added.contains(name)) else {
                continue;
            };
            let (Some(was), Some(becomes)) = (before.replicas, program.replicas) else { continue };
            let in_turn = changes.in_turn.contains(name);
            let mut now = Program::clone(program);
            now.replicas = Some(if in_turn { was } else { was.max(becomes) });
            let now = Arc::new(now);
            if in_turn {
                let mut kept = Program::clone(&now);
                keep_spawn(&mut kept, before);
                let kept = Arc::new(kept);
                let done = turns.get(name).copied().unwrap_or(1);
                for replica in done..was {
                    let process = ProcessName::new(name.clone(), Some(replica));
                    mix.except.insert(process, Arc::clone(&kept));
                }
            }
            mix.programs.insert(name.clone(), now);
        }
        mix
    }
}

/// Lets a program be spawned as before, and with that be asked for what it was told at its start:
/// a run that knows nothing of a watchdog cannot feed it.
fn keep_spawn(program: &mut Program, before: &Program) {
    program.spawn = before.spawn.clone();
    program.lifecycle.ready = before.lifecycle.ready.clone();
    program.lifecycle.watchdog = before.lifecycle.watchdog;
}
