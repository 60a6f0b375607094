//! The history of a real daemon: it outlives brains, upgrades and reboots, and nothing that is
//! wrong with its file stops supervision.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use mendd::api::view::{AuditEntryView, AuditView, EventView};
use nix::sys::signal::Signal;

use crate::harness::{Daemon, Mount, Setup, wait_for};
use crate::proc;

const PROGRAMS: &str = "\
    [defaults.program]\nstart_period = 0\n\
    [program.up]\ncommand = ['{child}', 'only', '{dir}/lock']\n\
    [program.web]\ncommand = ['sleep', '100000']\n";

fn file(daemon: &Daemon) -> PathBuf {
    daemon.file("state/mend.db")
}

#[track_caller]
fn audit(daemon: &Daemon, query: &str) -> AuditView {
    let answer = daemon.http("GET", &format!("/v1/audit{query}"), None);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// What was asked for, oldest first.
#[track_caller]
fn requests(daemon: &Daemon) -> Vec<String> {
    audit(daemon, "").requests.into_iter().rev().map(|entry| entry.request).collect()
}

/// A program that dies is started again, and a stop is obeyed.
#[track_caller]
fn assert_supervises(daemon: &Daemon) {
    let pid = daemon.pid("up");
    proc::send(pid, Signal::SIGKILL);
    daemon.new_pid("up", pid);
    let pid = daemon.pid("web");
    daemon.ctl_ok(&["restart", "web"]);
    daemon.new_pid("web", pid);
    assert!(!daemon.file("lock.duplicate").exists(), "`up` was there twice");
}

#[track_caller]
fn wait_warning(daemon: &Daemon, words: &[&str]) -> String {
    let has = |text: &&String| words.iter().all(|word| text.contains(word));
    let status = daemon.wait_until(&format!("a warning with {words:?}"), |status| {
        status.daemon.warnings.iter().any(|it| has(&it))
    });
    status.daemon.warnings.iter().find(has).expect("it was there").clone()
}

#[track_caller]
fn wait_no_warning(daemon: &Daemon, word: &str) {
    daemon.wait_until(&format!("no warning with `{word}`"), |status| {
        !status.daemon.warnings.iter().any(|it| it.contains(word))
    });
}

#[test]
fn who_asked_for_what_is_known_after_a_kill_an_upgrade_and_a_reboot() {
    let mut daemon = Daemon::start(PROGRAMS);
    daemon.pid("web");
    let mendctl = daemon.ctl_ok(&["stop", "web", "--reason", "moving the database"]);
    daemon.ctl(&["start", "nobody"]);
    let kept = audit(&daemon, "").requests;
    let [refused, stopped] = &kept[..] else { panic!("{kept:#?}") };
    assert_eq!((stopped.request.as_str(), stopped.outcome.as_str()), ("stop web", "1 done"));
    assert_eq!(stopped.reason.as_deref(), Some("moving the database"));
    assert_eq!(stopped.uid, Some(nix::unistd::getuid().as_raw()));
    assert_eq!(stopped.executable.as_deref(), Some(env!("CARGO_BIN_EXE_mendctl")));
    assert!(refused.outcome.starts_with("refused: "), "{refused:#?}");
    assert_eq!(mendctl.code, 0);

    daemon.kill_brain();
    assert_eq!(audit(&daemon, "").requests, kept);
    proc::send(daemon.main_pid(), Signal::SIGHUP);
    let last = wait_for("the entry about the signal", || {
        let last = audit(&daemon, "").requests.swap_remove(0);
        if last.uid.is_none() { Ok(last) } else { Err(format!("{last:?}")) }
    });
    assert_eq!((last.user.as_str(), last.pid), ("signal SIGHUP", None));
    assert_eq!(last.request, "reload the configuration");
    // The request itself is written by the brain that leaves.
    daemon.ctl_ok(&["upgrade"]);
    daemon.ctl_ok(&["start", "web"]);
    let expected = ["stop web", "start nobody", "reload the configuration", "upgrade", "start web"];
    assert_eq!(requests(&daemon), expected);
    daemon.ctl_ok(&["shutdown", "--yes"]);
    wait_for("the daemon to be gone", || {
        let left = daemon.family();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
    assert!(!daemon.file("state/mend.db-wal").exists(), "an orderly end leaves one file");
    fs::remove_dir_all(daemon.file("run")).expect("the runtime directory goes with a reboot");
    daemon.start_again();
    assert_eq!(requests(&daemon), [&expected[..], &["shutdown"]].concat());
    let mode = fs::metadata(file(&daemon)).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn mendctl_shows_who_asked_for_what() {
    let daemon = Daemon::start(PROGRAMS);
    daemon.pid("web");
    daemon.ctl_ok(&["stop", "web", "--reason", "rest"]);
    let shown = daemon.ctl_ok(&["audit"]);
    let line = shown.out.lines().nth(1).unwrap_or_default().to_owned();
    for word in ["mendctl", "stop web", "1 done; reason: rest"] {
        assert!(line.contains(word), "no `{word}`: {shown:#?}");
    }
    assert_eq!(shown.err, "");
    let json = daemon.ctl_ok(&["audit", "--json", "--since", "1h", "--limit", "1"]);
    let view: AuditView = serde_json::from_str(&json.out).expect("an AuditView");
    let AuditEntryView { request, user, .. } = &view.requests[0];
    assert_eq!(request, "stop web");
    let by_user = daemon.ctl_ok(&["audit", "--user", user]);
    assert!(by_user.out.contains("stop web"), "{by_user:#?}");
    let none = daemon.ctl_ok(&["audit", "--user", "no-such-user"]);
    assert_eq!(none.out, "nobody has asked for a change\n");
    assert_eq!(daemon.ctl_ok(&["incidents"]).out, "no incidents\n");
    assert_eq!(daemon.ctl(&["incidents", "show", "7"]).code, 4);
    assert_eq!(daemon.ctl(&["audit", "--since", "never"]).code, 2);
}

#[test]
fn a_corrupt_file_is_moved_aside_and_that_is_said() {
    let mut daemon = Daemon::start(PROGRAMS);
    daemon.pid("up");
    daemon.ctl_ok(&["stop", "web"]);
    assert_eq!(requests(&daemon), ["stop web"]);
    daemon.kill_both();
    let path = file(&daemon);
    let opened = fs::File::options().write(true).open(&path).expect("it is there");
    opened.write_all_at(&[0xa5; 8_192], 0).expect("it can be spoilt");
    daemon.start_again();
    let warning = wait_warning(&daemon, &["mend.db", "damaged", "mend.db.corrupt-"]);
    let log = daemon.daemon_log();
    assert!(log.contains(&warning), "not in the daemon's log: {warning}");
    let mut events = daemon.events(Some(0));
    let is_it = |event: &EventView| {
        event.kind == "daemon" && event.data["detail"].as_str() == Some(warning.as_str())
    };
    assert!(events.any(|event| is_it(&event)), "no event says it");
    daemon.ctl_ok(&["start", "web"]);
    assert_eq!(requests(&daemon), ["start web"]);
    let aside = fs::read_dir(daemon.file("state")).expect("the state directory").flatten();
    let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains(".corrupt-"));
    assert!(aside.count() >= 1, "nothing was moved aside");
    assert_supervises(&daemon);
}

#[test]
fn a_file_of_a_newer_version_is_left_alone_and_memory_remembers() {
    let mut daemon = Daemon::start(PROGRAMS);
    daemon.pid("up");
    daemon.ctl_ok(&["stop", "web"]);
    daemon.ctl_ok(&["shutdown", "--yes"]);
    wait_for("the daemon to be gone", || {
        let left = daemon.family();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
    let path = file(&daemon);
    // `user_version`, as a later mendd would raise it.
    let opened = fs::File::options().write(true).open(&path).expect("it is there");
    opened.write_all_at(&99_u32.to_be_bytes(), 60).expect("it can be changed");
    let before = fs::read(&path).expect("it is readable");
    daemon.start_again();
    wait_warning(&daemon, &["mend.db", "version 99", "kept in memory"]);
    daemon.ctl_ok(&["start", "web"]);
    let shown = audit(&daemon, "");
    assert_eq!(shown.requests[0].request, "start web");
    assert!(shown.trouble.expect("the file is not read").contains("version 99"));
    assert!(daemon.ctl_ok(&["audit"]).err.contains("this may not be all"));
    assert_supervises(&daemon);
    assert!(fs::read(&path).expect("it is readable") == before, "the file was changed");
    assert!(!daemon.file("state/mend.db-wal").exists());
}

#[test]
fn a_full_disk_stops_no_program_and_what_was_asked_is_written_when_there_is_room() {
    let setup = Setup::new(PROGRAMS);
    let Some(disk) = Mount::new(setup.dir().join("state"), "size=1m") else { return };
    let daemon = setup.start();
    daemon.pid("up");
    daemon.ctl_ok(&["stop", "web"]);
    assert_eq!(requests(&daemon), ["stop web"]);
    let filler = disk.fill();
    // The write-ahead log may have room for some more.
    let mut asked = vec!["stop web".to_owned()];
    wait_for("the disk to be full for the history, too", || {
        for verb in ["start", "stop"] {
            daemon.ctl_ok(&[verb, "web"]);
            asked.push(format!("{verb} web"));
        }
        let warnings = daemon.status().daemon.warnings;
        let said = warnings.iter().any(|it| it.contains("history") && it.contains("full"));
        said.then_some(()).ok_or_else(|| format!("{warnings:?}"))
    });
    daemon.ctl_ok(&["start", "web"]);
    asked.push("start web".to_owned());
    // Those that are written, and those that wait.
    assert_eq!(requests(&daemon), asked);
    assert_supervises(&daemon);
    asked.push("restart web".to_owned());
    fs::remove_file(filler).expect("the filler is ours");
    wait_no_warning(&daemon, "the history cannot be written");
    // Nothing waits any more: a kill costs nothing.
    daemon.kill_brain();
    assert_eq!(requests(&daemon), asked);
    drop(daemon);
    drop(disk);
}

#[test]
fn a_state_directory_that_is_removed_is_made_again() {
    let daemon = Daemon::start(PROGRAMS);
    daemon.pid("up");
    daemon.ctl_ok(&["stop", "web"]);
    assert_eq!(requests(&daemon), ["stop web"]);
    fs::remove_dir_all(daemon.file("state")).expect("it can be removed");
    daemon.ctl_ok(&["start", "web"]);
    assert_eq!(requests(&daemon), ["start web"]);
    wait_warning(&daemon, &["mend.db", "removed"]);
    assert_supervises(&daemon);
}
