//! A reload touches only what changed; a bad one touches nothing.

use nix::sys::signal::Signal;

use crate::harness::Daemon;
use crate::proc;

fn program(name: &str, more: &str) -> String {
    format!("[program.{name}]\ncommand = ['sleep', '1000']\nstart_period = 0\n{more}\n")
}

#[test]
fn a_reload_adds_removes_and_restarts_and_leaves_the_rest_alone() {
    let text = [program("same", ""), program("gone", ""), program("moved", "nice = 1")].concat();
    let daemon = Daemon::start(&text);
    let (same, gone, moved) = (daemon.pid("same"), daemon.pid("gone"), daemon.pid("moved"));
    let text = [program("same", ""), program("new", ""), program("moved", "nice = 2")].concat();
    daemon.write_programs(&text);
    let ran = daemon.ctl_ok(&["reload"]);
    assert!(ran.out.contains("new") && ran.out.contains("gone"), "{ran:#?}");
    daemon.pid("new");
    daemon.new_pid("moved", moved);
    daemon.wait_until("`gone` to be forgotten", |s| s.programs.iter().all(|p| p.name != "gone"));
    assert!(!proc::is_alive(gone));
    assert_eq!(daemon.pid("same"), same);
}

#[test]
fn limits_of_logs_restarts_and_stops_change_in_place() {
    let daemon = Daemon::start(&program("p", ""));
    let pid = daemon.pid("p");
    daemon.write_programs(&program(
        "p",
        "restart = 'never'\npriority = 3\nstop = { signal = 'INT', grace = '1s' }\n\
         backoff = { initial = '2s' }\nbreaker = { failures = 9 }\n\
         logs = { max_size = '1MiB', keep = 2 }",
    ));
    let ran = daemon.ctl_ok(&["reload", "--json"]);
    let view: mendd::api::view::ReloadView = serde_json::from_str(&ran.out).expect("a ReloadView");
    assert_eq!(view.updated, ["p"], "{view:?}");
    assert!(view.restarted.is_empty() && view.added.is_empty() && view.removed.is_empty());
    assert_eq!(daemon.pid("p"), pid);
    proc::send(pid, Signal::SIGKILL);
    daemon.wait_state("p", "EXITED"); // the new policy
}

#[test]
fn a_reload_without_a_change_changes_nothing() {
    let daemon = Daemon::start(&program("p", ""));
    let pid = daemon.pid("p");
    daemon.ctl_ok(&["reload"]);
    assert_eq!(daemon.pid("p"), pid);
}

#[test]
fn a_bad_configuration_is_refused_as_a_whole_with_every_mistake() {
    let daemon = Daemon::start(&program("p", ""));
    let pid = daemon.pid("p");
    daemon.write_programs("[program.new]\ncommand = ['sleep', '1']\nprioritty = 3\numask = 'x'\n");
    let ran = daemon.ctl(&["reload"]);
    assert_ne!(ran.code, 0);
    for word in ["prioritty", "priority", "umask", "mend.toml"] {
        assert!(ran.err.contains(word), "no {word:?} in {ran:#?}");
    }
    let status = daemon.status();
    let names: Vec<&str> = status.programs.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["p"]);
    assert_eq!(daemon.pid("p"), pid);
    // A brain that starts now must go on with what was active, not with the broken file.
    daemon.kill_brain();
    assert_eq!(daemon.pid("p"), pid);
}

#[test]
fn replicas_go_up_and_down_without_touching_those_that_stay() {
    let daemon = Daemon::start(&program("p", "replicas = 2"));
    let pids = [daemon.pid("p:0"), daemon.pid("p:1")];
    daemon.write_programs(&program("p", "replicas = 4"));
    daemon.ctl_ok(&["reload"]);
    daemon.pid("p:3");
    daemon.write_programs(&program("p", "replicas = 1"));
    daemon.ctl_ok(&["reload"]);
    daemon.wait_until("one process", |s| s.programs.len() == 1);
    assert_eq!(daemon.pid("p:0"), pids[0]);
    assert!(!proc::is_alive(pids[1]));
}

#[test]
fn sighup_to_the_daemon_reloads() {
    let daemon = Daemon::start(&program("p", ""));
    let pid = daemon.pid("p");
    daemon.write_programs(&[program("p", ""), program("q", "")].concat());
    proc::send(daemon.main_pid(), Signal::SIGHUP);
    daemon.pid("q");
    assert_eq!(daemon.pid("p"), pid);
}
