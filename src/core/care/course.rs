//! A remedy in progress: begun, carried out, proved or not.

use std::sync::Arc;

use super::brakes::TARGET_BUDGET;
use super::event::*;
use super::healer::Care;
use super::patient::{Course, Standing};
use super::story::Story;
use super::transaction::{Transaction, TransactionOrder, TransactionStage};
use crate::config::{Check, Remedy, RemedyStep};
use crate::core::text;
use crate::time::Instant;

impl Care {
    pub(super) fn begin_course(
        &mut self,
        now: Instant,
        target: &Target,
        check: &Arc<Check>,
        index: usize,
        actions: &mut Vec<CareAction>,
    ) {
        let remedy = RemedyId(self.host.next_remedy);
        self.host.next_remedy += 1;
        let incident = self.incident_of(now, target);
        let Some(patient) = self.patients.get_mut(target) else { return };
        let Some(facts) = patient.facts.checks.get_mut(&check.name) else { return };
        facts.health.begin_healing(now);
        facts.ladder.climb(now, index);
        patient.facts.last_attempt = Some(now);
        patient.facts.attempts.note(now, &TARGET_BUDGET);
        if let Some(incident) = &mut patient.facts.incident {
            incident.begun += 1;
        }
        self.host.brakes.begin(now, target);
        let rung = &check.heal[index];
        let until = now + rung.timeout;
        let what = rung.remedy.clone();
        let mut course = Course {
            remedy,
            incident,
            check: check.name.clone(),
            rung: index,
            what: what.clone(),
            limit: rung.timeout,
            began: now,
            acting_until: Some(until),
            transaction: None,
        };
        let order = match &what {
            Remedy::Steps(steps) => {
                let (transaction, order) = Transaction::begin(steps);
                course.transaction = Some(transaction);
                Some(order)
            }
            Remedy::Fallback { program } => {
                if !patient.facts.fallbacks.contains(program) {
                    patient.facts.fallbacks.push(program.clone());
                }
                None
            }
            Remedy::Shed => {
                patient.facts.sheds_others = true;
                None
            }
            Remedy::Confirm | Remedy::Reload | Remedy::Signal { .. } | Remedy::Restart => None,
            Remedy::CleanRestart | Remedy::RestartGroup | Remedy::Run { .. } => None,
            Remedy::Rollback | Remedy::Alert | Remedy::Quarantine => None,
        };
        patient.facts.course = Some(course);
        let word = what.word().to_owned();
        let check = check.name.clone();
        let story = Story::Began { id: remedy, check, rung: index, remedy: word };
        self.tell(target, || story, actions);
        match order {
            Some(order) => self.transact(now, target, order, actions),
            None if what == Remedy::Shed => {
                self.shed_for(target, actions);
                self.carried_out(now, target, actions);
            }
            None => {
                let target = target.clone();
                actions.push(CareAction::TakeRemedy { remedy, incident, target, what, until });
            }
        }
    }

    pub(super) fn on_remedy_ended(
        &mut self,
        now: Instant,
        remedy: RemedyId,
        outcome: RemedyOutcome,
        actions: &mut Vec<CareAction>,
    ) {
        let Some(target) = self.acting(remedy) else { return };
        match outcome {
            RemedyOutcome::Done | RemedyOutcome::Lost => self.carried_out(now, &target, actions),
            RemedyOutcome::Failed(why) => self.not_done(now, &target, why, actions),
        }
        self.stirred.insert(target);
    }

    pub(super) fn on_step_ended(
        &mut self,
        now: Instant,
        remedy: RemedyId,
        step: usize,
        undo: bool,
        result: Result<(), String>,
        actions: &mut Vec<CareAction>,
    ) {
        let Some(target) = self.acting(remedy) else { return };
        let Some(course) = self.course_mut(&target) else { return };
        let Remedy::Steps(steps) = course.what.clone() else { return };
        let Some(transaction) = &mut course.transaction else { return };
        let Some(order) = transaction.on_ended(&steps, step, undo, result.clone()) else { return };
        if let Err(why) = result {
            self.tell(&target, || Story::StepFailed { step, why }, actions);
        }
        self.transact(now, &target, order, actions);
        self.stirred.insert(target);
    }

    /// Does what a transaction asks for; each step and each undo has the rung's time limit.
    pub(super) fn transact(
        &mut self,
        now: Instant,
        target: &Target,
        order: TransactionOrder,
        actions: &mut Vec<CareAction>,
    ) {
        let Some(course) = self.course_mut(target) else { return };
        let Remedy::Steps(steps) = &course.what else { return };
        let command = |step: &RemedyStep, undo: bool| match undo {
            false => Some(step.argv.clone()),
            true => step.undo.clone(),
        };
        let (step, undo) = match order {
            TransactionOrder::Do { step } => (step, false),
            TransactionOrder::Undo { step } => (step, true),
            TransactionOrder::Over => return self.transaction_over(now, target, actions),
        };
        let argv = steps.get(step).and_then(|step| command(step, undo)).unwrap_or_default();
        let (remedy, incident) = (course.remedy, course.incident);
        course.acting_until = Some(now + course.limit);
        let target = target.clone();
        actions.push(CareAction::RunStep { remedy, incident, target, step, undo, argv });
    }

    fn transaction_over(&mut self, now: Instant, target: &Target, actions: &mut Vec<CareAction>) {
        let transaction = self.course_mut(target).and_then(|course| course.transaction.clone());
        let Some(transaction) = transaction else { return };
        match transaction.stage {
            TransactionStage::Done => self.carried_out(now, target, actions),
            TransactionStage::Undone { why } => {
                let not_undone = transaction.not_undone;
                let story = Story::Undone { not_undone: not_undone.clone() };
                if !not_undone.is_empty() {
                    let sentence = format!("{target} {}", story.sentence());
                    self.alert(target, AlertKind::UndoFailed, sentence, actions);
                }
                self.tell(target, || story, actions);
                self.not_done(now, target, why, actions);
            }
            TransactionStage::Doing { .. } | TransactionStage::Undoing { .. } => {}
        }
    }

    /// A remedy takes too long.
    pub(super) fn expire_course(
        &mut self,
        now: Instant,
        target: &Target,
        actions: &mut Vec<CareAction>,
    ) {
        let Some(course) = self.course_mut(target) else { return };
        if course.acting_until.is_none_or(|until| until > now) {
            return;
        }
        let remedy = course.remedy;
        let why = format!("took longer than {}", text::duration(course.limit));
        actions.push(CareAction::CancelRemedy { remedy });
        let (Remedy::Steps(steps), Some(transaction)) = (&course.what, &mut course.transaction)
        else {
            return self.not_done(now, target, why, actions);
        };
        let order = match transaction.stage.clone() {
            TransactionStage::Undoing { step, .. } => {
                transaction.on_ended(steps, step, true, Err(why))
            }
            TransactionStage::Doing { .. }
            | TransactionStage::Done
            | TransactionStage::Undone { .. } => transaction.call_off(steps, &why),
        };
        if let Some(order) = order {
            self.transact(now, target, order, actions);
        }
    }

    /// It has been carried out; now it must be proved.
    fn carried_out(&mut self, now: Instant, target: &Target, actions: &mut Vec<CareAction>) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        let Some(course) = &mut patient.facts.course else { return };
        course.acting_until = None;
        let remedy = course.what.word().to_owned();
        if let Some(check) = patient.checks.get(&course.check)
            && let Some(facts) = patient.facts.checks.get_mut(&course.check)
        {
            facts.health.begin_verifying(now, check, course.what.replaces_the_run());
        }
        self.tell(target, || Story::Verifying { remedy }, actions);
        self.judge_process(now, target, false, actions);
    }

    fn not_done(
        &mut self,
        now: Instant,
        target: &Target,
        why: String,
        actions: &mut Vec<CareAction>,
    ) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        let Some(course) = patient.facts.course.clone() else { return };
        let mut edges = Vec::new();
        if let Some(check) = patient.checks.get(&course.check)
            && let Some(facts) = patient.facts.checks.get_mut(&course.check)
        {
            edges = facts.health.give_up(now, check);
        }
        if let Remedy::Fallback { program } = &course.what {
            patient.facts.fallbacks.retain(|standby| standby != program);
        }
        let (remedy, took) = (course.what.word().to_owned(), now.since(course.began));
        self.tell(target, || Story::NotDone { remedy, why, took }, actions);
        let check = course.check.clone();
        self.course_failed(now, target, course, RemedyResult::NotDone, actions);
        self.on_edges(now, target, &check, edges, actions);
    }

    pub(super) fn course_disproved(
        &mut self,
        now: Instant,
        target: &Target,
        actions: &mut Vec<CareAction>,
    ) {
        let course = self.patients.get(target).and_then(|patient| patient.facts.course.clone());
        let Some(course) = course else { return };
        let remedy = course.what.word().to_owned();
        self.tell(target, || Story::NotVerified { remedy }, actions);
        self.course_failed(now, target, course, RemedyResult::NotVerified, actions);
    }

    fn course_failed(
        &mut self,
        now: Instant,
        target: &Target,
        course: Course,
        result: RemedyResult,
        actions: &mut Vec<CareAction>,
    ) {
        self.end_course(now, target, result, actions);
        let Some(patient) = self.patients.get_mut(target) else { return };
        let alive = patient.is_alive();
        let kind = patient.checks.get(&course.check).map(|check| check.kind);
        let mut until = None;
        if let Some(facts) = patient.facts.checks.get_mut(&course.check) {
            until = facts.ladder.on_failed(now);
            if !alive && kind != Some(crate::config::CheckKind::Process) {
                facts.health.on_process_gone(now);
            }
        }
        let first = patient.facts.incident.as_mut().is_some_and(|incident| {
            incident.failed += 1;
            incident.failed == 1
        });
        if first {
            let sentence = format!("{target} is still down after `{}`", course.what.word());
            self.alert(target, AlertKind::RemedyFailed, sentence, actions);
        }
        if let Some(until) = until {
            let story = Story::Quarantined { until_in: until.since(now) };
            self.tell(target, || story, actions);
        }
    }

    pub(super) fn course_proved(
        &mut self,
        now: Instant,
        target: &Target,
        actions: &mut Vec<CareAction>,
    ) {
        let course = self.patients.get(target).and_then(|patient| patient.facts.course.clone());
        let Some(course) = course else { return };
        let (remedy, took) = (course.what.word().to_owned(), now.since(course.began));
        self.end_course(now, target, RemedyResult::Verified, actions);
        self.tell(target, || Story::Verified { remedy, took }, actions);
    }

    /// Nobody wants the remedy any more. What a transaction has done so far is undone; the
    /// course lasts until that is over.
    pub(super) fn abandon_course(
        &mut self,
        now: Instant,
        target: &Target,
        actions: &mut Vec<CareAction>,
    ) {
        let Some(course) = self.course_mut(target) else { return };
        if course.acting_until.is_none() {
            return self.end_course(now, target, RemedyResult::Abandoned, actions);
        }
        let remedy = course.remedy;
        let (Remedy::Steps(steps), Some(transaction)) = (&course.what, &mut course.transaction)
        else {
            actions.push(CareAction::CancelRemedy { remedy });
            return self.end_course(now, target, RemedyResult::Abandoned, actions);
        };
        // `None`: it is being undone already.
        if let Some(order) = transaction.call_off(steps, "nobody wants it any more") {
            actions.push(CareAction::CancelRemedy { remedy });
            self.transact(now, target, order, actions);
        }
    }

    /// The target is about to be forgotten: nobody can wait for a transaction to be undone, so
    /// people are told.
    pub(super) fn drop_course(
        &mut self,
        now: Instant,
        target: &Target,
        actions: &mut Vec<CareAction>,
    ) {
        let Some(course) = self.course_mut(target) else { return };
        let (remedy, check) = (course.remedy, course.check.clone());
        let acting = course.acting_until.is_some();
        let half_done = acting && course.transaction.is_some();
        if acting {
            actions.push(CareAction::CancelRemedy { remedy });
        }
        if half_done {
            let sentence = format!(
                "{target} was removed in the middle of a remedy of `{check}`, which is neither done nor undone"
            );
            self.alert(target, AlertKind::UndoFailed, sentence, actions);
        }
        self.end_course(now, target, RemedyResult::Abandoned, actions);
    }

    fn end_course(
        &mut self,
        now: Instant,
        target: &Target,
        result: RemedyResult,
        actions: &mut Vec<CareAction>,
    ) {
        if let Some(course) = self.patients.get_mut(target).and_then(|p| p.facts.course.take()) {
            let (remedy, what, took) = (course.remedy, course.what, now.since(course.began));
            let target = target.clone();
            self.stirred.insert(target.clone());
            actions.push(CareAction::RemedyOver { remedy, target, what, result, took });
        }
        self.host.brakes.end(target);
        // Whoever waited for this one to be done looks again.
        for other in self.failing.keys() {
            let waits = |patient: &super::patient::Patient| patient.standing == Standing::HostBusy;
            if self.patients.get(other).is_some_and(waits) {
                self.stirred.insert(other.clone());
            }
        }
    }

    fn course_mut(&mut self, target: &Target) -> Option<&mut Course> {
        self.patients.get_mut(target)?.facts.course.as_mut()
    }

    /// Returns whose remedy this is, while it is being carried out.
    fn acting(&self, remedy: RemedyId) -> Option<Target> {
        let ours = |target: &&Target| {
            let course = self.patients.get(*target).and_then(|p| p.facts.course.as_ref());
            course.is_some_and(|course| course.remedy == remedy && course.acting_until.is_some())
        };
        self.host.brakes.running.iter().find(ours).cloned()
    }
}
