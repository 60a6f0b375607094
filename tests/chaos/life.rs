//! A random life: programs write and end, an operator commands, blows fall; then the account.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mendd::api::view::ProcessView;

use crate::blows::Fists;
use crate::lab::{Lab, Under, wait_for};
use crate::{operator, proc, verdict};

/// Names the seed when the test panics, wherever the panic comes from.
struct SeedReport(u64);

impl Drop for SeedReport {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("replay with: MEND_CHAOS_SEED={} cargo test --test chaos", self.0);
        }
    }
}

pub(crate) fn number(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What a life is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Everything is hit.
    All,
    /// Output at full speed, and the brain dies in the middle of moving it.
    Flood,
}

/// How many programs may write as fast as they like.
const BUSY: usize = 20;

/// Programs of all tempers: quiet and full speed, short and long runs, restarted and not.
fn programs(kind: Kind, count: usize, seed: u64) -> String {
    let mut text = String::new();
    for n in 0..count {
        // Of many programs the later ones are quiet: the machine should be busy with deaths.
        let temper = match kind {
            Kind::Flood => n % 2,
            Kind::All if n < BUSY => n % 10,
            Kind::All => 2 + n % 4,
        };
        // Lines per second, and lines of a run.
        let (rate, lines) = match temper {
            0 => (0, 20_000),
            1 => (2000, 3000),
            2 | 3 => (10, 20),
            4 | 5 => (100, 100),
            6 => (1000, 0),
            7 => (50, 5),
            8 => (1, 0),
            _ => (200, 1000),
        };
        let restart = if n % 4 == 3 { "never" } else { "always" };
        // The account reads every line, so the fastest ones rest in between.
        let pause = if rate == 0 { 2000 } else { 50 };
        writeln!(
            text,
            "[program.p{n}]\ncommand = ['{{bin}}/chaos-child', '{{data}}', 'p{n}', '{rate}', \
             '{lines}', '{seed}']\nstart_period = 0\nrestart = '{restart}'\n\
             backoff = {{ initial = '{pause}ms', max = '{pause}ms', jitter = 0.0 }}\n\
             breaker = {{ failures = 1000000 }}\nstop = {{ grace = '5s' }}\n\
             logs = {{ max_size = '1MiB', keep = 1000, compress = 'none' }}"
        )
        .expect("a string");
    }
    text
}

/// Plays one life and fails unless its account is even.
fn live(kind: Kind, under: Under, programs_wanted: usize, kills: u64) {
    let seed = number("MEND_CHAOS_SEED").unwrap_or_else(|| fastrand::u64(0..1_000_000));
    let _report = SeedReport(seed);
    let count = number("MEND_CHAOS_PROGRAMS")
        .map_or(programs_wanted, |n| usize::try_from(n).expect("a count of programs"));
    let kills = number("MEND_CHAOS_KILLS").unwrap_or(kills);
    let mut lab = Lab::new(under, &programs(kind, count, seed));
    lab.start();
    lab.wait_settled();
    let done = AtomicBool::new(false);
    let silent = AtomicBool::new(false);
    let socket = lab.socket();
    let mut fists = Fists::new(seed, under, kind == Kind::Flood);
    let (commanded, told, last, ignored) = thread::scope(|scope| {
        let operator = scope.spawn(|| operator::command(&socket, count, seed, &done));
        let listener = scope.spawn(|| operator::listen(&socket, &silent));
        let lived = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while fists.kills() < kills {
                fists.deal(&mut lab);
            }
            fists.heal(&mut lab);
        }));
        done.store(true, Ordering::Relaxed);
        let commanded = operator.join().expect("the operator");
        if let Err(panic) = lived {
            silent.store(true, Ordering::Relaxed);
            std::panic::resume_unwind(panic);
        }
        let ignored = ignored_goals(&lab, &commanded.goals);
        let last = stop_all(&lab);
        silent.store(true, Ordering::Relaxed);
        (commanded, listener.join().expect("the listener"), last, ignored)
    });
    lab.shut_down();
    let mut verdict = verdict::judge(lab.dir(), &fists.gaps, &commanded.killed, &told, &last);
    verdict.faults.extend(ignored);
    let faults = verdict.faults.len();
    let known = commanded.goals.values().flatten().count();
    eprintln!(
        "seed {seed}: {:?}; {} upgrades undisturbed; {} compound; slowest healing {:?}; {} \
         commands; {} kills; goals of {known} set and {count} in all; {} runs, {} lines, {} bytes, \
         {} statuses; in {} gaps: of both {:?}, of \
         compound {:?}; {} untold; {faults} faults",
        fists.counts,
        fists.upgrades_done,
        fists.compound,
        fists.slowest,
        commanded.accepted,
        fists.kills(),
        verdict.runs,
        verdict.lines,
        verdict.bytes,
        verdict.statuses,
        fists.gaps.len(),
        verdict.of_both,
        verdict.of_compound,
        verdict.untold,
    );
    for fault in verdict.faults.iter().take(40) {
        eprintln!("FAULT {fault}");
    }
    assert_eq!(faults, 0);
    assert_eq!(fists.needless_hands, 0, "one side's death must be healed by the other");
    assert!(verdict.runs >= count, "the programs ran");
}

/// Says which processes have another goal than the one that was last asked for and accepted; one
/// that was never commanded is up, as configured.
fn ignored_goals(lab: &Lab, goals: &BTreeMap<String, Option<&str>>) -> Vec<String> {
    let status = wait_for("status", || lab.try_status());
    let ignored = |process: &ProcessView| {
        let wanted = goals.get(&process.name).copied().unwrap_or(Some("up"))?;
        let text = format!("{}: asked to be {wanted}; {process:?}", process.name);
        (process.goal != wanted).then_some(text)
    };
    status.programs.iter().filter_map(ignored).collect()
}

/// Stops everything and returns how each process ended.
fn stop_all(lab: &Lab) -> Vec<ProcessView> {
    wait_for("accepted stop", || lab.act("stop", "all", None).then_some(()).ok_or(String::new()));
    wait_for("stop of all programs", || {
        let status = lab.try_status()?;
        let is_over = |state: &str| matches!(state, "STOPPED" | "EXITED" | "FATAL");
        match status.programs.iter().find(|p| !is_over(&p.state)) {
            None => Ok(status.programs),
            Some(process) => Err(format!("{process:#?}")),
        }
    })
}

#[test]
fn a_life_of_kills_loses_and_doubles_nothing() {
    let is_full = env::var("MEND_TEST_FULL").is_ok_and(|value| value == "1");
    let (programs, kills) = if is_full { (200, 1000) } else { (40, 60) };
    live(Kind::All, Under::Self_, programs, kills);
}

#[test]
fn a_flood_over_many_deaths_of_the_brain_is_whole() {
    live(Kind::Flood, Under::Self_, 8, 60);
}

#[test]
fn as_an_ordinary_user_a_life_of_kills_loses_and_doubles_nothing() {
    if !proc::is_root() {
        return proc::skip("only root can become another user");
    }
    live(Kind::All, Under::Nobody, 20, 30);
}

#[test]
fn as_pid_1_a_life_of_kills_of_the_brain_loses_and_doubles_nothing() {
    if !proc::is_root() {
        return proc::skip("only root can make a PID namespace without more");
    }
    live(Kind::All, Under::Init, 20, 30);
}
