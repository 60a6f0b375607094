//! Results of checks that say the same are told together: one row for all of them, begun with the
//! first and brought up to date now and then. Ten thousand checks that pass every ten seconds
//! would otherwise be a thousand rows a second that nobody wants to read.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::names::Names;
use crate::core::care::{CheckId, Verdict};
use crate::time::Wall;

/// How far the row of a streak may be behind.
const SAVE_EVERY: Duration = Duration::from_secs(5 * 60);

/// A streak ends after this time, and another begins: what is too old is removed row by row.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// What one run of a check found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Result<'r> {
    pub(super) at: Wall,
    pub(super) check: &'r CheckId,
    pub(super) verdict: Verdict,
    pub(super) detail: &'r str,
    pub(super) took: Duration,
}

#[derive(Debug, Clone, PartialEq)]
struct Streak {
    row: i64,
    verdict: Verdict,
    detail: String,
    first: Wall,
    last: Wall,
    runs: i64,
    took_least: i64,
    took_most: i64,
    took_total: i64,
    saved: Wall,
    saved_runs: i64,
}

/// The streaks that go on.
#[derive(Debug, Default)]
pub(super) struct Streaks {
    current: BTreeMap<CheckId, Streak>,
    /// What they were before the transaction that is under way.
    before: Vec<(CheckId, Option<Streak>)>,
}

impl Streaks {
    /// Adds a result to its streak, or begins another one.
    pub(super) fn add(
        &mut self,
        connection: &Connection,
        names: &mut Names,
        result: Result<'_>,
    ) -> rusqlite::Result<()> {
        let before = self.current.get(result.check).cloned();
        self.before.push((result.check.clone(), before));
        if let Some(streak) = self.current.get_mut(result.check) {
            if streak.goes_on_with(&result) {
                streak.add(&result);
                if result.at.since(streak.saved) >= SAVE_EVERY {
                    streak.save(connection)?;
                }
                return Ok(());
            }
            streak.save(connection)?;
        }
        let streak = Streak::begin(connection, names, &result)?;
        self.current.insert(result.check.clone(), streak);
        Ok(())
    }

    /// Brings the rows of all streaks up to date.
    pub(super) fn save(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        for (check, streak) in &mut self.current {
            if streak.runs != streak.saved_runs {
                self.before.push((check.clone(), Some(streak.clone())));
                streak.save(connection)?;
            }
        }
        Ok(())
    }

    pub(super) fn has_unsaved(&self) -> bool {
        self.current.values().any(|streak| streak.runs != streak.saved_runs)
    }

    /// What was added stays.
    pub(super) fn commit(&mut self) {
        self.before.clear();
    }

    /// The transaction has failed: everything is as it was before.
    pub(super) fn roll_back(&mut self) {
        while let Some((check, before)) = self.before.pop() {
            match before {
                Some(streak) => self.current.insert(check, streak),
                None => self.current.remove(&check),
            };
        }
    }

    /// Begins anew, with another file.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

impl Streak {
    fn begin(
        connection: &Connection,
        names: &mut Names,
        result: &Result<'_>,
    ) -> rusqlite::Result<Self> {
        let check = names.check(connection, result.check)?;
        let took = micros(result.took);
        connection
            .prepare_cached(
                "INSERT INTO results (check_id, verdict, detail, first, last, runs, took_least,
                 took_most, took_total) VALUES (?1, ?2, ?3, ?4, ?4, 1, ?5, ?5, ?5)",
            )?
            .execute(params![check, result.verdict.word(), result.detail, result.at.0, took])?;
        Ok(Self {
            row: connection.last_insert_rowid(),
            verdict: result.verdict,
            detail: result.detail.to_owned(),
            first: result.at,
            last: result.at,
            runs: 1,
            took_least: took,
            took_most: took,
            took_total: took,
            saved: result.at,
            saved_runs: 1,
        })
    }

    /// Whether the result says the same. What a good result says beside that it is one, such as a
    /// measured value, may differ.
    fn goes_on_with(&self, result: &Result<'_>) -> bool {
        let is_good = match result.verdict {
            Verdict::Pass | Verdict::Warn => true,
            Verdict::Fail | Verdict::Timeout | Verdict::Unknown => false,
        };
        self.verdict == result.verdict
            && (is_good || self.detail == result.detail)
            && result.at.since(self.first) < LONGEST
            && result.at >= self.last
    }

    fn add(&mut self, result: &Result<'_>) {
        let took = micros(result.took);
        if self.detail != result.detail {
            result.detail.clone_into(&mut self.detail);
        }
        self.last = result.at;
        self.runs += 1;
        self.took_least = self.took_least.min(took);
        self.took_most = self.took_most.max(took);
        self.took_total = self.took_total.saturating_add(took);
    }

    fn save(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        connection
            .prepare_cached(
                "UPDATE results SET detail = ?2, last = ?3, runs = ?4, took_least = ?5,
                 took_most = ?6, took_total = ?7 WHERE row = ?1",
            )?
            .execute(params![
                self.row,
                self.detail,
                self.last.0,
                self.runs,
                self.took_least,
                self.took_most,
                self.took_total
            ])?;
        self.saved = self.last;
        self.saved_runs = self.runs;
        Ok(())
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
