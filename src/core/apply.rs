//! The machine of one apply: from the old configuration to the new one, or back.
//!
//! What is gone stops first, then everything else changes, replicas one after the other. The end
//! is reached when all that was started or replaced runs; the first failure, or the end of the
//! patience, leads back to the old configuration. It looks at the supervisor and never changes
//! it: each move is a [`Mix`] that the engine writes down ([`ApplyStep::Record`]) before it
//! declares it ([`ApplyStep::Configure`]), so that the next brain goes on from the same move.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::configure::process_names;
use super::mix::Mix;
use super::plan::{Changes, Programs};
use super::supervisor::Supervisor;
use super::{Actor, Exit, Goal, ProcessStatus, StateCode, text};
use crate::config::Spawn;
use crate::name::{ProcessName, ProgramName, RunId};
use crate::time::Instant;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyOrder {
    /// The number of the configuration to go to.
    pub generation: u64,
    pub by: Actor,
    /// How long all of it may take, and then the way back once more.
    pub patience: Duration,
    /// `false` keeps the new configuration whatever becomes of it.
    pub roll_back: bool,
}

/// How far an apply has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyStage {
    /// What is not configured any more is being stopped.
    Removing,
    /// What is new or changed is being started.
    Changing,
    /// All that was replaced runs: replicas are added and taken away.
    Completing,
    /// It failed, and stays so because nobody wanted to go back.
    Keeping { why: String },
    /// It failed; the old configuration comes back.
    RollingBack { why: String, culprit: Option<ProcessName> },
}

/// All that must be written down of an apply: enough for the next brain to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    pub order: ApplyOrder,
    pub stage: ApplyStage,
    /// When the stage began.
    pub entered: Instant,
    /// When patience ends.
    pub until: Instant,
    /// How many replicas have had their turn, for each program that is replaced in turn.
    pub turns: BTreeMap<ProgramName, u32>,
    /// The first run of each process that is spawned as it is declared now.
    pub replaced: BTreeMap<ProcessName, RunId>,
    /// What was up before, of all that is touched.
    pub were_up: BTreeSet<ProcessName>,
    /// What operators want of processes that are taken away, for the way back.
    pub goals: Vec<(ProcessName, Goal, Actor)>,
}

/// What the engine has to do next, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum ApplyStep {
    /// Tell those who watch.
    Say(String),
    /// Write [`Progress`] down. When that fails, [`Apply::on_unrecorded`] follows, and the rest
    /// of the steps is void.
    Record,
    /// Declare this, after [`Progress::goals`] have been remembered.
    Configure(Mix),
    /// All that is new runs.
    Applied,
    /// Something does not run, and the new configuration is kept.
    Kept { why: String },
    /// The old configuration is back; `trouble` says what of it does not run.
    RolledBack { why: String, culprit: Option<ProcessName>, trouble: Option<String> },
}

/// One apply under way.
#[derive(Debug)]
pub struct Apply {
    old: Programs,
    new: Programs,
    changes: Changes,
    progress: Progress,
    /// What is declared at this moment, and the processes of it.
    mix: Mix,
    declared: BTreeSet<ProcessName>,
    /// The first process that is not done yet.
    waits_for: Option<ProcessName>,
}

/// What one process is on its way to.
enum Judged {
    Ready,
    NotYet(String),
    /// What it requires will not run by itself.
    Blocked(String),
    Failed(String),
}

impl Apply {
    /// Begins an apply.
    pub fn begin(
        now: Instant,
        old: Programs,
        new: Programs,
        order: ApplyOrder,
        core: &Supervisor,
    ) -> (Self, Vec<ApplyStep>) {
        let changes = Changes::between(&old, &new);
        let touched = |name: &ProgramName| {
            changes.removed.contains(name)
                || changes.at_once.contains(name)
                || changes.in_turn.contains(name)
                || changes.along.contains_key(name)
        };
        let is_up = |status: &ProcessStatus| {
            status.goal == Goal::Up
                && matches!(status.state, StateCode::Running | StateCode::Starting)
        };
        let up = core.statuses().filter(|it| touched(it.process.program()) && is_up(it));
        let kept = Mix::whole(new.clone());
        let kept = kept.spawns();
        let is_kept = |name: &ProcessName| kept.contains_key(name);
        let goals = core.explicit_goals();
        let progress = Progress {
            until: now + order.patience,
            order,
            stage: ApplyStage::Removing,
            entered: now,
            turns: BTreeMap::new(),
            replaced: BTreeMap::new(),
            were_up: up.map(|status| status.process).collect(),
            goals: goals.into_iter().filter(|(name, ..)| !is_kept(name)).collect(),
        };
        drop(kept);
        let mut apply = Self {
            mix: Mix::whole(old.clone()),
            old,
            new,
            changes,
            progress,
            declared: BTreeSet::new(),
            waits_for: None,
        };
        let mut steps = Vec::new();
        if apply.changes.removed.is_empty() {
            apply.enter(now, ApplyStage::Changing, core, &mut steps);
        } else {
            let names: Vec<&str> = apply.changes.removed.iter().map(|name| name.as_str()).collect();
            steps.push(ApplyStep::Say(format!("stopping {}", names.join(", "))));
            apply.enter(now, ApplyStage::Removing, core, &mut steps);
        }
        (apply, steps)
    }

    /// Goes on where another brain has died.
    pub fn resume(old: Programs, new: Programs, progress: Progress) -> Self {
        let changes = Changes::between(&old, &new);
        let mut apply = Self {
            old,
            new,
            changes,
            progress,
            mix: Mix::default(),
            declared: BTreeSet::new(),
            waits_for: None,
        };
        apply.mix = apply.mix_of_stage();
        apply.declared = apply.mix.spawns().into_keys().collect();
        apply
    }

    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Returns what is declared at this moment.
    pub fn mix(&self) -> &Mix {
        &self.mix
    }

    fn mix_of_stage(&self) -> Mix {
        let (old, new) = (&self.old, &self.new);
        match self.progress.stage {
            ApplyStage::Removing => Mix::without_removed(old, new, &self.changes),
            ApplyStage::Changing => Mix::changing(old, new, &self.changes, &self.progress.turns),
            ApplyStage::Completing | ApplyStage::Keeping { .. } => Mix::whole(new.clone()),
            ApplyStage::RollingBack { .. } => Mix::whole(old.clone()),
        }
    }

    /// Whether the way leads back.
    pub fn is_rolling_back(&self) -> bool {
        matches!(self.progress.stage, ApplyStage::RollingBack { .. })
    }

    /// Returns when [`Apply::look`] is due although nothing has changed.
    pub fn next_deadline(&self) -> Instant {
        self.progress.until
    }

    /// Looks at the processes and decides what comes next; nothing while it has to wait.
    ///
    /// `changed` names the processes that may be other than at the last look; an empty set
    /// stands for all.
    pub fn look(
        &mut self,
        now: Instant,
        core: &Supervisor,
        changed: &BTreeSet<ProcessName>,
    ) -> Vec<ApplyStep> {
        let mut steps = Vec::new();
        if now < self.progress.until && self.is_idle_over(changed, core) {
            return steps;
        }
        match self.progress.stage.clone() {
            ApplyStage::Removing => self.look_at_removed(now, core, &mut steps),
            ApplyStage::Changing => self.look_at_changed(now, core, &mut steps),
            ApplyStage::Completing => match self.judge_all(core) {
                Ok(None) => steps.push(ApplyStep::Applied),
                Ok(Some((process, reason))) => {
                    self.wait_for(now, process, &reason, core, &mut steps);
                }
                Err((process, why)) => self.fail(now, why, Some(process), core, &mut steps),
            },
            ApplyStage::Keeping { why } => steps.push(ApplyStep::Kept { why }),
            ApplyStage::RollingBack { why, culprit } => {
                self.look_at_restored(now, core, why, culprit, &mut steps);
            }
        }
        steps
    }

    /// Acts on progress that could not be written down: without a record the next brain would
    /// not know how far this has come.
    pub fn on_unrecorded(&mut self, now: Instant, why: &str, core: &Supervisor) -> Vec<ApplyStep> {
        let mut steps = Vec::new();
        if !self.is_rolling_back() {
            let why = format!("its progress cannot be written down: {why}");
            self.roll_back(now, why, None, core, &mut steps);
        }
        // On the way back an older record leads to one of the two ends as well.
        steps.retain(|step| *step != ApplyStep::Record);
        if steps.is_empty() {
            steps.push(ApplyStep::Configure(self.mix.clone()));
        }
        steps
    }

    fn look_at_removed(&mut self, now: Instant, core: &Supervisor, steps: &mut Vec<ApplyStep>) {
        let old = Mix::whole(self.old.clone());
        let is_left = |name: &ProcessName| {
            !self.declared.contains(name)
                && self.changes.removed.contains(name.program())
                && core.status(name).is_some()
        };
        let left = old.spawns().into_keys().find(is_left);
        match left {
            Some(process) => self.wait_for(now, process, "it does not stop", core, steps),
            None => self.enter(now, ApplyStage::Changing, core, steps),
        }
    }

    fn look_at_changed(&mut self, now: Instant, core: &Supervisor, steps: &mut Vec<ApplyStep>) {
        let waits = match self.judge_all(core) {
            Err((process, why)) => return self.fail(now, why, Some(process), core, steps),
            Ok(waits) => waits,
        };
        if self.take_turns(core) {
            return self.declare(core, steps);
        }
        match waits {
            Some((process, reason)) => self.wait_for(now, process, &reason, core, steps),
            None if self.mix.except.is_empty() && self.mix.programs == self.new => {
                steps.push(ApplyStep::Applied);
            }
            None => self.enter(now, ApplyStage::Completing, core, steps),
        }
    }

    /// Gives the next replica of each program its turn if those before it run.
    fn take_turns(&mut self, core: &Supervisor) -> bool {
        let mut any = false;
        for name in &self.changes.in_turn {
            let count = self.old.get(name).and_then(|program| program.replicas).unwrap_or(1);
            let done = self.progress.turns.get(name).copied().unwrap_or(1);
            let is_ready = |replica| {
                let process = ProcessName::new(name.clone(), Some(replica));
                matches!(self.judge(&process, true, core), Judged::Ready)
            };
            if done < count && (0..done).all(is_ready) {
                self.progress.turns.insert(name.clone(), done + 1);
                any = true;
            }
        }
        any
    }

    fn look_at_restored(
        &mut self,
        now: Instant,
        core: &Supervisor,
        why: String,
        culprit: Option<ProcessName>,
        steps: &mut Vec<ApplyStep>,
    ) {
        let trouble = match self.judge_all(core) {
            Ok(None) => None,
            Ok(Some((process, _))) if now < self.progress.until => {
                self.waits_for = Some(process);
                return;
            }
            Ok(Some((process, reason))) => Some(format!("`{process}` does not run: {reason}")),
            Err((_, reason)) => Some(reason),
        };
        steps.push(ApplyStep::RolledBack { why, culprit, trouble });
    }

    /// Waits for a process as long as there is patience.
    fn wait_for(
        &mut self,
        now: Instant,
        process: ProcessName,
        reason: &str,
        core: &Supervisor,
        steps: &mut Vec<ApplyStep>,
    ) {
        if now >= self.progress.until {
            let patience = text::duration(self.progress.order.patience);
            let why = format!("`{process}` is not done after {patience}: {reason}");
            return self.fail(now, why, Some(process), core, steps);
        }
        self.waits_for = Some(process);
    }

    fn fail(
        &mut self,
        now: Instant,
        why: String,
        culprit: Option<ProcessName>,
        core: &Supervisor,
        steps: &mut Vec<ApplyStep>,
    ) {
        if self.progress.order.roll_back {
            return self.roll_back(now, why, culprit, core, steps);
        }
        steps.push(ApplyStep::Say(format!("{why}; the new configuration is kept")));
        self.enter(now, ApplyStage::Keeping { why }, core, steps);
    }

    fn roll_back(
        &mut self,
        now: Instant,
        why: String,
        culprit: Option<ProcessName>,
        core: &Supervisor,
        steps: &mut Vec<ApplyStep>,
    ) {
        self.progress.until = now + self.progress.order.patience;
        steps.push(ApplyStep::Say(format!("{why}; rolling back")));
        self.enter(now, ApplyStage::RollingBack { why, culprit }, core, steps);
    }

    fn enter(
        &mut self,
        now: Instant,
        stage: ApplyStage,
        core: &Supervisor,
        steps: &mut Vec<ApplyStep>,
    ) {
        self.progress.stage = stage;
        self.progress.entered = now;
        self.declare(core, steps);
    }

    /// Notes which processes are spawned otherwise from now on, and asks for the declaration.
    fn declare(&mut self, core: &Supervisor, steps: &mut Vec<ApplyStep>) {
        let after = self.mix_of_stage();
        let was = self.mix.spawns();
        let is_new = |(process, spawn): &(ProcessName, &Spawn)| match was.get(process) {
            Some(before) => before != spawn,
            None => core.status(process).is_none(),
        };
        let becomes = after.spawns();
        let declared = becomes.keys().cloned().collect();
        let fresh: Vec<ProcessName> =
            becomes.into_iter().filter(is_new).map(|(process, _)| process).collect();
        if !fresh.is_empty() {
            let names: Vec<String> = fresh.iter().map(ToString::to_string).collect();
            steps.push(ApplyStep::Say(format!("starting {}", names.join(", "))));
        }
        let first = core.next_run();
        self.progress.replaced.extend(fresh.into_iter().map(|process| (process, first)));
        self.mix = after;
        self.declared = declared;
        self.waits_for = None;
        steps.push(ApplyStep::Record);
        steps.push(ApplyStep::Configure(self.mix.clone()));
    }

    /// Whether what has changed leaves everything as it was at the last look.
    fn is_idle_over(&self, changed: &BTreeSet<ProcessName>, core: &Supervisor) -> bool {
        let Some(waits_for) = self.waits_for.as_ref().filter(|_| !changed.is_empty()) else {
            return false;
        };
        let concerns = |process: &ProcessName| {
            process == waits_for
                // What is replaced may wait for it in vain from now on.
                || core.status(process).is_none_or(|status| status.has_ended())
                || self.changes.in_turn.contains(process.program())
                || self.strictness(process).is_some_and(|strict| {
                    matches!(self.judge(process, strict, core), Judged::Failed(_))
                })
        };
        !changed.iter().any(concerns)
    }

    /// Returns whether a process has to run, and then whether each failure of it counts.
    fn strictness(&self, process: &ProcessName) -> Option<bool> {
        let was_up = self.progress.were_up.contains(process);
        if !self.declared.contains(process) {
            None
        } else if self.is_rolling_back() {
            was_up.then_some(false)
        } else if self.progress.replaced.contains_key(process) {
            Some(true)
        } else {
            (was_up && self.changes.along.contains_key(process.program())).then_some(false)
        }
    }

    /// Judges all that has to run. `Ok(None)` when all of it does, else the first that does not
    /// yet; `Err` with the first that has failed.
    fn judge_all(
        &self,
        core: &Supervisor,
    ) -> Result<Option<(ProcessName, String)>, (ProcessName, String)> {
        let progress = &self.progress;
        let touched: BTreeSet<_> = progress.replaced.keys().chain(&progress.were_up).collect();
        let (mut waits, mut blocked) = (None, None);
        let not_running = |why: &str, process: &ProcessName| {
            (process.clone(), format!("`{process}` does not run: {why}"))
        };
        for process in touched {
            let Some(strict) = self.strictness(process) else { continue };
            match self.judge(process, strict, core) {
                Judged::Ready => {}
                Judged::NotYet(reason) => {
                    waits.get_or_insert_with(|| (process.clone(), reason));
                }
                Judged::Blocked(why) => {
                    blocked.get_or_insert_with(|| not_running(&why, process));
                }
                Judged::Failed(why) => return Err(not_running(&why, process)),
            }
        }
        // Rather the one that has failed than who waits for it.
        blocked.map_or(Ok(waits), Err)
    }

    /// Whether the old configuration has a process.
    fn is_old(&self, process: &ProcessName) -> bool {
        let program = self.old.get(process.program());
        program.is_some_and(|program| process_names(program).contains(process))
    }

    /// `strict` counts each failure of a run of its own, also one that is being made good.
    fn judge(&self, process: &ProcessName, strict: bool, core: &Supervisor) -> Judged {
        let Some(status) = core.status(process).filter(|status| status.goal == Goal::Up) else {
            return Judged::Ready;
        };
        let first = self.progress.replaced.get(process).copied().unwrap_or(RunId(0));
        let ended = status.last_exit.filter(|(_, at)| *at >= self.progress.entered);
        if strict && ended.is_some() && status.failures.0 > 0 {
            return Judged::Failed(status.reason);
        }
        let did_run = self.progress.were_up.contains(process) || !self.is_old(process);
        match status.state {
            // What it requires is stopped: it did not run before either, and starts with that.
            StateCode::Stopped if status.run.is_none() && core.is_held(process) => Judged::Ready,
            StateCode::Stopped | StateCode::Backoff if status.blocked && did_run => {
                Judged::Blocked(status.reason)
            }
            // It did not run before either, for want of the same.
            StateCode::Stopped | StateCode::Backoff if status.blocked => Judged::Ready,
            StateCode::Running if status.run.is_some_and(|run| run >= first) => Judged::Ready,
            StateCode::Fatal => Judged::Failed(status.reason),
            StateCode::Backoff if status.retry_at.is_some() => Judged::Failed(status.reason),
            // Such as one that has ended well, but before it was ready.
            StateCode::Exited if ended.is_some() && status.failure.is_some() => {
                Judged::Failed(status.reason)
            }
            StateCode::Exited => match ended {
                Some((Exit::Code(code), _)) => {
                    let expected = &status.program.lifecycle.success_exit_codes;
                    if expected.contains(&code) {
                        Judged::Ready
                    } else {
                        Judged::Failed(status.reason)
                    }
                }
                Some((Exit::Signal { .. } | Exit::Unknown, _)) => Judged::Failed(status.reason),
                // It had ended for good before, and is not started by a change.
                None => Judged::Ready,
            },
            StateCode::Running | StateCode::Starting | StateCode::Stopping => {
                Judged::NotYet(status.reason)
            }
            StateCode::Stopped | StateCode::Backoff | StateCode::Unknown => {
                Judged::NotYet(status.reason)
            }
        }
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
