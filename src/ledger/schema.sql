-- The first version of the file. Amounts are in billionths of a US dollar; hours and days are counted from 1970, in UTC.

CREATE TABLE about (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- One try that was billed. Rows follow time, and there is no index beside: `at` is in milliseconds from 1970.
-- `scope` is NULL for a try, else whose budget a crash was charged to.
CREATE TABLE entry (
    id             INTEGER PRIMARY KEY,
    at             INTEGER NOT NULL,
    scope          TEXT,
    request        TEXT NOT NULL,
    attempt        INTEGER NOT NULL,
    api            TEXT NOT NULL,
    key            TEXT,
    team           TEXT,
    model          TEXT,
    target         TEXT,
    provider       TEXT,
    input          INTEGER,
    cached         INTEGER,
    cache_write    INTEGER,
    cache_write_1h INTEGER,
    audio_input    INTEGER,
    image_input    INTEGER,
    output         INTEGER,
    reasoning      INTEGER,
    audio_output   INTEGER,
    image_output   INTEGER,
    cost           INTEGER,
    estimated      INTEGER NOT NULL,
    "end"          TEXT NOT NULL,
    prices         TEXT NOT NULL
);

-- What was spent by whom in which hour; written in the transaction of its entries.
CREATE TABLE spent (
    scope  INTEGER NOT NULL,
    name   TEXT NOT NULL,
    hour   INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (scope, name, hour)
) WITHOUT ROWID;

-- What a running gateway has drawn of a budget's window and not settled. After a crash it counts as spent in `hour`.
CREATE TABLE lease (
    scope  INTEGER NOT NULL,
    name   TEXT NOT NULL,
    start  INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    hour   INTEGER NOT NULL,
    PRIMARY KEY (scope, name, start)
) WITHOUT ROWID;

-- Entries that are no longer kept one by one.
CREATE TABLE past (
    day            INTEGER NOT NULL,
    scope          TEXT NOT NULL,
    key            TEXT NOT NULL,
    team           TEXT NOT NULL,
    model          TEXT NOT NULL,
    target         TEXT NOT NULL,
    provider       TEXT NOT NULL,
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
    PRIMARY KEY (day, scope, key, team, model, target, provider)
) WITHOUT ROWID;

-- For people: one row for each try that was billed, and for what each crash was charged.
CREATE VIEW entries AS
SELECT id,
       strftime('%Y-%m-%dT%H:%M:%S', at / 1000, 'unixepoch') || printf('.%03dZ', at % 1000) AS at,
       coalesce(scope, 'request') AS scope,
       request AS request_id, attempt, api, key, team, model, target, provider,
       input, cached, cache_write, cache_write_1h, audio_input, image_input,
       output, reasoning, audio_output, image_output,
       CASE WHEN cost IS NULL THEN NULL
            ELSE printf('%d.%09d', cost / 1000000000, cost % 1000000000) END AS usd,
       estimated, "end", prices
FROM entry;

-- For people: what was spent on each day, also on days whose entries are no longer kept.
CREATE VIEW spend_by_day AS
WITH both AS (
    SELECT day, scope, key, team, model, target, provider, entries, estimated, unpriced,
           input, cached, cache_write, cache_write_1h, audio_input, image_input,
           output, reasoning, audio_output, image_output, cost
    FROM past
    UNION ALL
    SELECT at / 86400000, coalesce(scope, 'request'), coalesce(key, ''), coalesce(team, ''), coalesce(model, ''),
           coalesce(target, ''), coalesce(provider, ''), 1, estimated, cost IS NULL,
           coalesce(input, 0), coalesce(cached, 0), coalesce(cache_write, 0), coalesce(cache_write_1h, 0),
           coalesce(audio_input, 0), coalesce(image_input, 0), coalesce(output, 0), coalesce(reasoning, 0),
           coalesce(audio_output, 0), coalesce(image_output, 0), coalesce(cost, 0)
    FROM entry
)
SELECT date(day * 86400, 'unixepoch') AS day, scope, key, team, model, target, provider,
       sum(entries) AS entries, sum(estimated) AS estimated, sum(unpriced) AS unpriced,
       sum(input) AS input, sum(cached) AS cached, sum(cache_write) AS cache_write,
       sum(cache_write_1h) AS cache_write_1h, sum(audio_input) AS audio_input, sum(image_input) AS image_input,
       sum(output) AS output, sum(reasoning) AS reasoning, sum(audio_output) AS audio_output,
       sum(image_output) AS image_output,
       printf('%d.%09d', sum(cost) / 1000000000, sum(cost) % 1000000000) AS usd
FROM both
GROUP BY both.day, scope, key, team, model, target, provider;
