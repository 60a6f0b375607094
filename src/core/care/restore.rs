//! How the next brain goes on: cool-downs, streaks, holds and remedies in progress are taken up
//! where they were.
//!
//! A remedy that was being carried out is never begun again: its outcome is asked for, and when
//! nobody knows it the checks tell. A transaction is undone.

use super::event::*;
use super::healer::{Care, HostFacts};
use super::patient::TargetFacts;
use crate::config::Remedy;
use crate::time::Instant;

/// What the next brain has to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct CareRestore {
    pub charges: Vec<Charge>,
    pub settings: Settings,
    pub host: HostFacts,
    pub targets: Vec<TargetFacts>,
    /// What the processes are doing now.
    pub lives: Vec<(Target, Life)>,
}

impl Care {
    /// Makes a healer that goes on where another one died.
    pub fn restore(now: Instant, seed: u64, restore: CareRestore) -> (Self, Vec<CareAction>) {
        let mut actions = Vec::new();
        let generation = restore.host.generation + 1;
        let host = HostFacts { generation, ..restore.host.clone() };
        let mut care = Self::of_generation(seed, host);
        care.saved_host = restore.host;
        care.set_settings(restore.settings);
        let mut known: std::collections::BTreeMap<Target, TargetFacts> =
            restore.targets.into_iter().map(|facts| (facts.target.clone(), facts)).collect();
        for charge in restore.charges {
            let fresh = TargetFacts::new(charge.target.clone());
            let facts = known.remove(&charge.target).unwrap_or(fresh);
            care.admit(now, charge, facts);
        }
        for (target, facts) in known {
            for program in facts.fallbacks {
                actions.push(CareAction::EndFallback { target: target.clone(), program });
            }
            care.host.brakes.end(&target);
            care.host.shed.remove(&target);
            actions.push(CareAction::Forget { target });
        }
        care.link();
        for patient in care.patients.values_mut() {
            let held = patient.is_held();
            let states = patient.facts.checks.iter();
            let shown = states.map(|(name, facts)| (name.clone(), facts.health.state(held)));
            patient.shown = shown.collect();
            patient.saved = Some(patient.facts.clone());
        }
        for (target, life) in restore.lives {
            care.on_life_found(now, &target, life, &mut actions);
        }
        care.resume_courses(now, &mut actions);
        care.settle(now, &mut actions);
        (care, actions)
    }

    /// A life that is as it was is no news.
    fn on_life_found(
        &mut self,
        now: Instant,
        target: &Target,
        life: Life,
        actions: &mut Vec<CareAction>,
    ) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        let same_run = life.run().is_some() && life.run() == patient.facts.run;
        let same_failure = matches!(life, Life::Failed { .. }) && patient.facts.incident.is_some();
        if same_run || same_failure {
            patient.life = life;
        } else {
            self.on_life(now, target, life, actions);
        }
    }

    fn resume_courses(&mut self, now: Instant, actions: &mut Vec<CareAction>) {
        let running: Vec<Target> = self.host.brakes.running.iter().cloned().collect();
        for target in running {
            let course = self.patients.get_mut(&target).and_then(|p| p.facts.course.as_mut());
            let Some(course) = course else {
                self.host.brakes.end(&target);
                continue;
            };
            if course.acting_until.is_none() {
                continue;
            }
            match (&course.what, &mut course.transaction) {
                (Remedy::Steps(steps), Some(transaction)) => {
                    actions.push(CareAction::CancelRemedy { remedy: course.remedy });
                    let order = transaction.resume(steps);
                    self.transact(now, &target, order, actions);
                }
                (what, _) => {
                    let (remedy, what) = (course.remedy, what.clone());
                    actions.push(CareAction::ResumeRemedy { remedy, target, what });
                }
            }
        }
    }
}
