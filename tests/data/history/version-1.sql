-- A history as version 1 wrote it. It must load for ever: never change this file.
PRAGMA auto_vacuum = INCREMENTAL;
PRAGMA journal_mode = WAL;
PRAGMA application_id = 1296387652;
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

INSERT INTO asked VALUES (1, 1795434700000, 0, 'root', 41, '/usr/bin/mendctl', 'stop web', 'rest', '1 done');
INSERT INTO incidents VALUES (1, 3, 'web:0', 'web', 1795434700000, 'is down: check `http` says refused', 'http',
    'killed', 'certain', 'was killed by SIGKILL from outside', '["SIGKILL"]', 1, 'restart',
    1795434704000, 1795434760000, 'healed');
INSERT INTO steps VALUES (1, 1, 1795434700000, 'failed', 'is down: check `http` says refused');
INSERT INTO steps VALUES (2, 1, 1795434700010, 'cause', 'was killed by SIGKILL from outside');
INSERT INTO steps VALUES (3, 1, 1795434700020, 'began', 'gets the remedy `restart`');
INSERT INTO steps VALUES (4, 1, 1795434760000, 'closed', 'the incident is over: one remedy healed it');
INSERT INTO checks VALUES (1, 'web:0', 'http', 'web');
INSERT INTO results VALUES (1, 1, 'pass', '200', 1795434700000, 1795434770000, 8, 1000, 2000, 12000);
INSERT INTO series VALUES (1, 'load');
INSERT INTO samples VALUES (2992391, 1, 1795434700000, 0.5);
INSERT INTO remedies VALUES (1, 1795434704000, 12, 'web:0', 'web', 'restart', 'verified', 3980000);
INSERT INTO last_numbers VALUES ('incident', 3);
INSERT INTO last_numbers VALUES ('remedy', 12);
PRAGMA user_version = 1;
