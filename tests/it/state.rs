//! State files that the disk, a person or another version has spoilt: the best older truth is
//! used, the trouble is said, and supervision goes on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::harness::{Daemon, Mount, Setup, wait_for};
use crate::proc;

const PROGRAMS: &str = "\
    [defaults.program]\nstart_period = 0\n\
    [program.up]\ncommand = ['{child}', 'only', '{dir}/lock']\n\
    [program.first]\ncommand = ['sleep', '100000']\n\
    [program.second]\ncommand = ['sleep', '100000']\n";

/// Where the second slot of the goals begins.
const SLOT_BYTES: u64 = 8192;

fn goals(daemon: &Daemon) -> PathBuf {
    daemon.file("state/goals")
}

/// Stops `first` for a reason and then `second`: two values, one in each slot.
fn with_goals(setup: Setup) -> Daemon {
    let daemon = setup.start();
    daemon.pid("up");
    daemon.ctl_ok(&["stop", "first", "--reason", "moving the database"]);
    daemon.ctl_ok(&["stop", "second"]);
    daemon
}

/// Ends the daemon in order and lets the machine start again, for all that a daemon can tell.
fn reboot(daemon: &mut Daemon, meanwhile: impl FnOnce(&Path)) {
    daemon.ctl_ok(&["shutdown", "--yes"]);
    wait_for("the daemon to be gone", || {
        let left = daemon.family();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
    });
    fs::remove_dir_all(daemon.file("run")).expect("the runtime directory goes with a reboot");
    meanwhile(&goals(daemon));
    daemon.start_again();
}

/// Kills keeper and brain, and starts the daemon again.
fn crash(daemon: &mut Daemon, meanwhile: impl FnOnce(&Daemon)) {
    daemon.kill_both();
    meanwhile(daemon);
    daemon.start_again();
}

#[track_caller]
fn assert_down(daemon: &Daemon, name: &str) {
    let process = daemon.wait_state(name, "STOPPED");
    assert_eq!(process.goal, "down", "{name}");
}

/// The operator is told, in the status and in the daemon's log.
#[track_caller]
fn assert_warned(daemon: &Daemon, words: &[&str]) {
    let warnings = daemon.status().daemon.warnings;
    let matches = |text: &str| words.iter().all(|word| text.contains(word));
    assert!(warnings.iter().any(|warning| matches(warning)), "{words:?} not in {warnings:#?}");
    let log = daemon.daemon_log();
    assert!(log.lines().any(matches), "{words:?} not in the daemon's log");
}

/// A program that dies is started again, and a stop is obeyed.
#[track_caller]
fn assert_supervises(daemon: &Daemon) {
    let pid = daemon.pid("up");
    proc::send(pid, Signal::SIGKILL);
    let pid = daemon.new_pid("up", pid);
    daemon.ctl_ok(&["restart", "up"]);
    daemon.new_pid("up", pid);
    assert!(!daemon.file("lock.duplicate").exists(), "`up` was there twice");
}

fn sequence(file: &File, slot: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, slot * SLOT_BYTES + 16).expect("the file has both slots");
    u64::from_le_bytes(bytes)
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).expect("the file is there")
}

/// The offset of the slot with the newest value.
fn newest(file: &File) -> u64 {
    if sequence(file, 1) > sequence(file, 0) { SLOT_BYTES } else { 0 }
}

fn flip(file: &File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("the file is that long");
    file.write_all_at(&[byte[0] ^ 4], at).expect("the file can be written");
}

#[test]
fn goals_outlive_a_reboot_with_who_and_why() {
    let mut daemon = with_goals(Setup::new(PROGRAMS));
    let before = daemon.process("first");
    assert_eq!(before.goal_reason.as_deref(), Some("moving the database"));
    reboot(&mut daemon, |_| {});
    daemon.pid("up");
    let after = daemon.process("first");
    assert_eq!((after.state.as_str(), after.goal.as_str()), ("STOPPED", "down"));
    assert_eq!((after.goal_by, after.goal_reason), (before.goal_by, before.goal_reason));
    assert_down(&daemon, "second");
    assert_eq!(daemon.status().daemon.warnings, Vec::<String>::new());
    daemon.ctl_ok(&["start", "first"]);
    reboot(&mut daemon, |_| {});
    daemon.pid("first");
    assert_down(&daemon, "second");
}

#[test]
fn a_flipped_bit_in_the_goals_brings_back_the_value_before() {
    let mut daemon = with_goals(Setup::new(PROGRAMS));
    reboot(&mut daemon, |goals| {
        let file = open(goals);
        flip(&file, newest(&file) + 40);
    });
    assert_down(&daemon, "first");
    daemon.pid("second"); // Its stop was in the damaged value.
    assert_warned(&daemon, &["state/goals", "damaged"]);
    assert_supervises(&daemon);
    // The next value replaces the damaged one, and the one after a reboot knows it.
    daemon.ctl_ok(&["stop", "second"]);
    reboot(&mut daemon, |_| {});
    assert_down(&daemon, "first");
    assert_down(&daemon, "second");
    assert_eq!(daemon.status().daemon.warnings, Vec::<String>::new());
}

#[test]
fn a_torn_write_of_the_goals_brings_back_the_value_before() {
    let mut daemon = with_goals(Setup::new(PROGRAMS));
    reboot(&mut daemon, |goals| {
        let file = open(goals);
        let at = newest(&file);
        file.write_all_at(&[0; 100], at + 60).expect("the file can be written");
    });
    assert_down(&daemon, "first");
    daemon.pid("second");
    assert_warned(&daemon, &["state/goals", "damaged"]);
    assert_supervises(&daemon);
}

#[test]
fn truncated_goals_are_used_as_far_as_they_go() {
    let mut daemon = with_goals(Setup::new(PROGRAMS));
    reboot(&mut daemon, |goals| {
        open(goals).set_len(SLOT_BYTES + 10).expect("the file can be truncated");
    });
    assert_down(&daemon, "first");
    assert_warned(&daemon, &["state/goals", "truncated"]);
    assert_supervises(&daemon);
}

#[test]
fn goals_of_which_nothing_is_left_leave_the_configuration_to_decide() {
    let mut daemon = with_goals(Setup::new(PROGRAMS));
    reboot(&mut daemon, |goals| {
        let file = open(goals);
        flip(&file, 40);
        flip(&file, SLOT_BYTES + 40);
    });
    daemon.pid("first");
    daemon.pid("second");
    assert_warned(&daemon, &["state/goals", "nothing older is left"]);
    assert_supervises(&daemon);
}

#[test]
fn goals_of_a_newer_version_are_kept_for_it() {
    let mut daemon = with_goals(Setup::new(PROGRAMS));
    reboot(&mut daemon, |goals| {
        let file = open(goals);
        let at = newest(&file);
        let mut head = [0; 24];
        file.read_exact_at(&mut head, at).expect("a slot has a header");
        head[8] += 1;
        let length = u32::from_le_bytes([head[12], head[13], head[14], head[15]]);
        let mut body = vec![0; length as usize];
        file.read_exact_at(&mut body, at + 32).expect("a slot has a body");
        let checksum = crc32fast::hash(&[&head[..], &body].concat());
        file.write_all_at(&head, at).expect("the file can be written");
        file.write_all_at(&checksum.to_le_bytes(), at + 24).expect("the file can be written");
    });
    assert_down(&daemon, "first");
    assert_warned(&daemon, &["state/goals", "newer"]);
    assert!(daemon.file("state/goals.future").exists());
    assert_supervises(&daemon);
}

#[test]
fn goals_that_somebody_else_could_have_written_are_not_used() {
    if !proc::is_root() {
        return proc::skip("only root can give a file away");
    }
    let mut daemon = with_goals(Setup::new(PROGRAMS));
    reboot(&mut daemon, |goals| {
        std::os::unix::fs::chown(goals, Some(65_533), None).expect("root gives files away");
    });
    daemon.pid("first");
    assert_warned(&daemon, &["state/goals", "uid 65533"]);
    assert!(daemon.file("state/goals.untrusted").exists());
    assert_supervises(&daemon);
}

#[test]
fn goals_on_a_read_only_disk_are_kept_in_memory_until_it_can_be_written() {
    let setup = Setup::new(PROGRAMS);
    let Some(disk) = Mount::new(setup.dir().join("state"), "size=1m") else { return };
    let mut daemon = with_goals(setup);
    // A disk that is open for writing cannot be made read-only.
    crash(&mut daemon, |_| disk.remount("ro"));
    daemon.ctl_ok(&["start", "second"]);
    assert_warned(&daemon, &["goals cannot be written", "Read-only"]);
    assert_supervises(&daemon);
    // They are in the journal as well, so that a crash forgets nothing.
    crash(&mut daemon, |_| {});
    daemon.pid("second");
    assert_down(&daemon, "first");
    disk.remount("rw");
    daemon.ctl_ok(&["start", "first"]);
    let warnings = daemon.status().daemon.warnings;
    assert!(!warnings.iter().any(|it| it.contains("goals cannot be written")), "{warnings:?}");
    reboot(&mut daemon, |_| {});
    daemon.pid("first");
    daemon.pid("second");
    drop(daemon);
    drop(disk);
}

#[test]
fn goals_are_written_in_place_on_a_full_disk() {
    let setup = Setup::new(PROGRAMS);
    let Some(disk) = Mount::new(setup.dir().join("state"), "size=128k") else { return };
    let mut daemon = with_goals(setup);
    let filler = disk.fill();
    daemon.ctl_ok(&["start", "second"]);
    daemon.ctl_ok(&["stop", "up"]);
    let warnings = daemon.status().daemon.warnings;
    assert!(!warnings.iter().any(|it| !it.contains("the history")), "{warnings:?}");
    reboot(&mut daemon, |_| {});
    daemon.pid("second");
    assert_down(&daemon, "first");
    assert_down(&daemon, "up");
    drop(daemon);
    drop((filler, disk));
}

#[test]
fn goals_that_find_no_inode_are_kept_in_memory_and_said() {
    let setup = Setup::new(PROGRAMS);
    let Some(disk) = Mount::new(setup.dir().join("state"), "size=1m,nr_inodes=2") else { return };
    let filler = disk.fill();
    let daemon = setup.start();
    daemon.ctl_ok(&["stop", "first"]);
    assert_warned(&daemon, &["goals cannot be written", "state/goals", "No space left"]);
    assert_supervises(&daemon);
    fs::remove_file(filler).expect("the filler is ours");
    daemon.ctl_ok(&["stop", "second"]);
    // The one inode is enough for the goals, not for the generations of the configuration.
    let warnings = daemon.status().daemon.warnings;
    assert!(!warnings.iter().any(|it| it.contains("goals")), "it is not over: {warnings:?}");
    drop(daemon);
    drop(disk);
}

#[test]
fn a_journal_with_a_flipped_bit_costs_no_run_and_no_goal() {
    assert_journal_survives("damaged", |path| {
        let file = open(path);
        flip(&file, 60);
    });
}

#[test]
fn a_truncated_journal_costs_no_run_and_no_goal() {
    assert_journal_survives("dropped", |path| {
        let file = open(path);
        let bytes = fs::read(path).expect("the journal is readable");
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
        file.set_len(used - 20).expect("the file can be truncated");
    });
}

#[test]
fn a_journal_without_a_head_costs_no_run_and_no_goal() {
    assert_journal_survives("", |path| flip(&open(path), 3));
}

#[test]
fn a_journal_of_a_newer_version_costs_no_run_and_no_goal() {
    assert_journal_survives("newer", |path| {
        let file = open(path);
        let mut head = [0; 20];
        file.read_exact_at(&mut head, 0).expect("a journal has a head");
        head[8] += 1;
        file.write_all_at(&head, 0).expect("the file can be written");
        let checksum = crc32fast::hash(&head);
        file.write_all_at(&checksum.to_le_bytes(), 20).expect("the file can be written");
    });
}

/// Spoils the journal between a crash and the next start.
#[track_caller]
fn assert_journal_survives(word: &str, spoil: impl Fn(&Path)) {
    let mut daemon = with_goals(Setup::new(PROGRAMS));
    let pid = daemon.pid("up");
    crash(&mut daemon, |daemon| {
        for number in 0..2 {
            let path = daemon.file(&format!("run/journal.{number}"));
            if fs::metadata(&path).is_ok_and(|about| about.len() > 0) {
                spoil(&path);
            }
        }
    });
    assert_eq!(daemon.pid("up"), pid, "a living run is not started again");
    assert_down(&daemon, "first");
    assert_down(&daemon, "second");
    assert_warned(&daemon, &["run/journal", word]);
    assert_supervises(&daemon);
}

#[test]
fn a_full_runtime_directory_delays_a_start_and_nothing_else() {
    let setup = Setup::new(PROGRAMS);
    let Some(disk) = Mount::new(setup.dir().join("run"), "size=2m") else { return };
    let daemon = with_goals(setup);
    let pid = daemon.pid("up");
    let filler = disk.fill();
    daemon.ctl(&["start", "first", "--no-wait"]);
    daemon.wait_process("first", "to fail for want of space or to run", |process| {
        process.state == "RUNNING" || process.reason.contains("No space left")
    });
    assert_eq!(daemon.pid("up"), pid);
    fs::remove_file(filler).expect("the filler is ours");
    daemon.pid("first");
    assert_supervises(&daemon);
    drop(daemon);
    drop(disk);
}
