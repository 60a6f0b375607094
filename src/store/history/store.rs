//! The file and what goes on about it: opened when it is needed, written in transactions, read
//! together with what waits to be written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};

use super::fault::Fault;
use super::file::{self, Identity, OpenFile, Word};
use super::keep;
use super::names::Names;
use super::rows::*;
use super::streaks::Streaks;
use super::{read, write};
use crate::config::HistoryLimits;
use crate::core::care::IncidentId;
use crate::os::clock;
use crate::time::Wall;

/// How often what is too old is looked for.
const TIDY_EVERY: Duration = Duration::from_secs(600);

/// The history in its file.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    limits: HistoryLimits,
    open: Option<OpenFile>,
    names: Names,
    streaks: Streaks,
    /// The file that the streaks are in.
    streaks_in: Option<Identity>,
    /// When all that was too old was removed.
    tidied: Option<Wall>,
    words: Vec<Word>,
}

/// Where a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Written,
    Waiting,
}

/// What was found, and why that may not be all.
#[derive(Debug, Clone, PartialEq)]
pub struct Found<T> {
    pub found: T,
    pub trouble: Option<String>,
}

impl Store {
    /// Nothing is opened before it is needed.
    pub fn new(path: PathBuf, limits: HistoryLimits) -> Self {
        Self {
            path,
            limits,
            open: None,
            names: Names::default(),
            streaks: Streaks::default(),
            streaks_in: None,
            tidied: None,
            words: Vec::new(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn set_limits(&mut self, limits: HistoryLimits) {
        if limits != self.limits {
            self.limits = limits;
            self.tidied = None;
        }
    }

    /// Returns what was done about the file since the last time.
    pub fn take_words(&mut self) -> Vec<Word> {
        std::mem::take(&mut self.words)
    }

    /// Opens the file if there is one, to find at once what is wrong with it.
    ///
    /// # Errors
    ///
    /// Why it cannot be used.
    pub fn look(&mut self) -> Result<(), Fault> {
        if !self.path.exists() {
            return Ok(());
        }
        self.mending(|store| store.file()?.look_through())
    }

    /// Writes records, all of them or none.
    ///
    /// # Errors
    ///
    /// Why they are not written; the caller keeps them and tries again. With [`Fault::Refused`]
    /// another try is pointless.
    pub fn write(&mut self, records: &[Record]) -> Result<(), Fault> {
        self.mending(|store| {
            store.transaction(|connection, names, streaks| {
                records
                    .iter()
                    .try_for_each(|record| write::record(connection, names, streaks, record))
            })
        })
    }

    /// Removes some of what is too old or too much, when it is time for that; returns whether
    /// there is more to do. The caller writes between two steps, so that nothing waits.
    ///
    /// # Errors
    ///
    /// Why nothing was removed.
    pub fn tidy(&mut self, now: Wall) -> Result<bool, Fault> {
        // A clock that was set back makes it due, too.
        let is_due = self.tidied.is_none_or(|at| now < at || now.since(at) >= TIDY_EVERY);
        let mut more = false;
        let limits = self.limits;
        self.mending(|store| {
            let Some(open) = &mut store.open else { return Ok(()) };
            if is_due || keep::is_too_large(&open.connection, &limits)? {
                more = keep::tidy(&mut open.connection, &limits, now)?;
                store.tidied = (!more).then_some(now);
            }
            Ok(())
        })?;
        Ok(more)
    }

    /// Writes what is counted in memory only.
    ///
    /// # Errors
    ///
    /// Why it is not written.
    pub fn save(&mut self) -> Result<(), Fault> {
        if !self.streaks.has_unsaved() {
            return Ok(());
        }
        self.mending(|store| store.transaction(|connection, _, streaks| streaks.save(connection)))
    }

    /// Closes the file; the next write opens it again.
    pub fn close(&mut self) {
        self.open = None;
        self.names = Names::default();
    }

    /// Returns who asked for what, newest first.
    ///
    /// `waiting` is what could not be written yet: its part of the answer comes from memory.
    ///
    /// # Errors
    ///
    /// When nothing can be read, and nothing waits.
    pub fn asked(
        &mut self,
        waiting: &[Record],
        query: &AskedQuery,
    ) -> Result<Found<Vec<Asked>>, Fault> {
        let limit = query.limit;
        self.read(waiting, |c, _| read::asked(c, query), |old, new| newest(new, old, limit))
    }

    /// Returns incidents, newest first.
    ///
    /// # Errors
    ///
    /// As [`Store::asked`].
    pub fn incidents(
        &mut self,
        waiting: &[Record],
        query: &IncidentQuery,
    ) -> Result<Found<Vec<Incident>>, Fault> {
        let join = |mut old: Vec<Incident>, new: Vec<Incident>| {
            let mut begun = Vec::new();
            for incident in new {
                match old.iter_mut().find(|it| it.is_the_same(&incident)) {
                    Some(known) => known.go_on(incident),
                    None => begun.push(incident),
                }
            }
            let mut all = newest(begun, old, query.limit);
            all.retain(|incident| !query.open || incident.closed.is_none());
            all
        };
        // What waits may end one that is open in the file.
        let whole = IncidentQuery { open: false, ..query.clone() };
        let question = |connection: &Connection, part| match part {
            Part::Written => read::incidents(connection, query),
            Part::Waiting => read::incidents(connection, &whole),
        };
        self.read(waiting, question, join)
    }

    /// Returns one incident with its story.
    ///
    /// # Errors
    ///
    /// As [`Store::asked`].
    pub fn story(
        &mut self,
        waiting: &[Record],
        id: IncidentId,
    ) -> Result<Found<Option<WholeStory>>, Fault> {
        self.read(
            waiting,
            |c, _| read::story(c, id),
            |old, new| match (old, new) {
                (Some((mut incident, mut steps)), Some((later, more)))
                    if incident.is_the_same(&later) =>
                {
                    incident.go_on(later);
                    steps.extend(more);
                    Some((incident, steps))
                }
                (old, new) => new.or(old),
            },
        )
    }

    /// Returns results of checks, newest first.
    ///
    /// # Errors
    ///
    /// As [`Store::asked`].
    pub fn checked(
        &mut self,
        waiting: &[Record],
        query: &CheckedQuery,
    ) -> Result<Found<Vec<Checked>>, Fault> {
        // What cannot be saved is told as far as it was.
        let _ = self.save();
        let limit = query.limit;
        self.read(waiting, |c, _| read::checked(c, query), |old, new| newest(new, old, limit))
    }

    /// Returns the samples of a series between two times, oldest first.
    ///
    /// # Errors
    ///
    /// As [`Store::asked`].
    pub fn samples(
        &mut self,
        waiting: &[Record],
        series: &str,
        since: Wall,
        until: Wall,
    ) -> Result<Found<Vec<Sample>>, Fault> {
        let join = |mut old: Vec<Sample>, new: Vec<Sample>| {
            old.extend(new);
            old
        };
        self.read(waiting, |c, _| read::samples(c, series, since, until), join)
    }

    /// Returns the names of all series.
    ///
    /// # Errors
    ///
    /// As [`Store::asked`].
    pub fn series(&mut self, waiting: &[Record]) -> Result<Found<Vec<String>>, Fault> {
        self.read(
            waiting,
            |c, _| read::series(c),
            |mut old, new| {
                old.extend(new);
                old.sort_unstable();
                old.dedup();
                old
            },
        )
    }

    /// Returns what healing has achieved. What goes on with an incident in the file counts only
    /// when it is written.
    ///
    /// # Errors
    ///
    /// As [`Store::asked`].
    pub fn statistics(
        &mut self,
        waiting: &[Record],
        query: &StatisticsQuery,
    ) -> Result<Found<Statistics>, Fault> {
        let after = std::cell::Cell::new(0);
        let now = clock::wall();
        let keep = i64::try_from(self.limits.keep.as_millis()).unwrap_or(i64::MAX);
        let kept = (Wall(now.0.saturating_sub(keep)), now);
        let question = |connection: &Connection, _| {
            let found = read::statistics(connection, query, after.get(), kept);
            after.set(read::last_numbers(connection)?.incident);
            found
        };
        self.read(waiting, question, Statistics::join)
    }

    /// Returns the highest numbers that were ever given.
    ///
    /// # Errors
    ///
    /// As [`Store::asked`].
    pub fn last_numbers(&mut self, waiting: &[Record]) -> Result<Found<LastNumbers>, Fault> {
        self.read(
            waiting,
            |c, _| read::last_numbers(c),
            |old, new| LastNumbers {
                incident: old.incident.max(new.incident),
                remedy: old.remedy.max(new.remedy),
            },
        )
    }

    /// Asks the file, then what waits, and joins the answers.
    fn read<T: Default>(
        &mut self,
        waiting: &[Record],
        question: impl Fn(&Connection, Part) -> rusqlite::Result<T>,
        join: impl FnOnce(T, T) -> T,
    ) -> Result<Found<T>, Fault> {
        let written = self.read_file(&question);
        if waiting.is_empty() {
            return written.map(|found| Found { found, trouble: None });
        }
        let memory = file::in_memory()?;
        let (mut names, mut streaks) = (Names::default(), Streaks::default());
        for record in waiting {
            write::record(&memory, &mut names, &mut streaks, record)?;
        }
        streaks.save(&memory)?;
        let (written, trouble) = match written {
            Ok(written) => (written, None),
            Err(fault) => (T::default(), Some(format!("`{}`: {fault}", self.path.display()))),
        };
        let waits = question(&memory, Part::Waiting)?;
        Ok(Found { found: join(written, waits), trouble })
    }

    fn read_file<T: Default>(
        &mut self,
        question: &impl Fn(&Connection, Part) -> rusqlite::Result<T>,
    ) -> Result<T, Fault> {
        if !self.path.exists() && self.open.is_none() {
            return Ok(T::default());
        }
        let mut found = None;
        let done = self.mending(|store| {
            found = Some(question(&store.file()?.connection, Part::Written)?);
            Ok(())
        });
        let Err(fault) = done else { return Ok(found.unwrap_or_default()) };
        match fault {
            Fault::ReadOnly(_) | Fault::CannotOpen(_) | Fault::Full | Fault::Other(_) => {
                let connection = OpenFile::open_unchanging(&self.path).map_err(|_| fault)?;
                Ok(question(&connection, Part::Written)?)
            }
            Fault::Locked | Fault::Newer(_) | Fault::Damaged(_) | Fault::Refused(_) => Err(fault),
        }
    }

    /// Returns the open file, which is opened if need be.
    fn file(&mut self) -> Result<&mut OpenFile, Fault> {
        if self.open.as_ref().is_some_and(|open| !open.is_in_place(&self.path)) {
            self.words.push(Word::Warning(format!(
                "`{}` was removed or replaced by somebody: what it held is gone, and a new \
                 history is begun",
                self.path.display()
            )));
            self.close();
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => OpenFile::open(&self.path, &mut self.words)?,
        };
        if self.streaks_in != Some(open.identity()) {
            self.streaks.forget();
            self.streaks_in = Some(open.identity());
        }
        Ok(self.open.insert(open))
    }

    /// Does something in one transaction. When it fails, nothing has happened.
    fn transaction(
        &mut self,
        work: impl FnOnce(&Connection, &mut Names, &mut Streaks) -> rusqlite::Result<()>,
    ) -> Result<(), Fault> {
        self.file()?;
        let Some(open) = &mut self.open else { return Ok(()) };
        let (names, streaks) = (&mut self.names, &mut self.streaks);
        let done = open
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .and_then(|transaction| {
                work(&transaction, names, streaks)?;
                transaction.commit()
            });
        match done {
            Ok(()) => self.streaks.commit(),
            Err(_) => {
                self.streaks.roll_back();
                // Numbers that were given are not there any more.
                self.names = Names::default();
            }
        }
        Ok(done?)
    }

    /// Does something; a damaged file is moved aside, and it is done with a new one.
    fn mending(
        &mut self,
        mut work: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let fault = match work(self) {
            Err(fault) => fault,
            Ok(()) => return Ok(()),
        };
        match fault {
            Fault::Damaged(why) => {
                self.close();
                let word = file::set_aside(&self.path, &why, clock::wall())?;
                self.words.push(word);
                work(self)
            }
            // Whatever it is that does not work may work with a fresh connection.
            Fault::ReadOnly(_) | Fault::CannotOpen(_) | Fault::Other(_) => {
                self.close();
                Err(fault)
            }
            Fault::Locked | Fault::Full | Fault::Newer(_) | Fault::Refused(_) => Err(fault),
        }
    }
}

/// Puts the later ones before the earlier ones, and keeps as many as are wanted.
fn newest<T>(mut later: Vec<T>, earlier: Vec<T>, limit: usize) -> Vec<T> {
    later.extend(earlier);
    later.truncate(limit);
    later
}

impl Incident {
    fn is_the_same(&self, later: &Self) -> bool {
        self.id == later.id && self.target == later.target && self.closed.is_none()
    }

    /// Takes over what became of it.
    fn go_on(&mut self, later: Self) {
        self.cause = later.cause.or(self.cause.take());
        self.remedies += later.remedies;
        self.healed_by = later.healed_by.or(self.healed_by.take());
        self.recovered = later.recovered.or(self.recovered);
        self.closed = later.closed;
        self.closing = later.closing;
    }
}

impl Statistics {
    fn join(mut self, later: Self) -> Self {
        self.incidents += later.incidents;
        self.open += later.open;
        self.healed += later.healed;
        self.by_itself += later.by_itself;
        self.recovered += later.recovered;
        self.recovery_total += later.recovery_total;
        for remedy in later.remedies {
            match self.remedies.iter_mut().find(|it| it.what == remedy.what) {
                Some(known) => {
                    known.verified += remedy.verified;
                    known.not_verified += remedy.not_verified;
                    known.not_done += remedy.not_done;
                    known.abandoned += remedy.abandoned;
                    known.took_total += remedy.took_total;
                }
                None => self.remedies.push(remedy),
            }
        }
        for target in later.targets {
            match self.targets.iter_mut().find(|it| it.target == target.target) {
                Some(known) => {
                    known.incidents += target.incidents;
                    known.open += target.open;
                    known.recovered += target.recovered;
                    known.recovery_total += target.recovery_total;
                    known.down += target.down;
                }
                None => self.targets.push(target),
            }
        }
        self.period = match (self.period, later.period) {
            (Some(old), Some(new)) => Some((old.0.min(new.0), old.1.max(new.1))),
            (old, new) => old.or(new),
        };
        self
    }
}
