//! The stories of the last incidents, for those who ask why.
//!
//! They are made of events, and the event log is where the next brain finds them again: it is read
//! only when somebody asks.

use std::collections::VecDeque;

use super::super::{Happening, HappeningKind};
use crate::core::care::IncidentId;
use crate::time::Wall;

/// Incidents that are kept.
const INCIDENTS: usize = 200;
/// Entries that are kept of each; the first ones say how it began.
const ENTRIES: usize = 200;
const FIRST_ENTRIES: usize = 20;

/// One incident as it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldIncident {
    pub id: IncidentId,
    /// `web:0`, or `host`.
    pub target: String,
    pub entries: VecDeque<ToldEntry>,
    pub is_over: bool,
}

/// One entry of a story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldEntry {
    pub at: Wall,
    /// `failed`, `cause`, `began`, …
    pub what: String,
    /// Goes on from the target's name.
    pub sentence: String,
}

/// The last incidents, oldest first.
#[derive(Debug, Default)]
pub(super) struct Recent {
    incidents: VecDeque<ToldIncident>,
    /// What earlier brains told has been read, or there is nothing to read.
    pub(super) is_whole: bool,
}

impl Recent {
    pub(super) fn note(
        &mut self,
        id: IncidentId,
        target: &str,
        at: Wall,
        what: &str,
        sentence: &str,
        is_over: bool,
    ) {
        let known = self.incidents.iter().rposition(|it| it.id == id);
        let index = known.unwrap_or_else(|| {
            let entries = VecDeque::new();
            let target = target.to_owned();
            self.incidents.push_back(ToldIncident { id, target, entries, is_over: false });
            if self.incidents.len() > INCIDENTS {
                self.incidents.pop_front();
            }
            self.incidents.len() - 1
        });
        let incident = &mut self.incidents[index];
        incident.is_over |= is_over;
        let (what, sentence) = (what.to_owned(), sentence.to_owned());
        incident.entries.push_back(ToldEntry { at, what, sentence });
        if incident.entries.len() > ENTRIES {
            incident.entries.remove(FIRST_ENTRIES);
        }
    }

    /// Puts what earlier brains told before what this one has.
    pub(super) fn recover(&mut self, happenings: &[std::sync::Arc<Happening>]) {
        if std::mem::replace(&mut self.is_whole, true) {
            return;
        }
        self.incidents.clear();
        for happening in happenings {
            if let HappeningKind::Incident { incident, target, what, sentence } = &happening.kind {
                let is_over = what == "closed";
                let id = IncidentId(*incident);
                self.note(id, target, happening.at, what, sentence, is_over);
            }
        }
    }

    /// Returns the newest incident of a target.
    pub(super) fn newest_of(&self, target: &str) -> Option<&ToldIncident> {
        self.incidents.iter().rev().find(|it| it.target == target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_story_keeps_its_beginning_and_its_end() {
        let mut recent = Recent::default();
        for number in 0..500 {
            let sentence = number.to_string();
            recent.note(IncidentId(7), "web", Wall(number), "waiting", &sentence, number == 499);
        }
        let told = recent.newest_of("web").unwrap();
        assert_eq!((told.entries.len(), told.is_over), (ENTRIES, true));
        let sentence = |index: usize| told.entries[index].sentence.as_str();
        assert_eq!((sentence(0), sentence(FIRST_ENTRIES - 1)), ("0", "19"));
        assert_eq!(told.entries.back().unwrap().sentence, "499");
    }

    #[test]
    fn many_incidents_are_not_kept_for_ever() {
        let mut recent = Recent::default();
        for number in 0..1_000 {
            let target = format!("p{number}");
            recent.note(IncidentId(number), &target, Wall(0), "ended", "ended", false);
        }
        assert_eq!(recent.incidents.len(), INCIDENTS);
        assert!(recent.newest_of("p0").is_none() && recent.newest_of("p999").is_some());
    }

    #[test]
    fn what_earlier_brains_told_is_put_before_what_this_one_has() {
        let told = |id, what: &str| {
            let kind = HappeningKind::Incident {
                incident: 3,
                target: "web".into(),
                what: what.into(),
                sentence: what.into(),
            };
            std::sync::Arc::new(Happening { id, at: Wall(0), kind })
        };
        let mut recent = Recent::default();
        recent.note(IncidentId(3), "web", Wall(0), "verified", "verified", false);
        recent.recover(&[told(1, "failed"), told(2, "verified"), told(3, "closed")]);
        recent.recover(&[]);
        let incident = recent.newest_of("web").unwrap();
        let words: Vec<&str> = incident.entries.iter().map(|entry| entry.what.as_str()).collect();
        assert_eq!((words, incident.is_over), (vec!["failed", "verified", "closed"], true));
    }
}
