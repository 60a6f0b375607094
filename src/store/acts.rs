//! Acts that were accepted, by the key that their client gave them, with what each process was
//! before: so that a client whose daemon died asks the next one for the outcome, and nothing is
//! done twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::StateCode;
use crate::name::{ProcessName, RunId};

/// One act that was accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct AcceptedAct {
    /// Chosen by the client.
    pub key: String,
    /// Grows by one with each act.
    pub number: u64,
    /// Nobody else's key is looked at.
    pub uid: Option<u32>,
    /// `restart web`.
    pub request: String,
    pub before: BTreeMap<ProcessName, Was>,
}

/// What a process was before an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Was {
    pub state: StateCode,
    pub run: Option<RunId>,
    pub restarts: u64,
    pub enabled: bool,
    /// An operator, not the configuration, says whether it is enabled.
    pub enabled_by_operator: bool,
}

#[derive(Serialize, Deserialize)]
struct Written {
    number: u64,
    uid: Option<u32>,
    request: String,
    before: BTreeMap<String, WrittenWas>,
}

#[derive(Serialize, Deserialize)]
struct WrittenWas {
    state: u16,
    run: Option<u64>,
    restarts: u64,
    enabled: bool,
    by_operator: bool,
}

const STATES: [StateCode; 8] = [
    StateCode::Stopped,
    StateCode::Starting,
    StateCode::Running,
    StateCode::Backoff,
    StateCode::Stopping,
    StateCode::Exited,
    StateCode::Fatal,
    StateCode::Unknown,
];

/// Writes an act down, without its key.
pub fn encode(act: &AcceptedAct) -> Vec<u8> {
    let before = act.before.iter().map(|(process, was)| {
        let was = WrittenWas {
            state: was.state.code(),
            run: was.run.map(|run| run.0),
            restarts: was.restarts,
            enabled: was.enabled,
            by_operator: was.enabled_by_operator,
        };
        (process.to_string(), was)
    });
    let written = Written {
        number: act.number,
        uid: act.uid,
        request: act.request.clone(),
        before: before.collect(),
    };
    serde_json::to_vec(&written).expect("strings and numbers become JSON")
}

/// Reads what [`encode`] wrote; `None` when it is damaged, which costs one client its answer.
pub fn decode(key: &str, body: &[u8]) -> Option<AcceptedAct> {
    let written: Written = serde_json::from_slice(body).ok()?;
    let before = written.before.into_iter().map(|(process, was)| {
        let state = STATES.into_iter().find(|state| state.code() == was.state)?;
        let was = Was {
            state,
            run: was.run.map(RunId),
            restarts: was.restarts,
            enabled: was.enabled,
            enabled_by_operator: was.by_operator,
        };
        Some((process.parse().ok()?, was))
    });
    Some(AcceptedAct {
        key: key.to_owned(),
        number: written.number,
        uid: written.uid,
        request: written.request,
        before: before.collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_comes_back_as_it_was_and_damage_is_no_act() {
        let was = |state| Was {
            state,
            run: (state == StateCode::Running).then_some(RunId(7)),
            restarts: 3,
            enabled: true,
            enabled_by_operator: state == StateCode::Fatal,
        };
        let names = ["web:0", "web:1", "a", "b", "c", "d", "e", "f"];
        let before =
            names.iter().zip(STATES).map(|(name, state)| (name.parse().unwrap(), was(state)));
        let act = AcceptedAct {
            key: "k".to_owned(),
            number: 4,
            uid: Some(1000),
            request: "restart web".to_owned(),
            before: before.collect(),
        };
        let body = encode(&act);
        assert_eq!(decode("k", &body), Some(act));
        assert_eq!(decode("k", &body[..body.len() - 1]), None);
        assert_eq!(decode("k", &body.escape_ascii().to_string().into_bytes()), None);
    }
}
