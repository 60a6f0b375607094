//! Random lives of the whole core against a simulated kernel, played from a seed.
//!
//! `MEND_SIM_SEED=7` replays one seed, `MEND_SIM_SEEDS=100000` plays more of them. What is true
//! after each step is asserted in `world.rs`; what comes true in the end is asserted here. The
//! healer has a world of its own, `care_world.rs`, whose rules are in `care_rules.rs`.

mod apply;
mod apply_world;
mod care;
mod care_chance;
mod care_config;
mod care_rules;
mod care_world;
mod kernel;
mod programs;
mod world;

use std::env;
use std::time::Duration;

use world::World;

const STEPS: usize = 500;

fn seeds() -> Vec<u64> {
    if let Ok(seed) = env::var("MEND_SIM_SEED") {
        return vec![seed.parse().expect("MEND_SIM_SEED is a number")];
    }
    let count = env::var("MEND_SIM_SEEDS")
        .map_or(200, |count| count.parse().expect("MEND_SIM_SEEDS is a number"));
    (0..count).chain([fastrand::u64(..)]).collect()
}

#[test]
fn at_most_one_run_lives_and_every_start_and_stop_ends() {
    for seed in seeds() {
        let _report = SeedReport(seed);
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.calm_down();
        world.start_all();
        world.wait_until("everything runs", Duration::from_secs(24 * 3600), World::is_all_running);
        world.stop_all();
        world.wait_until("nothing lives", Duration::from_secs(600), World::is_all_gone);
        world.start_all();
        world.wait_until("everything runs", Duration::from_secs(24 * 3600), World::is_all_running);
        world.shut_down();
        world.wait_until("shutdown is complete", Duration::from_secs(600), World::is_shut_down);
        assert!(world.is_all_gone(), "shutdown was complete while something lived");
    }
}

#[test]
fn a_graph_of_200_programs_starts_and_stops_in_order() {
    for seed in seeds().into_iter().take(4) {
        let _report = SeedReport(seed);
        let mut world = World::with(seed, programs::graph);
        world.be_calm();
        world.start_all();
        world.wait_until("everything runs", Duration::from_secs(3600), World::is_all_running);
        world.shut_down();
        world.wait_until("shutdown is complete", Duration::from_secs(3600), World::is_shut_down);
        assert!(world.is_all_gone(), "shutdown was complete while something lived");
    }
}

#[test]
fn a_life_replayed_from_its_seed_is_the_same_life() {
    let life = |seed| {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.trace
    };
    assert_eq!(life(42), life(42));
    assert_ne!(life(42), life(43));
}

/// Names the seed when the test panics, wherever the panic comes from.
struct SeedReport(u64);

impl Drop for SeedReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with: MEND_SIM_SEED={} cargo test --test sim", self.0);
        }
    }
}
