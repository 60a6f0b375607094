//! What is known at the moment of a failure, collected before anything is done about it.
//!
//! What the engine knows is taken at once; what has to be read is read away from the loop.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::super::core_loop::Engine;
use super::super::launch::Job;
use super::super::{How, environment};
use super::Report;
use crate::config::CheckKind;
use crate::core::care::evidence::{
    CheckDetail, DependencyHealth, Evidence, ExecErrorKind, ExecFailure, ProcessState, Usage,
};
use crate::core::care::{CheckId, IncidentId, Life, Target};
use crate::core::{Exit, ProcessStatus};
use crate::keeper::wire::WaitStatus;
use crate::name::{CheckName, ProcessName, RunId};
use crate::os::{clock, explain, group_usage, pressure, proc};

/// How much of the end of the output is looked at.
const OUTPUT_BYTES: u64 = 4096;

/// What has to be read.
struct Reading {
    evidence: Evidence,
    logs: Vec<PathBuf>,
    cgroup: Option<PathBuf>,
    pid: Option<u32>,
    /// The spawn failed: why may still be seen.
    unborn: Option<(Job, String)>,
    instance: String,
}

impl Engine {
    pub(super) fn collect_evidence(
        &mut self,
        incident: IncidentId,
        target: Target,
        check: Option<CheckName>,
    ) {
        let check = check.map(|check| CheckId { target: target.clone(), check });
        let check = check.and_then(|check| self.check_detail(&check));
        let is_about_the_run = check.as_ref().is_none_or(|it| it.kind == CheckKind::Process);
        let evidence =
            Evidence { check, configuration_age: self.configuration_age(), ..Evidence::default() };
        let mut reading = Reading {
            evidence,
            logs: Vec::new(),
            cgroup: None,
            pid: None,
            unborn: None,
            instance: self.instance.clone(),
        };
        if let Target::Process(process) = &target {
            self.add_process(&mut reading, process, is_about_the_run);
        }
        let reports = self.healing.reports.clone();
        tokio::task::spawn_blocking(move || {
            let evidence = Box::new(reading.read());
            // A loop that has ended needs no answer.
            let _ = reports.send(Report::Evidence { target, incident, evidence });
        });
    }

    fn check_detail(&self, check: &CheckId) -> Option<CheckDetail> {
        let kind = self.healing.look_of(check)?.check.kind;
        let verdict = self.healing.care.samples(check).last()?.verdict;
        let failure = self.healing.failures.get(check).cloned();
        Some(CheckDetail { kind, verdict, failure })
    }

    /// Returns since when another configuration than the one of the daemon's start is in effect.
    fn configuration_age(&self) -> Option<std::time::Duration> {
        let current = self.books.generations.current()?;
        (current.how != How::Start).then(|| clock::wall().since(current.at))
    }

    /// `ended` says that it is the end of a run that has to be explained; the next one may live
    /// already.
    fn add_process(&self, reading: &mut Reading, process: &ProcessName, ended: bool) {
        let Some(status) = self.core.status(process) else { return };
        let evidence = &mut reading.evidence;
        evidence.dependencies = self.dependencies(&status);
        reading.logs = self.logs_of(process).into_iter().map(|(log, _)| log).collect();
        if ended {
            evidence.oom_kills = self.healing.oom_kills.get(process).copied().unwrap_or(0);
            evidence.exit = match self.healing.lives.get(process) {
                Some(Life::Failed { exit, .. }) => *exit,
                Some(_) | None => status.last_exit.map(|(exit, _)| exit),
            };
            if let (None, Some(failure)) = (evidence.exit, &status.failure) {
                let job = Job::new(RunId(0), process.clone(), status.program.clone());
                reading.unborn = Some((job, failure.message.clone()));
            }
            return;
        }
        evidence.age = status.uptime(clock::now());
        let hands = status.run.and_then(|run| self.runs.get(&run));
        reading.cgroup = hands.and_then(|hands| hands.cgroup.clone());
        reading.pid = status.pid;
    }

    pub(super) fn dependencies(&self, status: &ProcessStatus) -> Vec<DependencyHealth> {
        let requires = &status.program.lifecycle.requires;
        let processes = requires.iter().flat_map(|program| self.core.processes_of(program));
        let health = |process: &ProcessName| {
            let status = self.core.status(process)?;
            let target = Target::Process(process.clone());
            let is_healthy = !self.healing.care.is_obstacle(&target);
            let state = match self.healing.care.health(&target).word() {
                _ if status.pid.is_none() => status.state.name().to_owned(),
                "none" => status.state.name().to_owned(),
                word => word.to_owned(),
            };
            Some(DependencyHealth { name: process.to_string(), is_healthy, state })
        };
        processes.filter_map(health).collect()
    }

    /// Notes what can no longer be read once the run is forgotten.
    pub(in crate::engine) fn note_exit(&mut self, process: &ProcessName, status: WaitStatus) {
        let killed = matches!(
            super::super::run::exit_of(status),
            Exit::Signal { signal: libc::SIGKILL, .. }
        );
        let limited = self
            .core
            .program(process)
            .is_some_and(|program| program.spawn.limits.memory_bytes.is_some());
        let run = self.core.status(process).and_then(|status| status.run);
        let cgroup = run.and_then(|run| self.runs.get(&run)).and_then(|it| it.cgroup.as_deref());
        let kills = cgroup.filter(|_| killed || limited).and_then(group_usage::oom_kills);
        self.healing.oom_kills.insert(process.clone(), kills.unwrap_or(0));
    }
}

impl Reading {
    fn read(self) -> Evidence {
        let mut evidence = self.evidence;
        for log in &self.logs {
            // A log that is not there says nothing.
            evidence.output.extend(last_lines(log).unwrap_or_default());
        }
        evidence.pressure = pressure::gate().ok();
        evidence.process = self.pid.and_then(proc::stat).map(|stat| state_of(stat.state));
        if let Some(cgroup) = &self.cgroup {
            evidence.oom_kills =
                evidence.oom_kills.max(group_usage::oom_kills(cgroup).unwrap_or(0));
            evidence.memory_bytes = group_usage::memory(cgroup)
                .map(|it| Usage { used: it.used_bytes, limit: it.limit_bytes });
            evidence.tasks =
                group_usage::tasks(cgroup).map(|it| Usage { used: it.used, limit: it.limit });
        }
        if let Some((job, message)) = &self.unborn {
            evidence.exec = exec_failure(job, message, &self.instance);
        }
        evidence
    }
}

fn state_of(letter: char) -> ProcessState {
    match letter {
        'D' => ProcessState::Uninterruptible,
        'T' => ProcessState::Stopped,
        't' => ProcessState::Traced,
        'Z' | 'X' => ProcessState::Zombie,
        _ => ProcessState::Normal,
    }
}

/// Looks for what keeps a command from being executed.
fn exec_failure(job: &Job, message: &str, instance: &str) -> Option<ExecFailure> {
    let spawn = &job.program.spawn;
    let command = spawn.argv.first()?.clone();
    let failure = |kind| Some(ExecFailure { kind, command: command.clone() });
    if message.contains("No space left") || message.contains("quota") {
        return failure(ExecErrorKind::DiskFull);
    }
    let environment = environment::build(job, instance).ok()?;
    let Ok(path) = environment::find_executable(&command, &environment, spawn) else {
        let search = environment.path();
        let is_there = search.split(':').any(|place| Path::new(place).join(&command).exists());
        let kind = if is_there { ExecErrorKind::NotAllowed } else { ExecErrorKind::Missing };
        return failure(kind);
    };
    let about = match std::fs::metadata(&path) {
        Ok(about) => about,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return failure(ExecErrorKind::Missing);
        }
        Err(_) => return failure(ExecErrorKind::NotAllowed),
    };
    if !about.is_file() || std::os::unix::fs::MetadataExt::mode(&about) & 0o111 == 0 {
        return failure(ExecErrorKind::NotAllowed);
    }
    match explain::interpreter(&path) {
        Ok(Some(interpreter)) if !interpreter.exists() => {
            failure(ExecErrorKind::MissingInterpreter)
        }
        Ok(Some(_)) => None,
        Ok(None) if has_no_header(&path) => failure(ExecErrorKind::NotExecutable),
        Ok(None) | Err(_) => None,
    }
}

/// Whether a file is neither a binary nor a script.
fn has_no_header(path: &Path) -> bool {
    let mut first = [0; 4];
    match File::open(path).and_then(|mut file| file.read_exact(&mut first)) {
        Ok(()) => first != *b"\x7fELF" && !first.starts_with(b"#!"),
        Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
    }
}

/// Reads the last lines of a log.
fn last_lines(path: &Path) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let start = length.saturating_sub(OUTPUT_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(OUTPUT_BYTES).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if start > 0 && lines.len() > 1 {
        lines.remove(0); // Most likely a part of a line.
    }
    Ok(lines)
}
