//! Applies in whose middle parts of Mend are killed: what runs is all old or all new.
//!
//! `MEND_TEST_FULL=1` kills at 50 points instead of 12, `MEND_TEST_SEED` plays other ones.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::apply::generations;
use crate::harness::{Daemon, is_full, wait_for};
use crate::proc;

/// Programs of which each carries the version in its environment.
fn programs(version: u32, is_good: bool) -> String {
    let one = |name: &str, more: &str| {
        format!(
            "[program.{name}]\ncommand = ['sleep', '1000']\nstart_period = '50ms'\n\
             environment = {{ V = '{version}' }}\n{more}\n"
        )
    };
    let last = match is_good {
        true => one("last", ""),
        false => format!(
            "[program.last]\ncommand = 'exit 3'\nshell = true\nstart_period = 5\n\
             environment = {{ V = '{version}' }}\n"
        ),
    };
    let own = one(&format!("only-{}", version % 2), "");
    [one("db", ""), one("api", "requires = ['db']"), one("web", "replicas = 3"), own, last].concat()
}

/// The versions of all that runs, as the processes themselves have them.
fn versions(daemon: &Daemon) -> Result<BTreeSet<String>, String> {
    let status = daemon.try_status()?;
    let mut found = BTreeSet::new();
    for process in &status.programs {
        let pid = process.pid.filter(|_| process.state == "RUNNING");
        let pid =
            pid.ok_or(format!("{} is {}: {}", process.name, process.state, process.reason))?;
        let text = fs::read(format!("/proc/{pid}/environ")).map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&text);
        let version = text.split('\0').find_map(|entry| entry.strip_prefix("V="));
        found.insert(version.ok_or(format!("{} has no version", process.name))?.to_owned());
    }
    let own = status.programs.iter().filter(|it| it.name.starts_with("only-")).count();
    match (status.programs.len(), own) {
        (7, 1) => Ok(found),
        other => Err(format!("{other:?} processes")),
    }
}

/// Waits until no apply is under way and all runs, and returns the one version of everything.
#[track_caller]
fn settled(daemon: &Daemon, what: &str) -> u32 {
    let found = wait_for(what, || {
        let answer = daemon.try_status()?;
        let list = generations(daemon);
        if let Some(number) = list.applying {
            return Err(format!("generation {number} is under way: {answer:?}"));
        }
        versions(daemon)
    });
    assert_eq!(found.len(), 1, "{what}: between two configurations: {found:?}");
    found.iter().next().and_then(|text| text.parse().ok()).expect("a version is a number")
}

#[test]
fn a_kill_at_any_point_of_an_apply_ends_in_the_old_or_the_new() {
    let seed = std::env::var("MEND_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut daemon = Daemon::start(&programs(0, true));
    let mut version = settled(&daemon, "the first configuration");
    let (mut applied, mut given_up) = (0, 0);
    for point in 0..if is_full() { 50 } else { 12 } {
        let is_good = rng.u8(..3) > 0;
        let next = version + 1 + u32::from(rng.bool());
        let pause = Duration::from_millis(rng.u64(..700));
        let both = rng.u8(..3) == 0;
        let what = format!(
            "seed {seed}, point {point}: {version} to {next} (good: {is_good}), killed after \
             {pause:?} (both: {both})"
        );
        daemon.write_programs(&programs(next, is_good));
        let answer = daemon.http("POST", "/v1/apply", Some("{\"timeout\":\"60s\"}"));
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        thread::sleep(pause);
        if both {
            daemon.kill_both();
            daemon.start_again_as_it_is();
        } else {
            daemon.kill_brain();
        }
        let now = settled(&daemon, &what);
        let list = generations(&daemon);
        let last = list.generations.last().expect("it was recorded");
        match (now == next, last.outcome.as_str()) {
            (true, "applied") if is_good => applied += 1,
            (false, "rolled-back") if now == version && !is_good => given_up += 1,
            other => panic!("{what}: {now} runs, {other:?}: {list:#?}"),
        }
        version = now;
    }
    eprintln!("seed {seed}: {applied} applied, {given_up} rolled back");
}

#[test]
fn the_next_brain_waits_for_what_the_last_one_began() {
    let slow = |nice: &str| {
        format!("[program.a]\ncommand = ['sleep', '1000']\nstart_period = 3\n{nice}\n")
    };
    let daemon = Daemon::start(&slow(""));
    let old = daemon.pid("a");
    daemon.write_programs(&slow("nice = 1"));
    let mut ctl = daemon.ctl_command(&["apply", "--yes"]);
    let ctl = thread::spawn(move || crate::harness::run(&mut ctl));
    let new = daemon.wait_process("a", "to be starting anew", |process| {
        process.state == "STARTING" && process.pid.is_some_and(|pid| pid != old)
    });
    daemon.kill_brain();
    let ran = ctl.join().expect("mendctl was run");
    assert_eq!(ran.code, 0, "{ran:#?}");
    assert!(ran.err.contains("another brain goes on"), "{ran:#?}");
    assert_eq!(daemon.process("a").pid, new.pid, "it was started twice");
    assert_eq!(generations(&daemon).current, Some(2));
}

#[test]
fn a_reload_whose_brain_dies_is_wholly_done_by_the_next() {
    let daemon = Daemon::start(&programs(0, true));
    settled(&daemon, "the first configuration");
    for version in 1..6 {
        daemon.write_programs(&programs(version, true));
        let old = daemon.brain_pid();
        let socket = daemon.socket();
        let patience = Duration::from_secs(20);
        let asked = thread::spawn(move || {
            // The brain may die before it answers.
            let _ = crate::http::request(&socket, "POST", "/v1/reload", None, patience);
        });
        thread::sleep(Duration::from_millis(u64::from(version) * 4));
        proc::send(old, Signal::SIGKILL);
        asked.join().expect("it was asked");
        daemon.wait_until("another brain", |status| status.daemon.pid != old);
        let now = settled(&daemon, &format!("version {version}"));
        if now != version {
            daemon.ctl_ok(&["reload"]);
            assert_eq!(settled(&daemon, "a second try"), version);
        }
    }
}

#[test]
fn a_shutdown_in_the_middle_leaves_the_configuration_before() {
    let slow = |nice: &str| {
        format!("[program.a]\ncommand = ['sleep', '1000']\nstart_period = '100ms'\n{nice}\n")
    };
    let mut daemon = Daemon::start(&slow(""));
    daemon.pid("a");
    daemon.write_programs(&slow("nice = 1").replace("100ms", "1000s"));
    assert_eq!(daemon.http("POST", "/v1/apply", None).status, 200);
    daemon.ctl_ok(&["shutdown", "--yes"]);
    daemon.start_again_as_it_is();
    daemon.pid("a");
    let list = generations(&daemon);
    assert_eq!((list.current, list.generations[1].outcome.as_str()), (Some(1), "interrupted"));
}

#[test]
fn an_upgrade_in_the_middle_goes_on_with_the_apply() {
    let slow = |nice: &str| {
        format!("[program.a]\ncommand = ['sleep', '1000']\nstart_period = 4\n{nice}\n")
    };
    let daemon = Daemon::start(&slow(""));
    let old = daemon.pid("a");
    daemon.write_programs(&slow("nice = 1"));
    assert_eq!(daemon.http("POST", "/v1/apply", None).status, 200);
    let new = daemon
        .wait_process("a", "to be replaced", |process| process.pid.is_some_and(|pid| pid != old));
    daemon.ctl_ok(&["upgrade"]);
    wait_for("the apply to end", || {
        let list = generations(&daemon);
        let is_over = list.applying.is_none() && list.current == Some(2);
        is_over.then_some(()).ok_or(format!("{list:?}"))
    });
    assert_eq!(daemon.process("a").pid, new.pid, "it was started twice");
}
