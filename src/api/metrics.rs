//! The numbers of `/metrics`. Everything is looked up when somebody asks; nothing is sampled in
//! between, and without a monitor it costs nothing.

use super::openmetrics::{Family, Kind, Page, flag};
use super::times::Clock;
use crate::core::care::mode::Mode;
use crate::core::care::{HealthState, RemedyResult, Verdict};
use crate::core::{BreakerState, Exit, ProcessStatus, StateCode};
use crate::engine::{CheckStatus, Checks, Counts, Handle, Refusal, Status, shown_target};
use crate::os::{clock, usage};
use crate::time::{Instant, Wall};

const STATES: [StateCode; 8] = [
    StateCode::Stopped,
    StateCode::Starting,
    StateCode::Running,
    StateCode::Backoff,
    StateCode::Stopping,
    StateCode::Exited,
    StateCode::Fatal,
    StateCode::Unknown,
];

const HEALTH: [HealthState; 10] = [
    HealthState::None,
    HealthState::Starting,
    HealthState::Up,
    HealthState::Suspect,
    HealthState::Down,
    HealthState::Healing,
    HealthState::Verifying,
    HealthState::Flapping,
    HealthState::Held,
    HealthState::Broken,
];

const VERDICTS: [Verdict; 5] =
    [Verdict::Pass, Verdict::Warn, Verdict::Fail, Verdict::Timeout, Verdict::Unknown];

const MODES: [Mode; 3] = [Mode::Normal, Mode::Degraded, Mode::Emergency];

/// Asks the engine and writes the page.
///
/// # Errors
///
/// When the engine does not answer any more.
pub(super) async fn page(handle: &Handle, version: &str) -> Result<String, Refusal> {
    let asked = clock::now();
    let counts = handle.counts().await?;
    let answered = clock::now();
    let status = handle.status(Vec::new()).await?;
    let checks = handle.checks(Vec::new()).await?;
    let mut page = Page::default();
    write_daemon(&mut page, &status, version);
    let lag = answered.since(asked).as_secs_f64();
    let help = "How long the daemon's loop took to answer this request.";
    page.family("mend_loop_answer_seconds", Kind::Gauge, help).add(&[], lag);
    write_usage(&mut page, &status);
    write_processes(&mut page, &status);
    write_checks(&mut page, &checks);
    write_counts(&mut page, &counts);
    Ok(page.finish())
}

fn write_daemon(page: &mut Page, status: &Status, version: &str) {
    let daemon = &status.daemon;
    let help = "The daemon that answers.";
    page.family("mend_build", Kind::Info, help).add(&[("version", version)], 1.0);
    let help = "When the daemon that answers began, in Unix time.";
    page.family("mend_daemon_start_time_seconds", Kind::Gauge, help)
        .add(&[], seconds(daemon.started));
    let help = "Warnings in the daemon's status.";
    page.family("mend_daemon_warnings", Kind::Gauge, help).add(&[], daemon.warnings.len() as f64);
    let help = "Whether the daemon is stopping everything.";
    page.family("mend_daemon_stopping", Kind::Gauge, help)
        .add(&[], flag(daemon.phase != "running"));
    let modes = MODES.map(|mode| mode.word().to_lowercase());
    let mode = daemon.mode.to_lowercase();
    let help = "How well the host is.";
    page.family("mend_mode", Kind::StateSet, help).state(
        &[],
        modes.iter().map(String::as_str),
        &mode,
    );
}

/// Writes what keeper and brain use of the machine.
fn write_usage(page: &mut Page, status: &Status) {
    let parts = [("keeper", status.daemon.keeper_pid), ("brain", status.daemon.brain_pid)];
    let used = usage::usage(&parts.map(|(_, pid)| pid));
    let used: Vec<_> = parts
        .iter()
        .filter_map(|(part, pid)| Some((*part, used.iter().find(|(of, _)| of == pid)?.1)))
        .collect();
    let help = "Memory of the daemon's processes that is in the machine's memory.";
    let mut family = page.family("mend_daemon_resident_memory_bytes", Kind::Gauge, help);
    used.iter().for_each(|(part, it)| family.add(&[("part", part)], it.memory_bytes as f64));
    let help = "The part of it that the process shares with no file.";
    let mut family = page.family("mend_daemon_private_memory_bytes", Kind::Gauge, help);
    for (part, pid) in parts {
        family.add(&[("part", part)], usage::memory(&[pid]) as f64);
    }
    let help = "Processor time of the daemon's processes.";
    let mut family = page.family("mend_daemon_cpu_seconds", Kind::Counter, help);
    used.iter().for_each(|(part, it)| family.add(&[("part", part)], it.cpu_seconds));
    let descriptors = parts.map(|(part, pid)| (part, usage::descriptors(pid).ok()));
    let help = "Open descriptors of the daemon's processes.";
    let mut family = page.family("mend_daemon_open_descriptors", Kind::Gauge, help);
    for (part, found) in descriptors {
        found.iter().for_each(|it| family.add(&[("part", part)], it.used as f64));
    }
    let help = "How many descriptors they may have open.";
    let mut family = page.family("mend_daemon_max_descriptors", Kind::Gauge, help);
    for (part, found) in descriptors {
        let limit = found.and_then(|it| it.limit);
        limit.iter().for_each(|limit| family.add(&[("part", part)], *limit as f64));
    }
}

/// A process with its labels.
struct Labelled<'s> {
    status: &'s ProcessStatus,
    name: String,
}

impl Labelled<'_> {
    fn labels(&self) -> [(&str, &str); 3] {
        let program = &self.status.program;
        let (name, group) = (program.name.as_str(), program.group.as_str());
        [("process", &self.name), ("program", name), ("group", group)]
    }
}

fn write_processes(page: &mut Page, status: &Status) {
    let clock = Clock { now: status.now.0, wall: status.now.1 };
    let unix = |at: Instant| seconds(clock.civil(at));
    let all: Vec<Labelled<'_>> = status
        .processes
        .iter()
        .map(|status| Labelled { status, name: status.process.to_string() })
        .collect();
    // One number of each process that has it.
    let mut each = |name, kind, help: &str, value: &dyn Fn(&ProcessStatus) -> Option<f64>| {
        let mut family: Family<'_> = page.family(name, kind, help);
        for process in &all {
            if let Some(value) = value(process.status) {
                family.add(&process.labels(), value);
            }
        }
    };
    let (gauge, counter) = (Kind::Gauge, Kind::Counter);
    each("mend_process_up", gauge, "Whether the process is RUNNING.", &|it| {
        Some(flag(it.state == StateCode::Running))
    });
    let help = "Whether it is ready, where its program declares what shows that.";
    each("mend_process_ready", gauge, help, &|it| it.ready.map(flag));
    let help = "Whether its program starts with the daemon.";
    each("mend_process_enabled", gauge, help, &|it| Some(flag(it.enabled)));
    let help = "Runs after the first one, for whatever reason.";
    each("mend_process_restarts", counter, help, &|it| Some(it.restarts as f64));
    let help = "When the run that lives was spawned, in Unix time.";
    each("mend_process_start_time_seconds", gauge, help, &|it| it.started.map(unix));
    let help = "Exit code of the last run, where it ended with one.";
    each("mend_process_last_exit_code", gauge, help, &|it| match it.last_exit?.0 {
        Exit::Code(code) => Some(f64::from(code)),
        Exit::Signal { .. } | Exit::Unknown => None,
    });
    let help = "Number of the signal that killed the last run, where one did.";
    each("mend_process_last_exit_signal", gauge, help, &|it| match it.last_exit?.0 {
        Exit::Signal { signal, .. } => Some(f64::from(signal)),
        Exit::Code(_) | Exit::Unknown => None,
    });
    let help = "When the last run ended, in Unix time.";
    each("mend_process_last_exit_time_seconds", gauge, help, &|it| {
        it.last_exit.map(|(_, at)| unix(at))
    });
    let help = "Whether its breaker is open: it has failed too often and rests.";
    each("mend_process_breaker_open", gauge, help, &|it| match it.breaker {
        BreakerState::Open { .. } => Some(1.0),
        BreakerState::Closed | BreakerState::HalfOpen => Some(0.0),
    });
    let help = "When the next start is due, in Unix time, while one is waited for.";
    each("mend_process_backoff_until_seconds", gauge, help, &|it| it.retry_at.map(unix));
    let mut family =
        page.family("mend_process_state", Kind::StateSet, "The state, as supervisord names it.");
    for process in &all {
        let current = process.status.state.name();
        family.state(&process.labels(), STATES.map(StateCode::name), current);
    }
    let help = "How its checks see it, all together.";
    let mut family = page.family("mend_process_health", Kind::StateSet, help);
    for process in &all {
        let current = process.status.health.word();
        family.state(&process.labels(), HEALTH.map(HealthState::word), current);
    }
}

fn write_checks(page: &mut Page, checks: &Checks) {
    let clock = Clock { now: checks.now.0, wall: checks.now.1 };
    let all: Vec<(String, &CheckStatus)> =
        checks.checks.iter().map(|check| (shown_target(&check.id.target), check)).collect();
    let labels = |(target, check): &(String, &CheckStatus)| {
        [("target", target.clone()), ("check", check.id.check.to_string())]
    };
    let mut family =
        page.family("mend_check_verdict", Kind::StateSet, "What the check found last.");
    for it in &all {
        let Some(last) = it.1.samples.last() else { continue };
        let labels = labels(it);
        family.state(&borrowed(&labels), VERDICTS.map(Verdict::word), last.verdict.word());
    }
    let mut each = |name, help: &str, value: &dyn Fn(&CheckStatus) -> Option<f64>| {
        let mut family = page.family(name, Kind::Gauge, help);
        for it in &all {
            if let Some(value) = value(it.1) {
                family.add(&borrowed(&labels(it)), value);
            }
        }
    };
    each("mend_check_down", "Whether it is down, whatever is done about it.", &|check| {
        Some(flag(is_down(check.state)))
    });
    each("mend_check_latency_seconds", "How long its last run took.", &|check| {
        check.samples.last().map(|last| last.took.as_secs_f64())
    });
    let help = "When its last result came, in Unix time.";
    each("mend_check_last_result_time_seconds", help, &|check| {
        check.samples.last().map(|last| seconds(clock.civil(last.at)))
    });
}

fn borrowed<'l>(labels: &'l [(&'l str, String); 2]) -> [(&'l str, &'l str); 2] {
    [(labels[0].0, &labels[0].1), (labels[1].0, &labels[1].1)]
}

const fn is_down(state: HealthState) -> bool {
    match state {
        HealthState::Down | HealthState::Healing | HealthState::Verifying => true,
        HealthState::None | HealthState::Starting | HealthState::Up | HealthState::Suspect => false,
        HealthState::Flapping | HealthState::Held | HealthState::Broken => false,
    }
}

fn write_counts(page: &mut Page, counts: &Counts) {
    let help = "Runs of checks, by what they found.";
    let mut family = page.family("mend_check_runs", Kind::Counter, help);
    for verdict in VERDICTS {
        let count = counts.checks.get(&verdict).copied().unwrap_or(0);
        family.add(&[("verdict", verdict.word())], count as f64);
    }
    let help = "Remedies that are over, by what became of them.";
    let mut family = page.family("mend_remedies", Kind::Counter, help);
    for ((remedy, result), count) in &counts.remedies {
        family.add(&[("remedy", remedy), ("result", result_word(*result))], *count as f64);
    }
    let mut one = |name, kind, help: &str, value: u64| {
        page.family(name, kind, help).add(&[], value as f64);
    };
    let (gauge, counter) = (Kind::Gauge, Kind::Counter);
    one("mend_incidents", counter, "Incidents that were ever opened.", counts.incidents);
    one("mend_incidents_open", gauge, "Incidents that go on.", counts.open_incidents);
    let help = "Output that was written into logs.";
    one("mend_capture_written_bytes", counter, help, counts.captured_bytes);
    let help = "Output that was given up, because its log could not be written.";
    one("mend_capture_dropped_bytes", counter, help, counts.dropped_bytes);
    let help = "Entries of the history that could not be kept.";
    one("mend_history_lost_rows", counter, help, counts.lost_records);
}

const fn result_word(result: RemedyResult) -> &'static str {
    match result {
        RemedyResult::Verified => "verified",
        RemedyResult::NotVerified => "not-verified",
        RemedyResult::NotDone => "not-done",
        RemedyResult::Abandoned => "abandoned",
    }
}

/// Returns Unix time in seconds.
fn seconds(at: Wall) -> f64 {
    at.0 as f64 / 1_000.0
}
