//! What healing says: to the history, to those who watch, to the daemon's log.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::super::HappeningKind;
use super::super::core_loop::Engine;
use super::super::history::Record;
use crate::config::Remedy;
use crate::core::care::mode::Mode;
use crate::core::care::{
    Alert, HealthChange, HealthState, IncidentId, RemedyId, RemedyResult, Story, Target,
};
use crate::os::clock;

/// How a target is called where names are shown and asked for.
pub fn shown_target(target: &Target) -> String {
    match target {
        Target::Host => "host".to_owned(),
        Target::Process(process) => process.to_string(),
    }
}

/// Whether a check in this state says that something is wrong, and not only that it may be.
const fn is_trouble(state: HealthState) -> bool {
    match state {
        HealthState::None
        | HealthState::Starting
        | HealthState::Up
        | HealthState::Suspect
        | HealthState::Held => false,
        HealthState::Down
        | HealthState::Healing
        | HealthState::Verifying
        | HealthState::Flapping
        | HealthState::Broken => true,
    }
}

impl Engine {
    pub(super) fn tell_story(&mut self, incident: IncidentId, target: Target, story: Story) {
        let sentence = story.sentence();
        info!(incident = incident.0, "{target} {sentence}");
        let at = clock::wall();
        let what = story.word().to_owned();
        self.happened(HappeningKind::Incident {
            incident: incident.0,
            target: shown_target(&target),
            what,
            sentence,
        });
        self.history.record(Record::Told { at, incident, target, story });
    }

    pub(super) fn note_remedy_over(
        &mut self,
        remedy: RemedyId,
        target: Target,
        what: &Remedy,
        result: RemedyResult,
        took: Duration,
    ) {
        self.healing.remedies.doing.remove(&remedy);
        self.counts.on_remedy_over(what.word(), result);
        let (at, what) = (clock::wall(), what.word().to_owned());
        self.history.record(Record::RemedyOver { at, remedy, target, what, result, took });
    }

    pub(super) fn announce_health(&mut self, change: HealthChange) {
        let HealthChange { check, from, to, detail } = change;
        let is_trouble = [from, to].iter().any(|&state| is_trouble(state));
        let (from, to) = (from.word(), to.word());
        // Hundreds of checks pass for the first time when the daemon starts.
        match is_trouble {
            true => info!(check = %check, from, to, "{detail}"),
            false => debug!(check = %check, from, to, "{detail}"),
        }
        self.happened(HappeningKind::Check {
            target: shown_target(&check.target),
            check: check.check.to_string(),
            from: from.to_owned(),
            to: to.to_owned(),
            detail,
        });
    }

    pub(super) fn alert(&mut self, alert: Alert) {
        let Alert { kind, target, incident, sentence } = alert;
        warn!(alert = kind.word(), incident = incident.map(|it| it.0), "{sentence}");
        self.happened(HappeningKind::Alert {
            what: kind.word().to_owned(),
            target: shown_target(&target),
            incident: incident.map(|it| it.0),
            sentence,
        });
    }

    pub(super) fn on_mode(&mut self, from: Mode, to: Mode, reasons: Vec<String>) {
        let (from, to) = (from.word(), to.word());
        warn!(from, to, "the mode has changed: {}", reasons.join("; "));
        if let Some(argv) = self.config.on_mode_change.clone() {
            let variables = [
                ("MEND_MODE", to.to_owned()),
                ("MEND_MODE_BEFORE", from.to_owned()),
                ("MEND_MODE_REASONS", reasons.join("\n")),
            ];
            let variables = variables.map(|(name, value)| (name.to_owned(), value)).to_vec();
            self.run_mode_hook(argv, variables);
        }
        self.happened(HappeningKind::Mode { from: from.to_owned(), to: to.to_owned(), reasons });
    }
}
