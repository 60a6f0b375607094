//! What operators ask of the healer.

use super::event::*;
use super::healer::Care;
use super::story::Story;
use crate::core::text;
use crate::time::Instant;

impl Care {
    pub(super) fn command(
        &mut self,
        now: Instant,
        command: CareCommand,
        actions: &mut Vec<CareAction>,
    ) {
        match command {
            CareCommand::Run { check, max_age, ask } => {
                let young = |sample: &&Sample| now.since(sample.at) <= max_age;
                let known = self.samples(&check).last().filter(young).cloned();
                match known {
                    Some(sample) => {
                        actions.push(CareAction::Answer { ask, answer: Answer::Result(sample) });
                    }
                    None => self.run_now(now, check, ask, actions),
                }
            }
            CareCommand::Heal { target, rung, by, ask } => {
                let answer = self.heal(now, &target, rung, &by, actions);
                actions.push(CareAction::Answer { ask, answer });
            }
            CareCommand::Hold { target, until, by } => {
                self.tell(&target, || hold_story(now, until, &by), actions);
                if let Some(patient) = self.patients.get_mut(&target) {
                    patient.facts.hold = (until > now).then_some(Hold { until, by });
                    self.stirred.insert(target);
                }
            }
            CareCommand::Release { target, by } => {
                let why = format!("is no longer on hold: {} released it", text::actor(&by));
                self.tell(&target, || Story::Waiting { why }, actions);
                if let Some(patient) = self.patients.get_mut(&target) {
                    patient.facts.hold = None;
                    self.stirred.insert(target);
                }
            }
            CareCommand::EndPanic { by } => self.end_panic(now, &by, actions),
        }
    }

    fn run_now(&mut self, now: Instant, check: CheckId, ask: AskId, actions: &mut Vec<CareAction>) {
        if !self.pace.contains(&check) {
            let why = match (self.has_probe(&check), self.patients.contains_key(&check.target)) {
                (true, _) => format!("`{check}` is not run while {} does not", check.target),
                (false, true) => format!("`{check}` has no probe that could be run"),
                (false, false) => format!("`{check}` does not exist"),
            };
            return actions.push(CareAction::Answer { ask, answer: Answer::Refused(why) });
        }
        self.pace.run_now(now, &check);
        self.asks.entry(check).or_default().push(ask);
        let orders = self.pace.on_time(now);
        self.carry_out(now, orders, actions);
    }

    /// Lets healing begin at a rung of the operator's choice. All brakes still hold.
    fn heal(
        &mut self,
        now: Instant,
        target: &Target,
        rung: Option<usize>,
        by: &crate::core::Actor,
        actions: &mut Vec<CareAction>,
    ) -> Answer {
        let Some(patient) = self.patients.get_mut(target) else {
            return Answer::Refused(format!("{target} has no checks"));
        };
        if patient.facts.course.is_some() {
            return Answer::Refused(format!("{target} is being healed already"));
        }
        let down = patient.down_checks();
        let Some(check) = down.iter().find(|check| super::patient::may_heal(check)) else {
            return Answer::Refused(match down.is_empty() {
                true => format!("nothing of {target} is down"),
                false => format!("nothing is configured to heal {target}"),
            });
        };
        if rung.is_some_and(|rung| rung >= check.heal.len()) {
            let most = check.heal.len();
            return Answer::Refused(format!("the ladder of `{}` has {most} rungs", check.name));
        }
        if let Some(facts) = patient.facts.checks.get_mut(&check.name) {
            facts.ladder.reset();
            facts.ladder.next = rung.unwrap_or(0);
        }
        let why = format!("is to be healed now: {} asked for it", text::actor(by));
        self.tell(target, || Story::Waiting { why }, actions);
        self.stirred.insert(target.clone());
        self.settle(now, actions);
        let standing = self.standing(target).map(|standing| standing.sentence(now));
        Answer::Accepted(format!("{target} {}", standing.unwrap_or_default()))
    }
}

fn hold_story(now: Instant, until: Instant, by: &crate::core::Actor) -> Story {
    let time = text::duration(until.since(now));
    Story::Waiting { why: format!("is on hold for {time}, by {}", text::actor(by)) }
}
