//! Many programs with random edges: each writes down when it starts, is ready and stops.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;

use crate::harness::{Daemon, wait_for};

const PROGRAMS: usize = 50;

/// Names the seed when the test panics, wherever the panic comes from.
struct SeedReport(u64);

impl Drop for SeedReport {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with: MEND_GRAPH_SEED={}", self.0);
        }
    }
}

/// Returns the tables of the programs, and whom each of them comes after.
fn graph(rng: &mut fastrand::Rng) -> (String, BTreeMap<String, BTreeSet<String>>) {
    let (mut text, mut edges) = (String::new(), BTreeMap::new());
    // Names in no order, so that the order of names is not that of the graph.
    let mut names: Vec<String> = (0..PROGRAMS).map(|number| format!("p{number}")).collect();
    rng.shuffle(&mut names);
    for (index, name) in names.iter().enumerate() {
        let mut before = BTreeSet::new();
        let wait = rng.u32(..60);
        text.push_str(&format!(
            "[program.{name}]\ncommand = ['{{child}}', 'node', '{{dir}}/order', '{name}', '{wait}']\n\
             ready = 'notify'\n"
        ));
        for key in ["requires", "wants", "after", "restart_with"] {
            let count = rng.usize(..3).min(index);
            let mut chosen: Vec<String> =
                (0..count).map(|_| names[rng.usize(..index)].clone()).collect();
            chosen.dedup();
            if !chosen.is_empty() {
                text.push_str(&format!("{key} = {chosen:?}\n"));
            }
            before.extend(chosen);
        }
        edges.insert(name.clone(), before);
    }
    (text, edges)
}

#[test]
fn fifty_programs_start_when_those_before_them_are_ready_and_stop_the_other_way_round() {
    let seed = env::var("MEND_GRAPH_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().expect("a number"));
    let _report = SeedReport(seed);
    let (text, edges) = graph(&mut fastrand::Rng::with_seed(seed));
    let daemon = Daemon::start(&text);
    daemon.wait_until("all to run", |status| {
        status.programs.len() == PROGRAMS && status.programs.iter().all(|p| p.state == "RUNNING")
    });
    let order = daemon.file("order");
    let lines = || fs::read_to_string(&order).unwrap_or_default();
    daemon.ctl_ok(&["stop", "all"]);
    wait_for("every program to have said so", || {
        let text = lines();
        let stops = text.lines().filter(|line| line.starts_with("stop ")).count();
        if stops == PROGRAMS { Ok(()) } else { Err(text) }
    });
    let text = lines();
    let places: BTreeMap<&str, usize> =
        text.lines().enumerate().map(|(place, line)| (line, place)).collect();
    assert_eq!(places.len(), 3 * PROGRAMS, "each did each of it once:\n{text}");
    let place = |word: &str, name: &str| places[format!("{word} {name}").as_str()];
    for (name, before) in &edges {
        for other in before {
            assert!(place("ready", other) < place("start", name), "{other} → {name}:\n{text}");
            assert!(place("stop", name) < place("stop", other), "{name} → {other}:\n{text}");
        }
    }
}
