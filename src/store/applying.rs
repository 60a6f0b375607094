//! The written form of an apply that is under way.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::decisions::By;
use crate::core::{ApplyOrder, ApplyStage, Goal, Progress};
use crate::name::{NameError, ProcessName, RunId};
use crate::time::Instant;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Written {
    generation: u64,
    by: By,
    patience: u64,
    roll_back: bool,
    stage: Stage,
    entered: u64,
    until: u64,
    turns: Vec<(String, u32)>,
    replaced: Vec<(String, u64)>,
    were_up: Vec<String>,
    /// `true` is up.
    goals: Vec<(String, bool, By)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stage {
    Removing,
    Changing,
    Completing,
    Keeping { why: String },
    RollingBack { why: String, culprit: Option<String> },
}

impl From<&Progress> for Written {
    fn from(progress: &Progress) -> Self {
        let Progress { order, stage, entered, until, turns, replaced, were_up, goals } = progress;
        let stage = match stage.clone() {
            ApplyStage::Removing => Stage::Removing,
            ApplyStage::Changing => Stage::Changing,
            ApplyStage::Completing => Stage::Completing,
            ApplyStage::Keeping { why } => Stage::Keeping { why },
            ApplyStage::RollingBack { why, culprit } => {
                Stage::RollingBack { why, culprit: culprit.map(|name| name.to_string()) }
            }
        };
        let patience = u64::try_from(order.patience.as_nanos()).unwrap_or(u64::MAX);
        Self {
            generation: order.generation,
            by: (&order.by).into(),
            patience,
            roll_back: order.roll_back,
            stage,
            entered: entered.as_nanos(),
            until: until.as_nanos(),
            turns: turns.iter().map(|(name, turn)| (name.to_string(), *turn)).collect(),
            replaced: replaced.iter().map(|(name, run)| (name.to_string(), run.0)).collect(),
            were_up: were_up.iter().map(ToString::to_string).collect(),
            goals: goals
                .iter()
                .map(|(name, goal, by)| (name.to_string(), *goal == Goal::Up, by.into()))
                .collect(),
        }
    }
}

impl TryFrom<Written> for Progress {
    type Error = NameError;

    fn try_from(written: Written) -> Result<Self, NameError> {
        let stage = match written.stage {
            Stage::Removing => ApplyStage::Removing,
            Stage::Changing => ApplyStage::Changing,
            Stage::Completing => ApplyStage::Completing,
            Stage::Keeping { why } => ApplyStage::Keeping { why },
            Stage::RollingBack { why, culprit } => {
                let culprit = culprit.map(|name| name.parse()).transpose()?;
                ApplyStage::RollingBack { why, culprit }
            }
        };
        let goal = |(name, up, by): (String, bool, By)| {
            let goal = if up { Goal::Up } else { Goal::Down };
            Ok((name.parse::<ProcessName>()?, goal, by.into()))
        };
        let run = |(name, run): (String, u64)| Ok((name.parse()?, RunId(run)));
        Ok(Self {
            order: ApplyOrder {
                generation: written.generation,
                by: written.by.into(),
                patience: Duration::from_nanos(written.patience),
                roll_back: written.roll_back,
            },
            stage,
            entered: Instant::from_nanos(written.entered),
            until: Instant::from_nanos(written.until),
            turns: written
                .turns
                .into_iter()
                .map(|(name, turn)| Ok((name.parse()?, turn)))
                .collect::<Result<_, NameError>>()?,
            replaced: written.replaced.into_iter().map(run).collect::<Result<_, NameError>>()?,
            were_up: written
                .were_up
                .iter()
                .map(|name| name.parse())
                .collect::<Result<_, NameError>>()?,
            goals: written.goals.into_iter().map(goal).collect::<Result<_, NameError>>()?,
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::core::Actor;
    use crate::time::Wall;

    /// Progress in which every member is set.
    pub(in crate::store) fn progress() -> Progress {
        let by = Actor {
            uid: Some(7),
            name: "alice".into(),
            reason: Some("deploy".into()),
            at: Wall(1_700_000_000_000),
        };
        Progress {
            order: ApplyOrder {
                generation: 12,
                by: by.clone(),
                patience: Duration::from_millis(1500),
                roll_back: true,
            },
            stage: ApplyStage::RollingBack {
                why: "`web:1` does not run".into(),
                culprit: Some("web:1".parse().unwrap()),
            },
            entered: Instant::from_nanos(5),
            until: Instant::from_nanos(6),
            turns: [("web".parse().unwrap(), 2)].into(),
            replaced: [("web:1".parse().unwrap(), RunId(9))].into(),
            were_up: ["web:1".parse().unwrap()].into(),
            goals: vec![("gone".parse().unwrap(), Goal::Down, by)],
        }
    }

    #[test]
    fn progress_comes_back_in_every_stage() {
        for stage in [
            ApplyStage::Removing,
            ApplyStage::Changing,
            ApplyStage::Completing,
            ApplyStage::Keeping { why: "no".into() },
            ApplyStage::RollingBack { why: "no".into(), culprit: None },
            progress().stage,
        ] {
            let progress = Progress { stage, ..progress() };
            let json = serde_json::to_string(&Written::from(&progress)).unwrap();
            let written: Written = serde_json::from_str(&json).unwrap();
            assert_eq!(Progress::try_from(written).unwrap(), progress);
        }
    }
}
