//! Remedies and transactions in records.

use serde::{Deserialize, Serialize};

use crate::config::{Remedy, RemedyStep};
use crate::core::care::transaction::{Transaction, TransactionStage};

/// The mirror of [`Remedy`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum RemedyRecord {
    Confirm,
    Reload,
    Signal(i32),
    Restart,
    CleanRestart,
    RestartGroup,
    Run(Vec<String>),
    /// Commands, each with its undo command.
    Steps(Vec<(Vec<String>, Option<Vec<String>>)>),
    Fallback(String),
    Rollback,
    Shed,
    Alert,
    Quarantine,
}

/// The mirror of [`Transaction`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct TransactionRecord {
    stage: StageRecord,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    not_undone: Vec<usize>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StageRecord {
    Doing(usize),
    /// The step, and why it is undone.
    Undoing(usize, String),
    Done,
    Undone(String),
}

impl From<&Remedy> for RemedyRecord {
    fn from(remedy: &Remedy) -> Self {
        match remedy {
            Remedy::Confirm => Self::Confirm,
            Remedy::Reload => Self::Reload,
            Remedy::Signal { signal } => Self::Signal(*signal),
            Remedy::Restart => Self::Restart,
            Remedy::CleanRestart => Self::CleanRestart,
            Remedy::RestartGroup => Self::RestartGroup,
            Remedy::Run { argv } => Self::Run(argv.clone()),
            Remedy::Steps(steps) => {
                let step = |step: &RemedyStep| (step.argv.clone(), step.undo.clone());
                Self::Steps(steps.iter().map(step).collect())
            }
            Remedy::Fallback { program } => Self::Fallback(program.to_string()),
            Remedy::Rollback => Self::Rollback,
            Remedy::Shed => Self::Shed,
            Remedy::Alert => Self::Alert,
            Remedy::Quarantine => Self::Quarantine,
        }
    }
}

impl TryFrom<RemedyRecord> for Remedy {
    type Error = crate::name::NameError;

    fn try_from(record: RemedyRecord) -> Result<Self, Self::Error> {
        Ok(match record {
            RemedyRecord::Confirm => Self::Confirm,
            RemedyRecord::Reload => Self::Reload,
            RemedyRecord::Signal(signal) => Self::Signal { signal },
            RemedyRecord::Restart => Self::Restart,
            RemedyRecord::CleanRestart => Self::CleanRestart,
            RemedyRecord::RestartGroup => Self::RestartGroup,
            RemedyRecord::Run(argv) => Self::Run { argv },
            RemedyRecord::Steps(steps) => {
                let step = |(argv, undo)| RemedyStep { argv, undo };
                Self::Steps(steps.into_iter().map(step).collect())
            }
            RemedyRecord::Fallback(program) => Self::Fallback { program: program.parse()? },
            RemedyRecord::Rollback => Self::Rollback,
            RemedyRecord::Shed => Self::Shed,
            RemedyRecord::Alert => Self::Alert,
            RemedyRecord::Quarantine => Self::Quarantine,
        })
    }
}

impl From<&Transaction> for TransactionRecord {
    fn from(transaction: &Transaction) -> Self {
        let stage = match &transaction.stage {
            TransactionStage::Doing { step } => StageRecord::Doing(*step),
            TransactionStage::Undoing { step, why } => StageRecord::Undoing(*step, why.clone()),
            TransactionStage::Done => StageRecord::Done,
            TransactionStage::Undone { why } => StageRecord::Undone(why.clone()),
        };
        Self { stage, not_undone: transaction.not_undone.clone() }
    }
}

impl From<TransactionRecord> for Transaction {
    fn from(record: TransactionRecord) -> Self {
        let stage = match record.stage {
            StageRecord::Doing(step) => TransactionStage::Doing { step },
            StageRecord::Undoing(step, why) => TransactionStage::Undoing { step, why },
            StageRecord::Done => TransactionStage::Done,
            StageRecord::Undone(why) => TransactionStage::Undone { why },
        };
        Self { stage, not_undone: record.not_undone }
    }
}
