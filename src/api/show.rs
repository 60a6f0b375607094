//! What the engine knows, as the wire shows it.

use serde_json::json;

use super::times::{Clock, rfc3339, short_local, signal_name, uptime};
use super::view::{
    ActView, DaemonView, EventView, ExitView, OutcomeView, ProcessView, ReloadView, SCHEMA,
    StatusView,
};
use crate::core::{BreakerState, Exit, Goal, ProcessStatus, StateCode};
use crate::engine::{
    DaemonStatus, Happening, HappeningKind, Outcome, OutcomeKind, Reloaded, Status,
};
use crate::os::usage::usage;
use crate::time::{Instant, Wall};

/// Shows the status of the daemon and of the processes that were asked for.
pub fn status_view(status: &Status) -> StatusView {
    StatusView {
        schema: SCHEMA,
        mode: match status.daemon.phase {
            "running" => status.daemon.mode.to_lowercase(),
            other => other.to_owned(),
        },
        daemon: daemon_view(&status.daemon),
        programs: status.processes.iter().map(|it| process_view(it, status.now)).collect(),
        sessions: Vec::new(),
    }
}

fn daemon_view(daemon: &DaemonStatus) -> DaemonView {
    DaemonView {
        version: daemon.version.to_owned(),
        pid: daemon.brain_pid,
        keeper_pid: daemon.keeper_pid,
        started: rfc3339(daemon.started),
        config: daemon.config.display().to_string(),
        warnings: daemon.warnings.clone(),
    }
}

/// Shows one process; `now` is one moment on both clocks.
pub fn process_view(status: &ProcessStatus, now: (Instant, Wall)) -> ProcessView {
    let clock = Clock { now: now.0, wall: now.1 };
    let (goal_by, goal_reason) = match &status.goal_by {
        Some(actor) => (Some(actor.name.clone()), actor.reason.clone()),
        None => (None, None),
    };
    ProcessView {
        name: status.process.to_string(),
        program: status.program.name.to_string(),
        group: status.program.group.to_string(),
        state: status.state.name().to_owned(),
        statecode: status.state.code(),
        goal: match status.goal {
            Goal::Up => "up".to_owned(),
            Goal::Down => "down".to_owned(),
        },
        goal_by,
        goal_reason,
        enabled: status.enabled,
        enabled_by: status.enabled_by.as_ref().map(|actor| actor.name.clone()),
        enabled_reason: status.enabled_by.as_ref().and_then(|actor| actor.reason.clone()),
        enabled_at: status.enabled_by.as_ref().map(|actor| rfc3339(actor.at)),
        pid: status.pid,
        run: status.run.map(|run| run.0),
        health: status.health.word().to_owned(),
        incident: status.incident.map(|incident| incident.0),
        restarts: status.restarts,
        exit: status.last_exit.map(|(exit, at)| exit_view(exit, clock.civil(at))),
        description: description(status, clock),
        since: clock.rfc3339(status.since),
        started: status.started.map(|at| clock.rfc3339(at)),
        uptime_seconds: status.uptime(clock.now).map(|up| millis(up.as_secs_f64())),
        retry_at: status.retry_at.map(|at| clock.rfc3339(at)),
        retry_in_seconds: status.retry_at.map(|at| millis(at.since(clock.now).as_secs_f64())),
        failures: status.failures.0,
        failures_limit: status.failures.1,
        breaker: match status.breaker {
            BreakerState::Closed => "closed".to_owned(),
            BreakerState::Open { .. } => "open".to_owned(),
            BreakerState::HalfOpen => "half-open".to_owned(),
        },
        reason: status.reason.clone(),
        waiting_for: status.waiting_for.iter().map(ToString::to_string).collect(),
        ready: status.ready,
        gives_up_at: status.gives_up_at.map(|at| clock.rfc3339(at)),
        status_text: status.status_text.clone(),
        command: status.program.spawn.argv.clone(),
        memory_bytes: None,
        cpu_seconds: None,
    }
}

/// Adds what the processes use of the machine now.
pub(super) fn add_usage(processes: &mut [ProcessView]) {
    let pids: Vec<u32> = processes.iter().filter_map(|process| process.pid).collect();
    for (pid, usage) in usage(&pids) {
        for process in processes.iter_mut().filter(|process| process.pid == Some(pid)) {
            process.memory_bytes = Some(usage.memory_bytes);
            process.cpu_seconds = Some(millis(usage.cpu_seconds));
        }
    }
}

/// Rounds seconds to whole milliseconds.
fn millis(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

/// Returns supervisord's description, which scripts read off the screen.
fn description(status: &ProcessStatus, clock: Clock) -> String {
    match status.state {
        StateCode::Running => match (status.pid, status.uptime(clock.now)) {
            (Some(pid), Some(up)) => format!("pid {pid}, uptime {}", uptime(up)),
            (Some(pid), None) => format!("pid {pid}"),
            (None, _) => String::new(),
        },
        StateCode::Stopped | StateCode::Exited => match status.last_exit {
            Some((_, at)) => short_local(clock.civil(at)),
            None => "Not started".to_owned(),
        },
        StateCode::Fatal | StateCode::Backoff => match &status.failure {
            Some(failure) => failure.message.clone(),
            None if status.reason.is_empty() => {
                format!("unknown error (try \"tail {}\")", status.process)
            }
            None => status.reason.clone(),
        },
        StateCode::Starting | StateCode::Stopping | StateCode::Unknown => String::new(),
    }
}

fn exit_view(exit: Exit, at: Wall) -> ExitView {
    let at = rfc3339(at);
    match exit {
        Exit::Code(code) => ExitView {
            kind: "code".to_owned(),
            code: Some(code),
            signal: None,
            signal_name: None,
            core_dumped: false,
            at,
            text: format!("exited with code {code}"),
        },
        Exit::Signal { signal, core_dumped } => ExitView {
            kind: "signal".to_owned(),
            code: None,
            signal: Some(signal),
            signal_name: Some(signal_name(signal)),
            core_dumped,
            at,
            text: format!(
                "killed by {}{}",
                signal_name(signal),
                if core_dumped { " (core dumped)" } else { "" }
            ),
        },
        Exit::Unknown => ExitView {
            kind: "unknown".to_owned(),
            code: None,
            signal: None,
            signal_name: None,
            core_dumped: false,
            at,
            text: "ended while nobody could see how".to_owned(),
        },
    }
}

/// Shows what an act did; `now` is one moment on both clocks.
pub fn act_view(outcomes: &[Outcome], now: (Instant, Wall)) -> ActView {
    let result = |outcome: &Outcome| OutcomeView {
        name: outcome.process.to_string(),
        result: outcome_name(outcome.result).to_owned(),
        message: outcome.message.clone(),
        process: process_view(&outcome.status, now),
    };
    ActView { schema: SCHEMA, results: outcomes.iter().map(result).collect() }
}

pub(super) fn outcome_name(kind: OutcomeKind) -> &'static str {
    match kind {
        OutcomeKind::Done => "done",
        OutcomeKind::Unchanged => "unchanged",
        OutcomeKind::Failed => "failed",
        OutcomeKind::TimedOut => "timed-out",
    }
}

/// Shows what a reload of the configuration changed.
pub fn reload_view(reloaded: Reloaded) -> ReloadView {
    let Reloaded { added, removed, restarted, updated, warnings } = reloaded;
    ReloadView { schema: SCHEMA, added, removed, restarted, updated, warnings }
}

/// Shows one event.
pub fn event_view(happening: &Happening) -> EventView {
    let (kind, data) = match &happening.kind {
        HappeningKind::State { process, from, to, pid, run, detail } => (
            "state",
            json!({
                "process": process, "from": from, "to": to,
                "pid": pid, "run": run, "detail": detail,
            }),
        ),
        HappeningKind::Audit { by, uid, request, outcome } => {
            ("audit", json!({ "by": by, "uid": uid, "request": request, "outcome": outcome }))
        }
        HappeningKind::Check { target, check, from, to, detail } => (
            "check",
            json!({ "target": target, "check": check, "from": from, "to": to, "detail": detail }),
        ),
        HappeningKind::Incident { incident, target, what, sentence } => (
            "incident",
            json!({ "incident": incident, "target": target, "what": what, "sentence": sentence }),
        ),
        HappeningKind::Alert { what, target, incident, sentence } => (
            "alert",
            json!({ "what": what, "target": target, "incident": incident, "sentence": sentence }),
        ),
        HappeningKind::Mode { from, to, reasons } => {
            ("mode", json!({ "from": from, "to": to, "reasons": reasons }))
        }
        HappeningKind::Daemon { what, detail } => {
            ("daemon", json!({ "what": what, "detail": detail }))
        }
    };
    EventView { id: happening.id, at: rfc3339(happening.at), kind: kind.to_owned(), data }
}

#[cfg(test)]
mod tests {
    use super::super::bench::{NOW, running};
    use super::*;
    use crate::core::SpawnFailure;

    fn described(change: impl FnOnce(&mut ProcessStatus)) -> String {
        let mut status = running();
        change(&mut status);
        process_view(&status, NOW).description
    }

    #[test]
    fn descriptions_read_as_supervisords_do() {
        assert_eq!(described(|_| {}), "pid 123, uptime 0:01:07");
        assert_eq!(described(|it| it.state = StateCode::Starting), "");
        assert_eq!(described(|it| it.state = StateCode::Backoff), "it is up");
        let never = |it: &mut ProcessStatus| {
            it.state = StateCode::Stopped;
            it.last_exit = None;
        };
        assert_eq!(described(never), "Not started");
        let failed = |it: &mut ProcessStatus| {
            it.state = StateCode::Fatal;
            let message = "cannot execute `x`".to_owned();
            it.failure = Some(SpawnFailure { message, transient: false });
        };
        assert_eq!(described(failed), "cannot execute `x`");
        let ended = described(|it| it.state = StateCode::Exited);
        let shape: String =
            ended.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert!(matches!(shape.as_str(), "Nov 00 00:00 AM" | "Nov 00 00:00 PM"), "{ended}");
    }

    #[test]
    fn a_signal_is_shown_with_its_name_and_the_core() {
        let view = exit_view(Exit::Signal { signal: libc::SIGSEGV, core_dumped: true }, NOW.1);
        assert_eq!(view.text, "killed by SIGSEGV (core dumped)");
        assert_eq!((view.kind.as_str(), view.code, view.signal), ("signal", None, Some(11)));
    }

    #[test]
    fn a_retry_is_shown_as_a_time_and_as_a_delay() {
        let mut status = running();
        status.retry_at = Some(NOW.0 + std::time::Duration::from_millis(4_200));
        let view = process_view(&status, NOW);
        assert_eq!(view.retry_in_seconds, Some(4.2));
        assert_eq!(view.retry_at.as_deref(), Some("2026-11-23T11:52:11.320Z"));
    }
}
