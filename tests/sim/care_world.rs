//! The simulated host of the healer: programs that fall ill and get well, a supervisor that
//! restarts them, probes that fail to look, remedies that help or not, and a brain that dies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write};
use std::time::Duration;

use fastrand::Rng;
use mendd::config::{Check, Remedy};
use mendd::core::care::evidence::{Evidence, ProcessState};
use mendd::core::care::gate::Pressure;
use mendd::core::care::{
    Care, CareAction, CareCommand, CareEvent, Charge, CheckId, Closing, HostFacts, IncidentId,
    Life, RemedyId, RemedyOutcome, RemedyResult, Retry, Settings, Story, Target, TargetFacts,
    Verdict,
};
use mendd::core::{Actor, Exit};
use mendd::name::RunId;
use mendd::time::{Instant, Wall};

use crate::care_config;
use crate::care_rules::Rules;

/// How much of its trace a bad end shows.
const LAST_LINES: usize = 400;

/// What is on its way.
#[derive(Debug)]
pub(crate) enum Coming {
    Result {
        check: CheckId,
        ticket: u64,
    },
    RemedyEnd {
        remedy: RemedyId,
        what: Remedy,
    },
    StepEnd {
        remedy: RemedyId,
        step: usize,
        undo: bool,
    },
    Evidence {
        target: Target,
        incident: IncidentId,
    },
    /// Dropped when the program's life has taken another turn meanwhile.
    Life {
        target: Target,
        life: Life,
        turn: u64,
    },
    HoldEnds {
        target: Target,
    },
    Chance,
}

/// What happened in a life, so that a simulation in which nothing happens is noticed.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures {
    counts: BTreeMap<&'static str, u64>,
}

impl Figures {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (what, count) in &other.counts {
            *self.counts.entry(what).or_default() += count;
        }
    }

    /// Asserts that so many lives have seen what they must, all together.
    pub(crate) fn assert_that_much_happened(&self, lives: usize) {
        const OFTEN: [&str; 5] = ["remedy", "verified", "not verified", "quarantine", "brain dies"];
        const SELDOM: [&str; 11] = [
            "step",
            "undo",
            "not done",
            "abandoned",
            "panic",
            "panic over",
            "shed",
            "unshed",
            "would",
            "mode",
            "resumed",
        ];
        let seldom = SELDOM.iter().filter(|_| lives >= 50);
        for what in OFTEN.iter().chain(seldom) {
            assert!(self.counts.contains_key(what), "never saw `{what}`: {:?}", self.counts);
        }
    }
}

pub(crate) struct World {
    pub(crate) care: Care,
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    pub(crate) charges: BTreeMap<Target, Charge>,
    pub(crate) settings: Settings,
    pub(crate) lives: BTreeMap<Target, Life>,
    pub(crate) turns: BTreeMap<Target, u64>,
    pub(crate) sick: BTreeMap<Target, bool>,
    /// Steps of transactions that are done and not undone.
    pub(crate) applied: BTreeMap<RemedyId, Vec<usize>>,
    pub(crate) coming: BTreeMap<(Instant, u64), Coming>,
    pub(crate) sequence: u64,
    pub(crate) rules: Rules,
    pub(crate) taken: BTreeSet<RemedyId>,
    /// What was written down.
    pub(crate) record: BTreeMap<Target, TargetFacts>,
    pub(crate) host_record: HostFacts,
    pub(crate) calm: bool,
    pub(crate) busy_until: Instant,
    pub(crate) next_run: u64,
    pub(crate) rng: Rng,
    pub(crate) figures: Figures,
    /// Everything that happened, when somebody wants to see it.
    pub(crate) trace: Option<String>,
}

impl World {
    pub(crate) fn new(seed: u64, traced: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let charges: BTreeMap<Target, Charge> =
            care_config::charges(&mut rng).into_iter().map(|c| (c.target.clone(), c)).collect();
        let settings = care_config::settings(&mut rng);
        let now = Instant::default() + Duration::from_secs(1_000_000);
        let mut world = Self {
            care: Care::new(rng.u64(..)),
            now,
            start: now,
            lives: BTreeMap::new(),
            turns: BTreeMap::new(),
            sick: BTreeMap::new(),
            applied: BTreeMap::new(),
            coming: BTreeMap::new(),
            sequence: 0,
            rules: Rules::default(),
            taken: BTreeSet::new(),
            record: BTreeMap::new(),
            host_record: HostFacts::default(),
            calm: false,
            busy_until: now,
            next_run: 1,
            figures: Figures::default(),
            trace: traced.then(String::new),
            charges,
            settings,
            rng,
        };
        for target in world.charges.keys() {
            let life = match target {
                Target::Host => Life::Running { run: RunId(0) },
                Target::Process(_) => Life::Stopped { by_operator: false },
            };
            world.lives.insert(target.clone(), life);
        }
        let charges = world.charges.values().cloned().collect();
        world.send(CareEvent::Configure { charges, settings });
        let programs: Vec<Target> = world.programs();
        for target in programs {
            world.start_program(&target, 100);
        }
        world.later(1_000, Coming::Chance);
        world
    }

    pub(crate) fn programs(&self) -> Vec<Target> {
        self.charges.keys().filter(|target| **target != Target::Host).cloned().collect()
    }

    pub(crate) fn later(&mut self, most_ms: u64, coming: Coming) {
        self.within(1, most_ms.max(2), coming);
    }

    pub(crate) fn within(&mut self, least_ms: u64, most_ms: u64, coming: Coming) {
        let delay = Duration::from_millis(self.rng.u64(least_ms..most_ms));
        self.sequence += 1;
        self.coming.insert((self.now + delay, self.sequence), coming);
    }

    pub(crate) fn play(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    pub(crate) fn step(&mut self) {
        let deadline = self.care.next_deadline();
        let coming = self.coming.keys().next().map(|(at, _)| *at);
        let due = deadline.is_some_and(|at| coming.is_none_or(|coming| at <= coming));
        if due {
            self.now = self.now.max(deadline.expect("it is due"));
            if !self.calm && self.rng.u16(..2000) == 0 {
                self.now = self.now + Duration::from_secs(self.rng.u64(1..40));
            }
            self.expire_holds();
            self.send(CareEvent::DeadlineReached);
        } else if let Some(((at, _), coming)) = self.coming.pop_first() {
            self.now = self.now.max(at);
            self.expire_holds();
            self.happen(coming);
        } else {
            panic!("nothing will ever happen again");
        }
        // Looking at all of many targets each time would cost more than playing them.
        if self.charges.len() < 10 || self.rng.u8(..8) == 0 {
            self.rules.check_standing(self.now, &self.care, &self.lives);
        }
        if self.rng.u8(..32) == 0 {
            self.check_record();
        }
    }

    pub(crate) fn expire_holds(&mut self) {
        let now = self.now;
        self.rules.held.retain(|_, until| *until > now);
    }

    pub(crate) fn note(&mut self, what: &dyn Debug) {
        if let Some(trace) = &mut self.trace {
            let elapsed = self.now.since(self.start);
            writeln!(trace, "{elapsed:?} {what:?}").expect("a string takes everything");
        }
    }

    pub(crate) fn send(&mut self, event: CareEvent) {
        self.note(&event);
        let actions = self.care.on_event(self.now, event);
        self.execute(actions);
    }

    pub(crate) fn execute(&mut self, actions: Vec<CareAction>) {
        for action in &actions {
            if let CareAction::Announce(change) = action {
                self.rules.on_announcement(change);
            }
        }
        for action in actions {
            self.note(&action);
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: CareAction) {
        match action {
            CareAction::RunCheck { check, ticket, .. } => {
                self.later(4_000, Coming::Result { check, ticket });
            }
            CareAction::CancelCheck { check, ticket } => {
                // Now and then the result is on its way already.
                let late = self.rng.u8(..4) == 0;
                self.coming.retain(|_, coming| match coming {
                    Coming::Result { check: c, ticket: t } => late || *c != check || *t != ticket,
                    Coming::RemedyEnd { .. } | Coming::StepEnd { .. } => true,
                    Coming::Evidence { .. } | Coming::Life { .. } => true,
                    Coming::HoldEnds { .. } | Coming::Chance => true,
                });
            }
            CareAction::CollectEvidence { incident, target, .. } => {
                if self.rng.u8(..5) > 0 {
                    self.later(8_000, Coming::Evidence { target, incident });
                }
            }
            CareAction::TakeRemedy { remedy, target, what, .. } => {
                assert_eq!(self.rules.acting.get(&remedy), Some(&target), "{remedy:?} never began");
                assert!(self.taken.insert(remedy), "{remedy:?} was taken twice");
                self.act(remedy, target, what);
            }
            CareAction::RunStep { remedy, target, step, undo, .. } => {
                assert_eq!(self.rules.acting.get(&remedy), Some(&target), "{remedy:?} never began");
                self.figures.count(if undo { "undo" } else { "step" });
                self.later(20_000, Coming::StepEnd { remedy, step, undo });
            }
            CareAction::ResumeRemedy { remedy, what, .. } => {
                self.figures.count("resumed");
                let known = |coming: &Coming| matches!(coming, Coming::RemedyEnd { remedy: r, .. } if *r == remedy);
                if !self.coming.values().any(known) {
                    self.later(1_000, Coming::RemedyEnd { remedy, what });
                }
            }
            CareAction::CancelRemedy { remedy } => self.coming.retain(|_, coming| match coming {
                Coming::RemedyEnd { remedy: r, .. } | Coming::StepEnd { remedy: r, .. } => {
                    *r != remedy
                }
                Coming::Result { .. } | Coming::Evidence { .. } => true,
                Coming::Life { .. } | Coming::HoldEnds { .. } | Coming::Chance => true,
            }),
            CareAction::RemedyOver { remedy, result, .. } => {
                assert!(self.rules.acting.remove(&remedy).is_some(), "{remedy:?} never began");
                self.figures.count(match result {
                    RemedyResult::Verified => "verified",
                    RemedyResult::NotVerified => "not verified",
                    RemedyResult::NotDone => "not done",
                    RemedyResult::Abandoned => "abandoned",
                });
            }
            CareAction::Shed { target, .. } => {
                self.figures.count("shed");
                self.set_life(&target, Life::Stopped { by_operator: false }, 200);
            }
            CareAction::Unshed { target } => {
                self.figures.count("unshed");
                self.start_program(&target, 200);
            }
            CareAction::Tell { target, story, .. } => self.listen(&target, story),
            CareAction::Announce(_) => {}
            CareAction::Alert(alert) => self.rules.on_alert(&alert),
            CareAction::ModeChanged { .. } => self.figures.count("mode"),
            CareAction::Persist { target } => {
                let facts = self.care.target_facts(&target).expect("it asked for it").clone();
                self.record.insert(target, facts);
            }
            CareAction::PersistHost => self.host_record = self.care.host_facts().clone(),
            CareAction::Forget { target } => drop(self.record.remove(&target)),
            CareAction::Answer { .. } | CareAction::EndFallback { .. } => {}
        }
    }

    fn listen(&mut self, target: &Target, story: Story) {
        assert!(!story.sentence().is_empty(), "an empty sentence for {story:?}");
        match story {
            Story::Began { id, check, .. } => {
                self.figures.count("remedy");
                let check = self.check(&CheckId { target: target.clone(), check });
                let (charges, lives) = (&self.charges, &self.lives);
                self.rules.on_remedy(self.now, id, target, &check, charges, lives);
            }
            Story::Undone { not_undone } => {
                let remedy = self.rules.acting.iter().find(|(_, other)| *other == target);
                let left = remedy.and_then(|(remedy, _)| self.applied.get(remedy));
                let left: Vec<usize> = left.into_iter().flatten().copied().collect();
                let forgotten: Vec<&usize> =
                    left.iter().filter(|step| **step != 1 && !not_undone.contains(step)).collect();
                assert!(forgotten.is_empty(), "steps {forgotten:?} of {target} were not undone");
            }
            Story::Panicked { .. } => {
                self.rules.panic = true;
                self.rules.last_failure = self.now;
                self.figures.count("panic");
            }
            Story::Verifying { .. } | Story::NotDone { .. } => {}
            Story::Verified { .. } | Story::NotVerified { .. } => {}
            Story::Quarantined { .. } => self.figures.count("quarantine"),
            Story::Would { .. } => self.figures.count("would"),
            Story::Closed(Closing::PanicOver) => {
                self.rules.panic = false;
                self.figures.count("panic over");
            }
            Story::Failed { .. } => self.rules.last_failure = self.now,
            Story::Ended { .. } | Story::Cause(_) | Story::Confirmed => {}
            Story::Waiting { .. } | Story::StepFailed { .. } | Story::Recovered { .. } => {}
            Story::Relapsed | Story::Closed(_) => {}
        }
    }

    fn check(&self, id: &CheckId) -> Check {
        let checks = &self.charges[&id.target].checks;
        let check = checks.iter().find(|check| check.name == id.check).expect("it is configured");
        Check::clone(check)
    }

    fn act(&mut self, remedy: RemedyId, target: Target, what: Remedy) {
        if what.replaces_the_run() && target != Target::Host {
            self.set_life(&target, Life::Waiting, 100);
            self.start_program(&target, 3_000);
        }
        let most_ms = if self.rng.u8(..8) == 0 { 90_000 } else { 5_000 };
        self.later(most_ms, Coming::RemedyEnd { remedy, what });
    }

    /// Schedules a change of life and cancels all that were scheduled before.
    pub(crate) fn set_life(&mut self, target: &Target, life: Life, most_ms: u64) {
        let turn = self.turns.entry(target.clone()).or_default();
        *turn += 1;
        let turn = *turn;
        self.later(most_ms, Coming::Life { target: target.clone(), life, turn });
    }

    pub(crate) fn start_program(&mut self, target: &Target, most_ms: u64) {
        let run = RunId(self.next_run);
        self.next_run += 1;
        let turn = *self.turns.entry(target.clone()).or_default();
        let target = target.clone();
        // A stop that is on its way comes first.
        let life = Life::Starting { run };
        self.within(201, most_ms + 202, Coming::Life { target, life, turn });
    }

    fn happen(&mut self, coming: Coming) {
        match coming {
            Coming::Result { check, ticket } => self.result(check, ticket),
            Coming::RemedyEnd { remedy, what } => self.remedy_ends(remedy, what),
            Coming::StepEnd { remedy, step, undo } => {
                let failed = self.rng.u8(..4) == 0 && !self.calm;
                let applied = self.applied.entry(remedy).or_default();
                if !failed {
                    applied.retain(|other| *other != step);
                    applied.extend((!undo).then_some(step));
                }
                let result = if failed { Err("exit code 1".to_owned()) } else { Ok(()) };
                self.cure(remedy, 3);
                self.send(CareEvent::StepEnded { remedy, step, undo, result });
            }
            Coming::Evidence { target, incident } => {
                let evidence = self.evidence();
                self.send(CareEvent::Evidence { target, incident, evidence: Box::new(evidence) });
            }
            Coming::Life { target, life, turn } => {
                if self.turns.get(&target).copied().unwrap_or_default() == turn {
                    self.live(target, life);
                }
            }
            Coming::HoldEnds { target } => {
                self.rules.held.remove(&target);
                self.send(CareEvent::Operator(CareCommand::Release { target, by: actor() }));
            }
            Coming::Chance => {
                if !self.calm {
                    self.chance();
                }
                let most_ms = 60_000 / (1 + self.charges.len() as u64 / 5);
                self.later(most_ms, Coming::Chance);
            }
        }
    }

    pub(crate) fn live(&mut self, target: Target, life: Life) {
        let before = self.lives.insert(target.clone(), life);
        match life {
            Life::Starting { run } => {
                if before.and_then(|before| before.run()) != Some(run) {
                    self.rules.on_run(self.now, &target);
                }
                let turn = self.turns.get(&target).copied().unwrap_or_default();
                let next = if self.sick_itself(&target) && self.rng.u8(..6) == 0 && !self.calm {
                    self.failure()
                } else {
                    Life::Running { run }
                };
                self.later(2_000, Coming::Life { target: target.clone(), life: next, turn });
            }
            Life::Failed { retry, .. } => {
                let delay = match retry {
                    Retry::Soon => Some(8_000),
                    Retry::Later => Some(400_000),
                    Retry::Never if self.calm => Some(60_000),
                    Retry::Never => None,
                };
                if let Some(delay) = delay {
                    self.start_program(&target, delay);
                }
            }
            Life::Stopped { by_operator: true } if self.calm => self.start_program(&target, 200),
            Life::Stopped { .. } | Life::Waiting | Life::Running { .. } => {}
        }
        self.send(CareEvent::Life { target, life });
    }

    pub(crate) fn failure(&mut self) -> Life {
        let exit = [Some(Exit::Code(1)), Some(Exit::Unknown), None][self.rng.usize(..3)];
        let retry = [Retry::Soon, Retry::Soon, Retry::Later, Retry::Never][self.rng.usize(..4)];
        Life::Failed { exit, retry }
    }

    fn sick_itself(&self, target: &Target) -> bool {
        self.sick.get(target).copied().unwrap_or_default()
    }

    /// Whether a probe would fail: the target is ill, or something it requires is.
    fn is_sick(&self, target: &Target) -> bool {
        let requires = &self.charges[target].requires;
        let gone = |target: &Target| self.lives[target].run().is_none();
        self.sick_itself(target) || requires.iter().any(|r| gone(r) || self.is_sick(r))
    }

    fn result(&mut self, check: CheckId, ticket: u64) {
        let noise = if self.calm { 255 } else { self.rng.u8(..) };
        let busy = self.now < self.busy_until;
        let verdict = match noise {
            0..8 => Verdict::Unknown,
            8..11 => Verdict::Fail,
            11..14 => Verdict::Timeout,
            14..20 => Verdict::Warn,
            _ if busy => Verdict::Timeout,
            20..40 if self.is_sick(&check.target) => Verdict::Timeout,
            40..46 if self.is_sick(&check.target) => Verdict::Pass,
            _ if self.is_sick(&check.target) => Verdict::Fail,
            _ => Verdict::Pass,
        };
        let high = Pressure { cpu_some: 80.0, ..Pressure::default() };
        let pressure = (verdict == Verdict::Timeout && busy).then_some(high);
        let rule = self.check(&check);
        let event = CareEvent::Result {
            check: check.clone(),
            ticket,
            verdict,
            detail: verdict.word().to_owned(),
            took: Duration::from_millis(3),
            pressure,
        };
        // A stale ticket tells nothing; whether it is stale the healer's own books say.
        if self.care.is_ticket(&check, ticket) {
            let excused = pressure.is_some() && self.care_would_excuse();
            let counted = if excused { Verdict::Unknown } else { verdict };
            self.rules.on_verdict(&check, counted, &rule);
            return self.send(event);
        }
        self.note(&event);
        let actions = self.care.on_event(self.now, event);
        assert!(actions.is_empty(), "a late result of {check} had an effect: {actions:?}");
    }

    fn care_would_excuse(&self) -> bool {
        let mut gate = self.care.host_facts().gate;
        gate.excuses(self.now, Pressure { cpu_some: 80.0, ..Pressure::default() })
    }

    fn cure(&mut self, remedy: RemedyId, one_in: u8) {
        if let Some(target) = self.rules.acting.get(&remedy).cloned()
            && (self.rng.u8(..one_in) == 0 || self.calm)
        {
            self.sick.insert(target, false);
        }
    }

    fn remedy_ends(&mut self, remedy: RemedyId, what: Remedy) {
        self.cure(remedy, 2);
        let outcome = match (self.calm, self.rng.u8(..10)) {
            (false, 0..2) => RemedyOutcome::Failed("exit code 1".to_owned()),
            (false, 2) => RemedyOutcome::Lost,
            (_, _) => RemedyOutcome::Done,
        };
        self.note(&what);
        self.send(CareEvent::RemedyEnded { remedy, outcome });
    }

    fn evidence(&mut self) -> Evidence {
        let exits = [
            None,
            None,
            Some(Exit::Code(78)),
            Some(Exit::Signal { signal: 9, core_dumped: false }),
        ];
        Evidence {
            exit: exits[self.rng.usize(..exits.len())],
            process: [None, Some(ProcessState::Stopped), Some(ProcessState::Uninterruptible)]
                [self.rng.usize(..3)],
            ..Evidence::default()
        }
    }
}

impl Drop for World {
    /// Shows how a traced life came to its bad end.
    fn drop(&mut self) {
        if let Some(trace) = self.trace.as_deref().filter(|_| std::thread::panicking()) {
            let lines: Vec<&str> = trace.lines().collect();
            eprintln!("{}", lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"));
        }
    }
}

pub(crate) fn actor() -> Actor {
    Actor { uid: Some(1000), name: "alice".to_owned(), reason: None, at: Wall(0) }
}
