//! An incident as a story: what was seen, what it was taken for, what was done, whether it
//! helped. Each entry is a value; the sentence is made of it.

use std::time::Duration;

use super::cause::Finding;
use super::event::{RemedyId, Target};
use super::health::Verdict;
use crate::core::text;
use crate::name::CheckName;

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Story {
    /// The incident begins with a check.
    Failed {
        check: CheckName,
        verdict: Verdict,
        detail: String,
    },
    /// The incident begins with the end of a run.
    Ended {
        how: String,
    },
    /// The host's panic began.
    Panicked {
        failing: Vec<Target>,
    },
    Cause(Finding),
    /// Why nothing is done now; the next step follows by itself.
    Waiting {
        why: String,
    },
    Confirmed,
    Began {
        id: RemedyId,
        check: CheckName,
        rung: usize,
        remedy: String,
    },
    /// What would have been done.
    Would {
        rung: usize,
        remedy: String,
    },
    StepFailed {
        step: usize,
        why: String,
    },
    Undone {
        not_undone: Vec<usize>,
    },
    NotDone {
        remedy: String,
        why: String,
        took: Duration,
    },
    Verifying {
        remedy: String,
    },
    Verified {
        remedy: String,
        took: Duration,
    },
    NotVerified {
        remedy: String,
    },
    Quarantined {
        until_in: Duration,
    },
    /// Well, but that has to last.
    Recovered {
        after: Duration,
    },
    Relapsed,
    Closed(Closing),
}

/// How an incident ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closing {
    Healed {
        remedies: u32,
    },
    /// It came back without a remedy.
    ByItself,
    /// Nobody wants it to run any more.
    Stopped,
    /// It is no longer configured.
    Removed,
    PanicOver,
}

impl Story {
    /// Returns the word for the kind of entry.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "failed",
            Self::Ended { .. } => "ended",
            Self::Panicked { .. } => "panicked",
            Self::Cause(_) => "cause",
            Self::Waiting { .. } => "waiting",
            Self::Confirmed => "confirmed",
            Self::Began { .. } => "began",
            Self::Would { .. } => "would",
            Self::StepFailed { .. } => "step-failed",
            Self::Undone { .. } => "undone",
            Self::NotDone { .. } => "not-done",
            Self::Verifying { .. } => "verifying",
            Self::Verified { .. } => "verified",
            Self::NotVerified { .. } => "not-verified",
            Self::Quarantined { .. } => "quarantined",
            Self::Recovered { .. } => "recovered",
            Self::Relapsed => "relapsed",
            Self::Closed(_) => "closed",
        }
    }

    /// Says it in a sentence that goes on from the target's name.
    pub fn sentence(&self) -> String {
        match self {
            Self::Failed { check, verdict, detail } if detail.is_empty() => {
                format!("is down: check `{check}` says {}", verdict.word())
            }
            Self::Failed { check, detail, .. } => format!("is down: check `{check}` says {detail}"),
            Self::Ended { how } => how.clone(),
            Self::Panicked { failing } => {
                let names: Vec<String> = failing.iter().map(Target::to_string).collect();
                format!(
                    "has much failing at once ({}); the cause is looked for elsewhere, nothing is healed one by one",
                    names.join(", ")
                )
            }
            Self::Cause(finding) => finding.sentence.clone(),
            Self::Waiting { why } => why.clone(),
            Self::Confirmed => "still fails after two more looks".to_owned(),
            Self::Began { remedy, .. } => format!("gets the remedy `{remedy}`"),
            Self::Would { remedy, .. } => {
                format!("would get the remedy `{remedy}`, but is only observed")
            }
            Self::StepFailed { step, why } => format!("step {} failed: {why}", step + 1),
            Self::Undone { not_undone } if not_undone.is_empty() => {
                "all steps were undone".to_owned()
            }
            Self::Undone { not_undone } => {
                let steps: Vec<String> =
                    not_undone.iter().map(|step| (step + 1).to_string()).collect();
                format!("could not undo step {}; somebody has to look", steps.join(", "))
            }
            Self::NotDone { remedy, why, took } => {
                format!("remedy `{remedy}` failed after {}: {why}", text::duration(*took))
            }
            Self::Verifying { remedy } => {
                format!("remedy `{remedy}` is done; its checks must prove it")
            }
            Self::Verified { remedy, took } => {
                format!("was healed by `{remedy}`, proved {} after it began", text::duration(*took))
            }
            Self::NotVerified { remedy } => format!("is still not well after `{remedy}`"),
            Self::Quarantined { until_in } => format!(
                "is in quarantine: nothing helped, one more attempt comes in {}; somebody has to look",
                text::duration(*until_in)
            ),
            Self::Recovered { after } => format!("is well again after {}", text::duration(*after)),
            Self::Relapsed => "failed again before it had been well for long".to_owned(),
            Self::Closed(closing) => match closing {
                Closing::Healed { remedies: 1 } => {
                    "the incident is over: one remedy healed it".to_owned()
                }
                Closing::Healed { remedies } => {
                    format!("the incident is over after {remedies} remedies")
                }
                Closing::ByItself => {
                    "the incident is over: it came back without a remedy".to_owned()
                }
                Closing::Stopped => "the incident is over: it was stopped".to_owned(),
                Closing::Removed => "the incident is over: it is no longer configured".to_owned(),
                Closing::PanicOver => "the panic is over: healing goes on one by one".to_owned(),
            },
        }
    }
}
