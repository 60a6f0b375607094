//! The machine of one process of a program: what is wanted, what is, and what follows.
//!
//! It knows nothing of other processes: the supervisor decides when a start or a stop may
//! begin and says so by [`Process::begin_start`] and [`Process::begin_stop`]. Only this
//! module and its children `stopping` and `readiness` assign a state.
//!
//! A state shown to clients is one of supervisord's; [`Waiting`](State::Waiting) shows the
//! state it came from until it is known that the start really has to wait.

use std::sync::Arc;

use super::backoff::Backoff;
use super::breaker::Breaker;
use super::exit::{self, Verdict};
use super::snapshot::{Born, Remains, Said, Snapshot, State, StopPhase};
use super::text;
use super::{Action, Actor, BreakerState, Change, Exit, Goal, SpawnFailure, StateCode};
use crate::config::Program;
use crate::name::{ProcessName, RunId};
use crate::time::Instant;

/// The number of SIGKILL; the core may not ask the system.
pub(super) const SIGKILL: i32 = 9;

/// What a process contributes to the standing of its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Standing {
    /// Its own goal is up and its run is not to be replaced.
    pub(super) wanted: bool,
    /// Something of it is, or may be, alive.
    pub(super) live: bool,
    pub(super) running: bool,
    pub(super) starting: bool,
    pub(super) waiting: bool,
}

/// One supervised process.
#[derive(Debug, Clone)]
pub(super) struct Process {
    pub(super) program: Arc<Program>,
    pub(super) facts: Snapshot,
    /// When the watchdog was last fed. A next brain begins anew: nobody could feed it before.
    pub(super) fed: Instant,
}

impl Process {
    pub(super) fn new(name: ProcessName, program: Arc<Program>, now: Instant) -> Self {
        let facts = Snapshot {
            process: name,
            goal: Goal::Down,
            goal_by: None,
            state: State::Stopped,
            since: now,
            restart: false,
            removed: false,
            remains: Vec::new(),
            starts: 0,
            last_exit: None,
            failure: None,
            backoff: Backoff::default(),
            breaker: Breaker::default(),
            said: Said::default(),
            failing: None,
            because: None,
            shed: None,
            known: RunId(0),
        };
        Self { program, facts, fed: now }
    }

    pub(super) fn code(&self) -> StateCode {
        match self.facts.state {
            State::Stopped => StateCode::Stopped,
            State::Waiting { shows, .. } => shows,
            State::Starting { .. } => StateCode::Starting,
            State::Running { .. } => StateCode::Running,
            State::Stopping { .. } => StateCode::Stopping,
            State::Backoff { .. } => StateCode::Backoff,
            State::Exited => StateCode::Exited,
            State::Fatal => StateCode::Fatal,
        }
    }

    pub(super) fn run(&self) -> Option<RunId> {
        match self.facts.state {
            State::Starting { run, .. } | State::Running { run, .. } => Some(run),
            State::Stopping { run, .. } => Some(run),
            State::Stopped | State::Waiting { .. } | State::Backoff { .. } => None,
            State::Exited | State::Fatal => None,
        }
    }

    pub(super) fn born(&self) -> Option<Born> {
        match self.facts.state {
            State::Starting { born, .. } => born,
            State::Running { born, .. } | State::Stopping { born, .. } => Some(born),
            State::Stopped | State::Waiting { .. } | State::Backoff { .. } => None,
            State::Exited | State::Fatal => None,
        }
    }

    /// Returns the run whose main process can get a signal.
    pub(super) fn signallable(&self) -> Option<RunId> {
        match self.facts.state {
            State::Starting { run, born: Some(_) } | State::Running { run, .. } => Some(run),
            State::Stopping { phase: StopPhase::Sweeping { .. }, .. } => None,
            State::Stopping { run, .. } => Some(run),
            State::Starting { born: None, .. } | State::Stopped | State::Waiting { .. } => None,
            State::Backoff { .. } | State::Exited | State::Fatal => None,
        }
    }

    pub(super) fn standing(&self) -> Standing {
        let wanted = self.is_wanted();
        let state = &self.facts.state;
        Standing {
            wanted,
            live: self.run().is_some() || !self.facts.remains.is_empty(),
            running: wanted && matches!(state, State::Running { .. }),
            starting: wanted && matches!(state, State::Starting { .. }),
            waiting: wanted && matches!(state, State::Waiting { .. } | State::Stopping { .. }),
        }
    }

    /// Whether, as far as it alone is concerned, the process should be up as it is.
    pub(super) fn is_wanted(&self) -> bool {
        let facts = &self.facts;
        facts.goal == Goal::Up && !facts.restart && !facts.removed && facts.shed.is_none()
    }

    /// Returns when [`Process::on_deadline`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let of_state = match self.facts.state {
            State::Starting { born: Some(born), .. } => Some(self.start_ends(born)),
            State::Running { .. } if self.is_settled() => self.watchdog_ends(),
            State::Running { born, .. } => {
                let settled = born.at + self.settle_time();
                Some(self.watchdog_ends().map_or(settled, |at| at.min(settled)))
            }
            State::Stopping { phase: StopPhase::Signalled { until, .. }, .. } => Some(until),
            State::Stopping { phase: StopPhase::Killing { again_at, .. }, .. } => Some(again_at),
            State::Stopping { phase: StopPhase::Sweeping { kill_at }, .. } => kill_at,
            State::Backoff { retry_at } => Some(retry_at),
            State::Starting { born: None, .. } | State::Stopped | State::Waiting { .. } => None,
            State::Exited | State::Fatal => None,
        };
        let of_remains = self.facts.remains.iter().filter_map(|remains| remains.kill_again_at);
        of_remains.chain(of_state).min()
    }

    /// Sets the goal to up and wants a run at once, whatever happened before.
    pub(super) fn start(&mut self, now: Instant, by: Option<&Actor>, actions: &mut Vec<Action>) {
        if self.facts.goal == Goal::Down {
            self.facts.goal = Goal::Up;
            self.facts.goal_by = by.cloned();
        }
        if by.is_some() {
            // What is being stopped starts again at once.
            self.facts.failing = None;
            self.facts.because = None;
            self.facts.shed = None;
        }
        match self.facts.state {
            State::Stopped | State::Backoff { .. } | State::Exited | State::Fatal => {
                self.forget_failures();
                let shows = self.code();
                self.facts.state = State::Waiting { shows, told: false };
                self.facts.since = now;
            }
            State::Waiting { .. } => {
                self.forget_failures();
                self.persist(actions);
            }
            State::Starting { .. } | State::Running { .. } | State::Stopping { .. } => {
                actions.push(Action::Persist { process: self.facts.process.clone() });
            }
        }
    }

    /// Sets the goal to down. A living run is stopped later, by [`Process::begin_stop`].
    pub(super) fn stop(&mut self, now: Instant, by: &Actor, actions: &mut Vec<Action>) {
        if self.facts.goal == Goal::Up || self.facts.goal_by.is_none() {
            self.facts.goal_by = Some(by.clone());
        }
        self.facts.goal = Goal::Down;
        self.facts.restart = false;
        self.facts.because = None;
        self.facts.shed = None;
        match self.facts.state {
            State::Waiting { .. } | State::Backoff { .. } => {
                self.enter(now, State::Stopped, format!("stopped by {}", text::actor(by)), actions);
            }
            State::Stopped | State::Starting { .. } | State::Running { .. } => {
                self.persist(actions)
            }
            State::Stopping { .. } | State::Exited | State::Fatal => self.persist(actions),
        }
    }

    /// Replaces a living run; without one it is a start.
    pub(super) fn restart(&mut self, now: Instant, by: Option<&Actor>, actions: &mut Vec<Action>) {
        self.start(now, by, actions);
        match self.facts.state {
            State::Starting { .. } | State::Running { .. } => {
                self.forget_failures();
                self.facts.because = None;
                self.facts.restart = true;
            }
            State::Stopped | State::Waiting { .. } | State::Stopping { .. } => {}
            State::Backoff { .. } | State::Exited | State::Fatal => {}
        }
    }

    /// Leaves a state without a run for `Stopped`; the goal stays.
    pub(super) fn give_up_waiting(&mut self, now: Instant, why: &str, actions: &mut Vec<Action>) {
        match self.facts.state {
            State::Waiting { .. } | State::Backoff { .. } => {
                self.enter(now, State::Stopped, why.to_owned(), actions);
            }
            State::Stopped | State::Starting { .. } | State::Running { .. } => {}
            State::Stopping { .. } | State::Exited | State::Fatal => {}
        }
    }

    /// What a start waits for may be another thing from now on, which is announced once more.
    pub(super) fn wait_anew(&mut self) {
        if let State::Waiting { told, .. } = &mut self.facts.state {
            *told = false;
        }
    }

    /// Announces once that the start has to wait.
    pub(super) fn tell_waiting(&mut self, now: Instant, why: String, actions: &mut Vec<Action>) {
        if let State::Waiting { shows, told: false } = self.facts.state {
            let shown = match shows {
                StateCode::Backoff => StateCode::Backoff,
                StateCode::Stopped | StateCode::Starting | StateCode::Running => StateCode::Stopped,
                StateCode::Stopping | StateCode::Exited | StateCode::Fatal => StateCode::Stopped,
                StateCode::Unknown => StateCode::Stopped,
            };
            self.enter(now, State::Waiting { shows: shown, told: true }, why, actions);
        }
    }

    /// Asks for a run. It is announced first, so that its number is on record before it lives.
    pub(super) fn begin_start(&mut self, now: Instant, run: RunId, actions: &mut Vec<Action>) {
        self.facts.breaker.on_try();
        let detail = match self.facts.breaker.state {
            BreakerState::HalfOpen => "starting; this try decides over the restart breaker",
            BreakerState::Closed | BreakerState::Open { .. } => "starting",
        };
        self.enter(now, State::Starting { run, born: None }, detail.to_owned(), actions);
        // Also when it shows `Starting` already: the next brain counts the age of the run from here.
        self.facts.since = now;
        self.facts.said = Said::default();
        self.facts.failing = None;
        self.facts.known = RunId(0);
        actions.push(Action::Spawn { process: self.facts.process.clone(), run });
    }

    pub(super) fn on_spawned(
        &mut self,
        now: Instant,
        run: RunId,
        pid: u32,
        actions: &mut Vec<Action>,
    ) {
        match self.facts.state {
            State::Starting { run: expected, born: None } if expected == run => {
                let born = Born { pid, at: now };
                self.facts.starts += 1;
                self.facts.failure = None;
                if self.counts_at_once() {
                    self.count_as_running(now, run, born, format!("pid {pid}"), actions);
                } else {
                    self.facts.state = State::Starting { run, born: Some(born) };
                    self.persist(actions);
                    self.settle_ready(now, actions);
                }
            }
            State::Starting { .. } | State::Stopped | State::Waiting { .. } => {}
            State::Running { .. } | State::Stopping { .. } | State::Backoff { .. } => {}
            State::Exited | State::Fatal => {}
        }
    }

    /// Takes a failed spawn. `stop_wanted` says that no run is wanted any more.
    pub(super) fn on_spawn_failed(
        &mut self,
        now: Instant,
        failure: SpawnFailure,
        stop_wanted: bool,
        random: f64,
        actions: &mut Vec<Action>,
    ) {
        let detail = failure.message.clone();
        if stop_wanted {
            self.facts.restart = false;
            let next = match self.facts.goal {
                Goal::Up => State::Waiting { shows: StateCode::Stopped, told: false },
                Goal::Down => State::Stopped,
            };
            return self.enter(
                now,
                next,
                format!("stopped before it was spawned: {detail}"),
                actions,
            );
        }
        let transient = failure.transient;
        self.facts.failure = Some(failure);
        if transient {
            self.retry(now, false, random, &detail, actions);
        } else {
            self.enter(now, State::Fatal, detail, actions);
        }
    }

    /// Takes the end of the main process. `stop_wanted` says that a stop was about to begin.
    pub(super) fn on_exited(
        &mut self,
        now: Instant,
        exit: Exit,
        stop_wanted: bool,
        random: f64,
        actions: &mut Vec<Action>,
    ) {
        let (run, born, counted_as_running) = match self.facts.state {
            State::Starting { run, born } => {
                if born.is_none() {
                    self.facts.starts += 1;
                }
                (run, born.unwrap_or(Born { pid: 0, at: now }), false)
            }
            State::Running { run, born } => (run, born, true),
            State::Stopping { run, born, phase } => {
                return self.on_stopped_main(now, run, born, phase, exit, actions);
            }
            State::Stopped | State::Waiting { .. } | State::Backoff { .. } => return,
            State::Exited | State::Fatal => return,
        };
        if stop_wanted {
            return self.on_exit_before_stop(now, run, born, exit, actions);
        }
        self.facts.last_exit = Some((exit, now));
        self.facts.because = None;
        if counted_as_running && now.since(born.at) >= self.settle_time() {
            self.forget_failures();
        }
        self.facts.remains.push(Remains { run, kill_again_at: None });
        let early = match (counted_as_running, &self.program.lifecycle.ready) {
            (true, _) => "",
            (false, None) => " before it counted as running",
            (false, Some(_)) => " before it was ready",
        };
        let what = format!("{}{early}", text::exit(exit));
        match exit::judge(&self.program.lifecycle, exit) {
            Verdict::Restart => self.retry(now, counted_as_running, random, &what, actions),
            Verdict::Leave => {
                if !counted_as_running && self.program.lifecycle.ready.is_some() {
                    // However it has ended, it has not done what it was started for.
                    self.facts.failure =
                        Some(SpawnFailure { message: what.clone(), transient: true });
                }
                self.enter(now, State::Exited, what, actions);
            }
            Verdict::GiveUp => {
                let detail = format!("{what}, which is listed as permanent; start it by hand");
                self.enter(now, State::Fatal, detail, actions);
            }
        }
        actions.push(Action::Sweep { run, signal: SIGKILL });
    }

    /// Counts a failure and chooses when to try again.
    pub(super) fn retry(
        &mut self,
        now: Instant,
        counted_as_running: bool,
        random: f64,
        what: &str,
        actions: &mut Vec<Action>,
    ) {
        let lifecycle = &self.program.lifecycle;
        let delay = self.facts.backoff.on_failure(&lifecycle.backoff, counted_as_running, random);
        let open_until = self.facts.breaker.on_failure(now, &lifecycle.breaker);
        let retry_at = open_until.map_or(now + delay, |until| until.max(now + delay));
        let wait = text::duration(retry_at.since(now));
        if retry_at <= now {
            let state = State::Waiting { shows: StateCode::Backoff, told: true };
            return self.enter(now, state, format!("{what}; restarts at once"), actions);
        }
        let detail = match open_until {
            Some(_) => format!("{what}; {}; next try in {wait}", self.breaker_sentence()),
            None => {
                let limit = lifecycle.breaker.failures;
                let count = self.facts.breaker.count(now, &lifecycle.breaker);
                format!("{what}; next try in {wait}, {} of {limit}", text::ordinal(count))
            }
        };
        self.enter(now, State::Backoff { retry_at }, detail, actions);
    }

    /// Says why the breaker is open.
    pub(super) fn breaker_sentence(&self) -> String {
        let rule = &self.program.lifecycle.breaker;
        match self.facts.breaker.opened {
            0 | 1 => {
                let count = self.facts.breaker.failures.len();
                format!("restart breaker open: {count} failures in {}", text::duration(rule.window))
            }
            times => format!("restart breaker open: {} tries failed too", times - 1),
        }
    }

    /// Takes over a run that lives although nothing here knew of it.
    pub(super) fn adopt(&mut self, now: Instant, run: RunId, pid: u32, actions: &mut Vec<Action>) {
        self.facts.starts += 1;
        self.facts.breaker.on_try();
        let detail = format!("found alive as pid {pid} and adopted");
        self.count_as_running(now, run, Born { pid, at: now }, detail, actions);
    }

    /// Takes the passing of the time that [`Process::deadline`] named.
    ///
    /// `stop_wanted` says that no run is wanted any more: then the order of stops decides when this
    /// one is stopped, and neither its readiness nor its watchdog.
    pub(super) fn on_deadline(
        &mut self,
        now: Instant,
        stop_wanted: bool,
        actions: &mut Vec<Action>,
    ) {
        self.kill_remains_again(now, actions);
        match self.facts.state {
            State::Starting { run, born: Some(born) } if self.start_ends(born) <= now => {
                self.on_start_ends(now, run, born, stop_wanted, actions);
            }
            State::Starting { born: Some(_), .. } => {}
            State::Running { born, .. } => {
                if !self.is_settled() && born.at + self.settle_time() <= now {
                    self.forget_failures();
                    self.persist(actions);
                }
                if self.watchdog_ends().is_some_and(|at| at <= now) {
                    self.on_watchdog_ends(now, stop_wanted, actions);
                }
            }
            State::Backoff { retry_at } if retry_at <= now => {
                self.facts.state = State::Waiting { shows: StateCode::Backoff, told: false };
            }
            State::Stopping { run, born, phase } => {
                self.on_stop_deadline(now, run, born, phase, actions)
            }
            State::Starting { born: None, .. } | State::Stopped | State::Waiting { .. } => {}
            State::Backoff { .. } | State::Exited | State::Fatal => {}
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.facts.backoff.is_clean() && self.facts.breaker.is_clean()
    }

    /// Returns how long a run must last until the failures before it are forgotten.
    pub(super) fn settle_time(&self) -> std::time::Duration {
        let lifecycle = &self.program.lifecycle;
        self.facts.backoff.settle_time(&lifecycle.backoff).max(lifecycle.start_period)
    }

    pub(super) fn forget_failures(&mut self) {
        self.facts.backoff.reset();
        self.facts.breaker.reset();
        self.facts.failure = None;
    }

    pub(super) fn persist(&self, actions: &mut Vec<Action>) {
        actions.push(Action::Persist { process: self.facts.process.clone() });
    }

    /// Changes the state and announces it.
    pub(super) fn enter(
        &mut self,
        now: Instant,
        state: State,
        detail: String,
        actions: &mut Vec<Action>,
    ) {
        let (from, run) = (self.code(), self.run());
        self.facts.state = state;
        let to = self.code();
        if from != to {
            self.facts.since = now;
        }
        let run = self.run().or(run);
        let process = self.facts.process.clone();
        actions.push(Action::Announce(Change { process, run, from, to, detail }));
    }
}
