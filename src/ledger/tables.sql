-- What a new file is made of. Amounts are in billionths of a US dollar; hours and days are counted from 1970, in UTC.

CREATE TABLE about (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- Tries that were billed, many in one row: a JSON array of arrays, whose members the view `entry` names. Rows follow time,
-- and there is no index beside: `until` is the latest moment in a row, in milliseconds from 1970.
CREATE TABLE chunk (
    id      INTEGER PRIMARY KEY,
    until   INTEGER NOT NULL,
    count   INTEGER NOT NULL,
    entries TEXT NOT NULL
);

-- What was spent by whom in which hour, without what is due: the view `spent` has both.
CREATE TABLE spent_base (
    scope  INTEGER NOT NULL,
    name   TEXT NOT NULL,
    hour   INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (scope, name, hour)
) WITHOUT ROWID;

-- What a running gateway has drawn of a budget's window and not settled, without what is due: the view `lease` has both.
-- After a crash it counts as spent in `hour`.
CREATE TABLE lease_base (
    scope  INTEGER NOT NULL,
    name   TEXT NOT NULL,
    start  INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    hour   INTEGER NOT NULL,
    PRIMARY KEY (scope, name, start)
) WITHOUT ROWID;

-- What is due: what each group of entries came to, written in the transaction of its entries. A JSON array of owners: scope,
-- name, what was spent as [hour, amount], and what is drawn as [start, amount, hour].
CREATE TABLE due (
    id   INTEGER PRIMARY KEY,
    sums TEXT NOT NULL
);

-- What of it is in both tables: rows up to `until`, of owners up to this one in the order of scope and name.
CREATE TABLE summed (
    until INTEGER NOT NULL,
    scope INTEGER NOT NULL,
    name  TEXT NOT NULL
);
INSERT INTO summed VALUES (0, 0, '');

-- Entries that are no longer kept one by one.
CREATE TABLE past (
    day            INTEGER NOT NULL,
    scope          TEXT NOT NULL,
    key            TEXT NOT NULL,
    team           TEXT NOT NULL,
    model          TEXT NOT NULL,
    target         TEXT NOT NULL,
    provider       TEXT NOT NULL,
    user           TEXT NOT NULL,
    tag            TEXT NOT NULL,
    entries        INTEGER NOT NULL,
    estimated      INTEGER NOT NULL,
    unpriced       INTEGER NOT NULL,
    input          INTEGER NOT NULL,
    cached         INTEGER NOT NULL,
    cache_write    INTEGER NOT NULL,
    cache_write_1h INTEGER NOT NULL,
    audio_input    INTEGER NOT NULL,
    image_input    INTEGER NOT NULL,
    output         INTEGER NOT NULL,
    reasoning      INTEGER NOT NULL,
    audio_output   INTEGER NOT NULL,
    image_output   INTEGER NOT NULL,
    characters     INTEGER NOT NULL,
    seconds        INTEGER NOT NULL,
    images         INTEGER NOT NULL,
    searches       INTEGER NOT NULL,
    cost           INTEGER NOT NULL,
    PRIMARY KEY (day, scope, key, team, model, target, provider, user, tag)
) WITHOUT ROWID;

-- Keys that were made, and keys of the configuration that are revoked (without a digest). `terms` is JSON, in the words of
-- gateway.toml. Each change has a number of its own.
CREATE TABLE made (
    name    TEXT PRIMARY KEY,
    digest  BLOB UNIQUE,
    older   BLOB,
    until   INTEGER,
    terms   TEXT NOT NULL,
    made    INTEGER NOT NULL,
    revoked INTEGER,
    version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX made_version ON made (version);

-- Who made which response, the last ones: whatever goes on from one goes there.
CREATE TABLE response (
    number   INTEGER PRIMARY KEY,
    id       TEXT NOT NULL,
    key      TEXT NOT NULL,
    team     TEXT,
    model    TEXT NOT NULL,
    provider TEXT NOT NULL
);
