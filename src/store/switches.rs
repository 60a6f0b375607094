//! The written form of what operators enabled and disabled: it holds over crash, upgrade and
//! reboot, also for a program that is not configured at the moment.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::{Actor, Switch};
use crate::name::ProgramName;
use crate::time::Wall;

#[derive(Serialize, Deserialize)]
struct Written {
    program: String,
    enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Milliseconds since 1970-01-01 UTC.
    at: i64,
}

/// Version of the body.
pub const VERSION: u32 = 1;

/// Writes switches down.
pub fn encode(switches: &BTreeMap<ProgramName, Switch>) -> Vec<u8> {
    let written: Vec<_> = switches
        .iter()
        .map(|(program, switch)| Written {
            program: program.to_string(),
            enabled: switch.enabled,
            uid: switch.by.uid,
            by: switch.by.name.clone(),
            reason: switch.by.reason.clone(),
            at: switch.by.at.0,
        })
        .collect();
    serde_json::to_vec(&written).unwrap_or_default()
}

/// Reads switches back; one that is not understood is left out, the others count.
///
/// # Errors
///
/// What is wrong with the whole.
pub fn decode(bytes: &[u8]) -> Result<BTreeMap<ProgramName, Switch>, serde_json::Error> {
    let written: Vec<Written> = serde_json::from_slice(bytes)?;
    let switch = |one: Written| {
        let program = one.program.parse().ok()?;
        let by = Actor { uid: one.uid, name: one.by, reason: one.reason, at: Wall(one.at) };
        Some((program, Switch { enabled: one.enabled, by }))
    };
    Ok(written.into_iter().filter_map(switch).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_come_back_with_who_and_why() {
        let by = Actor {
            uid: Some(0),
            name: "root".into(),
            reason: Some("moves to another host".into()),
            at: Wall(1_700_000_000_000),
        };
        let off = Switch { enabled: false, by: by.clone() };
        let on = Switch { enabled: true, by: Actor { uid: None, reason: None, ..by } };
        let switches = [("db", off), ("web", on)].map(|(n, s)| (n.parse().unwrap(), s)).into();
        assert_eq!(decode(&encode(&switches)).unwrap(), switches);
        assert!(decode(b"nonsense").is_err());
    }

    #[test]
    fn one_that_is_not_understood_costs_no_other() {
        let body = br#"[{"program":"no good!","enabled":false,"by":"x","at":1},
            {"program":"db","enabled":false,"by":"root","at":2,"later":"versions know more"}]"#;
        let switches = decode(body).unwrap();
        assert_eq!(switches.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["db"]);
    }
}
