//! The written form of the goals that operators set: they hold over crash, upgrade and reboot.

use serde::{Deserialize, Serialize};

use crate::core::{Actor, Goal};
use crate::name::ProcessName;
use crate::time::Wall;

#[derive(Serialize, Deserialize)]
struct Written {
    process: String,
    /// `true` is up.
    up: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Milliseconds since 1970-01-01 UTC.
    at: i64,
}

/// One goal with who set it.
pub type SetGoal = (ProcessName, Goal, Actor);

/// Version of the body.
pub const VERSION: u32 = 1;

/// Writes goals down.
pub fn encode(goals: &[SetGoal]) -> Vec<u8> {
    let written: Vec<_> = goals
        .iter()
        .map(|(process, goal, actor)| Written {
            process: process.to_string(),
            up: *goal == Goal::Up,
            uid: actor.uid,
            by: actor.name.clone(),
            reason: actor.reason.clone(),
            at: actor.at.0,
        })
        .collect();
    serde_json::to_vec(&written).unwrap_or_default()
}

/// Reads goals back; one that is not understood is left out, the others count.
///
/// # Errors
///
/// What is wrong with the whole.
pub fn decode(bytes: &[u8]) -> Result<Vec<SetGoal>, serde_json::Error> {
    let written: Vec<Written> = serde_json::from_slice(bytes)?;
    let goal = |goal: Written| {
        let process = goal.process.parse().ok()?;
        let wanted = if goal.up { Goal::Up } else { Goal::Down };
        let actor = Actor { uid: goal.uid, name: goal.by, reason: goal.reason, at: Wall(goal.at) };
        Some((process, wanted, actor))
    };
    Ok(written.into_iter().filter_map(goal).collect())
}

#[derive(Serialize, Deserialize)]
struct WrittenShutdown {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    by: String,
    at: i64,
    code: u8,
}

/// Writes down who ended the daemon and with which exit code.
pub fn encode_shutdown(by: &Actor, code: u8) -> Vec<u8> {
    let written = WrittenShutdown { uid: by.uid, by: by.name.clone(), at: by.at.0, code };
    serde_json::to_vec(&written).unwrap_or_default()
}

/// Reads what [`encode_shutdown`] wrote.
pub fn decode_shutdown(bytes: &[u8]) -> Option<(Actor, u8)> {
    let written: WrittenShutdown = serde_json::from_slice(bytes).ok()?;
    let actor = Actor { uid: written.uid, name: written.by, reason: None, at: Wall(written.at) };
    Some((actor, written.code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_come_back_with_who_and_why() {
        let actor = Actor {
            uid: Some(1000),
            name: "alice".into(),
            reason: Some("maintenance".into()),
            at: Wall(1_700_000_000_000),
        };
        let goals = vec![("web:1".parse().unwrap(), Goal::Down, actor)];
        assert_eq!(decode(&encode(&goals)).unwrap(), goals);
        assert!(decode(b"nonsense").is_err());
    }
}
