//! The stop of one process: the declared signals in turn, SIGKILL to the tree, then the sweep.
//!
//! A stop ends with `Gone`, never with the exit of the main process alone: what the main
//! process left behind gets the first stop signal and the rest of the grace, then SIGKILL.

use std::time::Duration;

use super::program::{Process, SIGKILL};
use super::snapshot::{Born, Remains, State, StopPhase};
use super::text;
use super::{Action, Exit, Goal, StateCode};
use crate::name::RunId;
use crate::time::Instant;

/// How long SIGKILL may take before it is sent again.
pub(super) const KILL_AGAIN: Duration = Duration::from_secs(5);

impl Process {
    /// Begins the stop of a living run with its first signal.
    pub(super) fn begin_stop(&mut self, now: Instant, why: &str, actions: &mut Vec<Action>) {
        if !self.facts.restart {
            self.facts.because = None;
        }
        let (run, born) = match self.facts.state {
            State::Starting { run, born: Some(born) } | State::Running { run, born } => (run, born),
            State::Starting { born: None, .. } | State::Stopped | State::Waiting { .. } => return,
            State::Stopping { .. } | State::Backoff { .. } | State::Exited | State::Fatal => return,
        };
        match self.program.lifecycle.stop.steps.first().copied() {
            Some(step) => {
                actions.push(Action::Signal { run, signal: step.signal, group: true });
                let phase = StopPhase::Signalled { step: 0, until: now + step.grace };
                let detail = format!(
                    "{why}; {}, grace {}",
                    text::signal(step.signal),
                    text::duration(step.grace)
                );
                self.enter(now, State::Stopping { run, born, phase }, detail, actions);
            }
            None => self.kill_tree(now, run, born, 1, why.to_owned(), actions),
        }
    }

    /// Takes a deadline of the stop.
    pub(super) fn on_stop_deadline(
        &mut self,
        now: Instant,
        run: RunId,
        born: Born,
        phase: StopPhase,
        actions: &mut Vec<Action>,
    ) {
        match phase {
            StopPhase::Signalled { step, until } if until <= now => {
                let next = step + 1;
                let Some(declared) = self.program.lifecycle.stop.steps.get(next).copied() else {
                    let detail = "outlived its stop grace; SIGKILL to its whole tree".to_owned();
                    return self.kill_tree(now, run, born, 1, detail, actions);
                };
                let signal = declared.signal;
                actions.push(Action::Signal { run, signal, group: true });
                let phase = StopPhase::Signalled { step: next, until: now + declared.grace };
                let detail = format!("still alive; {}", text::signal(signal));
                self.enter(now, State::Stopping { run, born, phase }, detail, actions);
            }
            StopPhase::Killing { again_at, times } if again_at <= now => {
                let detail = format!(
                    "alive {} after SIGKILL (blocked in the kernel?); killed again",
                    text::duration(KILL_AGAIN.saturating_mul(times))
                );
                self.kill_tree(now, run, born, times.saturating_add(1), detail, actions);
            }
            StopPhase::Sweeping { kill_at: Some(kill_at) } if kill_at <= now => {
                actions.push(Action::Sweep { run, signal: SIGKILL });
                let phase = StopPhase::Sweeping { kill_at: None };
                let detail = "SIGKILL to what its main process left behind".to_owned();
                self.enter(now, State::Stopping { run, born, phase }, detail, actions);
            }
            StopPhase::Signalled { .. } | StopPhase::Killing { .. } => {}
            StopPhase::Sweeping { .. } => {}
        }
    }

    fn kill_tree(
        &mut self,
        now: Instant,
        run: RunId,
        born: Born,
        times: u32,
        detail: String,
        actions: &mut Vec<Action>,
    ) {
        actions.push(Action::KillTree { run });
        let phase = StopPhase::Killing { again_at: now + KILL_AGAIN, times };
        self.enter(now, State::Stopping { run, born, phase }, detail, actions);
    }

    /// Takes the exit of the main process during a stop.
    pub(super) fn on_stopped_main(
        &mut self,
        now: Instant,
        run: RunId,
        born: Born,
        phase: StopPhase,
        exit: Exit,
        actions: &mut Vec<Action>,
    ) {
        let steps = &self.program.lifecycle.stop.steps;
        let kill_at = match phase {
            StopPhase::Sweeping { .. } => return,
            StopPhase::Killing { .. } => None,
            StopPhase::Signalled { step, until } => {
                let rest: Duration = steps.iter().skip(step + 1).map(|step| step.grace).sum();
                Some(until + rest).filter(|at| *at > now)
            }
        };
        self.sweep(now, run, born, kill_at, exit, actions);
    }

    /// Takes an exit that came while a stop was wanted but had not begun.
    pub(super) fn on_exit_before_stop(
        &mut self,
        now: Instant,
        run: RunId,
        born: Born,
        exit: Exit,
        actions: &mut Vec<Action>,
    ) {
        let grace: Duration = self.program.lifecycle.stop.steps.iter().map(|step| step.grace).sum();
        let kill_at = Some(now + grace).filter(|at| *at > now);
        self.sweep(now, run, born, kill_at, exit, actions);
    }

    fn sweep(
        &mut self,
        now: Instant,
        run: RunId,
        born: Born,
        kill_at: Option<Instant>,
        exit: Exit,
        actions: &mut Vec<Action>,
    ) {
        self.facts.last_exit = Some((exit, now));
        let first = self.program.lifecycle.stop.steps.first().map_or(SIGKILL, |step| step.signal);
        let signal = if kill_at.is_some() { first } else { SIGKILL };
        let state = State::Stopping { run, born, phase: StopPhase::Sweeping { kill_at } };
        if self.code() == StateCode::Stopping {
            self.facts.state = state;
            self.persist(actions);
        } else {
            let detail = format!("{} before its stop began", text::exit(exit));
            self.enter(now, state, detail, actions);
        }
        actions.push(Action::Sweep { run, signal });
    }

    /// Takes the end of a run's whole tree. Returns whether the run was one of this process.
    pub(super) fn on_gone(
        &mut self,
        now: Instant,
        run: RunId,
        shutting_down: bool,
        random: f64,
        actions: &mut Vec<Action>,
    ) -> bool {
        let before = self.facts.remains.len();
        self.facts.remains.retain(|remains| remains.run != run);
        if self.facts.remains.len() < before {
            self.persist(actions);
            return true;
        }
        match self.facts.state {
            State::Stopping { run: ours, phase: StopPhase::Sweeping { .. }, .. } if ours == run => {
                self.finish_stop(now, shutting_down, random, actions);
                true
            }
            State::Stopping { .. } | State::Starting { .. } | State::Running { .. } => false,
            State::Stopped | State::Waiting { .. } | State::Backoff { .. } => false,
            State::Exited | State::Fatal => false,
        }
    }

    fn finish_stop(
        &mut self,
        now: Instant,
        shutting_down: bool,
        random: f64,
        actions: &mut Vec<Action>,
    ) {
        let how = self.facts.last_exit.map_or_else(String::new, |(exit, _)| text::exit(exit));
        let restart = std::mem::take(&mut self.facts.restart);
        let failing = self.facts.failing.take().filter(|_| !restart);
        if self.facts.goal == Goal::Down || self.facts.removed || shutting_down {
            return self.enter(now, State::Stopped, format!("stopped ({how})"), actions);
        }
        if let Some(failing) = failing {
            return self.finish_failing(now, failing, random, actions);
        }
        let waiting = State::Waiting { shows: StateCode::Stopped, told: true };
        let next = match &self.facts.shed {
            Some(by) => format!("kept down by {}", text::actor(by)),
            None => "starts again".to_owned(),
        };
        self.enter(now, waiting, format!("stopped ({how}); {next}"), actions);
    }

    /// Kills a run that must not be there, and keeps the next one from starting before it is
    /// gone.
    pub(super) fn kill_stray(&mut self, now: Instant, run: RunId, actions: &mut Vec<Action>) {
        self.facts.remains.retain(|remains| remains.run != run);
        self.facts.remains.push(Remains { run, kill_again_at: Some(now + KILL_AGAIN) });
        actions.push(Action::KillTree { run });
        self.persist(actions);
    }

    /// Takes the end of a stray's main process. Returns whether it was a stray of this process.
    pub(super) fn on_stray_exited(&mut self, run: RunId, actions: &mut Vec<Action>) -> bool {
        let Some(remains) = self.facts.remains.iter_mut().find(|remains| remains.run == run) else {
            return false;
        };
        if remains.kill_again_at.take().is_some() {
            actions.push(Action::Sweep { run, signal: SIGKILL });
            self.persist(actions);
        }
        true
    }

    pub(super) fn kill_remains_again(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for remains in &mut self.facts.remains {
            if remains.kill_again_at.is_some_and(|at| at <= now) {
                remains.kill_again_at = Some(now + KILL_AGAIN);
                actions.push(Action::KillTree { run: remains.run });
                actions.push(Action::Persist { process: self.facts.process.clone() });
            }
        }
    }
}
