//! What the healer remembers over a reboot: one file in the state directory.
//!
//! Within a boot the journal in the runtime directory has every change at once. This file follows
//! a few seconds later, written by a thread of its own, because the disk may be slow; what an
//! operator has put on hold is written without delay.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;

use super::Report;
use crate::core::care::{Care, CheckFacts, HostFacts, Target, TargetFacts};
use crate::engine::kept::Kept;
use crate::os::{clock, proc};
use crate::store::Note;
use crate::store::care::{self, Remembered};
use crate::time::Instant;

/// How long changes are collected.
const DELAY: Duration = Duration::from_secs(5);

/// The file, and what is not yet in it.
pub(super) struct Ledger {
    kept: Arc<Mutex<Kept>>,
    boot: String,
    /// When what has changed is to be written.
    due: Option<Instant>,
    is_writing: bool,
    /// What is on hold, as far as it was noted.
    held: BTreeSet<Target>,
    /// What there is something to remember of.
    noted: BTreeSet<Target>,
    host: HostFacts,
}

impl Ledger {
    /// Opens the file, and returns what was remembered, with the times of this boot.
    pub(super) fn open(state_dir: &Path, notes: &mut Vec<Note>) -> (Self, Option<Remembered>) {
        let file = state_dir.join("healing");
        let kept = Kept::open(&file, care::VERSION, "holds and cool-downs", notes);
        let boot = proc::boot_id().unwrap_or_default();
        let remembered = match kept.written() {
            [] => None,
            body => match care::decode_all(body) {
                Ok(remembered) => Some(remembered.at(&boot, (clock::now(), clock::wall()))),
                Err(error) => {
                    let text = format!("what healing remembered is not understood: {error}");
                    notes.push(Note { file, text });
                    None
                }
            },
        };
        let ledger = Self {
            kept: Arc::new(Mutex::new(kept)),
            boot,
            due: None,
            is_writing: false,
            held: BTreeSet::new(),
            noted: BTreeSet::new(),
            host: HostFacts::default(),
        };
        (ledger, remembered)
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due.filter(|_| !self.is_writing)
    }

    /// Begins with what a healer remembers. The last brain may not have come to writing it.
    pub(super) fn begin(&mut self, care: &Care) {
        self.host = lasting(care.host_facts());
        let of = |facts: &&TargetFacts| is_memorable(facts);
        for facts in care.targets().filter_map(|target| care.target_facts(target)).filter(of) {
            self.touch(facts);
        }
    }

    /// What is remembered of a target has changed.
    pub(super) fn touch(&mut self, facts: &TargetFacts) {
        let note = |set: &mut BTreeSet<Target>, is_in: bool| match is_in {
            true => set.insert(facts.target.clone()),
            false => set.remove(&facts.target),
        };
        // A hold is an operator's word, and a reboot may be what it is for.
        if note(&mut self.held, facts.hold.is_some()) {
            self.write_in(Duration::ZERO);
        }
        let is_memorable = is_memorable(facts);
        if note(&mut self.noted, is_memorable) || is_memorable {
            self.write_in(DELAY);
        }
    }

    /// What is remembered of the host has changed.
    pub(super) fn touch_host(&mut self, facts: &HostFacts) {
        let facts = lasting(facts);
        if self.host != facts {
            self.host = facts;
            self.write_in(DELAY);
        }
    }

    pub(super) fn forget(&mut self, target: &Target) {
        self.held.remove(target);
        if self.noted.remove(target) {
            self.write_in(DELAY);
        }
    }

    fn write_in(&mut self, time: Duration) {
        let at = clock::now() + time;
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    /// Has what is remembered written, away from the loop.
    pub(super) fn write(&mut self, care: &Care, reports: &UnboundedSender<Report>) {
        self.due = None;
        self.is_writing = true;
        let (kept, reports) = (Arc::clone(&self.kept), reports.clone());
        let remembered = self.remember(care);
        tokio::task::spawn_blocking(move || {
            let trouble = write(&kept, &remembered);
            // A loop that has ended needs no answer.
            let _ = reports.send(Report::Kept(trouble));
        });
    }

    pub(super) fn on_written(&mut self) {
        self.is_writing = false;
    }

    /// Writes it at once: the daemon ends.
    pub(super) fn close(&mut self, care: &Care) -> Option<String> {
        self.due = None;
        write(&self.kept, &self.remember(care))
    }

    fn remember(&self, care: &Care) -> Remembered {
        let facts = |target: &Target| care.target_facts(target).cloned();
        Remembered {
            boot: self.boot.clone(),
            written: (clock::now(), clock::wall()),
            host: care.host_facts().clone(),
            targets: care.targets().filter_map(facts).filter(is_memorable).collect(),
        }
    }
}

fn write(kept: &Mutex<Kept>, remembered: &Remembered) -> Option<String> {
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    kept.write(care::encode_all(remembered));
    kept.trouble()
}

/// Leaves out what means nothing to the next boot.
fn lasting(facts: &HostFacts) -> HostFacts {
    HostFacts { generation: 0, evidence: Default::default(), ..facts.clone() }
}

/// Whether a new daemon would do anything else without it.
fn is_memorable(facts: &TargetFacts) -> bool {
    let has_past = |check: &CheckFacts| {
        check.ladder != Default::default() || !check.health.changes.times.is_empty()
    };
    facts.hold.is_some()
        || facts.incident.is_some()
        || facts.course.is_some()
        || facts.sheds_others
        || !facts.attempts.times.is_empty()
        || !facts.fallbacks.is_empty()
        || facts.checks.values().any(|check| has_past(check))
}

/// What a brain begins with.
pub(in crate::engine) type Past = Option<(HostFacts, Vec<TargetFacts>)>;
