//! Somebody who commands all the time and never waits, and somebody who listens to the events.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::http::Events;
use crate::lab::act;

/// Commands at random until `done`; returns the programs that were killed on purpose.
pub(crate) fn command(socket: &Path, count: usize, seed: u64, done: &AtomicBool) -> Commanded {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let mut commanded = Commanded::default();
    while !done.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(random.u64(20..250)));
        let name = format!("p{}", random.usize(0..count));
        let (verb, goal) = match random.u32(0..100) {
            0..30 => ("restart", Some("up")),
            30..50 => ("stop", Some("down")),
            50..85 => ("start", Some("up")),
            85..95 => ("USR2", None),
            _ => ("KILL", None),
        };
        // Sent or not: an answer that is lost may have been carried out.
        if verb == "KILL" {
            commanded.killed.insert(name.clone());
        }
        let accepted = match goal {
            Some(_) => act(socket, verb, &name, None),
            None => act(socket, "signal", &name, Some(verb)),
        };
        if goal.is_some() {
            commanded.goals.insert(name, goal.filter(|_| accepted));
        }
        commanded.accepted += u32::from(accepted);
    }
    commanded
}

/// What the operator did.
#[derive(Debug, Default)]
pub(crate) struct Commanded {
    pub(crate) accepted: u32,
    pub(crate) killed: BTreeSet<String>,
    /// What was last asked of each process; `None` where the answer was lost.
    pub(crate) goals: BTreeMap<String, Option<&'static str>>,
}

/// What the daemon told about runs: the process, and the sentences of the events that name it.
pub(crate) type Told = BTreeMap<u64, (String, Vec<String>)>;

/// Listens to the events over every death of the daemon, until `done`.
pub(crate) fn listen(socket: &Path, done: &AtomicBool) -> Told {
    let mut told = Told::new();
    let mut last = Some(0);
    loop {
        // Asked before the last look, so that nothing told before is missed.
        let finished = done.load(Ordering::Relaxed);
        if let Ok(events) = Events::open(socket, last, Duration::from_millis(700)) {
            for event in events {
                last = Some(event.id);
                if let (Some(run), Some(process), Some(detail)) = (
                    event.data["run"].as_u64(),
                    event.data["process"].as_str(),
                    event.data["detail"].as_str(),
                ) {
                    let of_run = told.entry(run).or_insert((process.to_owned(), Vec::new()));
                    of_run.1.push(detail.to_owned());
                }
                if done.load(Ordering::Relaxed) && !finished {
                    break;
                }
            }
        }
        if finished {
            return told;
        }
        thread::sleep(Duration::from_millis(20));
    }
}
