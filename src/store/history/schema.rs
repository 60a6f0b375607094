//! The tables, version by version: `user_version` of the file says how many of these steps it has
//! had. A step that was released never changes; a new one goes to the end.

use rusqlite::{Connection, TransactionBehavior};

/// What each version adds to the one before.
pub(super) const STEPS: &[&str] = &[V1];

const V1: &str = "
CREATE TABLE incidents (
    row INTEGER PRIMARY KEY,
    number INTEGER NOT NULL,
    target TEXT NOT NULL,
    program TEXT,
    opened INTEGER NOT NULL,
    opening TEXT NOT NULL,
    opened_by TEXT,
    cause TEXT,
    confidence TEXT,
    because TEXT,
    facts TEXT,
    remedies INTEGER NOT NULL DEFAULT 0,
    healed_by TEXT,
    recovered INTEGER,
    closed INTEGER,
    closing TEXT
) STRICT;
CREATE INDEX incidents_by_number ON incidents (number);

CREATE TABLE steps (
    row INTEGER PRIMARY KEY,
    incident INTEGER NOT NULL REFERENCES incidents (row) ON DELETE CASCADE,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    sentence TEXT NOT NULL
) STRICT;
CREATE INDEX steps_by_incident ON steps (incident);

CREATE TABLE asked (
    row INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    uid INTEGER,
    user TEXT NOT NULL,
    pid INTEGER,
    executable TEXT,
    request TEXT NOT NULL,
    reason TEXT,
    outcome TEXT NOT NULL
) STRICT;

CREATE TABLE checks (
    id INTEGER PRIMARY KEY,
    target TEXT NOT NULL,
    name TEXT NOT NULL,
    program TEXT,
    UNIQUE (target, name)
) STRICT;

-- Equal results one after the other share a row; times are milliseconds, took_… microseconds.
CREATE TABLE results (
    row INTEGER PRIMARY KEY,
    check_id INTEGER NOT NULL REFERENCES checks (id),
    verdict TEXT NOT NULL,
    detail TEXT NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    runs INTEGER NOT NULL,
    took_least INTEGER NOT NULL,
    took_most INTEGER NOT NULL,
    took_total INTEGER NOT NULL
) STRICT;
CREATE INDEX results_by_check ON results (check_id);

CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- A slice is ten minutes: what is written together lies together, and so does what is asked for.
CREATE TABLE samples (
    slice INTEGER NOT NULL,
    series INTEGER NOT NULL,
    at INTEGER NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (slice, series, at)
) STRICT, WITHOUT ROWID;

CREATE TABLE remedies (
    row INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    number INTEGER NOT NULL,
    target TEXT NOT NULL,
    program TEXT,
    what TEXT NOT NULL,
    result TEXT NOT NULL,
    took INTEGER NOT NULL
) STRICT;

-- The highest numbers that were given, also to what is no longer kept.
CREATE TABLE last_numbers (
    what TEXT PRIMARY KEY,
    number INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
";

/// Returns the version of the file.
pub(super) fn version(connection: &Connection) -> rusqlite::Result<usize> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

/// Takes the steps after `from`, all of them or none.
pub(super) fn migrate(
    connection: &mut Connection,
    from: usize,
    steps: &[&str],
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in &steps[from..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", i64::try_from(steps.len()).unwrap_or(0))?;
    transaction.commit()
}
