//! What another configuration would do to the one that is active: a comparison of the two, with
//! the reasons. It looks at no process, so what an operator has stopped is listed too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::{Config, Effect, KeyChange, Program, program_changes, setting_changes};
use crate::name::ProgramName;

/// Programs by name, as a configuration declares them.
pub type Programs = BTreeMap<ProgramName, Arc<Program>>;

/// All that would change. Empty when nothing would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In name order; programs that stay as they are are left out.
    pub programs: Vec<ProgramChange>,
    /// Of `[supervisor]`, the groups and the files.
    pub settings: Vec<KeyChange>,
}

/// What would happen to one program, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramChange {
    pub name: ProgramName,
    pub fate: Fate,
    /// The keys that differ; empty for a program that is new or gone.
    pub keys: Vec<KeyChange>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    Start,
    Stop,
    /// All processes at once.
    Restart,
    /// Replica 0 first, each next one when the one before runs.
    RestartInTurn,
    /// It requires this program, or has it in `restart_with`, and that one restarts.
    RestartWith(ProgramName),
    /// Nothing restarts.
    Update,
}

impl Plan {
    /// Compares the active configuration with another one.
    pub fn new(old: &Config, new: &Config) -> Self {
        let changes = Changes::between(&old.programs, &new.programs);
        let keys = |name: &ProgramName| match (old.programs.get(name), new.programs.get(name)) {
            (Some(old), Some(new)) => program_changes(old, new),
            (Some(_), None) | (None, Some(_)) | (None, None) => Vec::new(),
        };
        let names: BTreeSet<_> = old.programs.keys().chain(new.programs.keys()).collect();
        let change = |name: &ProgramName| {
            let keys = keys(name);
            let fate = changes.fate(name).or_else(|| (!keys.is_empty()).then_some(Fate::Update))?;
            Some(ProgramChange { name: name.clone(), fate, keys })
        };
        Self {
            programs: names.into_iter().filter_map(change).collect(),
            settings: setting_changes(old, new),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.settings.is_empty()
    }

    /// Returns the names of the programs that share a fate.
    pub fn names(&self, fates: impl Fn(&Fate) -> bool) -> Vec<String> {
        let chosen = self.programs.iter().filter(|program| fates(&program.fate));
        chosen.map(|program| program.name.to_string()).collect()
    }

    /// Names the settings that wait for a restart of the daemon.
    pub fn daemon_restart(&self) -> Vec<String> {
        let waits = self.settings.iter().filter(|key| key.effect == Effect::DaemonRestart);
        waits.map(|key| key.key.clone()).collect()
    }

    /// Returns one line: `starts new; restarts web (in turn); changes db`.
    pub fn summary(&self) -> String {
        let part = |word: &str, names: Vec<String>| {
            (!names.is_empty()).then(|| format!("{word} {}", names.join(", ")))
        };
        let restarts = |fate: &Fate| match fate {
            Fate::Restart | Fate::RestartInTurn | Fate::RestartWith(_) => true,
            Fate::Start | Fate::Stop | Fate::Update => false,
        };
        let settings = self.settings.iter().map(|key| key.key.clone()).collect();
        let parts = [
            part("starts", self.names(|fate| *fate == Fate::Start)),
            part("stops", self.names(|fate| *fate == Fate::Stop)),
            part("restarts", self.names(restarts)),
            part("changes in place", self.names(|fate| *fate == Fate::Update)),
            part("sets", settings),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() { "nothing".to_owned() } else { parts.join("; ") }
    }
}

/// The programs of two configurations by what has to be done to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Not configured before, or under other process names.
    pub(super) added: BTreeSet<ProgramName>,
    /// Not configured any more, or under other process names.
    pub(super) removed: BTreeSet<ProgramName>,
    /// Replaced all at once.
    pub(super) at_once: BTreeSet<ProgramName>,
    /// Replaced replica by replica.
    pub(super) in_turn: BTreeSet<ProgramName>,
    /// Stopped and started because something that they require is, with what that is.
    pub(super) along: BTreeMap<ProgramName, ProgramName>,
}

impl Changes {
    pub(super) fn between(old: &Programs, new: &Programs) -> Self {
        let mut changes = Self::default();
        for (name, program) in new {
            let Some(before) = old.get(name) else {
                changes.added.insert(name.clone());
                continue;
            };
            if before.replicas.is_none() != program.replicas.is_none() {
                changes.added.insert(name.clone());
                changes.removed.insert(name.clone());
            } else if before.spawn != program.spawn {
                match before.replicas {
                    Some(2..) => changes.in_turn.insert(name.clone()),
                    Some(0 | 1) | None => changes.at_once.insert(name.clone()),
                };
            }
        }
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        changes.removed.extend(gone.cloned());
        changes.find_along(new);
        changes
    }

    /// Follows `requires` from what is replaced at once, because without it nothing that requires
    /// it may run; and `restart_with` from whatever gets a new run.
    fn find_along(&mut self, new: &Programs) {
        loop {
            let moves = |name: &ProgramName| {
                self.at_once.contains(name)
                    || self.along.contains_key(name)
                    || (self.added.contains(name) && self.removed.contains(name))
            };
            let next = new.iter().find_map(|(name, program)| {
                let stays = !moves(name) && !self.added.contains(name);
                let is_new =
                    |name: &ProgramName| self.in_turn.contains(name) || self.added.contains(name);
                let lifecycle = &program.lifecycle;
                let required = lifecycle.requires.iter().find(|name| moves(name));
                let partner =
                    || lifecycle.restart_with.iter().find(|name| moves(name) || is_new(name));
                let cause = required.or_else(partner)?;
                stays.then(|| (name.clone(), cause.clone(), required.is_some()))
            });
            let Some((name, cause, all_stop)) = next else { return };
            // All of its replicas stop with what they require: there is no turn to take.
            if all_stop && self.in_turn.remove(&name) {
                self.at_once.insert(name);
            } else {
                self.along.insert(name, cause);
            }
        }
    }

    fn fate(&self, name: &ProgramName) -> Option<Fate> {
        let (added, removed) = (self.added.contains(name), self.removed.contains(name));
        match (added, removed) {
            (true, true) => Some(Fate::Restart),
            (true, false) => Some(Fate::Start),
            (false, true) => Some(Fate::Stop),
            (false, false) if self.at_once.contains(name) => Some(Fate::Restart),
            (false, false) if self.in_turn.contains(name) => Some(Fate::RestartInTurn),
            (false, false) => self.along.get(name).cloned().map(Fate::RestartWith),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::bench::{program, program_with, requires};

    fn programs(list: Vec<Program>) -> Programs {
        list.into_iter().map(|program| (program.name.clone(), Arc::new(program))).collect()
    }

    fn fates(old: Vec<Program>, new: Vec<Program>) -> Vec<(String, Fate)> {
        let (old, new) = (programs(old), programs(new));
        let changes = Changes::between(&old, &new);
        let names: BTreeSet<_> = old.keys().chain(new.keys()).collect();
        let fate = |name: &ProgramName| Some((name.to_string(), changes.fate(name)?));
        names.into_iter().filter_map(fate).collect()
    }

    fn newer(name: &str, replicas: Option<u32>) -> Program {
        program_with(name, |p| {
            p.spawn.umask = 0o077;
            p.replicas = replicas;
        })
    }

    fn replicas(name: &str, count: u32) -> Program {
        program_with(name, |p| p.replicas = Some(count))
    }

    #[test]
    fn what_is_spawned_otherwise_restarts_at_once_or_in_turn() {
        let old = vec![program("gone"), program("one"), replicas("two", 2), program("same")];
        let new = vec![program("new"), newer("one", None), newer("two", Some(3)), program("same")];
        let expected = [
            ("gone", Fate::Stop),
            ("new", Fate::Start),
            ("one", Fate::Restart),
            ("two", Fate::RestartInTurn),
        ];
        assert_eq!(fates(old, new), expected.map(|(name, fate)| (name.to_owned(), fate)));
    }

    #[test]
    fn what_requires_a_program_that_restarts_at_once_restarts_with_it() {
        let rest = || vec![requires("b", "a"), requires("c", "b")];
        let mut old = vec![program("a")];
        old.extend(rest());
        let mut new = vec![newer("a", None)];
        new.extend(rest());
        let with = |name: &str| Fate::RestartWith(name.parse().unwrap());
        let expected = [("a", Fate::Restart), ("b", with("a")), ("c", with("b"))];
        assert_eq!(fates(old, new), expected.map(|(name, fate)| (name.to_owned(), fate)));
        // One replica after the other: what requires them is never without one.
        let (mut old, mut new) = (vec![replicas("a", 2)], vec![newer("a", Some(2))]);
        old.extend(rest());
        new.extend(rest());
        assert_eq!(fates(old, new), [("a".to_owned(), Fate::RestartInTurn)]);
    }

    #[test]
    fn replicas_that_require_what_restarts_are_replaced_together() {
        let three = Some(3);
        let web = |program: Program| {
            let mut program = program;
            program.lifecycle.requires = vec!["db".parse().unwrap()];
            program
        };
        let old = vec![program("db"), web(program_with("web", |p| p.replicas = three))];
        let new = vec![newer("db", None), web(newer("web", three))];
        let restart = |name: &str| (name.to_owned(), Fate::Restart);
        assert_eq!(fates(old, new), [restart("db"), restart("web")]);
    }

    #[test]
    fn what_restarts_with_another_program_follows_it_also_in_turn() {
        let follower =
            || program_with("b", |p| p.lifecycle.restart_with = vec!["a".parse().unwrap()]);
        let old = vec![replicas("a", 2), follower()];
        let new = vec![newer("a", Some(2)), follower()];
        let with = Fate::RestartWith("a".parse().unwrap());
        let expected = [("a".to_owned(), Fate::RestartInTurn), ("b".to_owned(), with)];
        assert_eq!(fates(old, new), expected);
    }

    #[test]
    fn a_program_whose_processes_get_other_names_restarts() {
        let found = fates(vec![program("a")], vec![replicas("a", 2)]);
        assert_eq!(found, [("a".to_owned(), Fate::Restart)]);
    }
}
