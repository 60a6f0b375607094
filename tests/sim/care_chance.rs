//! What nobody expected, and how a life comes to its good end.

use std::fmt::Write;
use std::time::Duration;

use mendd::config::{Check, CheckKind};
use mendd::core::care::mode::Mode;
use mendd::core::care::{
    AskId, Care, CareCommand, CareEvent, CareRestore, CheckId, Life, Retry, Target,
};

use crate::care_world::{Coming, World, actor};

impl World {
    /// Something that nobody expected.
    pub(crate) fn chance(&mut self) {
        let targets: Vec<Target> = self.charges.keys().cloned().collect();
        let target = targets[self.rng.usize(..targets.len())].clone();
        match self.rng.u8(..24) {
            0..8 => drop(self.sick.insert(target, true)),
            8..10 => drop(self.sick.insert(target, false)),
            10 => {
                for other in targets {
                    if self.rng.bool() {
                        self.sick.insert(other, true);
                    }
                }
            }
            11..13 if target != Target::Host && self.lives[&target].run().is_some() => {
                let life = self.failure();
                self.set_life(&target, life, 100);
            }
            13 if target != Target::Host => {
                self.set_life(&target, Life::Stopped { by_operator: true }, 100);
            }
            14..17 if target != Target::Host && self.lives[&target].run().is_none() => {
                self.set_life(&target, Life::Waiting, 50);
                self.start_program(&target, 200);
            }
            17 => {
                let until = self.now + Duration::from_secs(self.rng.u64(1..1800));
                let early = self.rng.u8(..3) == 0;
                self.rules.held.insert(target.clone(), until);
                let by = actor();
                if early {
                    self.later(600_000, Coming::HoldEnds { target: target.clone() });
                }
                self.send(CareEvent::Operator(CareCommand::Hold { target, until, by }));
            }
            18 => {
                let rung = self.rng.bool().then_some(self.rng.usize(..4));
                let (by, ask) = (actor(), AskId(self.sequence));
                self.send(CareEvent::Operator(CareCommand::Heal { target, rung, by, ask }));
            }
            19 => {
                let checks = &self.charges[&target].checks;
                if let Some(check) = checks.first().map(|check| check.name.clone()) {
                    let check = CheckId { target, check };
                    let (max_age, ask) = (Duration::from_secs(2), AskId(self.sequence));
                    self.send(CareEvent::Operator(CareCommand::Run { check, max_age, ask }));
                }
            }
            20 => self.busy_until = self.now + Duration::from_secs(self.rng.u64(1..600)),
            21..23 => self.die(),
            23 => {
                let by = actor();
                self.send(CareEvent::Operator(CareCommand::EndPanic { by }));
            }
            _ => {}
        }
    }

    /// Every change that the next brain must know came with an action that records it.
    pub(crate) fn check_record(&self) {
        for target in self.charges.keys() {
            assert_eq!(self.record.get(target), self.care.target_facts(target), "{target}");
        }
        assert_eq!(&self.host_record, self.care.host_facts());
    }

    /// The brain dies and the next one takes over.
    pub(crate) fn die(&mut self) {
        self.figures.count("brain dies");
        self.note(&"the brain dies");
        self.check_record();
        self.coming
            .retain(|_, coming| !matches!(coming, Coming::Result { .. } | Coming::Evidence { .. }));
        let mut rng = self.rng.fork();
        self.coming.retain(|_, coming| match coming {
            Coming::RemedyEnd { .. } | Coming::StepEnd { .. } => rng.bool(),
            Coming::Result { .. } | Coming::Evidence { .. } | Coming::Life { .. } => true,
            Coming::HoldEnds { .. } | Coming::Chance => true,
        });
        if self.rng.bool() {
            self.now = self.now + Duration::from_secs(self.rng.u64(..20));
        }
        self.expire_holds();
        let restore = CareRestore {
            charges: self.charges.values().cloned().collect(),
            settings: self.settings,
            host: self.host_record.clone(),
            targets: self.record.values().cloned().collect(),
            lives: self.lives.iter().map(|(target, life)| (target.clone(), *life)).collect(),
        };
        let (care, actions) = Care::restore(self.now, self.rng.u64(..), restore);
        self.care = care;
        self.execute(actions);
    }

    /// From now on nobody falls ill or interferes, and every remedy helps.
    pub(crate) fn calm_down(&mut self) {
        self.calm = true;
        self.busy_until = self.now;
        for target in self.charges.keys().cloned().collect::<Vec<_>>() {
            self.rules.held.remove(&target);
            let by = actor();
            self.send(CareEvent::Operator(CareCommand::Release { target, by }));
        }
        self.sick.retain(|target, _| *target != Target::Host);
        // In some lives a last storm leaves everything ill that can be healed.
        let storm = self.rng.u8(..3) == 0;
        for target in self.programs() {
            let stopped = self.lives[&target].is_stopped();
            let shed = self.care.host_facts().shed.contains(&target);
            let given_up = matches!(self.lives[&target], Life::Failed { retry: Retry::Never, .. });
            if (stopped && !shed) || given_up {
                self.set_life(&target, Life::Waiting, 50);
                self.start_program(&target, 200);
            }
            // Whoever has no ladder that acts gets well by himself.
            let heals = |check: &std::sync::Arc<Check>| {
                mendd::core::care::may_act(check) && check.kind != CheckKind::Process
            };
            let healable = self.charges[&target].checks.iter().any(heals);
            if !healable || (!storm && self.rng.bool()) {
                self.sick.insert(target, false);
            } else if storm {
                self.sick.insert(target, true);
            }
        }
    }

    pub(crate) fn wait_until_well(&mut self, limit: Duration) {
        let end = self.now + limit;
        let mut last_cure = self.now;
        while !self.is_well() {
            assert!(self.now < end, "not well after {limit:?}: {}", self.ailments());
            self.step();
            // What no remedy reaches (a check that has not failed often enough) passes.
            if self.now.since(last_cure) > Duration::from_secs(4 * 3600) {
                last_cure = self.now;
                self.sick.clear();
            }
        }
    }

    fn is_well(&self) -> bool {
        self.ailments().is_empty()
    }

    fn ailments(&self) -> String {
        let mut ailments = String::new();
        for target in self.care.targets() {
            let facts = self.care.target_facts(target).expect("it is there");
            let standing = self.care.standing(target);
            if facts.incident.is_some() || facts.course.is_some() {
                write!(ailments, "{target}: {standing:?} {facts:#?} ").expect("a string");
            }
            if self.lives[target].run().is_none() {
                write!(ailments, "{target}: {:?} ", self.lives[target]).expect("a string");
            }
        }
        let host = self.care.host_facts();
        if self.care.mode() != Mode::Normal || host.panic.is_on() || !host.shed.is_empty() {
            write!(ailments, "host: {host:?}").expect("a string");
        }
        if !host.brakes.running.is_empty() || !self.rules.acting.is_empty() {
            write!(ailments, "acting: {:?}", self.rules.acting).expect("a string");
        }
        ailments
    }
}
