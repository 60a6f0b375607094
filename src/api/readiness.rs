//! Whether all that should run does, in one answer for those who send traffic.

use crate::core::{Exit, ProcessStatus, StateCode};
use crate::engine::Status;

/// Most processes that are named.
const MAX_NAMES: usize = 20;

/// Says what is missing, `None` when every enabled program runs and is ready.
///
/// A program that has done its work and is left so counts as well. What an operator has stopped
/// and not disabled is missing: its work is not done, on purpose or not.
pub(super) fn obstacles(status: &Status) -> Option<String> {
    if status.daemon.phase != "running" {
        return Some(format!("the daemon is {}", status.daemon.phase));
    }
    let missing: Vec<String> = status
        .processes
        .iter()
        .filter(|process| process.enabled)
        .filter_map(|process| Some(format!("{} ({})", process.process, missing(process)?)))
        .collect();
    let named = missing.get(..MAX_NAMES).unwrap_or(&missing).join(", ");
    match missing.len() {
        0 => None,
        count if count > MAX_NAMES => {
            Some(format!("not ready: {named} and {} more", count - MAX_NAMES))
        }
        _ => Some(format!("not ready: {named}")),
    }
}

fn missing(process: &ProcessStatus) -> Option<&'static str> {
    match process.state {
        StateCode::Running if process.ready == Some(false) => Some("not ready"),
        StateCode::Running => None,
        StateCode::Exited if has_succeeded(process) => None,
        StateCode::Stopped
        | StateCode::Starting
        | StateCode::Backoff
        | StateCode::Stopping
        | StateCode::Exited
        | StateCode::Fatal
        | StateCode::Unknown => Some(process.state.name()),
    }
}

fn has_succeeded(process: &ProcessStatus) -> bool {
    let good = &process.program.lifecycle.success_exit_codes;
    match process.last_exit {
        Some((Exit::Code(code), _)) => good.contains(&code) && process.failure.is_none(),
        Some((Exit::Signal { .. } | Exit::Unknown, _)) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::bench::{running, status};
    use super::*;

    fn said(change: impl FnOnce(&mut ProcessStatus)) -> Option<String> {
        let mut process = running();
        change(&mut process);
        obstacles(&Status { processes: vec![process], ..status() })
    }

    #[test]
    fn what_is_enabled_has_to_run_and_to_be_ready() {
        assert_eq!(said(|_| {}), None);
        assert_eq!(said(|it| it.ready = Some(true)), None);
        let not = |why: &str| Some(format!("not ready: web:0 ({why})"));
        assert_eq!(said(|it| it.ready = Some(false)), not("not ready"));
        assert_eq!(said(|it| it.state = StateCode::Fatal), not("FATAL"));
        assert_eq!(said(|it| it.state = StateCode::Stopped), not("STOPPED"));
        let disabled = |it: &mut ProcessStatus| {
            (it.state, it.enabled) = (StateCode::Fatal, false);
        };
        assert_eq!(said(disabled), None);
    }

    #[test]
    fn what_has_done_its_work_is_not_waited_for() {
        let ended = |code: i32| {
            move |it: &mut ProcessStatus| {
                it.state = StateCode::Exited;
                it.last_exit = Some((Exit::Code(code), it.since));
            }
        };
        assert_eq!(said(ended(0)), None);
        assert_eq!(said(ended(3)).as_deref(), Some("not ready: web:0 (EXITED)"));
        let also_good = |it: &mut ProcessStatus| {
            ended(3)(it);
            Arc::make_mut(&mut it.program).lifecycle.success_exit_codes = vec![3];
        };
        assert_eq!(said(also_good), None);
    }

    #[test]
    fn a_daemon_that_stops_is_not_ready_and_a_crowd_is_counted() {
        let mut stopping = status();
        stopping.daemon.phase = "stopping";
        assert_eq!(obstacles(&stopping).as_deref(), Some("the daemon is stopping"));
        let failed = ProcessStatus { state: StateCode::Fatal, ..running() };
        let crowd = Status { processes: vec![failed; MAX_NAMES + 3], ..status() };
        assert!(obstacles(&crowd).unwrap().ends_with(" and 3 more"));
    }
}
