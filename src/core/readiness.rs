//! When a start has worked, when it has failed, and when a run that runs has hung.
//!
//! A process whose program declares `ready` is starting until it is told of as ready, or until
//! its start has taken too long. A run that is too late, or that stops feeding its watchdog, is
//! stopped like any other and then counts as a failure: backoff and breaker decide what follows.

use std::time::Duration;

use super::program::Process;
use super::snapshot::{Born, Failing, State, StopPhase};
use super::text;
use super::{Action, Goal, SpawnFailure, Word};
use crate::config::{Ready, RestartPolicy};
use crate::name::RunId;
use crate::time::Instant;

/// A deadline that is seen so much later shows that this supervisor was asleep, or the machine:
/// then it says nothing of the run.
const LATE: Duration = Duration::from_secs(1);
/// What a run gets then, and from the next brain, at least: time for a look at it.
const ANOTHER_LOOK: Duration = Duration::from_secs(5);
/// The number of SIGABRT; the core may not ask the system.
const SIGABRT: i32 = 6;

impl Process {
    /// Returns whether a run counts as running as soon as it lives.
    pub(super) fn counts_at_once(&self) -> bool {
        let lifecycle = &self.program.lifecycle;
        lifecycle.ready.is_none() && lifecycle.start_period.is_zero()
    }

    /// Returns when the start is over, one way or the other.
    pub(super) fn start_ends(&self, born: Born) -> Instant {
        let lifecycle = &self.program.lifecycle;
        match &lifecycle.ready {
            None => born.at + lifecycle.start_period,
            Some(Ready::After(time)) => born.at + *time,
            Some(Ready::Notify | Ready::Descriptor(_) | Ready::Log(_) | Ready::Probe(_)) => {
                let until = born.at + lifecycle.start_timeout;
                self.facts.said.start_until.map_or(until, |extended| extended.max(until))
            }
        }
    }

    /// Returns when the start fails if the run is not ready by then.
    pub(super) fn gives_up_at(&self) -> Option<Instant> {
        match (&self.facts.state, &self.program.lifecycle.ready) {
            (_, None | Some(Ready::After(_))) => None,
            (_, Some(Ready::Notify | Ready::Descriptor(_))) if self.facts.said.unheard => None,
            (State::Starting { born: Some(born), .. }, Some(_)) => Some(self.start_ends(*born)),
            (State::Starting { born: None, .. } | State::Running { .. }, _) => None,
            (State::Stopped | State::Waiting { .. } | State::Stopping { .. }, _) => None,
            (State::Backoff { .. } | State::Exited | State::Fatal, _) => None,
        }
    }

    /// Returns whether it is ready; `None` when nothing is declared that would show it.
    pub(super) fn is_ready(&self) -> Option<bool> {
        let ready = matches!(self.facts.state, State::Running { .. });
        self.program.lifecycle.ready.as_ref().map(|_| ready)
    }

    pub(super) fn on_start_ends(
        &mut self,
        now: Instant,
        run: RunId,
        born: Born,
        stop_wanted: bool,
        actions: &mut Vec<Action>,
    ) {
        if self.gives_up_at().is_none() {
            let detail = match self.facts.said.unheard {
                true => format!("pid {}; nobody knows whether it is ready", born.pid),
                false => format!("pid {}", born.pid),
            };
            return self.count_as_running(now, run, born, detail, actions);
        }
        if stop_wanted || now.since(self.start_ends(born)) > LATE {
            return self.look_again(now, actions);
        }
        let limit = text::duration(self.start_ends(born).since(born.at));
        let why = format!("not ready after {limit}: {}", self.awaits());
        self.facts.failing = Some(Failing { why: why.clone(), counted_as_running: false });
        self.facts.because = None;
        self.begin_stop(now, &why, actions);
    }

    /// Gives a start that is waited for the time for another look, whatever its time was.
    pub(super) fn look_again(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.gives_up_at().is_some() {
            self.extend(now + ANOTHER_LOOK);
            self.persist(actions);
        }
    }

    /// Says what a start waits for, and what was last seen of it.
    pub(super) fn awaits(&self) -> String {
        let Some(ready) = &self.program.lifecycle.ready else { return String::new() };
        match &self.facts.said.look {
            Some(look) => format!("{ready}: {look}"),
            None => format!("waits for {ready}"),
        }
    }

    /// Believes what the run has said if that is what is asked of it.
    pub(super) fn settle_ready(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if let State::Starting { run, born: Some(_) } = self.facts.state
            && self.facts.said.ready
            && self.program.lifecycle.ready == Some(Ready::Notify)
        {
            self.on_ready(now, run, actions);
        }
    }

    pub(super) fn on_ready(&mut self, now: Instant, run: RunId, actions: &mut Vec<Action>) {
        match self.facts.state {
            State::Starting { run: ours, born: Some(born) } if ours == run => {
                if self.program.lifecycle.ready.is_some() {
                    let time = text::duration(now.since(born.at));
                    let detail = format!("pid {}, ready after {time}", born.pid);
                    self.count_as_running(now, run, born, detail, actions);
                }
            }
            State::Starting { .. } | State::Stopped | State::Waiting { .. } => {}
            State::Running { .. } | State::Stopping { .. } | State::Backoff { .. } => {}
            State::Exited | State::Fatal => {}
        }
    }

    pub(super) fn count_as_running(
        &mut self,
        now: Instant,
        run: RunId,
        born: Born,
        detail: String,
        actions: &mut Vec<Action>,
    ) {
        self.facts.said.look = None;
        self.fed = now;
        self.enter(now, State::Running { run, born }, detail, actions);
    }

    /// Takes a word of the living run, or about it.
    pub(super) fn on_told(
        &mut self,
        now: Instant,
        run: RunId,
        word: Word,
        actions: &mut Vec<Action>,
    ) {
        if self.run() != Some(run) {
            return;
        }
        if word == Word::Alive {
            // Too often to write down; see `Process::fed`.
            self.fed = now;
            return;
        }
        let before = self.facts.clone();
        match word {
            Word::Ready => self.facts.said.ready = true,
            Word::Unheard => {
                self.facts.said.unheard = matches!(self.facts.state, State::Starting { .. });
            }
            Word::Look(look) => {
                if matches!(self.facts.state, State::Starting { .. }) {
                    self.facts.said.look = Some(look);
                }
            }
            Word::Status(text) => self.facts.said.status = Some(text).filter(|t| !t.is_empty()),
            Word::Extend(time) => self.extend(now + time),
            Word::Alive => {}
            Word::Hung => {
                if matches!(self.facts.state, State::Running { .. }) {
                    self.on_hung(now, "called its watchdog".to_owned(), actions);
                }
            }
            Word::Watchdog(time) => {
                self.facts.said.watchdog = Some(time);
                self.fed = now;
            }
        }
        if self.facts != before {
            self.persist(actions);
        }
        self.settle_ready(now, actions);
    }

    /// Gives a start or a stop that is under way time until then; never less than it had.
    fn extend(&mut self, until: Instant) {
        match &mut self.facts.state {
            State::Starting { .. } => {
                let said = &mut self.facts.said;
                said.start_until = said.start_until.max(Some(until));
            }
            State::Stopping { phase: StopPhase::Signalled { until: end, .. }, .. } => {
                *end = until.max(*end);
            }
            State::Stopping { .. } | State::Running { .. } | State::Stopped => {}
            State::Waiting { .. } | State::Backoff { .. } | State::Exited | State::Fatal => {}
        }
    }

    /// Returns how long a running process may be silent.
    fn watchdog(&self) -> Option<Duration> {
        let declared = self.program.lifecycle.watchdog?;
        // A run that is to be replaced may be one that was never told of a watchdog.
        let time = self.facts.said.watchdog.unwrap_or(declared);
        (!time.is_zero() && !self.facts.restart).then_some(time)
    }

    /// Returns when the watchdog of a running process bites.
    pub(super) fn watchdog_ends(&self) -> Option<Instant> {
        self.watchdog().map(|time| self.fed + time)
    }

    pub(super) fn on_watchdog_ends(
        &mut self,
        now: Instant,
        stop_wanted: bool,
        actions: &mut Vec<Action>,
    ) {
        if stop_wanted || self.watchdog_ends().is_some_and(|at| now.since(at) > LATE) {
            self.fed = now;
            return;
        }
        let silence = text::duration(now.since(self.fed));
        self.on_hung(now, format!("has not fed its watchdog for {silence}"), actions);
    }

    /// Aborts a run that hangs: SIGABRT, the time of its whole stop sequence, SIGKILL.
    fn on_hung(&mut self, now: Instant, why: String, actions: &mut Vec<Action>) {
        let State::Running { run, born } = self.facts.state else { return };
        if now.since(born.at) >= self.settle_time() {
            self.forget_failures();
        }
        let steps = &self.program.lifecycle.stop.steps;
        let grace: Duration = steps.iter().map(|step| step.grace).sum();
        let step = steps.len().saturating_sub(1);
        let phase = StopPhase::Signalled { step, until: now + grace };
        let detail = format!("{why}; SIGABRT, grace {}", text::duration(grace));
        self.facts.failing = Some(Failing { why, counted_as_running: true });
        self.facts.because = None;
        actions.push(Action::Signal { run, signal: SIGABRT, group: true });
        self.enter(now, State::Stopping { run, born, phase }, detail, actions);
    }

    /// Takes the end of a run that was stopped because it had failed.
    pub(super) fn finish_failing(
        &mut self,
        now: Instant,
        failing: Failing,
        random: f64,
        actions: &mut Vec<Action>,
    ) {
        let Failing { why, counted_as_running } = failing;
        let how = self.facts.last_exit.map_or_else(String::new, |(exit, _)| text::exit(exit));
        let what = format!("{why}; {how}");
        self.facts.failure = Some(SpawnFailure { message: why, transient: true });
        match self.program.lifecycle.restart {
            RestartPolicy::Always | RestartPolicy::OnFailure => {
                self.retry(now, counted_as_running, random, &what, actions);
            }
            RestartPolicy::Never => self.enter(now, State::Exited, what, actions),
        }
    }

    /// Returns whether a run may be replaced for the sake of another program.
    pub(super) fn replaceable(&self) -> Option<RunId> {
        let wanted = self.is_wanted() && self.facts.goal == Goal::Up;
        match self.facts.state {
            State::Starting { run, .. } | State::Running { run, .. } if wanted => Some(run),
            State::Starting { .. } | State::Running { .. } | State::Stopping { .. } => None,
            State::Stopped | State::Waiting { .. } | State::Backoff { .. } => None,
            State::Exited | State::Fatal => None,
        }
    }

    /// Wants the living run replaced.
    pub(super) fn replace(&mut self, because: String, actions: &mut Vec<Action>) {
        self.forget_failures();
        self.facts.restart = true;
        self.facts.because = Some(because);
        self.persist(actions);
    }
}
