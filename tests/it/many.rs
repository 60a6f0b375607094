//! A thousand programs, and a hundred that are quiet.

use std::collections::BTreeSet;
use std::env;
use std::thread;
use std::time::Duration;

use crate::harness::{Daemon, Setup, is_full, wait_for};
use crate::proc;

/// How many programs; `MEND_TEST_MANY` for a small machine.
fn many() -> usize {
    env::var("MEND_TEST_MANY").ok().and_then(|text| text.parse().ok()).unwrap_or(1000)
}

#[test]
fn a_thousand_programs_start_show_survive_and_stop_with_nothing_left() {
    let count = many();
    let table = |n| format!("[program.s{n:04}]\ncommand = ['sleep', '100000']\n");
    let text: String = (0..count).map(table).collect();
    let daemon = Daemon::start(&text);
    let status = daemon.wait_until("all to run", |status| {
        status.programs.iter().all(|p| p.state == "RUNNING" && p.pid.is_some())
    });
    let pids: BTreeSet<u32> = status.programs.iter().filter_map(|p| p.pid).collect();
    assert_eq!(pids.len(), count);
    let shown = daemon.ctl_ok(&["status"]).out;
    assert!((0..count).all(|n| shown.contains(&format!("s{n:04}"))), "status shows every program");
    daemon.kill_brain();
    let status = daemon.status();
    assert!(status.programs.iter().all(|p| p.pid.is_some_and(|pid| pids.contains(&pid))));
    daemon.ctl_ok(&["stop", "all"]);
    assert!(daemon.status().programs.iter().all(|p| p.state == "STOPPED"));
    assert!(pids.iter().all(|pid| !proc::is_alive(*pid)), "stopped means gone");
    assert_eq!(daemon.family().len(), 2, "keeper and brain: {:#?}", daemon.family());
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_thousand_replicas_are_ended_by_one_sigterm_to_the_daemon() {
    let count = many();
    let daemon = Daemon::start(&format!(
        "[program.s]\ncommand = ['sleep', '100000']\nreplicas = {count}\nstart_period = 0\n"
    ));
    daemon.wait_until("all to run", |s| s.programs.iter().all(|p| p.state == "RUNNING"));
    assert_eq!(daemon.family().len(), count + 2);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_hundred_quiet_programs_wake_neither_keeper_nor_brain() {
    let programs = "[program.s]\ncommand = ['sleep', '100000']\nreplicas = 100\nstart_period = 0\n";
    // Looks at the host have a pace of their own.
    let daemon = Setup::new(programs).supervisor("default_checks = false").start();
    daemon.wait_until("all to run", |s| s.programs.iter().all(|p| p.state == "RUNNING"));
    let (keeper, brain) = (daemon.keeper_pid(), daemon.brain_pid());
    let count = || proc::voluntary_switches(keeper) + proc::voluntary_switches(brain);
    // What the start and our own questions stirred up may settle first: what is to be remembered
    // is written, and threads that waited for work end, five seconds later.
    let mut last = count();
    let mut quiet_seconds = 0;
    wait_for("the daemon to become quiet", || {
        thread::sleep(Duration::from_secs(1));
        let now = count();
        let woken = now.abs_diff(std::mem::replace(&mut last, now));
        quiet_seconds = if woken == 0 { quiet_seconds + 1 } else { 0 };
        if quiet_seconds > 6 { Ok(()) } else { Err(format!("{woken} wake-ups in a second")) }
    });
    let window = Duration::from_secs(if is_full() { 30 } else { 5 });
    let before = count();
    thread::sleep(window); // the measurement itself
    assert_eq!(count() - before, 0, "wake-ups in {window:?}");
}
