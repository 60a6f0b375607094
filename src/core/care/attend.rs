//! The decision: is something down, and may it be healed now?

use std::collections::BTreeSet;
use std::sync::Arc;

use super::brakes::{Refusal, TARGET_BUDGET};
use super::event::*;
use super::healer::Care;
use super::ladder::{CONFIRMATIONS, Pick};
use super::patient::{Standing, may_heal, only_observes};
use super::story::Story;
use crate::config::{Check, CheckKind, Remedy};
use crate::core::BreakerState;
use crate::time::Instant;

impl Care {
    /// Does what is due by time alone.
    pub(super) fn expire(&mut self, now: Instant, target: &Target, actions: &mut Vec<CareAction>) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        if patient.facts.hold.as_ref().is_some_and(|hold| hold.until <= now) {
            patient.facts.hold = None;
        }
        let mut edges = Vec::new();
        for (name, facts) in &mut patient.facts.checks {
            edges.push((name.clone(), facts.health.on_time(now)));
            facts.ladder.on_time(now);
        }
        if let Some(incident) = &mut patient.facts.incident {
            incident.evidence_by = incident.evidence_by.filter(|until| *until > now);
        }
        for (check, edges) in edges {
            self.on_edges(now, target, &check, edges, actions);
        }
        self.expire_course(now, target, actions);
    }

    /// Decides what is to be done about a target, and says why nothing is.
    pub(super) fn decide(&mut self, now: Instant, target: &Target, actions: &mut Vec<CareAction>) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        if patient.facts.course.is_some() {
            patient.standing = Standing::Healing;
            return;
        }
        let down = patient.down_checks();
        if down.is_empty() {
            patient.standing = Standing::Well;
            return;
        }
        for check in down.iter().filter(|check| !may_heal(check)) {
            self.alert_unhealable(target, check, actions);
        }
        let obstacle = self.obstacle(target);
        let mut standing = None;
        for check in down.iter().filter(|check| may_heal(check)) {
            let reached = self.consider(now, target, check, obstacle.as_ref(), actions);
            let goes_on = matches!(reached, Standing::Doubt | Standing::Quarantined { .. });
            if standing.is_none() || !goes_on {
                standing = Some(reached);
            }
            if !goes_on {
                break;
            }
        }
        let held = self.patients.get(target).and_then(|patient| patient.facts.hold.as_ref());
        let idle = held.map_or(Standing::Unhealable, |hold| Standing::Held { until: hold.until });
        self.stand(now, target, standing.unwrap_or(idle), actions);
    }

    /// Decides about one check that is down. The order of the questions is the order in which
    /// they are answered to people.
    fn consider(
        &mut self,
        now: Instant,
        target: &Target,
        check: &Arc<Check>,
        obstacle: Option<&Target>,
        actions: &mut Vec<CareAction>,
    ) -> Standing {
        let panic_until = self.host.panic.next_time().filter(|_| *target != Target::Host);
        let Some(patient) = self.patients.get_mut(target) else { return Standing::Well };
        if let Some(hold) = &patient.facts.hold {
            return Standing::Held { until: hold.until };
        }
        let Some(facts) = patient.facts.checks.get_mut(&check.name) else { return Standing::Well };
        if !facts.health.is_certain() {
            return Standing::Doubt;
        }
        if let Some(until) = facts.ladder.quarantined_until(now) {
            return Standing::Quarantined { until };
        }
        if let Some(by) = obstacle {
            return Standing::Blocked { by: by.clone() };
        }
        if let Some(until) = panic_until {
            return Standing::Panic { until };
        }
        let incident = patient.facts.incident.as_ref();
        if let Some(until) = incident.and_then(|incident| incident.evidence_by) {
            return Standing::Diagnosing { until };
        }
        // The single attempt out of quarantine begins where the cause says, if that is a rung.
        if facts.ladder.quarantine.state == BreakerState::HalfOpen
            && let Some(finding) = incident.and_then(|incident| incident.finding.as_ref())
        {
            let first = finding.first_rung(&check.heal);
            facts.ladder.begin_at(if first < check.heal.len() { first } else { 0 });
        }
        self.climb(now, target, check, actions)
    }

    /// Takes the rungs that touch nothing, up to the first that does, and that one if it may.
    fn climb(
        &mut self,
        now: Instant,
        target: &Target,
        check: &Arc<Check>,
        actions: &mut Vec<CareAction>,
    ) -> Standing {
        loop {
            let Some(patient) = self.patients.get_mut(target) else { return Standing::Well };
            let Some(facts) = patient.facts.checks.get_mut(&check.name) else {
                return Standing::Well;
            };
            let index = match facts.ladder.pick(now, &check.heal) {
                Pick::Rung(index) => index,
                Pick::Quarantine => return self.quarantine(now, target, check, actions),
            };
            match check.heal[index].remedy {
                Remedy::Confirm => match facts.ladder.confirming {
                    _ if check.kind == CheckKind::Process => facts.ladder.pass_over(index),
                    Some(seen) if seen >= CONFIRMATIONS => {
                        facts.ladder.pass_over(index);
                        self.tell(target, || Story::Confirmed, actions);
                    }
                    Some(_) => return Standing::Confirming,
                    None => {
                        facts.ladder.confirming = Some(0);
                        self.look_at_requirements(now, target);
                        return Standing::Confirming;
                    }
                },
                Remedy::Alert => {
                    facts.ladder.pass_over(index);
                    let sentence = format!("{target} is down (`{}`)", check.name);
                    self.alert(target, AlertKind::Asked, sentence, actions);
                }
                Remedy::Quarantine => return self.quarantine(now, target, check, actions),
                Remedy::Reload
                | Remedy::Signal { .. }
                | Remedy::Restart
                | Remedy::CleanRestart
                | Remedy::RestartGroup
                | Remedy::Run { .. }
                | Remedy::Steps(_)
                | Remedy::Fallback { .. }
                | Remedy::Rollback
                | Remedy::Shed => {
                    if let Some(standing) = self.brake(now, target, check) {
                        return standing;
                    }
                    return self.take(now, target, check, index, actions);
                }
            }
        }
    }

    /// Says what keeps a remedy from beginning now.
    fn brake(&self, now: Instant, target: &Target, check: &Check) -> Option<Standing> {
        let patient = self.patients.get(target)?;
        let cooldown = patient.facts.checks.get(&check.name)?.health.cooldown(check);
        if let Some(until) = patient.facts.last_attempt.map(|at| at + cooldown)
            && until > now
        {
            return Some(Standing::Cooling { until });
        }
        if only_observes(check) {
            return None;
        }
        let until = patient.facts.attempts.free_at(now, &TARGET_BUDGET);
        if until > now {
            return Some(Standing::OverBudget { until });
        }
        match self.host.brakes.permit(now, target, self.counted) {
            Ok(()) => None,
            Err(Refusal::Busy) => Some(Standing::HostBusy),
            Err(Refusal::Share { until }) => Some(Standing::HostBudget { until }),
        }
    }

    fn take(
        &mut self,
        now: Instant,
        target: &Target,
        check: &Arc<Check>,
        index: usize,
        actions: &mut Vec<CareAction>,
    ) -> Standing {
        if !only_observes(check) {
            self.begin_course(now, target, check, index, actions);
            return Standing::Healing;
        }
        let remedy = check.heal[index].remedy.word().to_owned();
        self.tell(target, || Story::Would { rung: index, remedy }, actions);
        let Some(patient) = self.patients.get_mut(target) else { return Standing::Well };
        patient.facts.last_attempt = Some(now);
        let Some(facts) = patient.facts.checks.get_mut(&check.name) else { return Standing::Well };
        facts.ladder.climb(now, index);
        facts.health.failing = false;
        Standing::Cooling { until: now + facts.health.cooldown(check) }
    }

    fn quarantine(
        &mut self,
        now: Instant,
        target: &Target,
        check: &Check,
        actions: &mut Vec<CareAction>,
    ) -> Standing {
        let Some(patient) = self.patients.get_mut(target) else { return Standing::Well };
        let Some(facts) = patient.facts.checks.get_mut(&check.name) else { return Standing::Well };
        let until = facts.ladder.close_in(now);
        let told = std::mem::replace(&mut facts.ladder.alerted, true);
        let story = Story::Quarantined { until_in: until.since(now) };
        if !told {
            let sentence = format!("{target} {}", story.sentence());
            self.alert(target, AlertKind::Quarantined, sentence, actions);
        }
        self.tell(target, || story, actions);
        Standing::Quarantined { until }
    }

    fn alert_unhealable(&mut self, target: &Target, check: &Check, actions: &mut Vec<CareAction>) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        let held = patient.is_held();
        let Some(facts) = patient.facts.checks.get_mut(&check.name) else { return };
        if held || std::mem::replace(&mut facts.ladder.alerted, true) {
            return;
        }
        let why = match check.heal.is_empty() {
            true => "nothing is configured to heal it",
            false => "a check of readiness heals nothing",
        };
        let sentence = format!("{target} is down (`{}`), and {why}", check.name);
        self.alert(target, AlertKind::Unhealable, sentence, actions);
    }

    /// Notes why nothing is done, and tells it once.
    fn stand(
        &mut self,
        now: Instant,
        target: &Target,
        standing: Standing,
        actions: &mut Vec<CareAction>,
    ) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        let told = match standing {
            Standing::Well | Standing::Healing | Standing::Quarantined { .. } => true,
            Standing::Held { .. } | Standing::Doubt | Standing::Diagnosing { .. } => false,
            Standing::Blocked { .. } | Standing::Panic { .. } | Standing::Confirming => false,
            Standing::Cooling { .. } | Standing::OverBudget { .. } => false,
            Standing::HostBudget { .. } | Standing::HostBusy | Standing::Unhealable => false,
        };
        let changed = !standing.is_like(&patient.standing);
        patient.standing = standing;
        if changed && !told {
            let why = patient.standing.sentence(now);
            self.tell(target, || Story::Waiting { why }, actions);
        }
    }

    /// Returns the first target, of all that this one requires directly or not, that is not
    /// well.
    pub(super) fn obstacle(&self, target: &Target) -> Option<Target> {
        let mut seen = BTreeSet::from([target]);
        let mut queue = vec![target];
        while let Some(next) = queue.pop() {
            for required in self.patients.get(next).into_iter().flat_map(|p| &p.charge.requires) {
                let Some(patient) = self.patients.get(required) else { continue };
                if !seen.insert(required) {
                    continue;
                }
                if patient.is_obstacle() {
                    return Some(required.clone());
                }
                queue.push(required);
            }
        }
        None
    }

    /// Has the checks of all that a target requires run at once.
    fn look_at_requirements(&mut self, now: Instant, target: &Target) {
        let Some(patient) = self.patients.get(target) else { return };
        for required in &patient.charge.requires {
            for check in self.patients.get(required).into_iter().flat_map(|p| p.checks.keys()) {
                let id = CheckId { target: required.clone(), check: check.clone() };
                self.pace.run_now(now, &id);
            }
        }
    }
}
