//! What the kernel knows about processes, read from `/proc`.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Returns `true` while `pid` exists and is not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    !matches!(state(pid), None | Some('Z' | 'X'))
}

/// Returns the state letter of `pid`, `None` when there is no such process.
pub(crate) fn state(pid: u32) -> Option<char> {
    stat(pid)?.first()?.chars().next()
}

pub(crate) fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// The fields of `/proc/PID/stat` from the state on; the name before it may hold anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

/// Every living process whose environment at exec held `entry` (`NAME=value`), with its command.
pub(crate) fn with_environment(entry: &str) -> BTreeMap<u32, String> {
    all()
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|bytes| bytes.split(|b| *b == 0).any(|e| e == entry.as_bytes()))
        })
        .filter(|pid| is_alive(*pid))
        .map(|pid| (pid, command(pid)))
        .collect()
}

pub(crate) fn children(parent_pid: u32) -> Vec<u32> {
    all().filter(|pid| parent(*pid) == Some(parent_pid)).collect()
}

fn all() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

pub(crate) fn command(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ").trim_end().to_owned()
}

/// How often the threads of `pid` went to sleep by themselves, which is once per wake-up.
pub(crate) fn voluntary_switches(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("status")).ok())
        .filter_map(|status| {
            let line = status.lines().find(|l| l.starts_with("voluntary_ctxt_switches"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum()
}

/// Sends a signal to a process that this test started or that its daemon did.
pub(crate) fn send(pid: u32, signal: Signal) {
    let target = Pid::from_raw(i32::try_from(pid).expect("pids fit into i32"));
    assert!(target.as_raw() > 1, "a test never signals pid {pid}");
    // It may have ended in the meantime, which is what the caller wanted or will find out.
    let _ = kill(target, signal);
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says why a test does nothing on this machine.
pub(crate) fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

/// The harness itself: a process that a daemon left behind would be seen.
#[test]
fn a_process_is_found_by_the_marker_in_its_environment() {
    let id = format!("MEND_TEST_ID=self-{}", std::process::id());
    let (name, value) = id.split_once('=').expect("it has one");
    let mut child = std::process::Command::new("sleep")
        .arg("1000")
        .env(name, value)
        .spawn()
        .expect("sleep can be executed");
    // The environment of a process reads empty for a moment while it is being executed.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut found = with_environment(&id);
    while found.is_empty() && std::time::Instant::now() < deadline {
        found = with_environment(&id);
    }
    let alive = is_alive(child.id());
    child.kill().and_then(|()| child.wait().map(drop)).expect("our own child");
    assert_eq!(found.keys().collect::<Vec<_>>(), [&child.id()], "{found:?}");
    assert!(alive && !is_alive(child.id()));
    assert!(with_environment(&id).is_empty());
}

/// Returns whether a pidfd tells how a process ended that somebody else has reaped (kernel 6.15).
pub(crate) fn keeps_exit_status_in_pidfds() -> bool {
    let mut child = std::process::Command::new("/bin/true").spawn().expect("true can be executed");
    let pidfd = mendd::os::pidfd::PidFd::open(child.id());
    child.wait().expect("our own child");
    pidfd.is_ok_and(|pidfd| matches!(pidfd.exit_status(), Ok(Some(_))))
}
