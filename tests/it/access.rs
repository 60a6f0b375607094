//! Who may do what, decided by the kernel's word on who is asking.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Daemon, Ran, Setup, run};
use crate::proc;

const NOBODY: &str = "65534";

/// Runs `mendctl` as another user; the copy is where that user can execute it.
fn ctl_as_nobody(daemon: &Daemon, args: &[&str]) -> Ran {
    let copy = daemon.file("mendctl");
    if !copy.exists() {
        fs::copy(env!("CARGO_BIN_EXE_mendctl"), &copy).expect("a copy of mendctl");
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("executable");
        fs::set_permissions(daemon.dir(), fs::Permissions::from_mode(0o755)).expect("open");
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    command.arg(copy).arg("--socket").arg(daemon.socket()).args(args);
    run(command.env("NO_COLOR", "1"))
}

#[test]
fn the_socket_and_its_directory_are_the_owners_alone() {
    let daemon = Daemon::start("");
    let socket = fs::metadata(daemon.socket()).expect("a socket");
    assert!(socket.file_type().is_socket());
    assert_eq!(socket.mode() & 0o777, 0o600);
    let directory = fs::metadata(daemon.file("run")).expect("a directory");
    assert_eq!(directory.mode() & 0o007, 0, "{:o}", directory.mode());
}

#[test]
fn another_user_is_kept_out_by_default_and_told_why() {
    if !proc::is_root() {
        return proc::skip("only root can become another user");
    }
    let daemon = Daemon::start("[program.a]\ncommand = ['sleep', '1000']\n");
    let ran = ctl_as_nobody(&daemon, &["status"]);
    assert_eq!(ran.code, 4, "{ran:#?}");
    assert!(ran.err.contains("may not open") && ran.err.contains("mend.sock"), "{ran:#?}");
    assert!(ran.err.contains("supervisor.access"), "the way out is told: {ran:#?}");
    assert_eq!(ran.out, "");
}

#[test]
fn an_observer_sees_and_may_not_act() {
    if !proc::is_root() {
        return proc::skip("only root can become another user");
    }
    let daemon = Setup::new("[program.a]\ncommand = ['sleep', '1000']\n")
        .supervisor("access = { observe = { users = ['nobody'] } }")
        .start();
    let pid = daemon.pid("a");
    let seen = ctl_as_nobody(&daemon, &["status"]);
    assert_eq!(seen.code, 0, "{seen:#?}");
    assert!(seen.out.contains(&pid.to_string()), "{seen:#?}");
    for args in [&["stop", "a"][..], &["signal", "KILL", "a"], &["reload"], &["shutdown", "--yes"]]
    {
        let ran = ctl_as_nobody(&daemon, args);
        assert_eq!(ran.code, 4, "{args:?}: {ran:#?}");
        let role = if args[0] == "stop" || args[0] == "signal" { "operate" } else { "admin" };
        assert!(ran.err.contains(role), "the role that is needed is named: {ran:#?}");
    }
    assert_eq!(daemon.pid("a"), pid);
}

#[test]
fn an_operator_acts_and_may_not_administer() {
    if !proc::is_root() {
        return proc::skip("only root can become another user");
    }
    let daemon = Setup::new("[program.a]\ncommand = ['sleep', '1000']\n")
        .supervisor("access = { operate = { users = ['nobody'] } }")
        .start();
    daemon.pid("a");
    let stopped = ctl_as_nobody(&daemon, &["stop", "a"]);
    assert_eq!(stopped.code, 0, "{stopped:#?}");
    assert_eq!(daemon.process("a").goal_by.as_deref(), Some("nobody"));
    assert_eq!(ctl_as_nobody(&daemon, &["shutdown", "--yes"]).code, 4);
}

#[test]
fn logs_and_state_are_not_for_other_users() {
    let daemon = Daemon::start("[program.a]\ncommand = ['{child}', 'streams']\n");
    daemon.wait_log("a", "to stdout");
    let paths: [PathBuf; 3] =
        [daemon.log_path("a", "stdout"), daemon.file("logs/a"), daemon.file("state")];
    for path in paths {
        let mode = fs::metadata(&path).expect("it exists").mode();
        assert_eq!(mode & 0o007, 0, "{} has mode {mode:o}", path.display());
    }
}
