//! All targets together: events find their target, what follows for others is done before the
//! event is over.
//!
//! Decisions are level-triggered: whatever happens to a target only changes what is known of
//! it, and then [`Care::attend`] looks at all that is known and decides anew. Lost or repeated
//! events and the death of the brain therefore leave nothing undone.

use std::collections::{BTreeMap, BTreeSet};

use super::brakes::{Brakes, Panic};
use super::event::*;
use super::gate::PressureGate;
use super::mode::{Mode, ModeState};
use super::pace::{Order, Pace, Places, Pool};
use super::patient::{Patient, Standing, TargetFacts};
use crate::config::{CheckKind, Impact, ModeRules};
use crate::core::bulkhead::BulkheadStatistics;
use crate::core::rate::Rate;
use crate::name::CheckName;
use crate::time::Instant;

/// More rounds than any event needs; a mistake of ours must not spin for ever.
const MAX_ROUNDS: usize = 1000;

/// All that is remembered of the host as a whole.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostFacts {
    pub brakes: Brakes,
    pub panic: Panic,
    /// The incident of the panic in progress.
    pub panic_incident: Option<IncidentId>,
    pub gate: PressureGate,
    pub mode: ModeState,
    /// How fast evidence is being asked for.
    pub evidence: Rate,
    /// What is stopped so that others live.
    pub shed: BTreeSet<Target>,
    pub next_incident: u64,
    pub next_remedy: u64,
    /// How many brains there have been; their probes' tickets are told apart by it.
    pub generation: u64,
}

/// Looks after all targets. Takes events and the time, returns actions.
#[derive(Debug)]
pub struct Care {
    pub(super) patients: BTreeMap<Target, Patient>,
    pub(super) pace: Pace<CheckId>,
    pub(super) wakes: BTreeSet<(Instant, Target)>,
    /// Who requires whom, the other way round.
    pub(super) dependants: BTreeMap<Target, BTreeSet<Target>>,
    /// Targets that fail, and since when.
    pub(super) failing: BTreeMap<Target, Instant>,
    /// Targets that are down, and how much that matters.
    pub(super) down: BTreeMap<Target, Impact>,
    /// How many targets have checks that are being run.
    pub(super) counted: usize,
    /// Targets that something happened to.
    pub(super) stirred: BTreeSet<Target>,
    pub(super) touched: BTreeSet<Target>,
    pub(super) host: HostFacts,
    pub(super) saved_host: HostFacts,
    pub(super) host_stirred: bool,
    pub(super) asks: BTreeMap<CheckId, Vec<AskId>>,
    pub(super) settings: Settings,
}

impl Care {
    /// Makes a healer of nothing. The seed decides over the spread of checks.
    pub fn new(seed: u64) -> Self {
        Self::of_generation(seed, HostFacts::default())
    }

    pub(super) fn of_generation(seed: u64, host: HostFacts) -> Self {
        let places = Places { native: 64, exec: 2 };
        let first_ticket = (host.generation << 32) + 1;
        Self {
            patients: BTreeMap::new(),
            pace: Pace::new(places, first_ticket, seed),
            wakes: BTreeSet::new(),
            dependants: BTreeMap::new(),
            failing: BTreeMap::new(),
            down: BTreeMap::new(),
            counted: 0,
            stirred: BTreeSet::new(),
            touched: BTreeSet::new(),
            saved_host: host.clone(),
            host,
            host_stirred: false,
            asks: BTreeMap::new(),
            settings: Settings { places, mode: ModeRules::default() },
        }
    }

    /// Takes one event and returns what the engine must do about it, in order.
    ///
    /// A report on a check, remedy or incident that is not the one in progress has no effect.
    pub fn on_event(&mut self, now: Instant, event: CareEvent) -> Vec<CareAction> {
        let mut actions = Vec::new();
        match event {
            CareEvent::Configure { charges, settings } => {
                self.configure(now, charges, settings, &mut actions);
            }
            CareEvent::Life { target, life } => self.on_life(now, &target, life, &mut actions),
            CareEvent::Result { check, ticket, verdict, detail, took, pressure } => {
                let sample = Sample { verdict, detail, at: now, took };
                self.on_result(now, check, ticket, sample, pressure, &mut actions);
            }
            CareEvent::Evidence { target, incident, evidence } => {
                self.on_evidence(now, &target, incident, &evidence, &mut actions);
            }
            CareEvent::RemedyEnded { remedy, outcome } => {
                self.on_remedy_ended(now, remedy, outcome, &mut actions);
            }
            CareEvent::StepEnded { remedy, step, undo, result } => {
                self.on_step_ended(now, remedy, step, undo, result, &mut actions);
            }
            CareEvent::MoreTime { target, until } => {
                if let Some(patient) = self.patients.get_mut(&target) {
                    for check in patient.facts.checks.values_mut() {
                        check.health.on_more_time(until);
                    }
                    self.stirred.insert(target);
                }
            }
            CareEvent::Operator(command) => self.command(now, command, &mut actions),
            CareEvent::DeadlineReached => self.on_deadlines(now, &mut actions),
        }
        self.settle(now, &mut actions);
        actions
    }

    /// Returns when [`CareEvent::DeadlineReached`] is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let wake = self.wakes.first().map(|(at, _)| *at);
        [self.pace.next_time(), wake, self.next_host_time()].into_iter().flatten().min()
    }

    /// Returns all that must be written down of one target.
    pub fn target_facts(&self, target: &Target) -> Option<&TargetFacts> {
        self.patients.get(target).map(|patient| &patient.facts)
    }

    /// Returns all that must be written down of the host.
    pub fn host_facts(&self) -> &HostFacts {
        &self.host
    }

    /// Returns how a target's checks see it, all together.
    pub fn health(&self, target: &Target) -> super::HealthState {
        let Some(patient) = self.patients.get(target) else { return super::HealthState::None };
        let held = patient.is_held();
        let states = patient.facts.checks.values().map(|facts| facts.health.state(held));
        states.max_by_key(|state| state.weight()).unwrap_or(super::HealthState::None)
    }

    /// Returns why a target is, or is not, being healed.
    pub fn standing(&self, target: &Target) -> Option<&Standing> {
        self.patients.get(target).map(|patient| &patient.standing)
    }

    /// Returns the last results of a check, oldest first.
    pub fn samples(&self, check: &CheckId) -> impl Iterator<Item = &Sample> {
        let patient = self.patients.get(&check.target);
        patient.and_then(|patient| patient.samples.get(&check.check)).into_iter().flatten()
    }

    /// Returns when a check runs next, while it does not run.
    pub fn next_run(&self, check: &CheckId) -> Option<Instant> {
        self.pace.next_run(check)
    }

    /// Whether a check is being run, or will be.
    pub fn is_scheduled(&self, check: &CheckId) -> bool {
        self.pace.contains(check)
    }

    /// Whether this is the ticket of the run that is under way.
    pub fn is_ticket(&self, check: &CheckId, ticket: u64) -> bool {
        self.pace.ticket(check) == Some(ticket)
    }

    /// Whether what requires this target waits for it to be well.
    pub fn is_obstacle(&self, target: &Target) -> bool {
        self.patients.get(target).is_some_and(Patient::is_obstacle)
    }

    /// Returns the targets in the order of their names.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.patients.keys()
    }

    pub fn mode(&self) -> Mode {
        self.host.mode.mode()
    }

    /// Whether timeouts are being excused because the host is too busy.
    pub fn is_under_pressure(&self, now: Instant) -> bool {
        self.host.gate.is_excusing(now)
    }

    /// Returns what the pools have seen, native first, and how many runs were overdue.
    pub fn pools(&self) -> (BulkheadStatistics, BulkheadStatistics, u64) {
        self.pace.statistics()
    }

    fn on_deadlines(&mut self, now: Instant, actions: &mut Vec<CareAction>) {
        if let Some(due) = self.next_deadline() {
            self.host.gate.on_wake(now, due);
        }
        for _ in 0..MAX_ROUNDS {
            if self.next_deadline().is_none_or(|at| at > now) {
                break;
            }
            let orders = self.pace.on_time(now);
            self.carry_out(now, orders, actions);
            while self.wakes.first().is_some_and(|(at, _)| *at <= now) {
                if let Some((_, target)) = self.wakes.pop_first() {
                    if let Some(patient) = self.patients.get_mut(&target) {
                        patient.wake = None;
                    }
                    self.stirred.insert(target);
                }
            }
            self.host_stirred |= self.next_host_time().is_some_and(|at| at <= now);
            self.settle(now, actions);
        }
    }

    /// Does all that follows, until nothing does any more.
    pub(super) fn settle(&mut self, now: Instant, actions: &mut Vec<CareAction>) {
        for _ in 0..MAX_ROUNDS {
            while let Some(target) = self.stirred.pop_first() {
                self.attend(now, &target, actions);
                self.touched.insert(target);
            }
            if !std::mem::take(&mut self.host_stirred) {
                break;
            }
            self.attend_host(now, actions);
        }
        for target in std::mem::take(&mut self.touched) {
            self.publish(&target, actions);
        }
        if self.saved_host != self.host {
            self.saved_host = self.host.clone();
            actions.push(CareAction::PersistHost);
        }
    }

    /// Looks at all that is known of a target and does what is due.
    fn attend(&mut self, now: Instant, target: &Target, actions: &mut Vec<CareAction>) {
        self.expire(now, target, actions);
        self.judge_process(now, target, false, actions);
        self.review(now, target, actions);
        self.decide(now, target, actions);
        self.judge_process(now, target, false, actions);
        self.follow(now, target, actions);
    }

    /// Brings schedule, wake-up and indexes up to date with what is known of a target.
    fn follow(&mut self, now: Instant, target: &Target, actions: &mut Vec<CareAction>) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        let mut orders = Vec::new();
        for (name, check) in &patient.checks {
            let id = CheckId { target: target.clone(), check: name.clone() };
            let active = patient.is_active(check);
            let Some(facts) = patient.facts.checks.get_mut(name) else { continue };
            if !active {
                orders.extend(self.pace.remove(now, &id));
                for ask in self.asks.remove(&id).unwrap_or_default() {
                    let answer = Answer::Refused(format!("`{id}` is not being run now"));
                    actions.push(CareAction::Answer { ask, answer });
                }
                continue;
            }
            facts.health.begin_if_none(now, now + check.start_timeout);
            let more = match patient.standing {
                Standing::Quarantined { .. } | Standing::Unhealable => false,
                Standing::Well | Standing::Healing | Standing::Held { .. } => true,
                Standing::Doubt | Standing::Diagnosing { .. } | Standing::Blocked { .. } => true,
                Standing::Panic { .. } | Standing::Confirming | Standing::HostBusy => true,
                Standing::Cooling { .. } | Standing::OverBudget { .. } => true,
                Standing::HostBudget { .. } => true,
            };
            let interval = match facts.ladder.confirming {
                Some(_) => check.suspect_interval(),
                None => facts.health.interval(check, more),
            };
            let pool = if check.kind.is_exec() { Pool::Exec } else { Pool::Native };
            self.pace.insert(now, id.clone(), pool, interval, check.timeout);
            self.pace.set_interval(&id, interval);
            self.pace.set_timeout(&id, check.timeout);
        }
        self.count(now, target);
        self.rewake(now, target);
        self.carry_out(now, orders, actions);
    }

    fn count(&mut self, now: Instant, target: &Target) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        let counts = patient.is_alive() && !patient.is_host() && !patient.checks.is_empty();
        if counts != patient.counts {
            patient.counts = counts;
            self.counted = self.counted - usize::from(!counts) + usize::from(counts);
        }
        let since = patient.facts.failing_since.unwrap_or(now);
        patient.facts.failing_since = patient.is_failing().then_some(since);
        match patient.facts.failing_since {
            Some(since) => self.failing.insert(target.clone(), since),
            None => self.failing.remove(target),
        };
        match patient.down_impact() {
            Some(impact) => self.down.insert(target.clone(), impact),
            None => self.down.remove(target),
        };
        self.host_stirred = true;
        let obstructs = patient.is_obstacle();
        if obstructs != patient.obstructs {
            patient.obstructs = obstructs;
            self.stir_dependants(target);
        }
    }

    /// Whoever requires the target, directly or not, and fails, looks again.
    fn stir_dependants(&mut self, target: &Target) {
        let mut queue = vec![target.clone()];
        let mut seen = BTreeSet::new();
        while let Some(next) = queue.pop() {
            for dependant in self.dependants.get(&next).into_iter().flatten() {
                if seen.insert(dependant.clone()) {
                    queue.push(dependant.clone());
                    if self.failing.contains_key(dependant) {
                        self.stirred.insert(dependant.clone());
                    }
                }
            }
        }
    }

    fn rewake(&mut self, now: Instant, target: &Target) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        // What is already due has just been looked at; it needs another event, not another look.
        let wake = patient.next_time().filter(|at| *at > now);
        if wake != patient.wake {
            if let Some(old) = patient.wake {
                self.wakes.remove(&(old, target.clone()));
            }
            patient.wake = wake;
            self.wakes.extend(wake.map(|at| (at, target.clone())));
        }
    }

    /// Announces what people see and asks to have written down what changed.
    fn publish(&mut self, target: &Target, actions: &mut Vec<CareAction>) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        let held = patient.is_held();
        let states: Vec<(CheckName, _)> = patient
            .facts
            .checks
            .iter()
            .map(|(name, facts)| (name.clone(), facts.health.state(held)))
            .collect();
        for (name, to) in states {
            let from = patient.shown.insert(name.clone(), to).unwrap_or(super::HealthState::None);
            if from != to {
                let detail = patient.last_sample(&name).map(|s| s.detail.clone());
                let check = CheckId { target: target.clone(), check: name };
                let detail = detail.unwrap_or_default();
                actions.push(CareAction::Announce(HealthChange { check, from, to, detail }));
            }
        }
        if patient.saved.as_ref() != Some(&patient.facts) {
            patient.saved = Some(patient.facts.clone());
            actions.push(CareAction::Persist { target: target.clone() });
        }
    }

    /// Passes the schedule's orders on.
    pub(super) fn carry_out(
        &mut self,
        now: Instant,
        orders: Vec<Order<CheckId>>,
        actions: &mut Vec<CareAction>,
    ) {
        for order in orders {
            match order {
                Order::Run { key, pool, ticket } => {
                    actions.push(CareAction::RunCheck { check: key, pool, ticket });
                }
                Order::Cancel { key, ticket } => {
                    actions.push(CareAction::CancelCheck { check: key, ticket });
                }
                Order::Overdue { key } => self.on_overdue(now, key, actions),
            }
        }
    }

    fn configure(
        &mut self,
        now: Instant,
        charges: Vec<Charge>,
        settings: Settings,
        actions: &mut Vec<CareAction>,
    ) {
        self.set_settings(settings);
        let names: BTreeSet<Target> = charges.iter().map(|c| c.target.clone()).collect();
        let gone: Vec<Target> =
            self.patients.keys().filter(|target| !names.contains(*target)).cloned().collect();
        for target in gone {
            self.dismiss(now, &target, actions);
        }
        for charge in charges {
            let target = charge.target.clone();
            match self.patients.get_mut(&target) {
                Some(patient) => {
                    patient.charge = charge;
                    let old: Vec<CheckName> = patient.checks.keys().cloned().collect();
                    patient.take_checks(now);
                    let lost = |name: &&CheckName| !patient.checks.contains_key(*name);
                    let lost: Vec<CheckName> = old.iter().filter(lost).cloned().collect();
                    self.drop_checks(now, &target, lost, actions);
                }
                None => self.admit(now, charge, TargetFacts::new(target.clone())),
            }
            self.stirred.insert(target);
        }
        self.link();
    }

    pub(super) fn set_settings(&mut self, settings: Settings) {
        self.pace.set_places(settings.places);
        self.settings = settings;
        self.host_stirred = true;
    }

    pub(super) fn admit(&mut self, now: Instant, charge: Charge, facts: TargetFacts) {
        let target = charge.target.clone();
        self.patients.insert(target.clone(), Patient::new(now, charge, facts));
        self.stirred.insert(target);
    }

    /// Makes the reverse edges anew.
    pub(super) fn link(&mut self) {
        self.dependants.clear();
        for (target, patient) in &self.patients {
            for required in &patient.charge.requires {
                self.dependants.entry(required.clone()).or_default().insert(target.clone());
            }
        }
    }

    fn drop_checks(
        &mut self,
        now: Instant,
        target: &Target,
        lost: Vec<CheckName>,
        actions: &mut Vec<CareAction>,
    ) {
        for check in lost {
            let id = CheckId { target: target.clone(), check };
            let orders = self.pace.remove(now, &id);
            self.carry_out(now, orders, actions);
            for ask in self.asks.remove(&id).unwrap_or_default() {
                let answer = Answer::Refused(format!("`{id}` is no longer configured"));
                actions.push(CareAction::Answer { ask, answer });
            }
            let patient = self.patients.get(target);
            let course = patient.and_then(|patient| patient.facts.course.as_ref());
            if course.is_some_and(|course| course.check == id.check) {
                self.abandon_course(now, target, actions);
            }
        }
    }

    /// A target is no longer configured.
    fn dismiss(&mut self, now: Instant, target: &Target, actions: &mut Vec<CareAction>) {
        let checks = self.patients.get(target).map(|patient| patient.checks.keys().cloned());
        let checks: Vec<CheckName> = checks.into_iter().flatten().collect();
        self.drop_course(now, target, actions);
        self.drop_checks(now, target, checks, actions);
        self.close_incident(target, super::story::Closing::Removed, actions);
        let Some(patient) = self.patients.remove(target) else { return };
        if let Some(wake) = patient.wake {
            self.wakes.remove(&(wake, target.clone()));
        }
        self.counted -= usize::from(patient.counts);
        self.failing.remove(target);
        self.down.remove(target);
        self.stirred.remove(target);
        self.host.shed.remove(target);
        self.host_stirred = true;
        actions.push(CareAction::Forget { target: target.clone() });
    }

    /// Whether this check exists and has a probe.
    pub(super) fn has_probe(&self, check: &CheckId) -> bool {
        let found = self.patients.get(&check.target).and_then(|p| p.checks.get(&check.check));
        found.is_some_and(|check| check.kind != CheckKind::Process)
    }
}
