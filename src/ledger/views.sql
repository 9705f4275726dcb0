-- Views are made anew with each version of the file.
DROP VIEW IF EXISTS entry;
DROP VIEW IF EXISTS entries;
DROP VIEW IF EXISTS spend_by_day;
DROP VIEW IF EXISTS spent;
DROP VIEW IF EXISTS lease;
DROP VIEW IF EXISTS due_now;

-- What is due and not in the tables yet, owner by owner.
CREATE VIEW due_now AS
SELECT one.value ->> 0 AS scope, one.value ->> 1 AS name, one.value -> 2 AS spent, one.value -> 3 AS leases
FROM summed, due, json_each(due.sums) AS one
WHERE due.id > summed.until OR (one.value ->> 0, one.value ->> 1) > (summed.scope, summed.name);

-- What was spent by whom in which hour.
CREATE VIEW spent AS
SELECT scope, name, hour, sum(amount) AS amount
FROM (SELECT scope, name, hour, amount FROM spent_base
      UNION ALL
      SELECT scope, name, part.value ->> 0, part.value ->> 1 FROM due_now, json_each(due_now.spent) AS part)
GROUP BY scope, name, hour;

-- What a running gateway has drawn of a budget's window and not settled.
CREATE VIEW lease AS
SELECT scope, name, start, sum(amount) AS amount, max(hour) AS hour
FROM (SELECT scope, name, start, amount, hour FROM lease_base
      UNION ALL
      SELECT scope, name, part.value ->> 0, part.value ->> 1, part.value ->> 2
      FROM due_now, json_each(due_now.leases) AS part)
GROUP BY scope, name, start
HAVING sum(amount) > 0;

-- One try that was billed. `scope` is NULL for a try, else whose budget a crash was charged to.
CREATE VIEW entry AS
SELECT (chunk.id << 24) + one.key AS id,
       chunk.id AS chunk,
       one.value ->> 0 AS request,
       one.value ->> 1 AS attempt,
       one.value ->> 2 AS at,
       one.value ->> 3 AS api,
       one.value ->> 4 AS key,
       one.value ->> 5 AS team,
       one.value ->> 6 AS model,
       one.value ->> 7 AS target,
       one.value ->> 8 AS provider,
       one.value ->> '$[9][0][0]' AS input,
       one.value ->> '$[9][0][1]' AS cached,
       one.value ->> '$[9][0][2]' AS cache_write,
       one.value ->> '$[9][0][3]' AS cache_write_1h,
       one.value ->> '$[9][0][4]' AS audio_input,
       one.value ->> '$[9][0][5]' AS image_input,
       one.value ->> '$[9][0][6]' AS output,
       one.value ->> '$[9][0][7]' AS reasoning,
       one.value ->> '$[9][0][8]' AS audio_output,
       one.value ->> '$[9][0][9]' AS image_output,
       one.value ->> '$[9][0][10]' AS characters,
       one.value ->> '$[9][0][11]' AS seconds,
       one.value ->> '$[9][0][12]' AS images,
       one.value ->> '$[9][0][13]' AS searches,
       one.value ->> 10 AS cost,
       one.value ->> 11 AS estimated,
       one.value ->> 12 AS "end",
       one.value ->> 13 AS prices,
       one.value ->> 14 AS scope,
       one.value ->> 15 AS user,
       one.value ->> 16 AS tag,
       one.value ->> 17 AS response_id
FROM chunk, json_each(chunk.entries) AS one;

-- For people: one row for each try that was billed, and for what each crash was charged.
CREATE VIEW entries AS
SELECT id,
       strftime('%Y-%m-%dT%H:%M:%S', at / 1000, 'unixepoch') || printf('.%03dZ', at % 1000) AS at,
       coalesce(scope, 'request') AS scope,
       request AS request_id, attempt, api, key, team, model, target, provider, user, tag,
       input, cached, cache_write, cache_write_1h, audio_input, image_input,
       output, reasoning, audio_output, image_output,
       CASE WHEN input IS NULL THEN NULL ELSE coalesce(characters, 0) END AS characters,
       CASE WHEN input IS NULL THEN NULL ELSE coalesce(seconds, 0) END AS seconds,
       CASE WHEN input IS NULL THEN NULL ELSE coalesce(images, 0) END AS images,
       CASE WHEN input IS NULL THEN NULL ELSE coalesce(searches, 0) END AS searches,
       CASE WHEN cost IS NULL THEN NULL
            ELSE printf('%d.%09d', cost / 1000000000, cost % 1000000000) END AS usd,
       estimated, "end", prices, response_id
FROM entry;

-- For people: what was spent on each day, also on days whose entries are no longer kept.
CREATE VIEW spend_by_day AS
WITH both AS (
    SELECT day, scope, key, team, model, target, provider, user, tag, entries, estimated, unpriced,
           input, cached, cache_write, cache_write_1h, audio_input, image_input,
           output, reasoning, audio_output, image_output, characters, seconds, images, searches, cost
    FROM past
    UNION ALL
    SELECT at / 86400000, coalesce(scope, 'request'), coalesce(key, ''), coalesce(team, ''), coalesce(model, ''),
           coalesce(target, ''), coalesce(provider, ''), coalesce(user, ''), coalesce(tag, ''), 1, estimated, cost IS NULL,
           coalesce(input, 0), coalesce(cached, 0), coalesce(cache_write, 0), coalesce(cache_write_1h, 0),
           coalesce(audio_input, 0), coalesce(image_input, 0), coalesce(output, 0), coalesce(reasoning, 0),
           coalesce(audio_output, 0), coalesce(image_output, 0), coalesce(characters, 0), coalesce(seconds, 0),
           coalesce(images, 0), coalesce(searches, 0), coalesce(cost, 0)
    FROM entry
)
SELECT date(day * 86400, 'unixepoch') AS day, scope, key, team, model, target, provider, user, tag,
       sum(entries) AS entries, sum(estimated) AS estimated, sum(unpriced) AS unpriced,
       sum(input) AS input, sum(cached) AS cached, sum(cache_write) AS cache_write,
       sum(cache_write_1h) AS cache_write_1h, sum(audio_input) AS audio_input, sum(image_input) AS image_input,
       sum(output) AS output, sum(reasoning) AS reasoning, sum(audio_output) AS audio_output,
       sum(image_output) AS image_output, sum(characters) AS characters, sum(seconds) AS seconds,
       sum(images) AS images, sum(searches) AS searches,
       printf('%d.%09d', sum(cost) / 1000000000, sum(cost) % 1000000000) AS usd
FROM both
GROUP BY both.day, scope, key, team, model, target, provider, user, tag;
