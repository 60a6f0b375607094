//! Programs start, die, come back, back off and give up as the operator was told.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mendd::api::view::ProcessView;
use nix::sys::signal::Signal;

use crate::harness::{Daemon, Setup, find, wait_for};
use crate::proc;

#[test]
fn a_killed_program_runs_again_under_a_new_pid() {
    let daemon = Daemon::start("[program.web]\ncommand = ['sleep', '1000']\nstart_period = 0\n");
    let old = daemon.pid("web");
    proc::send(old, Signal::SIGKILL);
    let new = daemon.new_pid("web", old);
    assert!(proc::is_alive(new));
    let web = daemon.process("web");
    assert_eq!(web.restarts, 1, "{web:#?}");
    let exit = web.exit.expect("the last exit is told");
    assert_eq!((exit.kind.as_str(), exit.signal), ("signal", Some(9)), "{exit:?}");
    assert_eq!(exit.signal_name.as_deref(), Some("SIGKILL"));
}

#[test]
fn the_restart_policy_decides_who_comes_back() {
    let daemon = Daemon::start(
        "[defaults.program]\nstart_period = 0\nbackoff = { initial = '10ms' }\n\
         breaker = { failures = 1000 }\n\
         [program.never]\ncommand = ['{child}', 'exit', '3']\nrestart = 'never'\n\
         [program.ok]\ncommand = ['{child}', 'exit', '0']\nrestart = 'on-failure'\n\
         [program.bad]\ncommand = ['{child}', 'exit', '3']\nrestart = 'on-failure'\n\
         [program.fine]\ncommand = ['{child}', 'exit', '3']\nrestart = 'on-failure'\n\
         success_exit_codes = [0, 3]\n\
         [program.always]\ncommand = ['{child}', 'exit', '0']\nrestart = 'always'\n",
    );
    for (name, code) in [("never", 3), ("ok", 0), ("fine", 3)] {
        let process = daemon.wait_state(name, "EXITED");
        assert_eq!(process.exit.and_then(|exit| exit.code), Some(code), "{name}");
        assert_eq!(process.restarts, 0, "{name}");
    }
    for name in ["bad", "always"] {
        daemon.wait_process(name, "to be restarted twice", |process| process.restarts >= 2);
    }
}

#[test]
fn a_crash_loop_backs_off_then_opens_the_breaker_and_says_so() {
    let daemon = Daemon::start(
        "[program.crash]\ncommand = ['{child}', 'exit', '1']\n\
         backoff = { initial = '50ms', max = '100ms' }\n\
         breaker = { failures = 3, window = '1m', open = '5m' }\n",
    );
    let crash = daemon.wait_process("crash", "to open its breaker", |p| p.breaker == "open");
    assert_eq!(crash.state, "BACKOFF", "{crash:#?}");
    assert_eq!(crash.failures_limit, 3, "{crash:#?}");
    let retry = crash.retry_in_seconds.expect("the next try is told");
    assert!((200.0..=310.0).contains(&retry), "{crash:#?}");
    assert!(crash.reason.contains("breaker"), "{:?}", crash.reason);
    // The operator's start tries at once.
    let restarts = crash.restarts;
    let start = daemon.ctl(&["start", "crash"]);
    assert_ne!(start.code, 0, "{start:#?}");
    daemon.wait_process("crash", "to be tried again", |p| p.restarts > restarts);
}

#[test]
fn an_exit_code_listed_as_permanent_is_fatal_at_once() {
    let daemon = Daemon::start(
        "[program.p]\ncommand = ['{child}', 'exit', '78']\npermanent_exit_codes = [78]\n",
    );
    let process = daemon.wait_state("p", "FATAL");
    assert!(process.reason.contains("78"), "{process:#?}");
    assert_eq!(process.restarts, 0);
}

#[test]
fn a_program_that_cannot_be_executed_is_fatal_and_the_reason_names_the_cause() {
    let setup = Setup::new(
        "[program.absent]\ncommand = ['/no/such/command']\n\
         [program.interpreter]\ncommand = ['{dir}/script']\n\
         [program.mode]\ncommand = ['{dir}/plain']\n\
         [program.nowhere]\ncommand = ['sleep', '1000']\ndirectory = '/no/such/directory'\n\
         [program.good]\ncommand = ['sleep', '1000']\n",
    );
    let script = setup.dir().join("script");
    fs::write(&script, "#!/usr/bin/pytho\n").expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("executable");
    fs::write(setup.dir().join("plain"), "text").expect("a plain file");
    let daemon = setup.start();
    let expectations = [
        ("absent", ["/no/such/command", "ENOENT|no such file|does not exist|not found"]),
        ("interpreter", ["/usr/bin/pytho", "interpreter"]),
        ("mode", ["plain", "EACCES|permission|executable"]),
        ("nowhere", ["/no/such/directory", "ENOENT|no such file|does not exist|not found"]),
    ];
    for (name, words) in expectations {
        let process = daemon.wait_state(name, "FATAL");
        let reason = process.reason.to_lowercase();
        for word in words {
            let said = word.split('|').any(|word| reason.contains(&word.to_lowercase()));
            assert!(said, "`{name}` does not say {word:?}: {:?}", process.reason);
        }
        assert_eq!(process.pid, None, "{name}");
    }
    daemon.wait_state("good", "RUNNING");
}

#[test]
fn programs_start_after_what_they_require_and_stop_before_it() {
    let daemon = Daemon::start(
        "[defaults.program]\nstart_period = '200ms'\n\
         [program.web]\ncommand = ['{child}', 'mark', '{dir}/order', 'web']\nrequires = ['app']\n\
         [program.app]\ncommand = ['{child}', 'mark', '{dir}/order', 'app']\nrequires = ['db']\n\
         [program.db]\ncommand = ['{child}', 'mark', '{dir}/order', 'db']\n",
    );
    daemon.pid("web");
    let file = daemon.file("order");
    let order = || fs::read_to_string(&file).unwrap_or_default();
    let wait_order = |end: &str| {
        wait_for(&format!("{end:?}"), || {
            let now = order();
            if now.ends_with(end) { Ok(()) } else { Err(now) }
        });
    };
    wait_order("start db\nstart app\nstart web\n");
    daemon.ctl_ok(&["stop", "db"]);
    for name in ["web", "app", "db"] {
        assert_eq!(daemon.process(name).state, "STOPPED", "{name}");
    }
    assert!(order().ends_with("stop web\nstop app\nstop db\n"), "{}", order());
    daemon.ctl_ok(&["start", "web"]);
    wait_order("start db\nstart app\nstart web\n");
    let before = order();
    proc::send(daemon.main_pid(), Signal::SIGTERM);
    wait_for("the shutdown in order", || {
        let new = order()[before.len()..].to_owned();
        if new == "stop web\nstop app\nstop db\n" { Ok(()) } else { Err(new) }
    });
}

#[test]
fn a_program_whose_requirement_is_down_waits_and_says_for_what() {
    let daemon = Daemon::start(
        "[program.web]\ncommand = ['sleep', '1000']\nrequires = ['db']\n\
         [program.db]\ncommand = ['{dir}/later']\n",
    );
    daemon.wait_state("db", "FATAL");
    let waits = |p: &ProcessView| p.state == "STOPPED" && p.waiting_for == ["db"];
    let web = daemon.wait_process("web", "to wait for db", waits);
    assert!(web.reason.contains("db"), "{web:#?}");
    assert_eq!(web.goal, "up");
    let script = daemon.file("later");
    fs::write(&script, "#!/bin/sh\nexec sleep 1000\n").expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("executable");
    daemon.ctl_ok(&["start", "db"]);
    daemon.pid("web");
}

#[test]
fn unrelated_programs_are_spawned_by_priority() {
    let daemon = Daemon::start(
        "[program.a]\ncommand = ['sleep', '1000']\npriority = 30\n\
         [program.b]\ncommand = ['sleep', '1000']\npriority = 10\n\
         [program.c]\ncommand = ['sleep', '1000']\npriority = 20\n",
    );
    let status = daemon.wait_until("all to run", |s| s.programs.iter().all(|p| p.pid.is_some()));
    let names: Vec<&str> = status.programs.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["b", "c", "a"], "status is in start order");
    let run = |name| find(&status, name).expect("it exists").run;
    assert!(run("b") < run("c") && run("c") < run("a"), "{status:#?}");
}

#[test]
fn replicas_are_processes_of_their_own() {
    let daemon = Daemon::start(
        "[program.web]\ncommand = ['sleep', '1000']\nreplicas = 3\nstart_period = 0\n",
    );
    let pids = ["web:0", "web:1", "web:2"].map(|name| daemon.pid(name));
    assert!(pids[0] != pids[1] && pids[1] != pids[2] && pids[0] != pids[2]);
    daemon.ctl_ok(&["stop", "web:1"]);
    assert_eq!(daemon.process("web:1").state, "STOPPED");
    assert_eq!([daemon.pid("web:0"), daemon.pid("web:2")], [pids[0], pids[2]]);
    daemon.ctl_ok(&["stop", "web:*"]);
    assert!(daemon.status().programs.iter().all(|p| p.state == "STOPPED"));
    daemon.ctl_ok(&["start", "web"]);
    assert!(daemon.status().programs.iter().all(|p| p.state == "RUNNING"));
}

#[test]
fn a_group_is_started_and_stopped_as_one() {
    let daemon = Daemon::start(
        "[defaults.program]\nstart_period = 0\n\
         [program.a]\ncommand = ['sleep', '1000']\n\
         [program.b]\ncommand = ['sleep', '1000']\n\
         [program.c]\ncommand = ['sleep', '1000']\n\
         [group.site]\nprograms = ['a', 'b']\n",
    );
    let other = daemon.pid("c");
    assert_eq!(
        (daemon.process("a").group.as_str(), daemon.process("c").group.as_str()),
        ("site", "c")
    );
    daemon.ctl_ok(&["stop", "@site"]);
    let states = ["a", "b", "c"].map(|name| daemon.process(name).state);
    assert_eq!(states, ["STOPPED", "STOPPED", "RUNNING"]);
    daemon.ctl_ok(&["start", "@site"]);
    daemon.pid("a");
    daemon.pid("b");
    assert_eq!(daemon.pid("c"), other);
}

#[test]
fn restart_replaces_only_what_it_names_and_starts_what_was_stopped() {
    let daemon = Daemon::start(
        "[defaults.program]\nstart_period = 0\n\
         [program.a]\ncommand = ['sleep', '1000']\n\
         [program.b]\ncommand = ['sleep', '1000']\n",
    );
    let (a, b) = (daemon.pid("a"), daemon.pid("b"));
    daemon.ctl_ok(&["restart", "a"]);
    assert_ne!(daemon.pid("a"), a);
    assert_eq!(daemon.pid("b"), b);
    daemon.ctl_ok(&["stop", "a"]);
    let restarted = daemon.ctl_ok(&["restart", "a"]);
    assert!(restarted.out.contains("was stopped"), "{restarted:#?}");
    daemon.pid("a");
}

#[test]
fn a_program_without_autostart_waits_for_the_operator() {
    let daemon = Daemon::start(
        "[program.a]\ncommand = ['sleep', '1000']\nautostart = false\n\
         [program.b]\ncommand = ['sleep', '1000']\n",
    );
    daemon.pid("b");
    assert_eq!(daemon.process("a").state, "STOPPED");
    daemon.ctl_ok(&["start", "a"]);
    daemon.pid("a");
}

#[test]
fn an_orderly_end_of_the_daemon_ends_the_counts_but_not_the_goals() {
    let mut daemon = Daemon::start(
        "[program.a]\ncommand = ['sleep', '1000']\nstart_period = 0\n\
         [program.b]\ncommand = ['sleep', '1000']\nstart_period = 0\n",
    );
    let pid = daemon.pid("a");
    daemon.ctl_ok(&["signal", "KILL", "a"]);
    daemon.new_pid("a", pid);
    daemon.ctl_ok(&["stop", "b", "--reason", "not today"]);
    daemon.ctl_ok(&["shutdown", "--yes"]);
    daemon.start_again();
    daemon.pid("a");
    assert_eq!(daemon.process("a").restarts, 0);
    let b = daemon.process("b");
    assert_eq!((b.state.as_str(), b.goal_reason.as_deref()), ("STOPPED", Some("not today")));
}
