-- In the second version nobody said for whom a request was, nor to what it is charged, and nothing was due.
DROP VIEW IF EXISTS entries;
DROP VIEW IF EXISTS entry;
DROP VIEW IF EXISTS spend_by_day;
ALTER TABLE past RENAME TO former;
ALTER TABLE spent RENAME TO spent_base;
ALTER TABLE lease RENAME TO lease_base;

CREATE TABLE due (
    id   INTEGER PRIMARY KEY,
    sums TEXT NOT NULL
);

CREATE TABLE summed (
    until INTEGER NOT NULL,
    scope INTEGER NOT NULL,
    name  TEXT NOT NULL
);
INSERT INTO summed VALUES (0, 0, '');

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
    cost           INTEGER NOT NULL,
    PRIMARY KEY (day, scope, key, team, model, target, provider, user, tag)
) WITHOUT ROWID;

INSERT INTO past
SELECT day, scope, key, team, model, target, provider, '', '', entries, estimated, unpriced,
       input, cached, cache_write, cache_write_1h, audio_input, image_input,
       output, reasoning, audio_output, image_output, cost
FROM former;

DROP TABLE former;

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
