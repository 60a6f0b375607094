//! Upgrades in place: the programs notice nothing, and a bad executable changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mendd::api::view::EventView;
use nix::sys::signal::Signal;

use crate::harness::{Daemon, wait_for};
use crate::proc;

const MENDD: &str = env!("CARGO_BIN_EXE_mendd");

const PROGRAMS: &str = "\
    [program.only]\ncommand = ['{child}', 'only', '{dir}/lock']\nstart_period = 0\n\
    [program.numbers]\ncommand = ['{child}', 'numbers', '100000000', '64000', 'sleep']\n\
    start_period = 0\nlogs = { max_size = '10MiB' }\n";

/// Puts the real `mendd` under another path, as a package manager would.
fn another_mendd(daemon: &Daemon) -> PathBuf {
    let path = daemon.file("mendd-new");
    fs::copy(MENDD, &path).expect("a copy of mendd");
    path
}

/// An executable that answers the questions of the check like the real one, and in the role
/// `role` (`@brain`, `@keeper`) runs `then` instead.
fn impostor(daemon: &Daemon, role: &str, then: &str) -> PathBuf {
    let path = daemon.file("mendd-bad");
    let text = format!("#!/bin/sh\n[ \"$1\" != {role} ] || {{ {then}; }}\nexec {MENDD} \"$@\"\n");
    fs::write(&path, text).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("its mode");
    path
}

/// Every line of `numbers` is in the log once and in order.
#[track_caller]
fn assert_all_numbers(daemon: &Daemon, at_least: usize) {
    let text = wait_for("more output", || {
        let text = daemon.log_text("numbers");
        let lines = text.lines().count();
        if lines > at_least { Ok(text) } else { Err(format!("{lines} lines")) }
    });
    // The newest line may be under way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    for (index, line) in whole.lines().enumerate() {
        assert!(line.starts_with(&format!("{:012} ", index + 1)), "line {}: {line:?}", index + 1);
    }
}

#[track_caller]
fn pids(daemon: &Daemon) -> (u32, u32) {
    (daemon.pid("only"), daemon.pid("numbers"))
}

#[track_caller]
fn assert_nothing_noticed(daemon: &Daemon, before: (u32, u32)) {
    assert_eq!(pids(daemon), before);
    assert_eq!(daemon.process("only").restarts, 0);
    assert!(!daemon.file("lock.duplicate").exists(), "`only` was started twice");
    let lines = daemon.log_text("numbers").lines().count();
    assert_all_numbers(daemon, lines + 100);
}

fn executable(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/exe")).expect("our own process")
}

#[test]
fn an_upgrade_replaces_keeper_and_brain_under_load_and_no_program_notices() {
    let daemon = Daemon::start(PROGRAMS);
    let before = pids(&daemon);
    let (keeper, brain) = (daemon.keeper_pid(), daemon.brain_pid());
    let new = another_mendd(&daemon);
    for _ in 0..3 {
        let ran = daemon.ctl_ok(&["upgrade", "--binary", new.to_str().expect("UTF-8")]);
        let version = env!("CARGO_PKG_VERSION");
        assert!(ran.out.contains(&format!("upgraded from {version} to {version}")), "{ran:#?}");
        assert_eq!(daemon.keeper_pid(), keeper);
        assert_ne!(daemon.brain_pid(), brain);
        assert_eq!(executable(daemon.brain_pid()), new);
        assert_eq!(executable(keeper), new);
        assert_nothing_noticed(&daemon, before);
    }
    assert_eq!(daemon.status().daemon.warnings, Vec::<String>::new());
    // The new keeper is the parent that the old one was: it knows how a child ends.
    proc::send(before.0, Signal::SIGUSR1);
    daemon.new_pid("only", before.0);
    let exit = daemon.process("only").exit.expect("it has ended once");
    assert_eq!(exit.signal, Some(Signal::SIGUSR1 as i32));
    // And it starts brains of the new executable.
    daemon.kill_brain();
    assert_eq!(executable(daemon.brain_pid()), new);
}

#[test]
fn sigusr2_upgrades_to_the_file_on_disk() {
    let daemon = Daemon::start(PROGRAMS);
    let before = pids(&daemon);
    let (keeper, brain) = (daemon.keeper_pid(), daemon.brain_pid());
    proc::send(keeper, Signal::SIGUSR2);
    daemon.wait_until("another brain", |status| status.daemon.pid != brain);
    wait_for("the word about it", || {
        let log = daemon.daemon_log();
        if log.contains("upgraded to") { Ok(()) } else { Err(log) }
    });
    assert_eq!(daemon.keeper_pid(), keeper);
    assert_nothing_noticed(&daemon, before);
}

#[test]
fn clients_that_follow_go_on_over_an_upgrade() {
    let daemon = Daemon::start(PROGRAMS);
    let before = pids(&daemon);
    let followed = daemon.file("followed");
    let mut follower = daemon
        .ctl_command(&["logs", "--follow", "--lines", "0", "numbers"])
        .stdin(Stdio::null())
        .stdout(fs::File::create(&followed).expect("a file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("mendctl can be executed");
    let read = || fs::read_to_string(&followed).unwrap_or_default();
    let more_than = |count: usize| {
        wait_for("followed lines", || {
            let lines = read().lines().count();
            if lines > count { Ok(lines) } else { Err(format!("{lines} lines")) }
        })
    };
    more_than(100);
    let last = daemon.events(Some(0)).next().expect("there have been events").id;
    daemon.ctl_ok(&["upgrade"]);
    let after = read().lines().count();
    more_than(after + 200);
    let _ = follower.kill();
    let _ = follower.wait();
    let numbers: Vec<u64> = read()
        .lines()
        .filter_map(|line| line.split_whitespace().find_map(|word| word.parse().ok()))
        .collect();
    let gap = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert_eq!(gap, None, "lost or doubled in `logs --follow`");
    // A client of the event stream resumes where it was, across the brains.
    let events: Vec<EventView> =
        daemon.events(Some(last)).take_while_inclusive(|event| event.data["what"] == "upgraded");
    let ids: Vec<u64> = events.iter().map(|event| event.id).collect();
    assert!(ids.windows(2).all(|pair| pair[1] == pair[0] + 1), "{events:#?}");
    assert_nothing_noticed(&daemon, before);
}

/// Takes events up to and including the one that ends the wait.
trait TakeWhileInclusive {
    fn take_while_inclusive(self, is_last: impl Fn(&EventView) -> bool) -> Vec<EventView>;
}

impl<I: Iterator<Item = EventView>> TakeWhileInclusive for I {
    fn take_while_inclusive(self, is_last: impl Fn(&EventView) -> bool) -> Vec<EventView> {
        let mut taken = Vec::new();
        for event in self {
            let last = is_last(&event);
            taken.push(event);
            if last {
                break;
            }
        }
        taken
    }
}

#[test]
fn an_executable_that_fails_its_check_changes_nothing() {
    let daemon = Daemon::start(PROGRAMS);
    let before = pids(&daemon);
    let brain = daemon.brain_pid();
    for (binary, complaint) in [
        ("/bin/true", "is not a mendd"),
        ("/nonexistent/mendd", "cannot run"),
        ("/etc/passwd", "cannot run"),
    ] {
        let ran = daemon.ctl(&["upgrade", "--binary", binary]);
        assert_eq!(ran.code, 2, "{ran:#?}");
        assert!(ran.err.contains(complaint), "{ran:#?}");
    }
    // A configuration that the new version does not accept.
    fs::write(daemon.file("mend.toml"), "[program.only]\nnonsense = 1\n").expect("the file");
    let ran = daemon.ctl(&["upgrade"]);
    assert_eq!(ran.code, 78, "{ran:#?}");
    assert!(ran.err.contains("nonsense"), "{ran:#?}");
    assert_eq!(daemon.brain_pid(), brain);
    assert_nothing_noticed(&daemon, before);
}

/// Upgrades to a bad executable: the daemon goes back by itself and says why.
#[track_caller]
fn assert_rolled_back(role: &str, then: &str, why: &str) {
    let daemon = Daemon::start(PROGRAMS);
    let before = pids(&daemon);
    let keeper = daemon.keeper_pid();
    let bad = impostor(&daemon, role, then);
    let begun = Instant::now();
    let path = bad.to_str().expect("UTF-8");
    let ran = daemon.ctl(&["upgrade", "--binary", path, "--patience", "1s"]);
    assert_eq!(ran.code, 1, "{ran:#?}");
    assert!(ran.err.contains("rolled back") && ran.err.contains(why), "{ran:#?}");
    assert!(begun.elapsed() < Duration::from_secs(15), "it took {:?}", begun.elapsed());
    assert_eq!(daemon.keeper_pid(), keeper);
    assert_eq!(executable(daemon.brain_pid()), PathBuf::from(MENDD));
    assert_eq!(executable(keeper), PathBuf::from(MENDD));
    let warnings = daemon.status().daemon.warnings;
    assert!(warnings.iter().any(|warning| warning.contains(why)), "{warnings:?}");
    assert_nothing_noticed(&daemon, before);
    // A good one is welcome afterwards, and the warning goes.
    daemon.ctl_ok(&["upgrade"]);
    assert_eq!(daemon.status().daemon.warnings, Vec::<String>::new());
    assert_nothing_noticed(&daemon, before);
}

#[test]
fn a_new_brain_that_hangs_is_rolled_back() {
    assert_rolled_back("@brain", "exec sleep 1000", "did not serve in time");
}

#[test]
fn a_new_brain_that_exits_is_rolled_back() {
    assert_rolled_back("@brain", "exit 3", "exited with code 3");
}

#[test]
fn a_new_keeper_that_fails_is_never_become() {
    assert_rolled_back("@keeper", "exit 4", "exited with code 4");
}

/// Kills one of the two at several moments of an upgrade; whatever comes of the upgrade, the
/// daemon serves afterwards and the programs have noticed nothing.
#[track_caller]
fn assert_kills_during_an_upgrade_are_harmless(victim: impl Fn(&Daemon) -> u32) {
    let daemon = Daemon::start(PROGRAMS);
    let before = pids(&daemon);
    for millis in [0, 10, 30, 60, 100] {
        let pid = victim(&daemon);
        let mut upgrade = daemon
            .ctl_command(&["upgrade", "--patience", "2s"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mendctl can be executed");
        std::thread::sleep(Duration::from_millis(millis));
        proc::send(pid, Signal::SIGKILL);
        assert_nothing_noticed(&daemon, before);
        let _ = upgrade.kill();
        let _ = upgrade.wait();
    }
    wait_for("an upgrade that goes through", || {
        let ran = daemon.ctl(&["upgrade"]);
        if ran.code == 0 { Ok(()) } else { Err(format!("{ran:#?}")) }
    });
    assert_nothing_noticed(&daemon, before);
}

#[test]
fn a_brain_killed_during_an_upgrade_costs_nothing() {
    assert_kills_during_an_upgrade_are_harmless(Daemon::brain_pid);
}

#[test]
fn a_keeper_killed_during_an_upgrade_costs_nothing() {
    assert_kills_during_an_upgrade_are_harmless(Daemon::keeper_pid);
}
