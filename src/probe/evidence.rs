//! Looks for what explains a failure, at the moment of it.
//!
//! The supervisor hands in what it knows by itself (how the run ended, what it had done to it, what
//! the check saw) and a [`Scene`] that says where to look. Every part may be missing: what may not
//! be read for want of a privilege is said in the evidence and is no error. Nothing is judged here.
//!
//! The counter of a run's control group is gone with the group: collect before it is removed, or
//! hand in what [`oom_kills`](crate::os::group_usage::oom_kills) said before.

mod kernel;
mod tail;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant as Clock};

use super::aside::aside;
use super::memory::fullest;
use super::{ProcessSubject, host, words};
use crate::core::care::evidence::{
    DiskSpace, Evidence, ExecErrorKind, ExecFailure, PortHolder, ProcessState, Usage,
};
use crate::os::cgroup::Leaf;
use crate::os::{group_usage, kmsg, pressure, proc, sockets, usage};
use crate::time::Instant;

/// How much earlier than the monotonic clock the kernel's log may date what it says.
const LOG_SLACK: Duration = Duration::from_secs(2);
const GIVEN_UP: &str = "the search for evidence took too long and was given up";

/// Where to look for evidence.
#[derive(Debug, Clone, Default)]
pub struct Scene {
    /// The process, `web` or `web:1`, as its environment names it in `MEND_PROCESS`.
    pub process: String,
    /// What its environment says in `MEND_INSTANCE`.
    pub instance: String,
    /// The main process, dead or alive; `None` when no program was ever executed.
    pub pid: Option<u32>,
    /// The command name of the main process, as the kernel knows it.
    pub command: Option<String>,
    /// The control group of this run alone.
    pub group: Option<PathBuf>,
    /// What `limits.memory` says.
    pub memory_limit: Option<u64>,
    /// When the run began, and when it failed.
    pub begun: Instant,
    pub failed: Instant,
    /// What [`oom_kills_of_host`](group_usage::oom_kills_of_host) said when the run began.
    pub host_oom_kills_before: Option<u64>,
    /// Ports of this machine that the process itself should listen on. Those of other services
    /// that it needs are theirs.
    pub ports: Vec<u16>,
    /// Paths whose file systems it writes to: its directory, its logs, what it declares.
    pub disks: Vec<PathBuf>,
    pub outputs: Vec<Output>,
}

/// A file with output of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub file: PathBuf,
    /// Where the output of this run begins.
    pub from: u64,
}

/// Adds to what is `known` whatever can be found within `limit`. Output in `known`, such as that
/// of a test of the configuration, stays the newest.
pub async fn collect(scene: Scene, known: Evidence, limit: Duration) -> Evidence {
    let found = Arc::new(Mutex::new(known));
    let about = format!("the evidence about {}", scene.process);
    let shared = Arc::clone(&found);
    let deadline = Clock::now() + limit;
    let gathering = aside(&about, move || gather(&scene, &shared, deadline));
    let gap = match tokio::time::timeout(limit, gathering).await {
        Ok(Ok(true)) => None,
        Ok(Ok(false)) | Err(_) => Some(GIVEN_UP.to_owned()),
        Ok(Err(unanswered)) => Some(unanswered.to_string()),
    };
    let mut evidence = lock(&found).clone();
    evidence.gaps.extend(gap);
    evidence
}

/// Tells apart why a program could not be executed; `program` is its file.
pub fn exec_failure(errno: i32, program: &Path) -> ExecFailure {
    let kind = match errno {
        libc::ENOENT if program.exists() => ExecErrorKind::MissingInterpreter,
        libc::ENOENT | libc::ENOTDIR => ExecErrorKind::Missing,
        libc::EACCES | libc::EPERM => ExecErrorKind::NotAllowed,
        libc::ENOEXEC => ExecErrorKind::NotExecutable,
        libc::ENOSPC | libc::EDQUOT => ExecErrorKind::DiskFull,
        _ => ExecErrorKind::Resources,
    };
    ExecFailure { kind, command: program.display().to_string() }
}

fn lock(evidence: &Mutex<Evidence>) -> MutexGuard<'_, Evidence> {
    evidence.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks for one kind of evidence and writes down what it finds.
type Part = fn(&Scene, &Mutex<Evidence>, Clock);

/// Looks everywhere, what may hang last; `false` when the time was over before the end.
fn gather(scene: &Scene, evidence: &Mutex<Evidence>, deadline: Clock) -> bool {
    const PARTS: [Part; 7] = [process, memory_kills, stalls, kernel_log, ports, output, disks];
    let in_time = |_: &Part| Clock::now() < deadline;
    PARTS.into_iter().take_while(in_time).for_each(|part| part(scene, evidence, deadline));
    Clock::now() < deadline
}

/// What the process does and uses, while it lives.
fn process(scene: &Scene, evidence: &Mutex<Evidence>, _: Clock) {
    let is_over = {
        let known = lock(evidence);
        known.exit.is_some() || known.exec.is_some()
    };
    let group = scene.group.as_deref();
    let memory = group.and_then(group_usage::memory);
    let tasks = group.and_then(group_usage::tasks);
    let tasks = tasks.map(|tasks| Usage { used: tasks.used, limit: tasks.limit });
    let memory = memory.map(|memory| Usage {
        used: memory.used_bytes,
        limit: scene.memory_limit.or(memory.limit_bytes),
    });
    {
        let mut evidence = lock(evidence);
        evidence.memory_bytes = memory.or(evidence.memory_bytes);
        evidence.tasks = tasks.or(evidence.tasks);
    }
    let Some(pid) = scene.pid.filter(|_| !is_over) else { return };
    let state = proc::stat(pid).map(|stat| state(stat.state));
    let subject = ProcessSubject::new(pid);
    let descriptors = fullest(&subject);
    let cpu_limit = usage::cpu_time_limit(pid);
    let cpu = cpu_limit.and_then(|limit| {
        let own = usage::usage(&[pid]).first().map(|(_, usage)| usage.cpu_seconds)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole seconds"
        )]
        Some(Usage { used: own as u64, limit: Some(limit) })
    });
    let mut evidence = lock(evidence);
    evidence.process = state.or(evidence.process);
    evidence.cpu_seconds = cpu.or(evidence.cpu_seconds);
    match descriptors {
        Ok((_, found)) => {
            evidence.descriptors = Some(Usage { used: found.used, limit: found.limit });
        }
        Err(finding) => evidence.gaps.push(finding.sentence),
    }
    if evidence.memory_bytes.is_none() {
        let used = usage::memory(&usage::tree(pid));
        evidence.memory_bytes = (used > 0).then_some(Usage { used, limit: scene.memory_limit });
    }
}

fn state(letter: char) -> ProcessState {
    match letter {
        'D' => ProcessState::Uninterruptible,
        'T' => ProcessState::Stopped,
        't' => ProcessState::Traced,
        'Z' | 'X' | 'x' => ProcessState::Zombie,
        _ => ProcessState::Normal,
    }
}

/// How often the kernel killed for want of memory.
fn memory_kills(scene: &Scene, evidence: &Mutex<Evidence>, _: Clock) {
    let of_group = scene.group.as_deref().and_then(group_usage::oom_kills);
    let before = scene.host_oom_kills_before;
    let of_host = before.and_then(|before| group_usage::oom_kills_of_host()?.checked_sub(before));
    let mut evidence = lock(evidence);
    evidence.oom_kills = evidence.oom_kills.max(of_group.unwrap_or(0));
    evidence.host_oom_kills = evidence.host_oom_kills.max(of_host.unwrap_or(0));
}

fn stalls(_: &Scene, evidence: &Mutex<Evidence>, _: Clock) {
    match pressure::gate() {
        Ok(pressure) => lock(evidence).pressure = Some(pressure),
        Err(error) => {
            let why = words::error(&error);
            lock(evidence).gaps.push(format!("the kernel measures no pressure: {why}"));
        }
    }
}

/// What the kernel says of the process.
fn kernel_log(scene: &Scene, evidence: &Mutex<Evidence>, deadline: Clock) {
    let since_boot = |at: Instant| Duration::from_nanos(at.as_nanos());
    let begun = since_boot(scene.begun).saturating_sub(LOG_SLACK);
    let records = match kmsg::since(begun, deadline, kernel::matters) {
        Ok(records) => records,
        Err(error) => {
            let why = words::error(&error);
            let gap = format!("the kernel's log cannot be read: {why}");
            lock(evidence).gaps.push(gap);
            return;
        }
    };
    if !kernel::numbers_are_ours() {
        let gap = "the kernel's log names processes by numbers of another namespace".to_owned();
        lock(evidence).gaps.push(gap);
        return;
    }
    let failed = since_boot(scene.failed);
    let words = kernel::interpret(&records, scene.pid, scene.command.as_deref(), failed);
    let mut evidence = lock(evidence);
    evidence.fault = words.fault.or(evidence.fault.take());
    evidence.seccomp |= words.seccomp;
    evidence.host_oom |= words.host_oom;
    // The group may be gone, or count nothing.
    evidence.oom_kills = evidence.oom_kills.max(words.group_oom_kills);
}

/// Who else listens on its ports.
fn ports(scene: &Scene, evidence: &Mutex<Evidence>, deadline: Clock) {
    if scene.ports.is_empty() {
        return;
    }
    let listeners = match sockets::listeners(&scene.ports) {
        Ok(listeners) if listeners.is_empty() => return,
        Ok(listeners) => listeners,
        Err(error) => {
            let why = words::error(&error);
            lock(evidence).gaps.push(format!("it is not known who listens: {why}"));
            return;
        }
    };
    let inodes: Vec<u64> = listeners.iter().map(|listener| listener.inode).collect();
    let holders = sockets::holders(&inodes, deadline);
    let own = members(scene);
    let mut gaps = Vec::new();
    let mut holder = None;
    for listener in &listeners {
        match holders.pids.get(&listener.inode).map(Vec::as_slice) {
            Some(pids) if pids.iter().any(|pid| own.contains(pid)) => {}
            Some([pid, ..]) => holder = holder.or_else(|| port_holder(scene, listener.port, *pid)),
            Some([]) | None if holders.is_partial => {}
            Some([]) | None => {
                let why = match holders.some_are_hidden {
                    true => "only root may see which",
                    false => "it is in another namespace",
                };
                let (port, uid) = (listener.port, listener.uid);
                gaps.push(format!(
                    "a process that user {uid} has started listens on port {port}; {why}"
                ));
            }
        }
    }
    if holders.is_partial {
        gaps.push("the search for who listens on its ports was given up".to_owned());
    }
    let mut evidence = lock(evidence);
    evidence.port = holder.or(evidence.port.take());
    evidence.gaps.extend(gaps);
}

fn port_holder(scene: &Scene, port: u16, pid: u32) -> Option<PortHolder> {
    let command = words::shown(&proc::comm(pid)?);
    let environment = proc::environment(pid).unwrap_or_default();
    let is = |name, value: &str| proc::value_in(&environment, name).is_some_and(|v| v == value);
    let is_leftover = is("MEND_PROCESS", &scene.process) && is("MEND_INSTANCE", &scene.instance);
    Some(PortHolder { port, pid, command, is_leftover })
}

/// Returns the processes of this run.
fn members(scene: &Scene) -> Vec<u32> {
    let leaf = scene.group.as_deref().and_then(|group| Leaf::reopen(group).ok());
    match (leaf, scene.pid) {
        (Some(leaf), _) => leaf.procs(),
        (None, Some(pid)) => usage::tree(pid),
        (None, None) => Vec::new(),
    }
}

/// The last lines of output.
fn output(scene: &Scene, evidence: &Mutex<Evidence>, _: Clock) {
    let mut lines = Vec::new();
    let mut gaps = Vec::new();
    for output in &scene.outputs {
        match tail::lines(&output.file, output.from) {
            Ok(found) => lines.extend(found),
            // It has written nothing.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let (file, why) = (output.file.display(), words::error(&error));
                gaps.push(format!("its output cannot be read from `{file}`: {why}"));
            }
        }
    }
    let mut evidence = lock(evidence);
    lines.append(&mut evidence.output);
    evidence.output = lines;
    evidence.gaps.extend(gaps);
}

/// The room on its disks.
fn disks(scene: &Scene, evidence: &Mutex<Evidence>, deadline: Clock) {
    for path in &scene.disks {
        if Clock::now() >= deadline {
            return;
        }
        match host::nearest(path) {
            Ok((found, space)) => {
                let space = DiskSpace {
                    path: found.display().to_string(),
                    free_bytes: space.free_bytes,
                    size_bytes: space.size_bytes,
                    free_inodes: space.inodes.map(|inodes| inodes.free),
                };
                let mut evidence = lock(evidence);
                if !evidence.disks.contains(&space) {
                    evidence.disks.push(space);
                }
            }
            Err(error) => {
                let (path, why) = (path.display(), words::error(&error));
                lock(evidence).gaps.push(format!("the disk at {path} cannot be looked at: {why}"));
            }
        }
    }
}
