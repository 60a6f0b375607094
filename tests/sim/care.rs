//! Random lives of the healer: sick programs, probes that lie, operators that interfere, a brain
//! that dies. Each seed plays an hour; `MEND_SIM_SEEDS=200000` plays ten thousand.

use std::time::Duration;

use crate::care_world::World;
use crate::{SeedReport, seeds};

const HOUR: Duration = Duration::from_secs(3600);
/// A life of the healer is so many times as long as one of the supervisor.
const SHARE: usize = 20;

#[test]
fn healing_keeps_to_its_rules_and_in_the_end_everything_is_well() {
    let seeds = seeds();
    let count = seeds.len().div_ceil(SHARE);
    let replayed = std::env::var_os("MEND_SIM_SEED").is_some();
    let mut figures = crate::care_world::Figures::default();
    for seed in seeds.into_iter().rev().take(count) {
        let _report = SeedReport(seed);
        let mut world = World::new(seed, replayed);
        world.play(HOUR);
        world.calm_down();
        world.wait_until_well(12 * HOUR);
        figures.add(&world.figures);
    }
    if !replayed {
        figures.assert_that_much_happened(count);
    }
}

#[test]
fn a_life_of_the_healer_replayed_from_its_seed_is_the_same_life() {
    let life = |seed| {
        let mut world = World::new(seed, true);
        world.play(Duration::from_secs(1800));
        world.trace.take()
    };
    assert_eq!(life(42), life(42));
    assert_ne!(life(42), life(43));
}
