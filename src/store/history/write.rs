//! Each record as the rows that it becomes.

use rusqlite::{Connection, OptionalExtension, params};

use super::names::Names;
use super::rows::{Asked, Record};
use super::streaks::{self, Streaks};
use super::told::{self, Turn};
use crate::core::care::{IncidentId, RemedyResult, Story, Target};
use crate::time::Wall;

/// Milliseconds of a slice of samples.
pub(super) const SLICE: i64 = 600_000;

/// Writes one record.
pub(super) fn record(
    connection: &Connection,
    names: &mut Names,
    streaks: &mut Streaks,
    record: &Record,
) -> rusqlite::Result<()> {
    match record {
        Record::Asked(asked) => write_asked(connection, asked),
        Record::Told { at, incident, target, story } => {
            write_story(connection, *at, *incident, target, story)
        }
        Record::InProgress { at, incidents } => end_others(connection, *at, incidents),
        Record::Checked { at, check, verdict, detail, took } => {
            let result = streaks::Result { at: *at, check, verdict: *verdict, detail, took: *took };
            streaks.add(connection, names, result)
        }
        // A sum of nothing divided by nothing says nothing, and is no number to SQLite either.
        Record::Sampled { value, .. } if value.is_nan() => Ok(()),
        Record::Sampled { at, series, value } => {
            let series = names.series(connection, series)?;
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO samples (slice, series, at, value)
                     VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![at.0.div_euclid(SLICE), series, at.0, value])?;
            Ok(())
        }
        Record::RemedyOver { at, remedy, target, what, result, took } => {
            connection
                .prepare_cached(
                    "INSERT INTO remedies (at, number, target, program, what, result, took)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )?
                .execute(params![
                    at.0,
                    number(remedy.0),
                    told::target(target),
                    told::program(target),
                    what,
                    result_word(*result),
                    i64::try_from(took.as_micros()).unwrap_or(i64::MAX),
                ])?;
            note_number(connection, "remedy", remedy.0)
        }
    }
}

/// Returns the word for how a remedy ended.
pub(super) fn result_word(result: RemedyResult) -> &'static str {
    match result {
        RemedyResult::Verified => "verified",
        RemedyResult::NotVerified => "not-verified",
        RemedyResult::NotDone => "not-done",
        RemedyResult::Abandoned => "abandoned",
    }
}

fn write_asked(connection: &Connection, asked: &Asked) -> rusqlite::Result<()> {
    let Asked { at, uid, user, pid, executable, request, reason, outcome } = asked;
    connection
        .prepare_cached(
            "INSERT INTO asked (at, uid, user, pid, executable, request, reason, outcome)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![at.0, uid, user, pid, executable, request, reason, outcome])?;
    Ok(())
}

fn write_story(
    connection: &Connection,
    at: Wall,
    incident: IncidentId,
    target: &Target,
    story: &Story,
) -> rusqlite::Result<()> {
    let sentence = story.sentence();
    let row = match open_incident(connection, incident, target)? {
        Some(row) => row,
        // The story may go on where its beginning is lost.
        None => begin_incident(connection, at, incident, target, story, &sentence)?,
    };
    connection
        .prepare_cached("INSERT INTO steps (incident, at, kind, sentence) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![row, at.0, story.word(), sentence])?;
    match told::turn(story) {
        Turn::Opens { .. } | Turn::GoesOn => {}
        Turn::Explains(finding) => {
            let facts = serde_json::to_string(&finding.facts).unwrap_or_default();
            connection
                .prepare_cached(
                    "UPDATE incidents SET cause = ?2, confidence = ?3, because = ?4, facts = ?5
                     WHERE row = ?1",
                )?
                .execute(params![
                    row,
                    finding.cause.word(),
                    told::confidence_word(finding.confidence),
                    finding.sentence,
                    facts
                ])?;
        }
        Turn::Treats => {
            set(connection, "UPDATE incidents SET remedies = remedies + 1 WHERE row = ?1", row)?;
            if let Story::Began { id, .. } = story {
                note_number(connection, "remedy", id.0)?;
            }
        }
        Turn::Heals(remedy) => {
            connection
                .prepare_cached("UPDATE incidents SET healed_by = ?2 WHERE row = ?1")?
                .execute(params![row, remedy])?;
        }
        Turn::Recovers => {
            connection
                .prepare_cached("UPDATE incidents SET recovered = ?2 WHERE row = ?1")?
                .execute(params![row, at.0])?;
        }
        Turn::Relapses => set(
            connection,
            "UPDATE incidents SET recovered = NULL, healed_by = NULL WHERE row = ?1",
            row,
        )?,
        Turn::Closes(how) => {
            connection
                .prepare_cached("UPDATE incidents SET closed = ?2, closing = ?3 WHERE row = ?1")?
                .execute(params![row, at.0, how])?;
        }
    }
    Ok(())
}

fn set(connection: &Connection, statement: &str, row: i64) -> rusqlite::Result<()> {
    connection.prepare_cached(statement)?.execute([row])?;
    Ok(())
}

/// Finds the row of an incident that is not over. A number whose incident is over belongs to
/// another one: the daemon has lost count.
fn open_incident(
    connection: &Connection,
    incident: IncidentId,
    target: &Target,
) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT row FROM incidents WHERE number = ?1 AND target = ?2 AND closed IS NULL
             ORDER BY row DESC LIMIT 1",
        )?
        .query_row(params![number(incident.0), told::target(target)], |row| row.get(0))
        .optional()
}

/// Ends what a daemon that has lost its memory does not know any more.
fn end_others(connection: &Connection, at: Wall, known: &[IncidentId]) -> rusqlite::Result<()> {
    let open: Vec<(i64, i64)> = connection
        .prepare_cached("SELECT row, number FROM incidents WHERE closed IS NULL")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let is_known = |it: i64| known.iter().any(|id| number(id.0) == it);
    for (row, _) in open.into_iter().filter(|(_, it)| !is_known(*it)) {
        connection
            .prepare_cached(
                "INSERT INTO steps (incident, at, kind, sentence) VALUES (?1, ?2, 'closed', ?3)",
            )?
            .execute(params![
                row,
                at.0,
                "is not followed any more: the daemon ended in the middle of the incident"
            ])?;
        connection
            .prepare_cached("UPDATE incidents SET closed = ?2, closing = 'unknown' WHERE row = ?1")?
            .execute(params![row, at.0])?;
    }
    Ok(())
}

fn begin_incident(
    connection: &Connection,
    at: Wall,
    incident: IncidentId,
    target: &Target,
    story: &Story,
    sentence: &str,
) -> rusqlite::Result<i64> {
    let check = match told::turn(story) {
        Turn::Opens { check } => check,
        Turn::Explains(_) | Turn::Treats | Turn::Heals(_) | Turn::Recovers => None,
        Turn::Relapses | Turn::Closes(_) | Turn::GoesOn => None,
    };
    connection
        .prepare_cached(
            "INSERT INTO incidents (number, target, program, opened, opening, opened_by)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            number(incident.0),
            told::target(target),
            told::program(target),
            at.0,
            sentence,
            check
        ])?;
    let row = connection.last_insert_rowid();
    note_number(connection, "incident", incident.0)?;
    Ok(row)
}

fn note_number(connection: &Connection, what: &str, given: u64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO last_numbers (what, number) VALUES (?1, ?2)
             ON CONFLICT (what) DO UPDATE SET number = max(number, excluded.number)",
        )?
        .execute(params![what, number(given)])?;
    Ok(())
}

pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
