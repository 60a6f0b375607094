//! The questions, as statements. Every list begins with the newest.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use super::rows::*;
use super::write::{SLICE, number};
use crate::core::care::IncidentId;
use crate::time::Wall;

pub(super) fn asked(connection: &Connection, query: &AskedQuery) -> rusqlite::Result<Vec<Asked>> {
    let mut statement = connection.prepare_cached(
        "SELECT at, uid, user, pid, executable, request, reason, outcome FROM asked
         WHERE (:since IS NULL OR at >= :since) AND (:until IS NULL OR at <= :until)
         AND (:user IS NULL OR user = :user OR uid = :uid)
         ORDER BY row DESC LIMIT :limit",
    )?;
    let uid = query.user.as_ref().and_then(|user| user.parse::<u32>().ok());
    let rows = statement.query_map(
        named_params! {
            ":since": query.since.map(|at| at.0),
            ":until": query.until.map(|at| at.0),
            ":user": query.user,
            ":uid": uid,
            ":limit": limit(query.limit),
        },
        |row| {
            Ok(Asked {
                at: Wall(row.get(0)?),
                uid: small(row, 1)?,
                user: text(row, 2)?,
                pid: small(row, 3)?,
                executable: some_text(row, 4)?,
                request: text(row, 5)?,
                reason: some_text(row, 6)?,
                outcome: text(row, 7)?,
            })
        },
    )?;
    rows.collect()
}

const INCIDENT: &str = "SELECT number, target, program, opened, opening, opened_by, cause,
    confidence, because, facts, remedies, healed_by, recovered, closed, closing, row
    FROM incidents";

pub(super) fn incidents(
    connection: &Connection,
    query: &IncidentQuery,
) -> rusqlite::Result<Vec<Incident>> {
    let mut statement = connection.prepare_cached(&format!(
        "{INCIDENT} WHERE (:since IS NULL OR closed IS NULL OR closed >= :since)
         AND (:until IS NULL OR opened <= :until)
         AND (:program IS NULL OR program = :program OR target = :program)
         AND (NOT :open OR closed IS NULL)
         ORDER BY row DESC LIMIT :limit"
    ))?;
    let rows = statement.query_map(
        named_params! {
            ":since": query.since.map(|at| at.0),
            ":until": query.until.map(|at| at.0),
            ":program": query.program,
            ":open": query.open,
            ":limit": limit(query.limit),
        },
        |row| Ok(incident_of(row)?.1),
    )?;
    rows.collect()
}

/// Finds an incident with its story; of two with one number the newer one.
pub(super) fn story(
    connection: &Connection,
    id: IncidentId,
) -> rusqlite::Result<Option<WholeStory>> {
    let found = connection
        .prepare_cached(&format!("{INCIDENT} WHERE number = ?1 ORDER BY row DESC LIMIT 1"))?
        .query_row([number(id.0)], incident_of)
        .optional()?;
    let Some((row, incident)) = found else { return Ok(None) };
    let mut statement = connection
        .prepare_cached("SELECT at, kind, sentence FROM steps WHERE incident = ?1 ORDER BY row")?;
    let steps = statement.query_map([row], |row| {
        Ok(Step { at: Wall(row.get(0)?), kind: text(row, 1)?, sentence: text(row, 2)? })
    })?;
    Ok(Some((incident, steps.collect::<rusqlite::Result<_>>()?)))
}

fn incident_of(row: &Row<'_>) -> rusqlite::Result<(i64, Incident)> {
    let cause = match some_text(row, 6)? {
        None => None,
        Some(word) => Some(FoundCause {
            word,
            confidence: text(row, 7)?,
            sentence: text(row, 8)?,
            facts: serde_json::from_str(&text(row, 9)?).unwrap_or_default(),
        }),
    };
    let time = |column| row.get::<_, Option<i64>>(column).map(|at| at.map(Wall));
    let incident = Incident {
        id: IncidentId(count(row.get(0)?)),
        target: text(row, 1)?,
        program: some_text(row, 2)?,
        opened: Wall(row.get(3)?),
        opening: text(row, 4)?,
        check: some_text(row, 5)?,
        cause,
        remedies: small(row, 10)?.unwrap_or(0),
        healed_by: some_text(row, 11)?,
        recovered: time(12)?,
        closed: time(13)?,
        closing: some_text(row, 14)?,
    };
    Ok((row.get(15)?, incident))
}

pub(super) fn checked(
    connection: &Connection,
    query: &CheckedQuery,
) -> rusqlite::Result<Vec<Checked>> {
    let mut statement = connection.prepare_cached(
        "SELECT target, name, verdict, detail, first, last, runs, took_least, took_most,
         took_total FROM results JOIN checks ON checks.id = check_id
         WHERE (:program IS NULL OR program = :program OR target = :program)
         AND (:check IS NULL OR name = :check)
         AND (:since IS NULL OR last >= :since) AND (:until IS NULL OR first <= :until)
         ORDER BY row DESC LIMIT :limit",
    )?;
    let rows = statement.query_map(
        named_params! {
            ":program": query.program,
            ":check": query.check,
            ":since": query.since.map(|at| at.0),
            ":until": query.until.map(|at| at.0),
            ":limit": limit(query.limit),
        },
        |row| {
            let runs = count(row.get(6)?);
            let total = micros(row.get(9)?);
            Ok(Checked {
                target: text(row, 0)?,
                check: text(row, 1)?,
                verdict: text(row, 2)?,
                detail: text(row, 3)?,
                first: Wall(row.get(4)?),
                last: Wall(row.get(5)?),
                runs,
                took_least: micros(row.get(7)?),
                took_most: micros(row.get(8)?),
                took_mean: total / u32::try_from(runs).unwrap_or(u32::MAX).max(1),
            })
        },
    )?;
    rows.collect()
}

/// Returns the samples of a series, oldest first.
pub(super) fn samples(
    connection: &Connection,
    series: &str,
    since: Wall,
    until: Wall,
) -> rusqlite::Result<Vec<Sample>> {
    let id: Option<i64> = connection
        .prepare_cached("SELECT id FROM series WHERE name = ?1")?
        .query_row([series], |row| row.get(0))
        .optional()?;
    let Some(id) = id else { return Ok(Vec::new()) };
    let mut statement = connection.prepare_cached(
        "SELECT at, value FROM samples WHERE slice = ?1 AND series = ?2
         AND at BETWEEN ?3 AND ?4 ORDER BY at",
    )?;
    // Within what there is: nobody is asked for slices of a thousand years.
    let (first, last): (Option<i64>, Option<i64>) = connection
        .prepare_cached(
            "SELECT (SELECT min(slice) FROM samples), (SELECT max(slice) FROM samples)",
        )?
        .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (Some(first), Some(last)) = (first, last) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for slice in first.max(since.0.div_euclid(SLICE))..=last.min(until.0.div_euclid(SLICE)) {
        let rows = statement.query_map(params![slice, id, since.0, until.0], |row| {
            Ok(Sample { at: Wall(row.get(0)?), value: row.get(1)? })
        })?;
        for row in rows {
            found.push(row?);
        }
    }
    Ok(found)
}

/// Returns the names of all series.
pub(super) fn series(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached("SELECT name FROM series ORDER BY name")?;
    let names = statement.query_map([], |row| text(row, 0))?;
    names.collect()
}

/// `after` leaves out incidents up to this number; `kept` is the time that is kept, until now.
pub(super) fn statistics(
    connection: &Connection,
    query: &StatisticsQuery,
    after: u64,
    kept: (Wall, Wall),
) -> rusqlite::Result<Statistics> {
    let filter = named_params! {
        ":since": query.since.map(|at| at.0),
        ":program": query.program,
        ":after": number(after),
    };
    let mut found = connection
        .prepare_cached(
            "SELECT count(*), total(closed IS NULL), total(closing IS 'healed'),
             total(closing IS 'by-itself'), count(recovered), total(recovered - opened)
             FROM incidents WHERE (:since IS NULL OR opened >= :since)
             AND (:program IS NULL OR program = :program OR target = :program)
             AND number > :after",
        )?
        .query_row(filter, |row| {
            Ok(Statistics {
                incidents: count(row.get(0)?),
                open: whole(row.get(1)?),
                healed: whole(row.get(2)?),
                by_itself: whole(row.get(3)?),
                recovered: count(row.get(4)?),
                recovery_total: Duration::from_millis(whole(row.get(5)?)),
                remedies: Vec::new(),
                targets: Vec::new(),
                period: None,
            })
        })?;
    if let Some(known) = known_since(connection)? {
        let begin = known.max(kept.0).max(query.since.unwrap_or(known));
        found.period = Some((begin, kept.1));
        found.targets = targets(connection, query, after, (begin, kept.1))?;
    }
    let mut statement = connection.prepare_cached(
        "SELECT what, total(result = 'verified'), total(result = 'not-verified'),
         total(result = 'not-done'), total(result = 'abandoned'),
         total(CASE WHEN result = 'verified' THEN took END)
         FROM remedies WHERE (:since IS NULL OR at >= :since)
         AND (:program IS NULL OR program = :program OR target = :program)
         GROUP BY what ORDER BY count(*) DESC, what",
    )?;
    let rows = statement.query_map(
        named_params! { ":since": query.since.map(|at| at.0), ":program": query.program },
        |row| {
            Ok(RemedyStatistics {
                what: text(row, 0)?,
                verified: whole(row.get(1)?),
                not_verified: whole(row.get(2)?),
                not_done: whole(row.get(3)?),
                abandoned: whole(row.get(4)?),
                took_total: Duration::from_micros(whole(row.get(5)?)),
            })
        },
    )?;
    found.remedies = rows.collect::<rusqlite::Result<_>>()?;
    Ok(found)
}

/// Returns when the oldest of all that is kept was written.
fn known_since(connection: &Connection) -> rusqlite::Result<Option<Wall>> {
    connection
        .prepare_cached(
            "SELECT min(at) FROM (SELECT (SELECT at FROM asked ORDER BY row LIMIT 1) AS at
             UNION ALL SELECT (SELECT first FROM results ORDER BY row LIMIT 1)
             UNION ALL SELECT (SELECT at FROM remedies ORDER BY row LIMIT 1)
             UNION ALL SELECT (SELECT opened FROM incidents ORDER BY row LIMIT 1))",
        )?
        .query_row([], |row| Ok(row.get::<_, Option<i64>>(0)?.map(Wall)))
}

/// An incident that began before the period counts for the time only.
fn targets(
    connection: &Connection,
    query: &StatisticsQuery,
    after: u64,
    period: (Wall, Wall),
) -> rusqlite::Result<Vec<TargetStatistics>> {
    let mut statement = connection.prepare_cached(
        "SELECT target, total(begun), total(begun AND closed IS NULL),
         total(begun AND recovered IS NOT NULL),
         total(CASE WHEN begun THEN recovered - opened END),
         total(max(0, well - max(opened, :begin)))
         FROM (SELECT target, opened, recovered, closed,
             (:since IS NULL OR opened >= :since) AS begun,
             min(coalesce(recovered, closed, :now), :now) AS well FROM incidents
             WHERE (:program IS NULL OR program = :program OR target = :program)
             AND number > :after AND (:since IS NULL OR closed IS NULL OR closed >= :since))
         GROUP BY target ORDER BY 6 DESC, 2 DESC, target",
    )?;
    let rows = statement.query_map(
        named_params! {
            ":since": query.since.map(|at| at.0),
            ":program": query.program,
            ":after": number(after),
            ":begin": period.0.0,
            ":now": period.1.0,
        },
        |row| {
            Ok(TargetStatistics {
                target: text(row, 0)?,
                incidents: whole(row.get(1)?),
                open: whole(row.get(2)?),
                recovered: whole(row.get(3)?),
                recovery_total: Duration::from_millis(whole(row.get(4)?)),
                down: Duration::from_millis(whole(row.get(5)?)),
            })
        },
    )?;
    rows.collect()
}

pub(super) fn last_numbers(connection: &Connection) -> rusqlite::Result<LastNumbers> {
    let of = |what: &str| {
        connection
            .prepare_cached("SELECT number FROM last_numbers WHERE what = ?1")?
            .query_row([what], |row| row.get(0))
            .optional()
            .map(|found| found.map_or(0, count))
    };
    Ok(LastNumbers { incident: of("incident")?, remedy: of("remedy")? })
}

/// Reads a text. A byte that the disk has changed costs one character, not the whole file.
fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(some_text(row, column)?.unwrap_or_default())
}

fn some_text(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<String>> {
    let bytes = row.get_ref(column)?.as_bytes_or_null()?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

/// Reads a number that may be missing; one that is out of its range is.
fn small<T: TryFrom<i64>>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let number: Option<i64> = row.get(column)?;
    Ok(number.and_then(|number| T::try_from(number).ok()))
}

fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

fn count(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// `total()` answers with a float, which is exact up to 2^53.
fn whole(number: f64) -> u64 {
    number as u64
}

fn micros(number: i64) -> Duration {
    Duration::from_micros(count(number))
}
