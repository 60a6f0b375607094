//! What is known at the moment of a failure, collected before anything is done about it.
//!
//! What the engine knows is taken at once; what has to be looked for is looked for away from the
//! loop, within the time that the healer waits for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::How;
use super::super::core_loop::Engine;
use super::{Report, flow};
use crate::capture::{Channel, LogReader};
use crate::config::{Address, CheckKind, Endpoint, Look, PostgresServer, Probe, Program, Ready};
use crate::core::care::evidence::{CheckDetail, DependencyHealth, Evidence, ExecFailure, Intent};
use crate::core::care::{CheckId, IncidentId, Life, Target};
use crate::core::{Exit, ProcessStatus};
use crate::keeper::wire::WaitStatus;
use crate::name::{CheckName, ProcessName, RunId};
use crate::os::{clock, group_usage};
use crate::probe::evidence::{Output, Scene, collect};
use crate::time::{Instant, Wall};

/// The healer waits a little longer.
const PATIENCE: Duration = Duration::from_secs(4);
/// The kernel keeps so many bytes of a command's name.
const COMM_BYTES: usize = 15;

/// What is remembered of a process's runs, for when one of them fails.
#[derive(Debug, Clone, Default)]
pub(super) struct RunPast {
    /// The last run that lived, its pid and since when.
    run: RunId,
    pid: Option<u32>,
    begun: Instant,
    /// How often the kernel had killed in it for want of memory, at its end.
    oom_kills: u64,
    /// Why Mend ended it, when it had failed before its end.
    failing: Option<String>,
    /// Why no program could be executed, the last time.
    pub(super) exec: Option<ExecFailure>,
}

impl Engine {
    pub(super) fn collect_evidence(
        &mut self,
        incident: IncidentId,
        target: Target,
        check: Option<CheckName>,
    ) {
        let check = check.map(|check| CheckId { target: target.clone(), check });
        let clues = check.as_ref().and_then(|check| self.healing.clues.get(check));
        let clues = clues.cloned().unwrap_or_default();
        let detail = check.and_then(|check| self.check_detail(&check));
        let kind = detail.as_ref().map(|detail| detail.kind);
        let is_silence = matches!(kind, Some(CheckKind::Silence | CheckKind::Heartbeat));
        let mut known = Evidence {
            check: detail,
            silent_for: clues.silence().filter(|_| is_silence),
            certificate: clues.certificate,
            configuration_age: self.configuration_age(),
            ..Evidence::default()
        };
        let mut scene = Scene { failed: clock::now(), ..Scene::default() };
        let mut logs = Vec::new();
        if let Target::Process(process) = &target {
            let ended = kind.is_none_or(|kind| kind == CheckKind::Process);
            (scene, known) = self.process_scene(process, ended, scene, known);
            logs = self.logs_of(process);
        }
        // What has ended floods nothing any more.
        let flows = if known.exit.is_none() { logs.clone() } else { Vec::new() };
        let by_log = kind == Some(CheckKind::Log);
        let reports = self.healing.reports.clone();
        tokio::spawn(async move {
            scene.outputs = outputs(logs, scene.begun).await;
            known.output_rate = flow::rate(flows, scene.begun, by_log).await;
            let evidence = Box::new(collect(scene, known, PATIENCE).await);
            // A loop that has ended needs no answer.
            let _ = reports.send(Report::Evidence { target, incident, evidence });
        });
    }

    fn check_detail(&self, check: &CheckId) -> Option<CheckDetail> {
        let kind = self.healing.look_of(check)?.check.kind;
        let verdict = self.healing.care.samples(check).last()?.verdict;
        let failure = self.healing.clues.get(check).and_then(|clues| clues.failure.clone());
        Some(CheckDetail { kind, verdict, failure })
    }

    /// Returns since when another configuration than the one of the daemon's start is in effect.
    fn configuration_age(&self) -> Option<Duration> {
        let current = self.books.generations.current()?;
        (current.how != How::Start).then(|| clock::wall().since(current.at))
    }

    /// Says where to look for what happened to a process. `ended` says that it is the end of a run
    /// that has to be explained; the next one may live already.
    fn process_scene(
        &self,
        process: &ProcessName,
        ended: bool,
        scene: Scene,
        known: Evidence,
    ) -> (Scene, Evidence) {
        let Some(status) = self.core.status(process) else { return (scene, known) };
        let past = self.healing.run_pasts.get(process).cloned().unwrap_or_default();
        let spawn = &status.program.spawn;
        let command = spawn.argv.first().and_then(|word| Path::new(word).file_name());
        let command = command.map(|name| name.to_string_lossy().chars().take(COMM_BYTES).collect());
        let mut scene = Scene {
            process: process.to_string(),
            instance: self.instance.clone(),
            pid: past.pid,
            command,
            memory_limit: spawn.limits.memory_bytes,
            begun: past.begun,
            ports: ports(&status.program),
            disks: self.disks(&status.program),
            ..scene
        };
        let mut known = Evidence { dependencies: self.dependencies(&status), ..known };
        if !ended {
            let hands = status.run.and_then(|run| self.runs.get(&run));
            scene.group = hands.and_then(|hands| hands.cgroup.clone());
            known.age = status.uptime(clock::now());
            return (scene, known);
        }
        known.oom_kills = past.oom_kills;
        known.intent = past.failing.map(Intent::Failing);
        known.exit = match self.healing.lives.get(process) {
            Some(Life::Failed { exit, .. }) => *exit,
            Some(_) | None => status.last_exit.map(|(exit, _)| exit),
        };
        if known.exit.is_none() {
            (known.exec, scene.pid) = (past.exec, None);
        }
        (scene, known)
    }

    /// Returns paths of the file systems that a program writes to.
    fn disks(&self, program: &Program) -> Vec<PathBuf> {
        let path =
            |look: &Look| if let Look::Disk(it) = look { Some(it.path.clone()) } else { None };
        let declared = program.checks.iter().filter_map(|check| path(&check.look));
        let logs = self.config.supervisor.log_dir.clone();
        program.spawn.directory.iter().cloned().chain([logs]).chain(declared).collect()
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

    /// Notes a run that lives, for when it fails.
    pub(super) fn note_birth(&mut self, process: &ProcessName, run: RunId) {
        let past = self.healing.run_pasts.entry(process.clone()).or_default();
        if past.run != run {
            let status = self.core.status(process);
            let pid = status.as_ref().and_then(|status| status.pid);
            let begun = status.and_then(|status| status.started).unwrap_or_else(clock::now);
            *past = RunPast { run, pid, begun, oom_kills: 0, failing: None, exec: None };
        }
    }

    /// Notes what can no longer be read once the run is forgotten.
    pub(in crate::engine) fn note_exit(&mut self, run: RunId, status: WaitStatus) {
        let Some(hands) = self.runs.get(&run) else { return };
        let killed = matches!(
            super::super::run::exit_of(status),
            Exit::Signal { signal: libc::SIGKILL, .. }
        );
        let program = self.core.program(&hands.process);
        let limited = program.is_some_and(|it| it.spawn.limits.memory_bytes.is_some());
        let group = hands.cgroup.as_deref().filter(|_| killed || limited);
        let kills = group.and_then(group_usage::oom_kills).unwrap_or(0);
        let process = hands.process.clone();
        let is_last = self.core.status(&process).is_some_and(|status| status.run == Some(run));
        let facts = self.core.snapshot(&process).filter(|_| is_last);
        let failing = facts.and_then(|facts| Some(facts.failing.as_ref()?.why.clone()));
        let past = self.healing.run_pasts.entry(process).or_default();
        (past.oom_kills, past.failing) = (kills, failing);
    }

    /// Notes why a program could not be executed.
    pub(in crate::engine) fn note_unborn(
        &mut self,
        process: &ProcessName,
        exec: Option<ExecFailure>,
    ) {
        self.healing.run_pasts.entry(process.clone()).or_default().exec = exec;
    }
}

/// Finds where the output of a run begins, away from the loop.
async fn outputs(logs: Vec<(PathBuf, Channel)>, begun: Instant) -> Vec<Output> {
    let age = i64::try_from(clock::now().since(begun).as_millis()).unwrap_or(i64::MAX);
    let begun = Wall(clock::wall().0.saturating_sub(age));
    let find = move || {
        let output = |(file, channel): (PathBuf, Channel)| {
            let from = LogReader::open(&file, channel).and_then(|mut reader| {
                reader.since(begun)?;
                Ok(reader.cursor().offset)
            });
            // In a segment that is closed by now it is somewhere else.
            let length = std::fs::metadata(&file).map_or(0, |about| about.len());
            let from = from.ok().filter(|from| *from <= length).unwrap_or(0);
            Output { file, from }
        };
        logs.into_iter().map(output).collect()
    };
    tokio::task::spawn_blocking(find).await.unwrap_or_default()
}

/// Returns the ports of this machine that a program itself should listen on, as its checks say.
fn ports(program: &Program) -> Vec<u16> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "few kinds have a server")]
    let of_checks = program.checks.iter().filter_map(|check| match &check.look {
        Look::Tcp(look) => own(&look.endpoint),
        Look::Redis(look) => own(&look.endpoint),
        Look::Http(look) if look.unix.is_none() => local(&look.target.address),
        Look::Postgres(look) => match &look.server {
            PostgresServer::Tcp(address) => local(address),
            PostgresServer::Unix { .. } => None,
        },
        _ => None,
    });
    let of_start = match &program.lifecycle.ready {
        Some(Ready::Probe(probing)) => match &probing.probe {
            Probe::Tcp(address) => local(address),
            Probe::Http(target) => local(&target.address),
            Probe::Exec(_) => None,
        },
        Some(Ready::Notify | Ready::Descriptor(_) | Ready::After(_) | Ready::Log(_)) | None => None,
    };
    let mut ports: Vec<u16> = of_checks.chain(of_start).collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn own(endpoint: &Endpoint) -> Option<u16> {
    match endpoint {
        Endpoint::Tcp(address) => local(address),
        Endpoint::Unix(_) => None,
    }
}

fn local(address: &Address) -> Option<u16> {
    let numeric = address.host.parse::<std::net::IpAddr>();
    let is_local = numeric.map_or(address.host == "localhost", |ip| ip.is_loopback());
    is_local.then_some(address.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ports_of_this_machine_are_the_programs_own() {
        let port = |host: &str| local(&Address { host: host.into(), port: 80 });
        assert_eq!(["127.0.0.1", "::1", "localhost"].map(port), [Some(80); 3]);
        assert_eq!(["10.0.0.1", "db.example"].map(port), [None; 2]);
    }
}
