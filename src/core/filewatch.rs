//! When changes of watched files count: after a quiet time, together, and not for ever later.
//!
//! A build or a `git checkout` changes a thousand files within seconds and means one renewal.
//! A file that never rests must not put the renewal off for ever, so there is an end to waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::name::ProgramName;
use crate::time::Instant;

/// Changed files that are told apart.
const MAX_FILES: usize = 1000;

/// A renewal is put off at most so many times the debounce.
const PATIENCE: u32 = 20;

/// The shortest time after which a renewal that was put back is due again.
const RETRY: Duration = Duration::from_secs(1);

/// The changes that have not been acted on, by program.
#[derive(Debug, Default)]
pub struct FileWatch {
    pending: BTreeMap<ProgramName, Pending>,
}

#[derive(Debug)]
struct Pending {
    changes: Changes,
    due: Instant,
    latest: Instant,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    first: PathBuf,
    /// The first ones, each once.
    files: BTreeSet<PathBuf>,
    /// Beside these; a file that changes again counts again.
    more: usize,
}

impl FileWatch {
    /// Takes the change of files, `first` among them.
    pub fn on_change(
        &mut self,
        now: Instant,
        program: &ProgramName,
        first: PathBuf,
        files: BTreeSet<PathBuf>,
        debounce: Duration,
    ) {
        match self.pending.get_mut(program) {
            Some(pending) => {
                pending.due = (now + debounce).min(pending.latest);
                pending.changes.add(files);
            }
            None => {
                let mut changes = Changes { first, files: BTreeSet::new(), more: 0 };
                changes.add(files);
                let latest = now + debounce.saturating_mul(PATIENCE);
                let pending = Pending { changes, due: now + debounce, latest };
                self.pending.insert(program.clone(), pending);
            }
        }
    }

    /// Returns whether changes of a program's files have not been acted on.
    pub fn is_pending(&self, program: &ProgramName) -> bool {
        self.pending.contains_key(program)
    }

    /// Returns when [`FileWatch::take_due`] has something.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.due).min()
    }

    /// Returns the programs whose files have rested long enough.
    pub fn take_due(&mut self, now: Instant) -> Vec<(ProgramName, Changes)> {
        let due: Vec<ProgramName> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.due <= now)
            .map(|(program, _)| program.clone())
            .collect();
        due.into_iter()
            .filter_map(|program| Some((self.pending.remove(&program)?.changes, program)))
            .map(|(changes, program)| (program, changes))
            .collect()
    }

    /// Puts back what cannot be acted on yet; newer changes join it.
    pub fn put_back(
        &mut self,
        now: Instant,
        program: ProgramName,
        changes: Changes,
        debounce: Duration,
    ) {
        let due = now + debounce.max(RETRY);
        self.pending.insert(program, Pending { changes, due, latest: due });
    }

    /// Forgets the changes of files that no longer count.
    pub fn retain(&mut self, counts: impl Fn(&ProgramName, &Path) -> bool) {
        self.pending.retain(|program, pending| {
            let files = &mut pending.changes.files;
            files.retain(|file| counts(program, file));
            if let Some(file) = files.first().filter(|_| !files.contains(&pending.changes.first)) {
                pending.changes.first = file.clone();
            }
            !files.is_empty()
        });
    }
}

impl Changes {
    fn add(&mut self, files: BTreeSet<PathBuf>) {
        for file in files {
            if self.files.len() < MAX_FILES {
                self.files.insert(file);
            } else if !self.files.contains(&file) {
                self.more = self.more.saturating_add(1);
            }
        }
    }

    /// Says what changed: `` `/srv/web/app.py` changed ``, `… and 3 more changed`.
    pub fn sentence(&self) -> String {
        let first = self.first.display();
        match self.files.len().saturating_sub(1) + self.more {
            0 => format!("`{first}` changed"),
            more => format!("`{first}` and {more} more changed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBOUNCE: Duration = Duration::from_millis(500);

    fn at(millis: u64) -> Instant {
        Instant::default() + Duration::from_millis(millis)
    }

    fn web() -> ProgramName {
        "web".parse().unwrap()
    }

    fn change(watch: &mut FileWatch, now: Instant, program: &ProgramName, file: &str) {
        watch.on_change(now, program, file.into(), [file.into()].into(), DEBOUNCE);
    }

    #[test]
    fn changes_in_quick_succession_are_one_and_the_first_is_named() {
        let mut watch = FileWatch::default();
        for (millis, file) in [(0, "/a"), (400, "/b"), (800, "/b"), (1_200, "/c")] {
            assert_eq!(watch.take_due(at(millis)), []);
            change(&mut watch, at(millis), &web(), file);
        }
        assert_eq!(watch.next_deadline(), Some(at(1_700)));
        assert_eq!(watch.take_due(at(1_699)), []);
        let due = watch.take_due(at(1_700));
        assert_eq!(due[0].1.sentence(), "`/a` and 2 more changed");
        assert_eq!(watch.next_deadline(), None);
    }

    #[test]
    fn a_file_that_never_rests_does_not_put_it_off_for_ever() {
        let mut watch = FileWatch::default();
        let mut fired = None;
        for millis in (0..60_000).step_by(100) {
            change(&mut watch, at(millis), &web(), "/log");
            if !watch.take_due(at(millis)).is_empty() {
                fired.get_or_insert(millis);
            }
        }
        assert_eq!(fired, Some(10_000));
    }

    #[test]
    fn what_was_put_back_comes_again_with_what_was_added() {
        let mut watch = FileWatch::default();
        change(&mut watch, at(0), &web(), "/a");
        let (program, changes) = watch.take_due(at(500)).remove(0);
        watch.put_back(at(500), program, changes, DEBOUNCE);
        change(&mut watch, at(600), &web(), "/b");
        assert_eq!(watch.take_due(at(1_000)), []);
        assert_eq!(watch.take_due(at(1_100))[0].1.sentence(), "`/a` and 1 more changed");
    }

    #[test]
    fn programs_wait_apart_and_what_no_longer_counts_is_forgotten() {
        let mut watch = FileWatch::default();
        let api: ProgramName = "api".parse().unwrap();
        change(&mut watch, at(0), &web(), "/a");
        change(&mut watch, at(200), &api, "/a");
        let due = watch.take_due(at(500));
        assert_eq!(due.iter().map(|(name, _)| name).collect::<Vec<_>>(), [&web()]);
        change(&mut watch, at(600), &api, "/b");
        watch.retain(|_, file| file == Path::new("/b"));
        assert_eq!(watch.take_due(at(9_000))[0].1.sentence(), "`/b` changed");
        change(&mut watch, at(9_000), &api, "/a");
        watch.retain(|program, _| *program == web());
        assert_eq!(watch.next_deadline(), None);
    }
}
