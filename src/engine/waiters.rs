//! Acts whose effect is waited for: who asked, for what, until when.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::oneshot;

use super::switching::{Switched, judge_switch, with_word};
use super::{Outcome, OutcomeKind, Refusal, Verb};
use crate::core::{Goal, ProcessStatus, StateCode};
use crate::name::{ProcessName, RunId};
use crate::time::Instant;

/// Where the answer to an act goes.
pub(super) type Reply = oneshot::Sender<Result<Vec<Outcome>, Refusal>>;

/// One act under way.
#[derive(Debug)]
struct Waiter {
    verb: Verb,
    /// Each process with what it was before the act.
    pending: BTreeMap<ProcessName, ProcessStatus>,
    done: Vec<Outcome>,
    until: Instant,
    reply: Reply,
}

/// What a process was when the act began.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Before {
    pub(super) state: StateCode,
    pub(super) run: Option<RunId>,
    pub(super) restarts: u64,
    pub(super) switched: Switched,
}

impl From<&ProcessStatus> for Before {
    fn from(status: &ProcessStatus) -> Self {
        let switched = Switched::from(status);
        Self { state: status.state, run: status.run, restarts: status.restarts, switched }
    }
}

/// All acts under way.
#[derive(Debug, Default)]
pub(super) struct Waiters(Vec<Waiter>);

impl Waiters {
    pub(super) fn add(
        &mut self,
        verb: Verb,
        pending: BTreeMap<ProcessName, ProcessStatus>,
        done: Vec<Outcome>,
        until: Instant,
        reply: Reply,
    ) {
        self.0.push(Waiter { verb, pending, done, until, reply });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns when the first of them runs out of patience.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.iter().map(|waiter| waiter.until).min()
    }

    /// Looks at the processes that changed, answers what is reached or over.
    pub(super) fn check(
        &mut self,
        now: Instant,
        changed: &BTreeSet<ProcessName>,
        status: impl Fn(&ProcessName) -> Option<ProcessStatus>,
    ) {
        // What does not run any more by itself may be what other starts wait for.
        let is_end = |process: &ProcessName| status(process).is_none_or(|it| it.has_ended());
        let has_end = changed.iter().any(is_end);
        for waiter in &mut self.0 {
            let over = waiter.until <= now;
            let all = over || (has_end && starts(waiter.verb));
            let concerned = |process: &&ProcessName| all || changed.contains(*process);
            let looked_at: Vec<_> = waiter.pending.keys().filter(concerned).cloned().collect();
            for process in looked_at {
                let Some(before) = waiter.pending.get(&process) else { continue };
                let (status, outcome) = match status(&process) {
                    Some(status) => {
                        let outcome = judge(waiter.verb, &Before::from(before), &status);
                        let late =
                            || (OutcomeKind::TimedOut, format!("not yet: {}", status.reason));
                        let outcome = outcome.or_else(|| over.then(late));
                        (status, outcome)
                    }
                    None => {
                        let status = removed(before);
                        let outcome = judge_removed(waiter.verb, &status);
                        (status, Some(outcome))
                    }
                };
                if let Some((result, message)) = outcome {
                    waiter.pending.remove(&process);
                    waiter.done.push(Outcome { process, result, message, status });
                }
            }
        }
        let mut index = 0;
        while index < self.0.len() {
            // A client that has gone away waits no longer.
            if self.0[index].pending.is_empty() || self.0[index].reply.is_closed() {
                let mut waiter = self.0.swap_remove(index);
                waiter.done.sort_by(|a, b| a.process.cmp(&b.process));
                let _ = waiter.reply.send(Ok(waiter.done));
            } else {
                index += 1;
            }
        }
    }

    /// Answers everybody: the daemon ends.
    pub(super) fn abandon(&mut self) {
        for waiter in self.0.drain(..) {
            let _ = waiter.reply.send(Err(Refusal::ShuttingDown));
        }
    }
}

/// Whether an act waits for a run.
fn starts(verb: Verb) -> bool {
    match verb {
        Verb::Start | Verb::Restart | Verb::Enable { now: true } => true,
        Verb::Stop | Verb::Enable { now: false } | Verb::Disable { .. } => false,
        Verb::Reload | Verb::Signal(_) => false,
    }
}

/// Returns what is left to say of a process that is no more.
fn removed(last: &ProcessStatus) -> ProcessStatus {
    let reason = "removed from the configuration".to_owned();
    ProcessStatus { state: StateCode::Stopped, run: None, pid: None, reason, ..last.clone() }
}

fn judge_removed(verb: Verb, status: &ProcessStatus) -> (OutcomeKind, String) {
    match verb {
        Verb::Stop | Verb::Disable { .. } => {
            (OutcomeKind::Done, format!("stopped; {}", status.reason))
        }
        Verb::Start | Verb::Restart | Verb::Enable { .. } | Verb::Reload | Verb::Signal(_) => {
            (OutcomeKind::Failed, format!("{} meanwhile", status.reason))
        }
    }
}

/// Decides whether an act has reached its effect on a process, and with what words.
pub(super) fn judge(
    verb: Verb,
    before: &Before,
    status: &ProcessStatus,
) -> Option<(OutcomeKind, String)> {
    match verb {
        Verb::Start => judge_start(before, status),
        Verb::Restart => {
            // The old run must be gone before the new one can count.
            let replaced = before.run.is_none() || status.run != before.run;
            if replaced || matches!(status.state, StateCode::Fatal) {
                judge_start(&Before { state: StateCode::Stopped, ..before.clone() }, status)
                    .map(|(kind, text)| (kind, word_restart(before, kind, text)))
            } else {
                None
            }
        }
        Verb::Stop => match (status.goal, status.state) {
            (Goal::Up, _) => {
                Some((OutcomeKind::Failed, "somebody else started it meanwhile".into()))
            }
            (Goal::Down, StateCode::Stopping | StateCode::Starting | StateCode::Running) => None,
            (Goal::Down, _) if before.run.is_none() && before.state == StateCode::Stopped => {
                Some((OutcomeKind::Unchanged, "not running".into()))
            }
            (Goal::Down, _) if status.run.is_none() => Some((OutcomeKind::Done, "stopped".into())),
            (Goal::Down, _) => None,
        },
        Verb::Enable { now: false } => Some(judge_switch(true, before.switched, status)),
        Verb::Disable { now: false } => Some(judge_switch(false, before.switched, status)),
        Verb::Enable { now: true } => {
            judge_start(before, status).map(|outcome| with_word(true, outcome))
        }
        Verb::Disable { now: true } => {
            judge(Verb::Stop, before, status).map(|outcome| with_word(false, outcome))
        }
        Verb::Reload | Verb::Signal(_) => Some((OutcomeKind::Done, "signalled".into())),
    }
}

fn judge_start(before: &Before, status: &ProcessStatus) -> Option<(OutcomeKind, String)> {
    let was = before.state.name().to_ascii_lowercase();
    match status.state {
        StateCode::Running if before.state == StateCode::Running && before.run == status.run => {
            Some((OutcomeKind::Unchanged, "already running".into()))
        }
        StateCode::Running => Some((OutcomeKind::Done, format!("started (was {was})"))),
        StateCode::Fatal => Some((OutcomeKind::Failed, status.reason.clone())),
        // Without a next try it waits for something else to run, or for what is left to end.
        StateCode::Backoff if status.retry_at.is_some() || status.blocked => {
            Some((OutcomeKind::Failed, status.reason.clone()))
        }
        StateCode::Exited => match (status.run, status.last_exit) {
            (Some(_), _) => None,
            (None, _) => Some((OutcomeKind::Done, status.reason.clone())),
        },
        StateCode::Stopped if status.goal == Goal::Down => {
            Some((OutcomeKind::Failed, "somebody else stopped it meanwhile".into()))
        }
        StateCode::Stopped if status.blocked => Some((OutcomeKind::Failed, status.reason.clone())),
        StateCode::Stopped | StateCode::Starting | StateCode::Stopping => None,
        StateCode::Backoff | StateCode::Unknown => None,
    }
}

fn word_restart(before: &Before, kind: OutcomeKind, text: String) -> String {
    match (kind, before.run) {
        (OutcomeKind::Done, Some(_)) => "restarted".into(),
        (OutcomeKind::Done, None) => {
            format!("started (was {})", before.state.name().to_ascii_lowercase())
        }
        _ => text,
    }
}
