//! Mend's own death, in parts and as a whole: children, statuses and decisions survive it.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Daemon, wait_for};
use crate::proc;

/// Ten programs that hold a lock each, so that a second copy would be noticed.
fn lock_holders() -> String {
    let table = |n| {
        format!(
            "[program.p{n}]\ncommand = ['{{child}}', 'only', '{{dir}}/lock{n}']\nstart_period = 0\n"
        )
    };
    (0..10).map(table).collect()
}

fn pids(daemon: &Daemon) -> BTreeMap<String, u32> {
    let running = daemon.wait_until("all to run", |status| {
        status.programs.iter().all(|p| p.state == "RUNNING" && p.pid.is_some())
    });
    running.programs.into_iter().map(|p| (p.name, p.pid.unwrap_or(0))).collect()
}

#[track_caller]
fn assert_no_duplicates(daemon: &Daemon) {
    let files = fs::read_dir(daemon.dir()).expect("the test's directory").flatten();
    let duplicates: Vec<_> =
        files.filter(|entry| entry.file_name().to_string_lossy().ends_with(".duplicate")).collect();
    assert!(duplicates.is_empty(), "run twice: {duplicates:?}");
}

#[test]
fn children_keep_their_pids_over_ten_kills_of_the_brain() {
    let daemon = Daemon::start(&lock_holders());
    let before = pids(&daemon);
    let keeper = daemon.keeper_pid();
    for _ in 0..10 {
        daemon.kill_brain();
    }
    assert_eq!(pids(&daemon), before);
    assert_eq!(daemon.keeper_pid(), keeper);
    assert_no_duplicates(&daemon);
}

#[test]
fn the_brain_serves_again_at_once() {
    let daemon = Daemon::start(&lock_holders());
    pids(&daemon);
    let old = daemon.brain_pid();
    let begun = Instant::now();
    daemon.kill_brain();
    // The budget is 100 ms on an idle machine; here other tests run on the same cores.
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
    assert_ne!(daemon.brain_pid(), old);
}

#[test]
fn a_stopped_program_stays_stopped_over_the_death_of_the_brain() {
    let daemon = Daemon::start(&lock_holders());
    pids(&daemon);
    daemon.ctl_ok(&["stop", "p3"]);
    let before = daemon.process("p3");
    daemon.kill_brain();
    let after = daemon.process("p3");
    assert_eq!((after.state.as_str(), after.goal.as_str()), ("STOPPED", "down"));
    assert_eq!(after.goal_by, before.goal_by);
}

#[test]
fn an_exit_while_no_brain_lives_is_known_and_acted_on() {
    let daemon = Daemon::start(
        "[program.dies]\ncommand = ['sleep', '1000']\nrestart = 'never'\nstart_period = 0\n\
         [program.again]\ncommand = ['sleep', '1000']\nstart_period = 0\n",
    );
    let (dies, again) = (daemon.pid("dies"), daemon.pid("again"));
    let brain = daemon.brain_pid();
    proc::send(brain, Signal::SIGSTOP);
    proc::send(dies, Signal::SIGUSR1);
    proc::send(again, Signal::SIGKILL);
    proc::send(brain, Signal::SIGKILL);
    let exited = daemon.wait_state("dies", "EXITED");
    let exit = exited.exit.expect("the status is known");
    assert_eq!((exit.kind.as_str(), exit.signal), ("signal", Some(Signal::SIGUSR1 as i32)));
    daemon.new_pid("again", again);
}

#[test]
fn a_stop_in_progress_is_finished_by_the_next_brain() {
    let daemon =
        Daemon::start("[program.deaf]\ncommand = ['{child}', 'deaf']\nstop = { grace = '1s' }\n");
    daemon.wait_log("deaf", "deaf");
    let pid = daemon.pid("deaf");
    daemon.ctl(&["stop", "--no-wait", "deaf"]);
    daemon.wait_state("deaf", "STOPPING");
    daemon.kill_brain();
    daemon.wait_state("deaf", "STOPPED");
    assert!(!proc::is_alive(pid));
}

#[test]
fn a_backoff_in_progress_is_continued_by_the_next_brain() {
    let daemon = Daemon::start(
        "[program.crash]\ncommand = ['{child}', 'exit', '1']\n\
         backoff = { initial = '10m', max = '20m', jitter = 0.0 }\n",
    );
    let failed = |p: &mendd::api::view::ProcessView| p.state == "BACKOFF" && p.retry_at.is_some();
    let before = daemon.wait_process("crash", "to back off", |p| {
        failed(p) && p.retry_in_seconds.is_some_and(|seconds| seconds > 300.0)
    });
    daemon.kill_brain();
    let after = daemon.wait_process("crash", "to back off", failed);
    assert_eq!(after.failures, before.failures);
    assert_eq!(after.restarts, before.restarts);
    let (before, after) = (before.retry_in_seconds, after.retry_in_seconds);
    assert!(after <= before && after > before.map(|s| s - 60.0), "{before:?} {after:?}");
}

#[test]
fn the_keeper_is_replaced_and_the_children_do_not_notice() {
    let daemon = Daemon::start(&lock_holders());
    let before = pids(&daemon);
    daemon.kill_keeper();
    assert_eq!(pids(&daemon), before);
    // Still supervised: by whoever stands now.
    proc::send(before["p1"], Signal::SIGKILL);
    daemon.new_pid("p1", before["p1"]);
    daemon.kill_brain();
    daemon.pid("p2");
    assert_no_duplicates(&daemon);
}

#[test]
fn when_all_of_mend_was_killed_the_next_start_adopts_what_lives() {
    let mut daemon = Daemon::start(&lock_holders());
    let before = pids(&daemon);
    daemon.ctl_ok(&["stop", "p9"]);
    daemon.kill_both();
    proc::send(before["p0"], Signal::SIGKILL);
    wait_for("p0 to be dead", || {
        if proc::is_alive(before["p0"]) { Err("alive".to_owned()) } else { Ok(()) }
    });
    daemon.start_again();
    daemon.new_pid("p0", before["p0"]);
    for n in 1..9 {
        let name = format!("p{n}");
        assert_eq!(daemon.pid(&name), before[&name], "{name}");
    }
    assert_eq!(daemon.process("p9").state, "STOPPED");
    assert_no_duplicates(&daemon);
    // What was adopted is stopped like any other.
    daemon.ctl_ok(&["stop", "all"]);
    assert!(before.values().all(|pid| !proc::is_alive(*pid)));
}

#[test]
fn output_goes_on_after_all_of_mend_was_killed() {
    let mut daemon =
        Daemon::start("[program.n]\ncommand = ['{child}', 'numbers', '2000', '64000', 'sleep']\n");
    daemon.wait_log("n", "000000000100 ");
    daemon.kill_both();
    daemon.start_again();
    let log = daemon.wait_log("n", "000000002000 ");
    let numbers: Vec<usize> = log.lines().map(|l| l[..12].parse().expect("a number")).collect();
    assert_eq!(numbers, (1..=2000).collect::<Vec<_>>());
}

#[test]
fn keeper_and_brain_do_not_share_a_command_name() {
    let daemon = Daemon::start("");
    let comm = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let (keeper, brain) = (comm(daemon.keeper_pid()), comm(daemon.brain_pid()));
    assert_ne!(keeper, brain, "`pkill -9` of one name must not hit both");
    assert!(!keeper.is_empty() && !brain.is_empty());
}
