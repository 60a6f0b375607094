//! An entry of a story, as it is written: its word, its sentence, and what it changes about the
//! incident that it belongs to.

use crate::core::care::cause::{Confidence, Finding};
use crate::core::care::{Closing, Story, Target};

/// What an entry changes about its incident.
#[derive(Debug, PartialEq)]
pub(super) enum Turn<'s> {
    /// The incident begins, or goes on if it has begun.
    Opens {
        check: Option<&'s str>,
    },
    Explains(&'s Finding),
    Treats,
    /// This remedy was proven to have helped.
    Heals(&'s str),
    Recovers,
    Relapses,
    /// It is over, and this is how.
    Closes(&'static str),
    /// Nothing but another line.
    GoesOn,
}

pub(super) fn turn(story: &Story) -> Turn<'_> {
    match story {
        Story::Failed { check, .. } => Turn::Opens { check: Some(check.as_str()) },
        Story::Ended { .. } | Story::Panicked { .. } => Turn::Opens { check: None },
        Story::Cause(finding) => Turn::Explains(finding),
        Story::Began { .. } => Turn::Treats,
        Story::Verified { remedy, .. } => Turn::Heals(remedy),
        Story::Recovered { .. } => Turn::Recovers,
        Story::Relapsed => Turn::Relapses,
        Story::Closed(closing) => Turn::Closes(closing_word(closing)),
        Story::Waiting { .. } | Story::Confirmed | Story::Would { .. } => Turn::GoesOn,
        Story::StepFailed { .. } | Story::Undone { .. } | Story::NotDone { .. } => Turn::GoesOn,
        Story::Verifying { .. } | Story::NotVerified { .. } => Turn::GoesOn,
        Story::Quarantined { .. } => Turn::GoesOn,
    }
}

fn closing_word(closing: &Closing) -> &'static str {
    match closing {
        Closing::Healed { .. } => "healed",
        Closing::ByItself => "by-itself",
        Closing::Stopped => "stopped",
        Closing::Removed => "removed",
        Closing::PanicOver => "panic-over",
    }
}

pub(super) fn confidence_word(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Guess => "guess",
        Confidence::Likely => "likely",
        Confidence::Certain => "certain",
    }
}

/// Returns how a target is called where names are shown and asked for.
pub(super) fn target(target: &Target) -> String {
    match target {
        Target::Host => "host".to_owned(),
        Target::Process(process) => process.to_string(),
    }
}

/// Returns the program that a target belongs to.
pub(super) fn program(target: &Target) -> Option<&str> {
    match target {
        Target::Host => None,
        Target::Process(process) => Some(process.program().as_str()),
    }
}
