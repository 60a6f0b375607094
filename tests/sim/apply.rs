//! Applies in which the brain dies before every single step: the end is always wholly the old or
//! wholly the new configuration, and no process ever has two runs.

use std::collections::BTreeSet;
use std::time::Duration;

use mendd::config::Program;

use crate::apply_world::{ApplyWorld, End};
use crate::programs;

/// A program that starts in a second and runs for ever, unless its version is a bad one.
fn program(name: &str, version: &str) -> Program {
    programs::plain(name, version, Duration::from_secs(1))
}

fn replicas(name: &str, version: &str, count: u32) -> Program {
    Program { replicas: Some(count), ..program(name, version) }
}

fn requires(mut program: Program, other: &str) -> Program {
    program.lifecycle.requires = vec![other.parse().expect("a name")];
    program
}

struct Case {
    name: &'static str,
    old: Vec<Program>,
    new: Vec<Program>,
    is_good: bool,
    stopped: Option<&'static str>,
}

fn cases() -> Vec<Case> {
    let case = |name, old: &[Program], new: &[Program], is_good| Case {
        name,
        old: old.to_vec(),
        new: new.to_vec(),
        is_good,
        stopped: None,
    };
    let same = program("same", "1");
    vec![
        case(
            "one restarts",
            &[same.clone(), program("a", "1")],
            &[same.clone(), program("a", "2")],
            true,
        ),
        case("one fails", &[same.clone(), program("a", "1")], &[program("a", "bad")], false),
        case("in turn", &[replicas("a", "1", 3)], &[replicas("a", "2", 3)], true),
        case(
            "the first of three fails",
            &[replicas("a", "1", 3)],
            &[replicas("a", "bad", 3)],
            false,
        ),
        case(
            "replicas come and go",
            &[replicas("a", "1", 2), replicas("b", "1", 3), replicas("c", "1", 1)],
            &[replicas("a", "2", 4), replicas("b", "2", 2), replicas("c", "1", 3)],
            true,
        ),
        case(
            "one goes, one comes, one gets numbers",
            &[program("gone", "1"), program("numbered", "1"), same.clone()],
            &[program("new", "1"), replicas("numbered", "1", 2), same.clone()],
            true,
        ),
        case(
            "what came fails after what went",
            &[program("gone", "1"), program("a", "1"), program("numbered", "1")],
            &[program("new", "bad"), program("a", "2"), replicas("numbered", "1", 2)],
            false,
        ),
        case(
            "requirements follow",
            &[program("db", "1"), requires(program("web", "1"), "db")],
            &[program("db", "2"), requires(program("web", "1"), "db"), same.clone()],
            true,
        ),
        case(
            "a requirement fails",
            &[program("db", "1"), requires(program("web", "1"), "db")],
            &[program("db", "bad"), requires(program("web", "2"), "db")],
            false,
        ),
        case(
            "a requirement is replaced by another program",
            &[program("db", "1"), requires(program("web", "1"), "db")],
            &[program("store", "1"), requires(program("web", "1"), "store")],
            true,
        ),
        Case {
            name: "what was stopped stays stopped over a roll-back",
            old: vec![program("gone", "1"), program("a", "1")],
            new: vec![program("a", "bad")],
            is_good: false,
            stopped: Some("gone"),
        },
    ]
}

impl Case {
    fn world(&self) -> ApplyWorld {
        let mut world = ApplyWorld::new(&self.old, &self.new);
        if let Some(process) = self.stopped {
            world.stop(process);
        }
        world
    }

    fn expected(&self, list: &[Program]) -> BTreeSet<(String, String)> {
        let names = |program: &Program| {
            let version = program.spawn.argv[0].clone();
            let program = std::sync::Arc::new(program.clone());
            let names = programs::processes(std::slice::from_ref(&program));
            names.into_iter().map(move |name| (name.to_string(), version.clone()))
        };
        let mut all: BTreeSet<_> = list.iter().flat_map(names).collect();
        all.retain(|(name, _)| self.stopped != Some(name));
        all
    }

    #[track_caller]
    fn check(&self, world: &ApplyWorld, what: &str) {
        let (old, new) = (self.expected(&self.old), self.expected(&self.new));
        let alive = world.alive();
        match &world.end {
            Some(End::Applied) => {
                assert!(self.is_good, "{}: {what}: a bad one was applied", self.name);
                assert_eq!(alive, new, "{}: {what}", self.name);
            }
            Some(End::RolledBack { trouble }) => {
                assert!(!self.is_good, "{}: {what}: a good one was given up", self.name);
                assert_eq!((&alive, trouble), (&old, &None), "{}: {what}", self.name);
            }
            Some(End::Kept) => panic!("{}: {what}: kept", self.name),
            // The brain died before it wrote anything down.
            None => assert_eq!(alive, old, "{}: {what}", self.name),
        }
    }
}

#[test]
fn an_apply_without_a_death_ends_as_it_should() {
    for case in cases() {
        let mut world = case.world();
        world.play(true, None);
        assert!(world.end.is_some(), "{}: it never ended", case.name);
        case.check(&world, "undisturbed");
    }
}

#[test]
fn a_death_before_any_step_of_an_apply_ends_in_the_old_or_the_new() {
    for case in cases() {
        let mut counts = case.world();
        let before = counts.steps;
        counts.play(true, None);
        let steps = counts.steps - before;
        assert!(steps > 20, "{}: {steps} steps", case.name);
        for fuel in 0..=steps {
            let mut world = case.world();
            world.fuel = Some(fuel);
            world.play(true, None);
            case.check(&world, &format!("death before step {fuel} of {steps}"));
            assert!(fuel < 3 || world.end.is_some(), "{}: lost at {fuel}", case.name);
        }
    }
}

#[test]
fn a_second_death_while_the_next_brain_goes_on_changes_nothing() {
    for case in cases() {
        let mut counts = case.world();
        let before = counts.steps;
        counts.play(true, None);
        let steps = counts.steps - before;
        for first in (0..=steps).step_by(5) {
            for second in (0..=steps).step_by(7) {
                let mut world = case.world();
                world.fuel = Some(first);
                world.play(true, Some(second));
                case.check(&world, &format!("deaths at {first} and {second} later"));
            }
        }
    }
}

#[test]
fn replicas_are_replaced_one_after_the_other() {
    let mut world = ApplyWorld::new(&[replicas("a", "1", 3)], &[replicas("a", "2", 3)]);
    world.play(true, None);
    let order: Vec<String> = world.spawned.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(order, ["a:0", "a:1", "a:2"]);
    let mut world = ApplyWorld::new(&[replicas("a", "1", 3)], &[replicas("a", "bad", 3)]);
    world.play(true, None);
    let bad = world.spawned.iter().filter(|(_, version)| version == "bad");
    assert!(bad.clone().all(|(name, _)| name.replica() == Some(0)), "{:?}", world.spawned);
    assert!(bad.count() > 0);
}

#[test]
fn without_the_way_back_the_new_configuration_stays() {
    let (old, new) = ([replicas("a", "1", 3)], [replicas("a", "bad", 3), program("b", "1")]);
    let mut world = ApplyWorld::new(&old, &new);
    world.play(false, None);
    assert_eq!(world.end, Some(End::Kept));
    let old_ones = [("a:0", "1"), ("a:1", "1"), ("a:2", "1")];
    assert!(world.alive().iter().all(|(name, version)| !old_ones.contains(&(name, version))));
    assert!(world.alive().contains(&("b".to_owned(), "1".to_owned())));
}
