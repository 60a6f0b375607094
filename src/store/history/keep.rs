//! What is too old, or too much, is removed: a little at a time, so that nothing waits for it.

use std::time::Duration;

use rusqlite::{Connection, params};

use super::write::SLICE;
use crate::config::HistoryLimits;
use crate::time::Wall;

/// Most rows of a table that are removed in one step.
const BATCH: i64 = 500;

/// Most incidents, which have many rows each.
const BATCH_OF_INCIDENTS: i64 = 20;

/// Most pages that are given back to the file system in one step.
const BATCH_OF_PAGES: i64 = 256;

/// Removes some of what should not be kept; returns whether there is more.
pub(super) fn tidy(
    connection: &mut Connection,
    limits: &HistoryLimits,
    now: Wall,
) -> rusqlite::Result<bool> {
    let transaction = connection.transaction()?;
    let old = now.0 - millis(limits.keep);
    let old_slice = (now.0 - millis(limits.samples_keep)).div_euclid(SLICE);
    let removed = [
        transaction.execute(
            "DELETE FROM samples WHERE (slice, series, at) IN (SELECT slice, series, at
             FROM samples WHERE slice < ?1 ORDER BY slice, series, at LIMIT ?2)",
            params![old_slice, BATCH],
        )?,
        // The oldest have the lowest numbers; nothing is searched for.
        transaction.execute(
            "DELETE FROM results WHERE row IN (SELECT row FROM results ORDER BY row LIMIT ?2)
             AND last < ?1",
            params![old, BATCH],
        )?,
        transaction.execute(
            "DELETE FROM remedies WHERE row IN (SELECT row FROM remedies ORDER BY row LIMIT ?2)
             AND at < ?1",
            params![old, BATCH],
        )?,
        transaction.execute(
            "DELETE FROM asked WHERE row IN (SELECT row FROM asked ORDER BY row LIMIT ?2)
             AND at < ?1",
            params![old, BATCH],
        )?,
    ];
    let incidents = transaction.execute(
        "DELETE FROM incidents WHERE row IN (SELECT row FROM incidents WHERE closed < ?1
         ORDER BY row LIMIT ?2)",
        params![old, BATCH_OF_INCIDENTS],
    )?;
    let mut more = removed.contains(&(BATCH as usize)) || incidents == BATCH_OF_INCIDENTS as usize;
    let max = i64::try_from(limits.max_size).unwrap_or(i64::MAX);
    if used_bytes(&transaction)? > max - max / 20 {
        more |= remove_oldest(&transaction)?;
    }
    transaction.commit()?;
    give_back(connection)?;
    Ok(more)
}

/// Returns whether the file is larger than it may be.
pub(super) fn is_too_large(
    connection: &Connection,
    limits: &HistoryLimits,
) -> rusqlite::Result<bool> {
    let max = i64::try_from(limits.max_size).unwrap_or(i64::MAX);
    Ok(used_bytes(connection)? > max)
}

/// Removes the oldest rows of what there is most of and what is missed least; returns whether
/// there were any.
fn remove_oldest(connection: &Connection) -> rusqlite::Result<bool> {
    let samples = connection.execute(
        "DELETE FROM samples WHERE (slice, series, at) IN (SELECT slice, series, at
         FROM samples ORDER BY slice, series, at LIMIT ?1)",
        [BATCH],
    )?;
    let results = connection.execute(
        "DELETE FROM results WHERE row IN (SELECT row FROM results ORDER BY row LIMIT ?1)",
        [BATCH],
    )?;
    if samples + results > 0 {
        return Ok(true);
    }
    let asked = connection.execute(
        "DELETE FROM asked WHERE row IN (SELECT row FROM asked ORDER BY row LIMIT ?1)",
        [BATCH],
    )?;
    let remedies = connection.execute(
        "DELETE FROM remedies WHERE row IN (SELECT row FROM remedies ORDER BY row LIMIT ?1)",
        [BATCH],
    )?;
    if asked + remedies > 0 {
        return Ok(true);
    }
    let incidents = connection.execute(
        "DELETE FROM incidents WHERE row IN (SELECT row FROM incidents WHERE closed IS NOT NULL
         ORDER BY row LIMIT ?1)",
        [BATCH_OF_INCIDENTS],
    )?;
    Ok(incidents > 0)
}

/// Gives empty pages back to the file system.
fn give_back(connection: &Connection) -> rusqlite::Result<()> {
    let free: i64 = pragma(connection, "freelist_count")?;
    if free > BATCH_OF_PAGES {
        connection.execute_batch(&format!("PRAGMA incremental_vacuum({BATCH_OF_PAGES})"))?;
    }
    Ok(())
}

fn used_bytes(connection: &Connection) -> rusqlite::Result<i64> {
    let pages = pragma(connection, "page_count")? - pragma(connection, "freelist_count")?;
    Ok(pages * pragma(connection, "page_size")?)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.prepare_cached(&format!("PRAGMA {name}"))?.query_row([], |row| row.get(0))
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
