//! What is counted for those who measure: a few numbers that are kept as things happen, and what
//! is only looked up when somebody asks.

use std::collections::BTreeMap;

use super::core_loop::Engine;
use crate::core::care::{RemedyResult, Target, Verdict};

/// What this brain has counted since it began. Who measures takes a smaller number for a new
/// beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Runs of checks.
    pub checks: BTreeMap<Verdict, u64>,
    /// Remedies that are over, by the word of each.
    pub remedies: BTreeMap<(&'static str, RemedyResult), u64>,
    /// Incidents that were ever opened, also before this brain.
    pub incidents: u64,
    pub open_incidents: u64,
    /// Bytes of output that were written into logs.
    pub captured_bytes: u64,
    /// Bytes of output that were given up, because a log could not be written.
    pub dropped_bytes: u64,
    /// Entries of the history that were lost.
    pub lost_records: u64,
}

impl Counts {
    pub(super) fn on_checked(&mut self, verdict: Verdict) {
        *self.checks.entry(verdict).or_default() += 1;
    }

    pub(super) fn on_remedy_over(&mut self, what: &'static str, result: RemedyResult) {
        *self.remedies.entry((what, result)).or_default() += 1;
    }
}

impl Engine {
    /// Returns what was counted, together with what is looked up now.
    pub(super) fn counts(&self) -> Counts {
        let care = self.healing.care();
        let host = care.host_facts();
        let has_open = |target: &&Target| {
            care.target_facts(target).is_some_and(|facts| facts.incident.is_some())
        };
        let of_targets = care.targets().filter(has_open).count();
        let totals = self.pump.totals();
        Counts {
            incidents: host.next_incident.saturating_sub(1),
            open_incidents: of_targets as u64 + u64::from(host.panic_incident.is_some()),
            captured_bytes: totals.moved_bytes(),
            dropped_bytes: totals.dropped_bytes(),
            lost_records: self.history.lost(),
            ..self.counts.clone()
        }
    }
}
