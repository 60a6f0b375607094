//! What the engine reports: results of checks, lives of processes.

use super::event::*;
use super::gate::Pressure;
use super::healer::Care;
use super::health::{Edge, Phase, Verdict};
use super::patient::Patient;
use super::story::{Closing, Story};
use crate::config::CheckKind;
use crate::core::text;
use crate::name::CheckName;
use crate::time::Instant;

impl Care {
    pub(super) fn on_result(
        &mut self,
        now: Instant,
        check: CheckId,
        ticket: u64,
        mut sample: Sample,
        pressure: Option<Pressure>,
        actions: &mut Vec<CareAction>,
    ) {
        let Some(orders) = self.pace.on_result(now, &check, ticket) else { return };
        if sample.verdict == Verdict::Timeout
            && self.host.gate.excuses(now, pressure.unwrap_or_default())
        {
            sample.verdict = Verdict::Unknown;
            sample.detail.push_str("; excused, the host is too busy to answer");
        }
        self.take_sample(now, check, sample, actions);
        self.carry_out(now, orders, actions);
    }

    pub(super) fn on_overdue(
        &mut self,
        now: Instant,
        check: CheckId,
        actions: &mut Vec<CareAction>,
    ) {
        let sample = Sample {
            verdict: Verdict::Unknown,
            detail: "did not get to run in time".to_owned(),
            at: now,
            took: std::time::Duration::ZERO,
        };
        self.take_sample(now, check, sample, actions);
    }

    fn take_sample(
        &mut self,
        now: Instant,
        check: CheckId,
        sample: Sample,
        actions: &mut Vec<CareAction>,
    ) {
        for ask in self.asks.remove(&check).unwrap_or_default() {
            actions.push(CareAction::Answer { ask, answer: Answer::Result(sample.clone()) });
        }
        let CheckId { target, check: name } = check;
        let Some(patient) = self.patients.get_mut(&target) else { return };
        let Some(rule) = patient.checks.get(&name).cloned() else { return };
        let Some(facts) = patient.facts.checks.get_mut(&name) else { return };
        let verdict = sample.verdict;
        let quiet = facts.health.phase == Phase::Up
            && facts.health.is_quiet()
            && verdict == Verdict::Pass
            && patient.facts.incident.is_none();
        let edges = facts.health.on_verdict(now, &rule, verdict);
        facts.ladder.confirming = facts.ladder.confirming.map(|seen| match verdict {
            Verdict::Pass | Verdict::Warn => 0,
            Verdict::Fail | Verdict::Timeout => seen + 1,
            Verdict::Unknown => seen,
        });
        patient.note_sample(&name, sample);
        if !quiet {
            self.on_edges(now, &target, &name, edges, actions);
            self.stirred.insert(target);
        }
    }

    /// Does what follows from changes of health.
    pub(super) fn on_edges(
        &mut self,
        now: Instant,
        target: &Target,
        check: &CheckName,
        edges: Vec<Edge>,
        actions: &mut Vec<CareAction>,
    ) {
        for edge in edges {
            let Some(patient) = self.patients.get_mut(target) else { return };
            let Some(rule) = patient.checks.get(check).cloned() else { return };
            let Some(facts) = patient.facts.checks.get_mut(check) else { return };
            match edge {
                Edge::WentDown => {
                    facts.ladder.on_down();
                    let story = down_story(patient, check);
                    self.open_incident(now, target, Some(check.clone()), story, actions);
                }
                Edge::Started | Edge::CameUp => facts.ladder.on_up(now, rule.stable),
                Edge::Verified => {
                    facts.ladder.on_up(now, rule.stable);
                    self.course_proved(now, target, actions);
                }
                Edge::NotVerified => self.course_disproved(now, target, actions),
                Edge::Broken => {
                    let sentence = format!("check `{check}` of {target} cannot look any more");
                    self.alert(target, AlertKind::CheckBroken, sentence, actions);
                }
                Edge::FlappingBegan => {
                    let sentence = format!("{target} goes up and down all the time (`{check}`)");
                    self.alert(target, AlertKind::Flapping, sentence, actions);
                }
                Edge::Mended | Edge::FlappingEnded => {}
            }
        }
    }

    pub(super) fn on_life(
        &mut self,
        now: Instant,
        target: &Target,
        life: Life,
        actions: &mut Vec<CareAction>,
    ) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        patient.life = life;
        match life {
            Life::Stopped { by_operator } => self.on_stopped(now, target, by_operator, actions),
            Life::Waiting => process_gone(now, patient),
            Life::Starting { run } | Life::Running { run } => {
                if patient.facts.run != Some(run) {
                    patient.facts.run = Some(run);
                    patient.facts.last_attempt = Some(now);
                    process_gone(now, patient);
                    self.host.shed.remove(target);
                }
            }
            Life::Failed { exit, retry } => {
                process_gone(now, patient);
                let how = exit.map_or_else(|| "could not be started".to_owned(), text::exit);
                self.open_incident(now, target, None, Story::Ended { how: how.clone() }, actions);
                let sentence = match retry {
                    Retry::Soon => None,
                    Retry::Later => {
                        Some(format!("{target} keeps failing: {how}; its breaker is open"))
                    }
                    Retry::Never => Some(format!("{target} {how} and is not started again")),
                };
                if let Some(sentence) = sentence {
                    self.alert(target, AlertKind::KeepsFailing, sentence, actions);
                }
            }
        }
        self.judge_process(now, target, true, actions);
        self.stirred.insert(target.clone());
    }

    fn on_stopped(
        &mut self,
        now: Instant,
        target: &Target,
        by_operator: bool,
        actions: &mut Vec<CareAction>,
    ) {
        self.abandon_course(now, target, actions);
        if by_operator {
            self.host.shed.remove(target);
        }
        if let Some(patient) = self.patients.get_mut(target) {
            for check in patient.facts.checks.values_mut() {
                check.health.clear(now);
                check.ladder.reset();
            }
        }
        self.close_incident(target, Closing::Stopped, actions);
    }

    /// Makes verdicts of a process's life for the checks of kind `process`.
    ///
    /// `fresh` tells that the life has just changed; otherwise only what must be known by now is
    /// made sure of. An end that the supervisor answers at once is one failure; one after which
    /// it waits or gives up is as many as are needed.
    pub(super) fn judge_process(
        &mut self,
        now: Instant,
        target: &Target,
        fresh: bool,
        actions: &mut Vec<CareAction>,
    ) {
        let Some(patient) = self.patients.get_mut(target) else { return };
        let life = patient.life;
        let of_process =
            |check: &&std::sync::Arc<crate::config::Check>| check.kind == CheckKind::Process;
        let checks: Vec<_> = patient.checks.values().filter(of_process).cloned().collect();
        for check in checks {
            let mut edges = Vec::new();
            let Some(patient) = self.patients.get_mut(target) else { return };
            let Some(facts) = patient.facts.checks.get_mut(&check.name) else { continue };
            let health = &mut facts.health;
            if !life.is_stopped() {
                health.begin_if_none(now, now);
            }
            match life {
                Life::Running { .. } => {
                    for _ in 0..health.rise(&check) {
                        if !matches!(health.phase, Phase::Up | Phase::Healing) {
                            edges.extend(health.on_verdict(now, &check, Verdict::Pass));
                        }
                    }
                }
                Life::Failed { retry, .. } => {
                    if retry == Retry::Soon {
                        let again = health.phase == Phase::Down && !health.failing;
                        if fresh || again {
                            edges.extend(health.on_verdict(now, &check, Verdict::Fail));
                        }
                    } else {
                        for _ in 0..check.fall().max(64) {
                            if !health.is_certain() && health.phase != Phase::Healing {
                                edges.extend(health.on_verdict(now, &check, Verdict::Fail));
                            }
                        }
                    }
                }
                Life::Stopped { .. } | Life::Waiting | Life::Starting { .. } => {}
            }
            self.on_edges(now, target, &check.name, edges, actions);
        }
    }
}

/// Says what the check saw last.
fn down_story(patient: &Patient, check: &CheckName) -> Story {
    match patient.last_sample(check) {
        Some(sample) => Story::Failed {
            check: check.clone(),
            verdict: sample.verdict,
            detail: sample.detail.clone(),
        },
        None => Story::Failed {
            check: check.clone(),
            verdict: Verdict::Fail,
            detail: match patient.life {
                Life::Failed { exit: Some(exit), .. } => text::exit(exit),
                Life::Failed { exit: None, .. } => "could not be started".to_owned(),
                Life::Stopped { .. } | Life::Waiting => String::new(),
                Life::Starting { .. } | Life::Running { .. } => String::new(),
            },
        },
    }
}

/// What was seen is about a process that is no more; what comes next decides.
fn process_gone(now: Instant, patient: &mut Patient) {
    for (name, facts) in &mut patient.facts.checks {
        if patient.checks.get(name).is_some_and(|check| check.kind == CheckKind::Process) {
            facts.health.failing = false;
        } else {
            facts.health.on_process_gone(now);
            facts.ladder.confirming = None;
        }
    }
}
