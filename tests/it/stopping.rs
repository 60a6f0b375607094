//! A stop ends everything of a program, however it resists, and never too early.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Daemon, wait_for};
use crate::proc;

#[test]
fn a_stop_also_ends_a_grandchild_in_its_own_session_that_ignores_sigterm() {
    let daemon = Daemon::start(
        "[program.f]\ncommand = ['{child}', 'grandchild', '{dir}/pid']\nstop = { grace = '300ms' }\n",
    );
    daemon.wait_log("f", "forked");
    let pid = fs::read_to_string(daemon.file("pid")).expect("the grandchild's pid");
    let grandchild: u32 = pid.trim().parse().expect("one pid");
    assert!(proc::is_alive(grandchild));
    let main = daemon.pid("f");
    daemon.ctl_ok(&["stop", "f"]);
    assert!(!proc::is_alive(grandchild), "STOPPED means that nothing of the program is alive");
    assert!(!proc::is_alive(main));
}

#[test]
fn a_crash_takes_the_left_over_tree_with_it_before_the_next_run() {
    let daemon = Daemon::start(
        "[program.f]\ncommand = ['{child}', 'grandchild', '{dir}/pid']\nstart_period = 0\n",
    );
    daemon.wait_log("f", "forked");
    let pids = fs::read_to_string(daemon.file("pid")).expect("the grandchild's pid");
    let first: u32 = pids.trim().parse().expect("one pid");
    let main = daemon.pid("f");
    proc::send(main, Signal::SIGKILL);
    daemon.new_pid("f", main);
    assert!(!proc::is_alive(first), "the next run came before the old tree was gone");
}

#[test]
fn a_program_that_ignores_sigterm_is_killed_when_its_grace_is_over_and_not_before() {
    let daemon = Daemon::start(
        "[program.deaf]\ncommand = ['{child}', 'deaf']\nstop = { grace = '700ms' }\n",
    );
    daemon.wait_log("deaf", "deaf");
    let pid = daemon.pid("deaf");
    let begun = Instant::now();
    daemon.ctl_ok(&["stop", "deaf"]);
    assert!(begun.elapsed() >= Duration::from_millis(700), "killed after {:?}", begun.elapsed());
    assert!(!proc::is_alive(pid));
    let deaf = daemon.process("deaf");
    assert_eq!(deaf.state, "STOPPED");
    assert_eq!(deaf.exit.and_then(|exit| exit.signal), Some(9));
}

#[test]
fn a_suspended_program_takes_its_stop_signal() {
    let daemon =
        Daemon::start("[program.p]\ncommand = ['sleep', '100000']\nstop = { grace = '10m' }\n");
    let pid = daemon.pid("p");
    proc::send(pid, Signal::SIGSTOP);
    wait_for("it to be suspended", || match proc::state(pid) {
        Some('T') => Ok(()),
        other => Err(format!("{other:?}")),
    });
    daemon.ctl_ok(&["stop", "p"]);
    let exit = daemon.process("p").exit.expect("it has ended");
    assert_eq!(exit.text, "killed by SIGTERM");
}

#[test]
fn a_stop_sequence_sends_its_signals_in_turn() {
    let daemon = Daemon::start(
        "[program.s]\ncommand = ['{child}', 'signals']\n\
         stop = { sequence = [{ signal = 'HUP', grace = '100ms' }, \
         { signal = 'INT', grace = '100ms' }, { signal = 'TERM', grace = '100ms' }] }\n",
    );
    daemon.wait_log("s", "listening");
    daemon.ctl_ok(&["stop", "s"]);
    let log = daemon.wait_log("s", "got TERM");
    assert_eq!(log, "listening\ngot HUP\ngot INT\ngot TERM\n");
}

#[test]
fn a_stopped_program_stays_stopped_and_says_who_stopped_it() {
    let daemon = Daemon::start("[program.a]\ncommand = ['sleep', '1000']\n");
    let pid = daemon.pid("a");
    daemon.ctl_ok(&["stop", "a"]);
    let a = daemon.process("a");
    assert_eq!((a.state.as_str(), a.goal.as_str(), a.pid), ("STOPPED", "down", None));
    assert!(a.goal_by.is_some(), "{a:#?}");
    assert!(!proc::is_alive(pid));
    let again = daemon.ctl_ok(&["stop", "a"]);
    assert!(!again.out.is_empty(), "a stop of something stopped says so");
}

#[test]
fn sigterm_to_the_daemon_stops_everything_and_it_exits_with_0() {
    let daemon = Daemon::start(
        "[program.a]\ncommand = ['{child}', 'mark', '{dir}/order', 'a']\n\
         [program.deaf]\ncommand = ['{child}', 'deaf']\nstop = { grace = '200ms' }\n",
    );
    daemon.pid("a");
    daemon.wait_log("deaf", "deaf");
    let order = daemon.file("order");
    wait_for("a to be marked", || fs::read_to_string(&order).map_err(|error| error.to_string()));
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn mendctl_shutdown_returns_when_nothing_runs_any_more() {
    let mut daemon = Daemon::start("[program.a]\ncommand = ['sleep', '1000']\nreplicas = 5\n");
    let pids: Vec<u32> = (0..5).map(|n| daemon.pid(&format!("a:{n}"))).collect();
    daemon.ctl_ok(&["shutdown", "--yes"]);
    assert!(pids.iter().all(|pid| !proc::is_alive(*pid)));
    assert_eq!(daemon.wait_exit(), 0);
    assert!(!daemon.socket().exists(), "the socket is removed");
}
