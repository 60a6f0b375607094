//! Generations of the configuration: what was applied when, by whom, why, and what became of it.
//!
//! The list is one value in a slot file; the texts of each generation are a file of their own,
//! written once, readable by the daemon alone because environments may hold secrets. Both are in
//! the state directory and outlive the machine's reboot. The oldest are forgotten.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Note;
use super::slots::{Durability, Slots};
use super::sources;
use crate::config::Source;
use crate::core::Actor;
use crate::time::Wall;

/// How many generations are kept.
pub const KEPT: usize = 20;

const VERSION: u32 = 1;
/// Bytes of one slot at the start; it grows when it must.
const SLOT_BYTES: usize = 16 << 10;

/// How a generation came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The daemon was started with it.
    Start,
    Reload,
    Apply,
    /// The texts of an earlier generation were asked for.
    Rollback,
}

/// What became of a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Applying,
    Applied,
    /// It took effect and something did not run; it was kept because that was asked for.
    Kept,
    /// The one before came back.
    RolledBack,
    /// The daemon or the machine ended in the middle of it.
    Interrupted,
    /// It had mistakes and was never tried.
    Rejected,
}

impl Outcome {
    fn took_effect(self) -> bool {
        match self {
            Self::Applied | Self::Kept => true,
            Self::Applying | Self::RolledBack | Self::Interrupted | Self::Rejected => false,
        }
    }
}

/// One generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    pub number: u64,
    pub at: Wall,
    pub by: Actor,
    pub how: How,
    pub outcome: Outcome,
    /// What was changed, in one line.
    pub changes: String,
    /// Why the outcome is what it is.
    pub why: Option<String>,
    /// The generation whose texts these are, when that is another one.
    pub copy_of: Option<u64>,
    fingerprint: u32,
}

#[derive(Serialize, Deserialize)]
struct Written {
    number: u64,
    at: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    how: How,
    outcome: Outcome,
    changes: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    copy_of: Option<u64>,
    fingerprint: u32,
}

/// What is to be written down of a generation that begins.
#[derive(Debug, Clone)]
pub struct Draft {
    pub at: Wall,
    pub by: Actor,
    pub how: How,
    pub outcome: Outcome,
    pub changes: String,
    pub why: Option<String>,
    pub copy_of: Option<u64>,
}

/// All generations that are kept, oldest first.
#[derive(Debug)]
pub struct Generations {
    directory: PathBuf,
    slots: Slots,
    list: Vec<Generation>,
}

impl Generations {
    /// Opens `generations` in the state directory. Never fails: what is wrong is in the notes.
    pub fn open(state_dir: &Path) -> (Self, Vec<Note>) {
        let directory = state_dir.join("generations");
        // What comes of it shows when the slots are opened.
        let _ = make_directory(&directory);
        let (slots, loaded, mut notes) =
            Slots::open(&directory.join("list"), VERSION, SLOT_BYTES, Durability::Synced);
        let list = match loaded.map(|loaded| serde_json::from_slice::<Vec<Written>>(&loaded.body)) {
            None => Vec::new(),
            Some(Ok(written)) => written.into_iter().map(Generation::from).collect(),
            Some(Err(error)) => {
                let text = format!("the list of generations is not understood: {error}");
                notes.push(Note::new(slots.path(), text));
                Vec::new()
            }
        };
        (Self { directory, slots, list }, notes)
    }

    /// Returns the generations that are kept, oldest first.
    pub fn list(&self) -> &[Generation] {
        &self.list
    }

    pub fn get(&self, number: u64) -> Option<&Generation> {
        self.list.iter().find(|generation| generation.number == number)
    }

    /// Returns the newest generation that took effect.
    pub fn current(&self) -> Option<&Generation> {
        self.list.iter().rev().find(|generation| generation.is_good())
    }

    /// Returns the generation to go back to: the one before the current one, or before the one
    /// that the current one is a copy of.
    pub fn previous(&self) -> Option<&Generation> {
        let current = self.current()?;
        let from = current.origin();
        self.list.iter().rev().find(|it| {
            it.number < from
                && it.is_good()
                && it.copy_of.is_none()
                && it.fingerprint != current.fingerprint
        })
    }

    /// Returns the newest generation with exactly these texts.
    pub fn of(&self, texts: &[Source]) -> Option<&Generation> {
        let fingerprint = sources::fingerprint(texts);
        self.list.iter().rev().find(|generation| {
            generation.fingerprint == fingerprint
                && generation.outcome != Outcome::Rejected
                && self.texts(generation.number).is_ok_and(|kept| kept == texts)
        })
    }

    /// Returns the generation in which exactly these texts were given up, unless they have taken
    /// effect since, or the files have held something else since that did: somebody has written
    /// them again. One that was never brought to an end, as after a loss of power, counts.
    pub fn rejected(&self, texts: &[Source]) -> Option<&Generation> {
        let is_given_up = |generation: &&Generation| match generation.outcome {
            Outcome::RolledBack | Outcome::Interrupted | Outcome::Applying => true,
            Outcome::Applied | Outcome::Kept | Outcome::Rejected => false,
        };
        let found = self.of(texts).filter(is_given_up)?;
        let is_newer =
            |it: &Generation| it.number > found.number && it.is_good() && it.copy_of.is_none();
        (!self.list.iter().any(is_newer)).then_some(found)
    }

    /// Reads the texts of a generation.
    ///
    /// # Errors
    ///
    /// When they cannot be read or are damaged.
    pub fn texts(&self, number: u64) -> io::Result<Vec<Source>> {
        let bytes = fs::read(self.file(number))?;
        sources::decode(&bytes)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the file is damaged"))
    }

    /// Writes a new generation down, with its texts if there are any, and returns its number.
    ///
    /// # Errors
    ///
    /// When it could not be written; then the list is as it was.
    pub fn add(&mut self, draft: Draft, texts: Option<&[Source]>) -> io::Result<u64> {
        let number = self.list.last().map_or(1, |last| last.number + 1);
        let fingerprint = texts.map_or(0, sources::fingerprint);
        if let Some(texts) = texts {
            self.write_texts(number, texts)?;
        }
        let Draft { at, by, how, outcome, changes, why, copy_of } = draft;
        let generation =
            Generation { number, at, by, how, outcome, changes, why, copy_of, fingerprint };
        let before = self.list.clone();
        self.list.push(generation);
        let forgotten = self.prune();
        if let Err(error) = self.write() {
            self.list = before;
            let _ = fs::remove_file(self.file(number));
            return Err(error);
        }
        for old in forgotten {
            let _ = fs::remove_file(self.file(old));
        }
        Ok(number)
    }

    /// Writes down what became of a generation.
    ///
    /// # Errors
    ///
    /// When it could not be written; it counts in memory all the same.
    pub fn settle(&mut self, number: u64, outcome: Outcome, why: Option<String>) -> io::Result<()> {
        let withdrawn = self.withdrawn_by(number, outcome);
        if let Some(found) = self.list.iter_mut().find(|it| it.number == number) {
            found.outcome = outcome;
            found.why = why;
        }
        if let Some((current, why)) = withdrawn
            && let Some(current) = self.list.iter_mut().find(|it| it.number == current)
        {
            current.outcome = Outcome::RolledBack;
            current.why = Some(why);
        }
        self.write()
    }

    /// Returns the generation that counts no more when somebody goes back to an earlier one: its
    /// texts must not come back with the next start only because they are still in the files.
    fn withdrawn_by(&self, number: u64, outcome: Outcome) -> Option<(u64, String)> {
        let settled = self.get(number).filter(|it| !it.is_good())?;
        let copy_of = settled.copy_of.filter(|_| outcome.took_effect())?;
        // On a way forward, back to what was withdrawn, the current one stays good.
        let is_way_back = |current: &&Generation| current.origin() > copy_of;
        let current = self.current().filter(is_way_back)?;
        Some((current.number, format!("{} went back to generation {copy_of}", settled.by.name)))
    }

    /// Returns whether the list could be written when that was last tried.
    pub fn is_writable(&self) -> bool {
        self.slots.is_writable()
    }

    /// Writes the list once more, after trouble.
    ///
    /// # Errors
    ///
    /// When it still cannot be written.
    pub fn save(&mut self) -> io::Result<()> {
        self.write()
    }

    /// Takes the oldest away; what counts now and what one can go back to stays.
    fn prune(&mut self) -> Vec<u64> {
        let kept: Vec<u64> =
            [self.current(), self.previous()].into_iter().flatten().map(|it| it.number).collect();
        let mut surplus = self.list.len().saturating_sub(KEPT);
        let mut forgotten = Vec::new();
        self.list.retain(|generation| {
            let goes = surplus > 0 && !kept.contains(&generation.number);
            if goes {
                surplus -= 1;
                forgotten.push(generation.number);
            }
            !goes
        });
        forgotten
    }

    fn file(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number}.json"))
    }

    fn write_texts(&self, number: u64, texts: &[Source]) -> io::Result<()> {
        make_directory(&self.directory)?;
        let path = self.file(number);
        let fresh = path.with_extension("tmp");
        let _ = fs::remove_file(&fresh);
        let bytes = sources::encode(texts);
        if bytes.is_empty() {
            let text = "a path of the configuration is not UTF-8";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let written = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_data()))
            .and_then(|()| fs::rename(&fresh, &path))
            .and_then(|()| File::open(&self.directory)?.sync_all());
        if written.is_err() {
            // A full disk leaves an empty one behind.
            let _ = fs::remove_file(&fresh);
        }
        written
    }

    fn write(&mut self) -> io::Result<()> {
        let written: Vec<Written> = self.list.iter().map(Written::from).collect();
        let body = serde_json::to_vec(&written).map_err(io::Error::other)?;
        make_directory(&self.directory)?;
        self.slots.write(&body)
    }
}

fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

impl Generation {
    /// Returns the number of the generation that brought these texts.
    fn origin(&self) -> u64 {
        self.copy_of.unwrap_or(self.number)
    }

    /// Whether it took effect and was not given up.
    pub fn is_good(&self) -> bool {
        self.outcome.took_effect()
    }
}

impl From<&Generation> for Written {
    fn from(generation: &Generation) -> Self {
        let Generation { number, at, by, how, outcome, changes, why, copy_of, fingerprint } =
            generation.clone();
        let Actor { uid, name, reason, at: _ } = by;
        let (at, by) = (at.0, name);
        Self { number, at, uid, by, reason, how, outcome, changes, why, copy_of, fingerprint }
    }
}

impl From<Written> for Generation {
    fn from(written: Written) -> Self {
        let Written {
            number,
            at,
            uid,
            by,
            reason,
            how,
            outcome,
            changes,
            why,
            copy_of,
            fingerprint,
        } = written;
        let by = Actor { uid, name: by, reason, at: Wall(at) };
        Self { number, at: Wall(at), by, how, outcome, changes, why, copy_of, fingerprint }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn texts(text: &str) -> Vec<Source> {
        vec![Source { path: "/etc/mend.toml".into(), text: text.to_owned() }]
    }

    fn draft(how: How, outcome: Outcome) -> Draft {
        let at = Wall(1_700_000_000_000);
        let by = Actor { uid: Some(7), name: "alice".into(), reason: Some("why".into()), at };
        Draft { at, by, how, outcome, changes: "starts web".into(), why: None, copy_of: None }
    }

    fn add(generations: &mut Generations, outcome: Outcome, text: &str) -> u64 {
        generations.add(draft(How::Apply, outcome), Some(&texts(text))).unwrap()
    }

    #[test]
    fn generations_come_back_with_their_texts_for_the_daemon_alone() {
        let place = tempfile::tempdir().unwrap();
        let (mut generations, notes) = Generations::open(place.path());
        assert!(notes.is_empty(), "{notes:?}");
        add(&mut generations, Outcome::Applied, "one");
        let two = add(&mut generations, Outcome::Applying, "two");
        generations.settle(two, Outcome::RolledBack, Some("it failed".into())).unwrap();
        let list = generations.list().to_vec();
        drop(generations);
        let (generations, notes) = Generations::open(place.path());
        assert_eq!((generations.list(), notes.len()), (list.as_slice(), 0));
        assert_eq!(generations.texts(2).unwrap(), texts("two"));
        let file = place.path().join("generations/2.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(file, "damaged").unwrap();
        assert!(generations.texts(2).is_err());
    }

    #[test]
    fn texts_that_were_rolled_back_are_known_until_they_take_effect() {
        let place = tempfile::tempdir().unwrap();
        let (mut generations, _) = Generations::open(place.path());
        add(&mut generations, Outcome::Applied, "good");
        add(&mut generations, Outcome::RolledBack, "bad");
        assert_eq!(generations.rejected(&texts("bad")).unwrap().number, 2);
        assert_eq!(generations.rejected(&texts("good")), None);
        assert_eq!(generations.rejected(&texts("bad, edited")), None);
        assert_eq!(generations.current().unwrap().number, 1);
        add(&mut generations, Outcome::Applied, "bad");
        assert_eq!(generations.rejected(&texts("bad")), None);
    }

    #[test]
    fn what_somebody_goes_back_from_is_given_up_in_the_same_step_and_once() {
        let place = tempfile::tempdir().unwrap();
        let (mut generations, _) = Generations::open(place.path());
        for text in ["one", "two", "three"] {
            add(&mut generations, Outcome::Applied, text);
        }
        let back = Draft { copy_of: Some(1), ..draft(How::Rollback, Outcome::Applying) };
        let four = generations.add(back, Some(&texts("one"))).unwrap();
        let outcomes = |generations: &Generations| -> Vec<Outcome> {
            generations.list().iter().map(|it| it.outcome).collect()
        };
        generations.settle(four, Outcome::Applied, None).unwrap();
        let (mut generations, _) = Generations::open(place.path());
        let expected = [Outcome::Applied, Outcome::Applied, Outcome::RolledBack, Outcome::Applied];
        assert_eq!(outcomes(&generations), expected);
        let why = generations.get(3).unwrap().why.clone();
        assert_eq!(why.as_deref(), Some("alice went back to generation 1"));
        // A daemon that was killed right after it does so again.
        generations.settle(four, Outcome::Applied, None).unwrap();
        assert_eq!(outcomes(&generations), expected);
    }

    #[test]
    fn a_way_forward_to_what_was_withdrawn_gives_nothing_up() {
        let place = tempfile::tempdir().unwrap();
        let (mut generations, _) = Generations::open(place.path());
        for text in ["one", "two", "three"] {
            add(&mut generations, Outcome::Applied, text);
        }
        for (copy_of, text) in [(Some(2), "two"), (Some(3), "three")] {
            let copy = Draft { copy_of, ..draft(How::Rollback, Outcome::Applying) };
            let number = generations.add(copy, Some(&texts(text))).unwrap();
            generations.settle(number, Outcome::Applied, None).unwrap();
        }
        assert_eq!(generations.current().unwrap().number, 5);
        assert_eq!(generations.get(4).unwrap().outcome, Outcome::Applied);
        assert_eq!(generations.rejected(&texts("two")), None);
        assert_eq!(generations.rejected(&texts("three")), None);
        assert_eq!(generations.previous().unwrap().number, 2);
    }

    #[test]
    fn what_was_given_up_may_be_written_again_after_something_else() {
        let place = tempfile::tempdir().unwrap();
        let (mut generations, _) = Generations::open(place.path());
        add(&mut generations, Outcome::Applied, "good");
        add(&mut generations, Outcome::RolledBack, "bad");
        let copy = Draft { copy_of: Some(1), ..draft(How::Rollback, Outcome::Applied) };
        generations.add(copy, Some(&texts("good"))).unwrap();
        assert!(generations.rejected(&texts("bad")).is_some(), "the files are as they were");
        add(&mut generations, Outcome::Applied, "other");
        assert_eq!(generations.rejected(&texts("bad")), None);
    }

    #[test]
    fn going_back_twice_goes_further_back() {
        let place = tempfile::tempdir().unwrap();
        let (mut generations, _) = Generations::open(place.path());
        for text in ["one", "two", "three"] {
            add(&mut generations, Outcome::Applied, text);
        }
        let back = generations.previous().unwrap().number;
        assert_eq!(back, 2);
        let copy = Draft { copy_of: Some(back), ..draft(How::Rollback, Outcome::Applied) };
        generations.add(copy, Some(&texts("two"))).unwrap();
        assert_eq!(generations.previous().unwrap().number, 1);
    }

    #[test]
    fn the_oldest_go_and_the_one_that_counts_stays() {
        let place = tempfile::tempdir().unwrap();
        let (mut generations, _) = Generations::open(place.path());
        add(&mut generations, Outcome::Applied, "good");
        for number in 0..2 * KEPT {
            add(&mut generations, Outcome::RolledBack, &format!("bad {number}"));
        }
        assert_eq!(generations.list().len(), KEPT);
        assert_eq!(generations.current().unwrap().number, 1);
        assert_eq!(generations.texts(1).unwrap(), texts("good"));
        assert!(generations.texts(2).is_err());
        let files = fs::read_dir(place.path().join("generations")).unwrap().count();
        assert_eq!(files, KEPT + 1);
    }

    #[test]
    fn what_cannot_be_written_is_refused_and_leaves_the_list_alone() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("generations"), "in the way").unwrap();
        let (mut generations, notes) = Generations::open(place.path());
        assert!(!notes.is_empty());
        assert!(generations.add(draft(How::Apply, Outcome::Applying), Some(&texts("x"))).is_err());
        assert!(generations.list().is_empty());
    }
}
