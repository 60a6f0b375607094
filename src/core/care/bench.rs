//! The bench of the healer's unit tests: owns the time, answers every probe at once with what the
//! test has set, carries out every remedy as the test wants.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::evidence::Evidence;
use super::pace::Places;
use super::*;
use crate::config::{Check, CheckKind, Impact, ModeRules, Remedy, Rung};
use crate::core::Actor;
use crate::name::RunId;
use crate::time::{Instant, Wall};

pub(super) fn target(name: &str) -> Target {
    Target::Process(name.parse().unwrap())
}

pub(super) fn rung(remedy: Remedy) -> Rung {
    Rung { remedy, timeout: Duration::from_secs(30) }
}

pub(super) fn check(heal: Vec<Remedy>) -> Check {
    Check {
        heal: heal.into_iter().map(rung).collect(),
        ..Check::new("http".parse().unwrap(), CheckKind::Http)
    }
}

pub(super) fn charge(name: &str, requires: &[&str], checks: Vec<Check>) -> Charge {
    Charge {
        target: target(name),
        checks: checks.into_iter().map(Arc::new).collect(),
        requires: requires.iter().map(|name| target(name)).collect(),
        priority: 100,
        impact: Impact::Normal,
    }
}

pub(super) fn actor() -> Actor {
    Actor { uid: Some(1000), name: "alice".into(), reason: None, at: Wall(0) }
}

pub(super) struct Bench {
    pub(super) care: Care,
    pub(super) now: Instant,
    pub(super) charges: Vec<Charge>,
    pub(super) settings: Settings,
    /// What probes of this target see; a pass where nothing is said.
    pub(super) sees: BTreeMap<Target, Verdict>,
    /// What remedies do; nothing is answered where this is `None`.
    pub(super) outcome: Option<RemedyOutcome>,
    pub(super) evidence: Evidence,
    /// Everything but runs of checks and what is to be written down.
    pub(super) told: Vec<CareAction>,
    pub(super) record: BTreeMap<Target, TargetFacts>,
    pub(super) lives: BTreeMap<Target, Life>,
    queue: VecDeque<CareAction>,
    runs: u64,
}

impl Bench {
    /// All of it configured, running and well.
    pub(super) fn well(charges: Vec<Charge>) -> Self {
        let mut bench = Self::configured(charges, ModeRules::default());
        for charge in bench.charges.clone() {
            bench.starts(&charge.target);
        }
        bench.pass(180);
        bench.told.clear();
        bench
    }

    pub(super) fn configured(charges: Vec<Charge>, mode: ModeRules) -> Self {
        let settings = Settings { places: Places { native: 64, exec: 2 }, mode };
        let mut bench = Self {
            care: Care::new(1),
            now: Instant::default() + Duration::from_secs(10_000),
            charges: charges.clone(),
            settings,
            sees: BTreeMap::new(),
            outcome: Some(RemedyOutcome::Done),
            evidence: Evidence::default(),
            told: Vec::new(),
            record: BTreeMap::new(),
            lives: BTreeMap::new(),
            queue: VecDeque::new(),
            runs: 0,
        };
        bench.send(CareEvent::Configure { charges, settings });
        bench
    }

    pub(super) fn send(&mut self, event: CareEvent) {
        let actions = self.care.on_event(self.now, event);
        self.answer(actions);
    }

    /// Answers in order: what follows from an answer waits for its turn.
    pub(super) fn answer(&mut self, actions: Vec<CareAction>) {
        let busy = !self.queue.is_empty();
        self.queue.extend(actions);
        if busy {
            return;
        }
        while let Some(action) = self.queue.front().cloned() {
            self.carry_out(action);
            self.queue.pop_front();
        }
    }

    fn carry_out(&mut self, action: CareAction) {
        match action {
            CareAction::RunCheck { check, ticket, .. } => self.probe(check, ticket),
            CareAction::Persist { target } => {
                let facts = self.care.target_facts(&target).unwrap().clone();
                self.record.insert(target, facts);
            }
            CareAction::PersistHost => {}
            CareAction::CollectEvidence { incident, ref target, .. } => {
                let (target, evidence) = (target.clone(), Box::new(self.evidence.clone()));
                self.told.push(action);
                self.send(CareEvent::Evidence { target, incident, evidence });
            }
            CareAction::TakeRemedy { remedy, ref target, ref what, .. } => {
                let (target, replaces) = (target.clone(), what.replaces_the_run());
                self.told.push(action);
                let Some(outcome) = self.outcome.clone() else { return };
                if replaces && outcome == RemedyOutcome::Done {
                    self.lives(&target, Life::Waiting);
                    self.starts(&target);
                }
                self.send(CareEvent::RemedyEnded { remedy, outcome });
            }
            CareAction::Shed { ref target, .. } => {
                let target = target.clone();
                self.told.push(action);
                self.lives(&target, Life::Stopped { by_operator: false });
            }
            CareAction::Unshed { ref target } => {
                let target = target.clone();
                self.told.push(action);
                self.starts(&target);
            }
            CareAction::CancelCheck { .. }
            | CareAction::Answer { .. }
            | CareAction::ResumeRemedy { .. }
            | CareAction::CancelRemedy { .. }
            | CareAction::RemedyOver { .. }
            | CareAction::RunStep { .. }
            | CareAction::EndFallback { .. }
            | CareAction::Tell { .. }
            | CareAction::Announce(_)
            | CareAction::Alert(_)
            | CareAction::ModeChanged { .. }
            | CareAction::Forget { .. } => self.told.push(action),
        }
    }

    fn probe(&mut self, check: CheckId, ticket: u64) {
        let verdict = self.sees.get(&check.target).copied().unwrap_or(Verdict::Pass);
        self.send(CareEvent::Result {
            check,
            ticket,
            verdict,
            detail: format!("saw {}", verdict.word()),
            took: Duration::from_millis(5),
            pressure: None,
        });
    }

    pub(super) fn lives(&mut self, target: &Target, life: Life) {
        self.lives.insert(target.clone(), life);
        self.send(CareEvent::Life { target: target.clone(), life });
    }

    pub(super) fn starts(&mut self, target: &Target) {
        if *target == Target::Host {
            self.lives.insert(Target::Host, Life::Running { run: RunId(0) });
            return;
        }
        self.runs += 1;
        let run = RunId(self.runs);
        self.lives(target, Life::Starting { run });
        self.lives(target, Life::Running { run });
    }

    /// Lets so many seconds pass.
    pub(super) fn pass(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        while let Some(at) = self.care.next_deadline().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.send(CareEvent::DeadlineReached);
        }
        self.now = end;
    }

    /// The brain dies, and the next one goes on with what was written down.
    pub(super) fn die(&mut self) {
        let restore = CareRestore {
            charges: self.charges.clone(),
            settings: self.settings,
            host: self.care.host_facts().clone(),
            targets: self.record.values().cloned().collect(),
            lives: self.lives.clone().into_iter().collect(),
        };
        let (care, actions) = Care::restore(self.now, 2, restore);
        self.care = care;
        self.answer(actions);
    }

    /// The stories told of a target since the last call, as sentences.
    pub(super) fn story(&mut self, of: &str) -> Vec<String> {
        let of = target(of);
        let sentence = |action: &CareAction| {
            let CareAction::Tell { target, story, .. } = action else { return None };
            (*target == of).then(|| story.sentence())
        };
        let sentences = self.told.iter().filter_map(sentence).collect();
        self.told.retain(|action| sentence(action).is_none());
        sentences
    }

    /// The remedies begun since the last call.
    pub(super) fn remedies(&mut self) -> Vec<String> {
        let begun = |action: &CareAction| {
            if let CareAction::TakeRemedy { target, what, .. } = action {
                return Some(format!("{target} {}", what.word()));
            }
            let CareAction::RunStep { target, step, undo, .. } = action else { return None };
            Some(format!("{target} {} {step}", if *undo { "undo" } else { "do" }))
        };
        let remedies = self.told.iter().filter_map(begun).collect();
        self.told.retain(|action| begun(action).is_none());
        remedies
    }

    /// Lets time pass until a remedy begins; returns all that begin then.
    pub(super) fn until_remedy(&mut self) -> Vec<String> {
        for _ in 0..3600 {
            let remedies = self.remedies();
            if !remedies.is_empty() {
                return remedies;
            }
            self.pass(1);
        }
        Vec::new()
    }

    pub(super) fn alerts(&mut self) -> Vec<AlertKind> {
        let kind = |action: &CareAction| {
            let CareAction::Alert(alert) = action else { return None };
            Some(alert.kind)
        };
        let kinds = self.told.iter().filter_map(kind).collect();
        self.told.retain(|action| kind(action).is_none());
        kinds
    }

    pub(super) fn standing(&self, of: &str) -> Standing {
        self.care.standing(&target(of)).unwrap().clone()
    }

    pub(super) fn is_open(&self, of: &str) -> bool {
        self.care.target_facts(&target(of)).unwrap().incident.is_some()
    }
}
