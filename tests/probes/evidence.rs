//! Evidence of real failures: who holds a port, what the kernel says, what was printed.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mendd::core::Exit;
use mendd::core::care::evidence::{Evidence, ExecErrorKind, ProcessState};
use mendd::os::{clock, group_usage, kmsg};
use mendd::probe::evidence::{Output, Scene, collect, exec_failure};
use nix::sys::signal::Signal;

use crate::bench::{PATIENCE, run, wait_until};
use crate::server::{Server, directory, free_address, installed, skip};

fn collected(scene: Scene, known: Evidence) -> Evidence {
    run(collect(scene, known, PATIENCE))
}

fn killed(signal: i32) -> Evidence {
    Evidence { exit: Some(Exit::Signal { signal, core_dumped: false }), ..Evidence::default() }
}

/// A process that listens on a port.
fn squatter(port: u16, environment: &[(&str, &str)]) -> Option<Server> {
    let python = installed("python3")?;
    let script = format!(
        "import socket, time; s = socket.socket(); s.bind(('127.0.0.1', {port})); s.listen(); \
         time.sleep(6000)"
    );
    let mut command = Command::new(python);
    command.args(["-c", &script]).envs(environment.iter().copied());
    Some(Server::start(&mut command))
}

#[test]
fn whoever_else_holds_the_port_is_named_and_an_earlier_run_is_told_from_a_stranger() {
    let port = free_address().port;
    let scene = || Scene {
        process: "web:1".into(),
        instance: "test".into(),
        ports: vec![port],
        ..Scene::default()
    };
    let Some(stranger) = squatter(port, &[]) else { return };
    let mut evidence = Evidence::default();
    wait_until("somebody who listens", || {
        evidence = collected(scene(), killed(6));
        evidence.port.as_ref().map(drop).ok_or("nobody")
    });
    let holder = evidence.port.unwrap();
    assert_eq!((holder.port, holder.pid, holder.is_leftover), (port, stranger.pid(), false));
    assert!(holder.command.starts_with("python3"), "{holder:?}");

    // The process itself may hold it.
    let own = Scene { pid: Some(stranger.pid()), ..scene() };
    assert_eq!(collected(own, Evidence::default()).port, None);
    stranger.end();
    assert_eq!(collected(scene(), killed(6)).port, None);

    let marks = [("MEND_PROCESS", "web:1"), ("MEND_INSTANCE", "test")];
    let Some(_leftover) = squatter(port, &marks) else { return };
    wait_until("the earlier run", || {
        let holder = collected(scene(), killed(6)).port;
        if holder.as_ref().is_some_and(|holder| holder.is_leftover) { Ok(()) } else { Err(holder) }
    });
}

#[test]
fn the_last_lines_of_this_run_and_the_room_on_its_disks_are_kept() {
    let directory = directory();
    let log = directory.path().join("stdout.log");
    fs::write(&log, "of an earlier run\nbind: Address already in use\n").unwrap();
    let missing = directory.path().join("stderr.log");
    let outputs = vec![Output { file: log, from: 18 }, Output { file: missing, from: 0 }];
    let disks = vec![directory.path().join("not/there/yet"), PathBuf::from("/proc")];
    let scene = Scene { outputs, disks, ..Scene::default() };
    let known = Evidence { output: vec!["nginx: configuration is ok".into()], ..killed(15) };
    let evidence = collected(scene, known);
    let expected = ["bind: Address already in use", "nginx: configuration is ok"];
    assert_eq!(evidence.output, expected);
    assert_eq!(evidence.disks.len(), 2, "{:?}", evidence.disks);
    assert_eq!(Path::new(&evidence.disks[0].path), directory.path());
    assert!(evidence.disks[0].size_bytes > 0 && evidence.exit.is_some());
}

#[test]
fn a_process_that_lives_shows_its_state_and_what_it_uses() {
    let server =
        Server::start(Command::new("/bin/sh").args(["-c", "ulimit -t 900; exec sleep 6000"]));
    let scene = || Scene { pid: Some(server.pid()), ..Scene::default() };
    wait_until("the limit on its time", || {
        let evidence = collected(scene(), Evidence::default());
        let limit = evidence.cpu_seconds.and_then(|usage| usage.limit);
        if limit == Some(900) { Ok(()) } else { Err(evidence) }
    });
    let evidence = collected(scene(), Evidence::default());
    assert_eq!(evidence.process, Some(ProcessState::Normal));
    let descriptors = evidence.descriptors.unwrap();
    assert!(descriptors.used >= 1 && descriptors.limit.is_some(), "{descriptors:?}");
    assert!(evidence.memory_bytes.is_some_and(|usage| usage.used > 0), "{evidence:?}");
    server.signal(Signal::SIGSTOP);
    wait_until("a stopped process", || {
        let state = collected(scene(), Evidence::default()).process;
        if state == Some(ProcessState::Stopped) { Ok(()) } else { Err(state) }
    });
}

#[test]
fn a_search_without_time_returns_what_is_known_and_says_so() {
    let known = Evidence { output: vec!["known".into()], ..killed(9) };
    let evidence = run(collect(Scene::default(), known, Duration::ZERO));
    assert_eq!(evidence.output, ["known"]);
    assert!(evidence.gaps.iter().any(|gap| gap.contains("took too long")), "{:?}", evidence.gaps);
}

#[test]
fn a_segmentation_fault_has_a_line_in_the_kernels_log() {
    if let Err(error) = kmsg::since(Duration::ZERO, std::time::Instant::now() + PATIENCE, |_| false)
    {
        return skip(&format!("the kernel's log cannot be read: {error}"));
    }
    let traces = fs::read_to_string("/proc/sys/debug/exception-trace").unwrap_or_default();
    if traces.trim() != "1" {
        return skip("the kernel does not log faults (debug.exception-trace)");
    }
    let Some(python) = installed("python3") else { return };
    let begun = clock::now();
    let script = "import ctypes; ctypes.string_at(0)";
    let mut command = Command::new(python);
    let mut child = command.args(["-c", script]).stderr(Stdio::null()).spawn().unwrap();
    let pid = child.id();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGSEGV));
    let scene = Scene { pid: Some(pid), begun, failed: clock::now(), ..Scene::default() };
    let evidence = collected(scene, killed(libc::SIGSEGV));
    let fault = evidence.fault.unwrap_or_else(|| panic!("no line: {:?}", evidence.gaps));
    assert!(fault.contains(&format!("[{pid}]: segfault at 0 ")), "{fault}");
}

/// A control group with a limit on memory, of whichever version the machine has.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    fn new(limit: u64) -> Option<Self> {
        let name = format!("mend-probes-{}", std::process::id());
        let places =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        for (place, file) in places {
            let group = Path::new(place).join(&name);
            if !Path::new(place).join("cgroup.procs").exists() || fs::create_dir(&group).is_err() {
                continue;
            }
            let group = Self(group);
            if fs::write(group.0.join(file), limit.to_string()).is_ok() {
                // Where there is swap, it has a limit too.
                let _ = fs::write(group.0.join("memory.memsw.limit_in_bytes"), limit.to_string());
                let _ = fs::write(group.0.join("memory.swap.max"), "0");
                return Some(group);
            }
        }
        skip("no control group with a limit on memory can be made");
        None
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        let group = &self.0;
        wait_until("an empty group", || fs::remove_dir(group));
    }
}

#[test]
fn a_kill_for_want_of_memory_is_counted_and_logged() {
    let Some(group) = MemoryGroup::new(24 << 20) else { return };
    let begun = clock::now();
    let before = group_usage::oom_kills_of_host();
    let script = format!("echo $$ >{}/cgroup.procs; exec tail /dev/zero", group.0.display());
    let mut child = Command::new("/bin/sh").args(["-c", &script]).spawn().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGKILL), "{status:?}");
    let scene = Scene {
        pid: Some(child.id()),
        group: Some(group.0.clone()),
        begun,
        failed: clock::now(),
        host_oom_kills_before: before,
        ..Scene::default()
    };
    let evidence = collected(scene, killed(libc::SIGKILL));
    assert!(evidence.host_oom_kills >= 1, "{evidence:?}");
    let cannot = evidence.gaps.iter().any(|gap| gap.contains("kernel's log"));
    let counts = group.0.join("memory.events").exists();
    assert!(evidence.oom_kills >= 1 || (cannot && !counts), "{evidence:?}");
    assert!(!evidence.host_oom, "a group's limit is not the host's: {evidence:?}");
}

#[test]
fn a_failed_execution_is_told_apart_by_its_error() {
    let kind = |errno, path: &str| exec_failure(errno, Path::new(path)).kind;
    assert_eq!(kind(libc::ENOENT, "/no/such/program"), ExecErrorKind::Missing);
    assert_eq!(kind(libc::ENOENT, "/bin/sh"), ExecErrorKind::MissingInterpreter);
    assert_eq!(kind(libc::EACCES, "/bin/sh"), ExecErrorKind::NotAllowed);
    assert_eq!(kind(libc::ENOEXEC, "/bin/sh"), ExecErrorKind::NotExecutable);
    assert_eq!(kind(libc::ENOSPC, "/bin/sh"), ExecErrorKind::DiskFull);
    assert_eq!(kind(libc::EAGAIN, "/bin/sh"), ExecErrorKind::Resources);
}

#[test]
fn an_ordinary_user_is_told_what_is_hidden() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can become somebody else");
    }
    if std::env::var_os("NEXTEST").is_none() {
        return skip("this test changes its user and needs a process of its own");
    }
    let Some(python) = installed("python3") else { return };
    let port = free_address().port;
    // It ends with its input: who has become somebody else cannot kill it.
    let script = format!(
        "import socket, sys; s = socket.socket(); s.bind(('127.0.0.1', {port})); s.listen(); \
         sys.stdin.read()"
    );
    let mut command = Command::new(python);
    let mut server = command.args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap();
    wait_until("a listener", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).map(drop).map_err(|e| e.to_string())
    });
    nix::unistd::setgid(65_534.into()).unwrap();
    nix::unistd::setuid(65_534.into()).unwrap();
    let evidence = collected(Scene { ports: vec![port], ..Scene::default() }, killed(6));
    drop(server.stdin.take());
    server.wait().unwrap();
    let words = format!("a process that user 0 has started listens on port {port}");
    assert!(evidence.gaps.iter().any(|gap| gap.contains(&words)), "{:?}", evidence.gaps);
    assert_eq!(evidence.port, None);
}
