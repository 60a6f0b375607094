//! What the healer looks after, made of the configuration.
//!
//! Every process is looked after, also one without checks: that it died, why, and that it came
//! back is a story too.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{Check, Config, DeclaredCheck, Impact, Program};
use crate::core::care::pace::Places;
use crate::core::care::{Charge, CheckId, Settings, Target};
use crate::engine::select::processes_of;
use crate::name::{CheckName, ProgramName};

/// Checks of the daemon's own that may run at once.
const NATIVE_PLACES: usize = 64;

/// The checks that are declared, by what they look at.
pub(super) type Declared = BTreeMap<Target, BTreeMap<CheckName, Arc<DeclaredCheck>>>;

/// Returns what is to be looked after.
pub(super) fn charges(config: &Config) -> Vec<Charge> {
    let of_program = |name: &ProgramName| {
        config.programs.get(name).into_iter().flat_map(|it| processes_of(it)).map(Target::Process)
    };
    let mut charges = vec![Charge {
        target: Target::Host,
        checks: rules(&config.checks),
        requires: Vec::new(),
        priority: 0,
        impact: Impact::Normal,
    }];
    for program in config.programs.values() {
        let checks = rules(&program.checks);
        let requires: Vec<Target> =
            program.lifecycle.requires.iter().flat_map(of_program).collect();
        charges.extend(processes_of(program).into_iter().map(|process| Charge {
            target: Target::Process(process),
            checks: checks.clone(),
            requires: requires.clone(),
            priority: program.lifecycle.priority,
            impact: program.impact,
        }));
    }
    charges
}

fn rules(declared: &[Arc<DeclaredCheck>]) -> Vec<Arc<Check>> {
    declared.iter().map(|declared| Arc::new(declared.check.clone())).collect()
}

/// Returns what each check asks.
pub(super) fn declared(config: &Config) -> Declared {
    let by_name = |checks: &[Arc<DeclaredCheck>]| {
        checks.iter().map(|it| (it.check.name.clone(), Arc::clone(it))).collect()
    };
    let of_program = |program: &Arc<Program>| {
        let checks: BTreeMap<_, _> = by_name(&program.checks);
        processes_of(program).into_iter().map(move |it| (Target::Process(it), checks.clone()))
    };
    let programs = config.programs.values().filter(|program| !program.checks.is_empty());
    let mut declared: Declared = programs.flat_map(of_program).collect();
    declared.insert(Target::Host, by_name(&config.checks));
    declared
}

/// Returns what holds for all checks together.
pub(super) fn settings(config: &Config) -> Settings {
    let cpus = std::thread::available_parallelism().map_or(2, usize::from);
    let places = Places { native: NATIVE_PLACES, exec: cpus.max(2) };
    Settings { places, mode: config.mode }
}

/// Returns every check that there is, in the order of names, the host's first.
pub(super) fn all(declared: &Declared) -> impl Iterator<Item = (CheckId, &Arc<DeclaredCheck>)> {
    declared.iter().flat_map(|(target, checks)| {
        checks.iter().map(|(check, declared)| {
            (CheckId { target: target.clone(), check: check.clone() }, declared)
        })
    })
}
