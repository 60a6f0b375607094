//! Acts that were accepted under a key: who asks again, because the daemon died before it could
//! answer, gets the outcome of the first time, and nothing is done twice.

use std::collections::{BTreeMap, VecDeque};

use super::core_loop::Engine;
use super::waiters::Reply;
use super::{Act, Refusal};
use crate::core::{Actor, ProcessStatus};
use crate::name::ProcessName;
use crate::store::acts::{AcceptedAct, Was};

/// Most acts that are remembered.
const MAX_ACTS: usize = 256;
/// Most processes in all of them together, but for the newest.
const MAX_PROCESSES: usize = 4_096;

/// The acts that are remembered, oldest first.
#[derive(Debug, Default)]
pub(super) struct Accepted(VecDeque<AcceptedAct>);

impl Accepted {
    /// Takes up what an earlier brain remembered.
    pub(super) fn from_before(mut acts: Vec<AcceptedAct>) -> Self {
        acts.sort_by_key(|act| act.number);
        Self(acts.into())
    }

    /// Remembers an act; returns the keys of those that are forgotten for it.
    pub(super) fn add(&mut self, act: AcceptedAct) -> Vec<String> {
        let mut forgotten = Vec::new();
        let mut processes: usize = self.0.iter().map(|act| act.before.len()).sum();
        processes += act.before.len();
        while self.0.len() >= MAX_ACTS || processes > MAX_PROCESSES {
            let Some(oldest) = self.0.pop_front() else { break };
            processes -= oldest.before.len();
            forgotten.push(oldest.key);
        }
        self.0.push_back(act);
        forgotten
    }

    pub(super) fn next_number(&self) -> u64 {
        self.0.back().map_or(0, |act| act.number + 1)
    }

    pub(super) fn find(&self, key: &str) -> Option<&AcceptedAct> {
        self.0.iter().find(|act| act.key == key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|act| act.key.as_str())
    }
}

impl From<&ProcessStatus> for Was {
    fn from(status: &ProcessStatus) -> Self {
        Self {
            state: status.state,
            run: status.run,
            restarts: status.restarts,
            enabled: status.enabled,
            enabled_by_operator: status.enabled_by.is_some(),
        }
    }
}

impl Engine {
    /// Remembers an act that is about to be carried out.
    pub(super) fn remember_act(
        &mut self,
        key: String,
        by: &Actor,
        request: &str,
        before: &BTreeMap<ProcessName, ProcessStatus>,
    ) {
        let act = AcceptedAct {
            key,
            number: self.books.accepted.next_number(),
            uid: by.uid,
            request: request.to_owned(),
            before: before.iter().map(|(process, it)| (process.clone(), it.into())).collect(),
        };
        self.books.keep_act(act);
    }

    /// Answers an act that was accepted before: by waiting for what it does. Gives the reply back
    /// when there was none of this key.
    pub(super) fn act_again(&mut self, act: &Act, request: &str, reply: Reply) -> Option<Reply> {
        let Some(known) = act.key.as_deref().and_then(|key| self.books.accepted.find(key)) else {
            return Some(reply);
        };
        if known.uid != act.by.uid || known.request != request {
            let text = format!("the key `{}` belongs to another request", known.key);
            let _ = reply.send(Err(Refusal::Invalid(text)));
            return None;
        }
        let before: BTreeMap<ProcessName, ProcessStatus> = known
            .before
            .iter()
            .filter_map(|(process, was)| {
                // What has been removed since has no outcome.
                let now = self.core.status(process)?;
                let by = || now.enabled_by.clone().unwrap_or_else(|| act.by.clone());
                let status = ProcessStatus {
                    state: was.state,
                    run: was.run,
                    restarts: was.restarts,
                    enabled: was.enabled,
                    enabled_by: was.enabled_by_operator.then(by),
                    ..now
                };
                Some((process.clone(), status))
            })
            .collect();
        let mut selected = self.selected(&act.names).unwrap_or_default();
        let mut left_out = self.take_disabled(act.verb, &act.names, &mut selected);
        left_out.retain(|outcome| !before.contains_key(&outcome.process));
        self.wait_for_act(act, before, left_out, reply);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn act(number: u64, processes: usize) -> AcceptedAct {
        let was = Was {
            state: crate::core::StateCode::Running,
            run: None,
            restarts: 0,
            enabled: true,
            enabled_by_operator: false,
        };
        let name = |index: usize| format!("web:{index}").parse().unwrap();
        AcceptedAct {
            key: format!("key-{number}"),
            number,
            uid: None,
            request: "stop web".to_owned(),
            before: (0..processes).map(|index| (name(index), was)).collect(),
        }
    }

    #[test]
    fn the_oldest_acts_are_forgotten_and_the_newest_is_always_kept() {
        let mut accepted = Accepted::from_before(vec![act(4, 1), act(3, 1)]);
        assert_eq!(accepted.next_number(), 5);
        let small = 5..3 + MAX_ACTS as u64;
        assert!(small.clone().all(|number| accepted.add(act(number, 1)).is_empty()));
        assert_eq!(accepted.add(act(small.end, 1)), ["key-3"]);
        assert!(accepted.find("key-3").is_none() && accepted.find("key-4").is_some());
        assert_eq!(accepted.add(act(small.end + 1, MAX_PROCESSES + 1)).len(), MAX_ACTS);
        assert_eq!(accepted.keys().count(), 1);
    }
}
