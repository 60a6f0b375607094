//! The rules that healing must keep, checked from what the world itself has seen and done.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use mendd::config::{Check, CheckKind, CheckRole, FailRule, HealMode};
use mendd::core::care::health::Phase;
use mendd::core::care::{
    Alert, AlertKind, Care, Charge, CheckId, HealthChange, HealthState, Life, RemedyId, Standing,
    Target, Verdict,
};
use mendd::time::Instant;

/// Five minutes after the last failure a panic ends, and a lagging brain may be a minute late.
const PANIC_LIMIT: Duration = Duration::from_secs(360);

/// What an inspector standing beside the healer knows.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) held: BTreeMap<Target, Instant>,
    pub(crate) acting: BTreeMap<RemedyId, Target>,
    pub(crate) panic: bool,
    /// When the panic began, or something last failed.
    pub(crate) last_failure: Instant,
    began: VecDeque<(Instant, Target)>,
    started: BTreeMap<Target, Instant>,
    verdicts: BTreeMap<CheckId, Seen>,
    shown: BTreeMap<CheckId, HealthState>,
    alerted: BTreeSet<(Target, AlertKind)>,
}

/// The verdicts of one check since its target was last well, or new.
#[derive(Debug, Default)]
struct Seen {
    failures: u32,
    passes: u32,
    last: Option<Verdict>,
    /// The last one that tells something, since the last remedy.
    fresh: Option<Verdict>,
}

impl Rules {
    pub(crate) fn on_verdict(&mut self, check: &CheckId, verdict: Verdict, rule: &Check) {
        let seen = self.verdicts.entry(check.clone()).or_default();
        seen.last = Some(verdict);
        match verdict {
            Verdict::Pass | Verdict::Warn => {
                seen.fresh = Some(verdict);
                seen.passes += 1;
                // Twice as many are needed while it is flapping. A rule of the form `k of n`
                // still remembers what was before them.
                let in_a_row = matches!(rule.fail_if, FailRule::InARow(_));
                if in_a_row && seen.passes >= 2 * rule.rise.max(1) {
                    seen.failures = 0;
                }
            }
            Verdict::Fail | Verdict::Timeout => {
                seen.fresh = Some(verdict);
                seen.passes = 0;
                seen.failures += 1;
            }
            Verdict::Unknown => {}
        }
    }

    pub(crate) fn on_run(&mut self, now: Instant, target: &Target) {
        self.started.insert(target.clone(), now);
    }

    pub(crate) fn on_announcement(&mut self, change: &HealthChange) {
        self.shown.insert(change.check.clone(), change.to);
    }

    pub(crate) fn on_alert(&mut self, alert: &Alert) {
        assert!(!self.held.contains_key(&alert.target), "an alert for {} on hold", alert.target);
        self.alerted.insert((alert.target.clone(), alert.kind));
    }

    /// A remedy begins: everything that must not be the case is not.
    pub(crate) fn on_remedy(
        &mut self,
        now: Instant,
        remedy: RemedyId,
        target: &Target,
        check: &Check,
        charges: &BTreeMap<Target, Charge>,
        lives: &BTreeMap<Target, Life>,
    ) {
        let what = format!("a remedy for {target} by `{}`", check.name);
        let life = lives[target];
        assert!(!life.is_stopped(), "{what}, which was stopped");
        assert!(life.run().is_some() || check.kind == CheckKind::Process, "{what}, which is gone");
        assert!(!self.held.contains_key(target), "{what}, which is on hold");
        assert!(check.role != CheckRole::Ready, "{what}, which is for readiness only");
        assert!(check.mode == HealMode::Act, "{what}, which only observes");
        assert!(!self.panic || *target == Target::Host, "{what} in a panic");
        self.check_evidence(&what, target, check, life);
        self.check_pace(now, &what, target, check, charges, lives);
        self.check_requirements(&what, target, charges, lives);
        assert!(self.acting.values().all(|other| other != target), "{what} twice at once");
        assert!(self.acting.len() < 2, "{what}, a third one at once");
        self.acting.insert(remedy, target.clone());
        self.began.push_back((now, target.clone()));
        for (id, seen) in &mut self.verdicts {
            if id.target == *target && id.check == check.name {
                seen.fresh = None;
            }
        }
    }

    fn check_evidence(&self, what: &str, target: &Target, check: &Check, life: Life) {
        if check.kind == CheckKind::Process {
            return assert!(matches!(life, Life::Failed { .. }), "{what} of a process that lives");
        }
        let id = CheckId { target: target.clone(), check: check.name.clone() };
        let seen = &self.verdicts[&id];
        let bad = |verdict| matches!(verdict, Some(Verdict::Fail | Verdict::Timeout));
        assert!(bad(seen.last), "{what} on the verdict {:?}", seen.last);
        assert!(bad(seen.fresh), "{what} without a new failure");
        assert!(seen.failures >= check.fall(), "{what} after {} failures", seen.failures);
    }

    fn check_pace(
        &self,
        now: Instant,
        what: &str,
        target: &Target,
        check: &Check,
        charges: &BTreeMap<Target, Charge>,
        lives: &BTreeMap<Target, Life>,
    ) {
        let own = self.began.iter().filter(|(_, other)| other == target).map(|(at, _)| *at);
        let last = own.clone().chain(self.started.get(target).copied()).max();
        let pause = last.map(|at| now.since(at));
        assert!(pause.is_none_or(|pause| pause >= check.cooldown), "{what} after {pause:?}");
        let hour = own.filter(|at| now.since(*at) < Duration::from_secs(3600)).count();
        assert!(hour < 6, "{what}, the seventh within an hour");
        if *target == Target::Host {
            return;
        }
        let recent = |(at, other): &&(Instant, Target)| {
            now.since(*at) < Duration::from_secs(600) && *other != Target::Host && other != target
        };
        let others: BTreeSet<&Target> =
            self.began.iter().filter(recent).map(|(_, other)| other).collect();
        let counts = |(target, charge): &(&Target, &Charge)| {
            **target != Target::Host && !charge.checks.is_empty() && lives[*target].run().is_some()
        };
        let most = (charges.iter().filter(counts).count() / 5).max(1);
        assert!(others.len() < most, "{what} beyond the host's budget");
    }

    fn check_requirements(
        &self,
        what: &str,
        target: &Target,
        charges: &BTreeMap<Target, Charge>,
        lives: &BTreeMap<Target, Life>,
    ) {
        let mut queue = charges[target].requires.clone();
        while let Some(required) = queue.pop() {
            assert!(lives[&required].run().is_some(), "{what} while {required} does not run");
            for (id, shown) in self.shown.iter().filter(|(id, _)| id.target == required) {
                let unwell = match shown {
                    HealthState::Down | HealthState::Healing | HealthState::Verifying => true,
                    HealthState::Suspect | HealthState::Starting => true,
                    HealthState::None | HealthState::Up | HealthState::Flapping => false,
                    HealthState::Held | HealthState::Broken => false,
                };
                assert!(!unwell, "{what} while {id} is {}", shown.word());
            }
            queue.extend(charges[&required].requires.iter().cloned());
        }
    }

    /// Whatever is down and not being healed has a reason, and a time or an alert.
    pub(crate) fn check_standing(&self, now: Instant, care: &Care, lives: &BTreeMap<Target, Life>) {
        let quiet = now.since(self.last_failure);
        assert!(!self.panic || quiet < PANIC_LIMIT, "a panic {quiet:?} after the last failure");
        let next = care.next_deadline();
        for target in care.targets() {
            let facts = care.target_facts(target).expect("it is there");
            let down = facts.checks.values().any(|check| check.health.phase == Phase::Down);
            if !down {
                continue;
            }
            let standing = care.standing(target).expect("it is there");
            let what = format!("{target} is down and {standing:?}");
            if let Some(until) = standing.until() {
                assert!(until > now, "{what}, which is over");
                assert!(next.is_some_and(|next| next <= until), "{what}, and nobody wakes up");
            }
            let told = |kind| self.alerted.contains(&(target.clone(), kind));
            match standing {
                Standing::Well => panic!("{what}"),
                Standing::Healing => assert!(facts.course.is_some(), "{what}"),
                Standing::Held { .. } => assert!(self.held.contains_key(target), "{what}"),
                Standing::Doubt | Standing::Confirming => {
                    let watched = facts.checks.keys().any(|check| {
                        let id = CheckId { target: target.clone(), check: check.clone() };
                        care.is_scheduled(&id)
                    });
                    let comes = matches!(lives[target], Life::Waiting | Life::Starting { .. });
                    assert!(watched || comes, "{what}, and nobody looks");
                }
                Standing::Blocked { by } => assert!(care.is_obstacle(by), "{what}"),
                Standing::Panic { .. } => assert!(self.panic, "{what}"),
                Standing::HostBusy => {
                    assert!(!care.host_facts().brakes.running.is_empty(), "{what}");
                }
                Standing::Quarantined { .. } => {
                    assert!(told(AlertKind::Quarantined), "{what}, and nobody was told");
                }
                Standing::Unhealable => {
                    assert!(told(AlertKind::Unhealable), "{what}, and nobody was told");
                }
                Standing::Diagnosing { .. } | Standing::Cooling { .. } => {}
                Standing::OverBudget { .. } | Standing::HostBudget { .. } => {}
            }
        }
    }
}
