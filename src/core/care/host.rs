//! The host as a whole: panic, mode, and what is shed.

use std::collections::{BTreeMap, BTreeSet};

use super::brakes::PanicEdge;
use super::event::*;
use super::healer::Care;
use super::mode::{self, Load, Mode};
use super::patient::Standing;
use super::story::{Closing, Story};
use crate::core::{Actor, text};
use crate::time::Instant;

impl Care {
    pub(super) fn next_host_time(&self) -> Option<Instant> {
        let mode = self.host.mode.next_time(&self.settings.mode);
        self.host.panic.next_time().into_iter().chain(mode).min()
    }

    /// Looks at the host as a whole.
    pub(super) fn attend_host(&mut self, now: Instant, actions: &mut Vec<CareAction>) {
        let onsets = self.onsets();
        match self.host.panic.update(now, &onsets, self.counted) {
            Some(PanicEdge::Began) => self.begin_panic(now, actions),
            Some(PanicEdge::Ended) => self.panic_over(actions),
            None => {}
        }
        let worst = self.down.values().map(|impact| Mode::of(*impact)).max().unwrap_or_default();
        let is = if self.host.panic.is_on() { Mode::Emergency } else { worst };
        if let Some((from, to)) = self.host.mode.update(now, &self.settings.mode, is) {
            let reasons = self.reasons(now);
            actions.push(CareAction::ModeChanged { from, to, reasons });
            if to > from
                && let Some(from_priority) = mode::shed_from(to, &self.settings.mode)
            {
                let going = mode::shed(&self.loads(true), from_priority);
                let why = format!("the host is {}", to.word());
                self.shed(going, &why, actions);
            }
        }
        self.unshed(actions);
    }

    /// Returns since when those targets fail whose failure is their own.
    fn onsets(&self) -> Vec<Instant> {
        let own = |(target, _): &(&Target, &Instant)| {
            let held = self.patients.get(*target).is_some_and(|patient| patient.is_held());
            **target != Target::Host && !held && self.obstacle(target).is_none()
        };
        self.failing.iter().filter(own).map(|(_, since)| *since).collect()
    }

    fn begin_panic(&mut self, now: Instant, actions: &mut Vec<CareAction>) {
        let incident = IncidentId(self.host.next_incident);
        self.host.next_incident += 1;
        self.host.panic_incident = Some(incident);
        let story = Story::Panicked { failing: self.failing.keys().cloned().collect() };
        let sentence = format!("{} {}", Target::Host, story.sentence());
        actions.push(CareAction::Tell { incident, target: Target::Host, story });
        self.alert_of_host(AlertKind::Panic, incident, sentence, actions);
        actions.push(CareAction::CollectEvidence { incident, target: Target::Host, check: None });
        if let Some(host) = self.patients.get(&Target::Host) {
            for check in host.checks.keys() {
                let id = CheckId { target: Target::Host, check: check.clone() };
                self.pace.run_now(now, &id);
            }
        }
        self.stirred.extend(self.failing.keys().cloned());
    }

    fn panic_over(&mut self, actions: &mut Vec<CareAction>) {
        if let Some(incident) = self.host.panic_incident.take() {
            let story = Story::Closed(Closing::PanicOver);
            let sentence = story.sentence();
            actions.push(CareAction::Tell { incident, target: Target::Host, story });
            self.alert_of_host(AlertKind::PanicOver, incident, sentence, actions);
        }
        self.stirred.extend(self.failing.keys().cloned());
    }

    /// Tells people, unless the host is on hold.
    fn alert_of_host(
        &self,
        kind: AlertKind,
        incident: IncidentId,
        sentence: String,
        actions: &mut Vec<CareAction>,
    ) {
        let held = self.patients.get(&Target::Host).is_some_and(|host| host.is_held());
        if !held {
            let (target, incident) = (Target::Host, Some(incident));
            actions.push(CareAction::Alert(Alert { kind, target, incident, sentence }));
        }
    }

    pub(super) fn end_panic(&mut self, now: Instant, by: &Actor, actions: &mut Vec<CareAction>) {
        if let Some(incident) = self.host.panic_incident {
            let why = format!("is not in a panic any more: {} said so", text::actor(by));
            let story = Story::Waiting { why };
            actions.push(CareAction::Tell { incident, target: Target::Host, story });
        }
        self.host.panic.end(now);
        self.panic_over(actions);
        self.host_stirred = true;
    }

    /// Says what the mode follows from.
    pub fn reasons(&self, now: Instant) -> Vec<String> {
        let of_target = |(target, _): (&Target, &_)| {
            match self.standing(target) {
                // No check is: the process itself does not run.
                Some(Standing::Well) | None => format!("{target} is down"),
                Some(standing) => format!("{target} is down and {}", standing.sentence(now)),
            }
        };
        let panic = self.host.panic.is_on().then(|| "much fails at once".to_owned());
        panic.into_iter().chain(self.down.iter().map(of_target)).collect()
    }

    /// Returns all that is wanted to run, and whether it may be stopped: what is stopped already
    /// for this reason, and with `more` what runs.
    fn loads(&self, more: bool) -> BTreeMap<Target, Load> {
        let load = |(target, patient): (&Target, &super::patient::Patient)| {
            let shed = self.host.shed.contains(target);
            let load = Load {
                may_go: shed || (more && patient.is_alive()),
                priority: patient.charge.priority,
                impact: patient.charge.impact,
                requires: patient.charge.requires.clone(),
            };
            (shed || !patient.life.is_stopped()).then(|| (target.clone(), load))
        };
        self.patients.iter().filter_map(load).collect()
    }

    /// Stops what is less important than a target that is to be healed by it.
    pub(super) fn shed_for(&mut self, target: &Target, actions: &mut Vec<CareAction>) {
        let Some(going) = self.going_for(target, true) else { return };
        self.shed(going, &format!("{target} needs what it uses"), actions);
    }

    fn going_for(&self, target: &Target, more: bool) -> Option<BTreeSet<Target>> {
        let priority = self.patients.get(target)?.charge.priority;
        let mut going = mode::shed(&self.loads(more), priority.saturating_add(1));
        going.remove(target);
        Some(going)
    }

    /// Stops those that run. What is stopped by its operator is not ours to bring back.
    fn shed(&mut self, going: BTreeSet<Target>, why: &str, actions: &mut Vec<CareAction>) {
        for target in going {
            let runs = self.patients.get(&target).is_some_and(|patient| patient.is_alive());
            if runs && self.host.shed.insert(target.clone()) {
                actions.push(CareAction::Shed { target, why: why.to_owned() });
            }
        }
    }

    /// Brings back what nothing needs to be stopped for any more.
    fn unshed(&mut self, actions: &mut Vec<CareAction>) {
        if self.host.shed.is_empty() {
            return;
        }
        let mut wanted = BTreeSet::new();
        if let Some(from) = mode::shed_from(self.mode(), &self.settings.mode) {
            wanted.extend(mode::shed(&self.loads(false), from));
        }
        for (target, patient) in &self.patients {
            if patient.facts.sheds_others {
                wanted.extend(self.going_for(target, false).into_iter().flatten());
            }
        }
        let back: Vec<Target> = self.host.shed.difference(&wanted).cloned().collect();
        for target in back {
            self.host.shed.remove(&target);
            actions.push(CareAction::Unshed { target });
        }
    }
}
