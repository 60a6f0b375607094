//! An arm for each thing that the healer can ask for.

use tracing::debug;

use super::super::core_loop::Engine;
use crate::core::care::{Answer, CareAction, CareEvent, HostFacts, Target};
use crate::core::{Actor, Event, Mending};
use crate::os::clock;

impl Engine {
    /// Writes down what is remembered, then does the rest in order.
    pub(super) fn carry_out(&mut self, actions: Vec<CareAction>) {
        let mut rest = Vec::new();
        for action in actions {
            #[expect(clippy::wildcard_enum_match_arm, reason = "carry_out_one has all the others")]
            match action {
                CareAction::Persist { target } => self.remember(&target),
                CareAction::PersistHost => self.remember_host(),
                CareAction::Forget { target } => {
                    self.books.forget_care(&target);
                    self.healing.clues.retain(|check, _| check.target != target);
                    self.healing.pasts.retain(|check, _| check.target != target);
                    self.healing.ledger.forget(&target);
                }
                other => rest.push(other),
            }
        }
        self.note_trouble("state", self.books.trouble());
        for action in rest {
            self.carry_out_one(action);
        }
    }

    fn remember(&mut self, target: &Target) {
        let Some(facts) = self.healing.care.target_facts(target) else { return };
        self.books.keep_care(facts);
        self.healing.ledger.touch(facts);
    }

    fn remember_host(&mut self) {
        let facts: &HostFacts = self.healing.care.host_facts();
        self.books.keep_care_of_host(facts);
        self.healing.ledger.touch_host(facts);
    }

    fn carry_out_one(&mut self, action: CareAction) {
        match action {
            CareAction::RunCheck { check, ticket, .. } => self.run_check(check, ticket),
            CareAction::CancelCheck { check, ticket } => self.cancel_check(&check, ticket),
            CareAction::Answer { ask, answer } => {
                if let Some(reply) = self.healing.asks.remove(&ask) {
                    // Whoever asked may have gone.
                    let _ = reply.send(Ok(answer));
                }
            }
            CareAction::CollectEvidence { incident, target, check } => {
                self.collect_evidence(incident, target, check);
            }
            CareAction::TakeRemedy { remedy, incident, target, what, until } => {
                debug!(%target, remedy = remedy.0, "a remedy begins");
                self.take_remedy(remedy, incident, target, what, until);
            }
            CareAction::ResumeRemedy { remedy, target, what } => {
                self.resume_remedy(remedy, target, what);
            }
            CareAction::CancelRemedy { remedy } => self.cancel_remedy(remedy),
            CareAction::RemedyOver { remedy, target, what, result, took } => {
                self.note_remedy_over(remedy, target, &what, result, took);
            }
            CareAction::RunStep { remedy, incident, target, step, undo, argv } => {
                self.run_step(remedy, incident, target, (step, undo), argv);
            }
            CareAction::EndFallback { target, program } => self.end_fallback(&target, &program),
            CareAction::Shed { target, why } => self.shed(&target, Mending::Shed, why),
            CareAction::Unshed { target } => {
                self.shed(&target, Mending::Unshed, "it is needed no longer".to_owned());
            }
            CareAction::Tell { incident, target, story } => {
                self.tell_story(incident, target, story)
            }
            CareAction::Announce(change) => self.announce_health(change),
            CareAction::Alert(alert) => self.alert(alert),
            CareAction::ModeChanged { from, to, reasons } => self.on_mode(from, to, reasons),
            // They were written down before.
            CareAction::Persist { .. } | CareAction::PersistHost | CareAction::Forget { .. } => {}
        }
    }

    fn shed(&mut self, target: &Target, what: Mending, why: String) {
        let Target::Process(process) = target else { return };
        let by = Actor::mend(why, clock::wall());
        let processes = vec![process.clone()];
        self.tell(Event::Mend { what, processes, by });
    }

    /// Asks the healer something; the answer goes to whoever waits for it.
    pub(super) fn ask_healer(
        &mut self,
        question: impl FnOnce(crate::core::care::AskId) -> crate::core::care::CareCommand,
        reply: tokio::sync::oneshot::Sender<Result<Answer, super::Refusal>>,
    ) {
        let ask = crate::core::care::AskId(self.healing.next_ask);
        self.healing.next_ask += 1;
        self.healing.asks.insert(ask, reply);
        self.healing.tell(CareEvent::Operator(question(ask)));
    }
}
