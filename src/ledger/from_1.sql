-- In the first version each entry was a row.
DROP VIEW entries;
DROP VIEW spend_by_day;
ALTER TABLE entry RENAME TO single;

CREATE TABLE chunk (
    id      INTEGER PRIMARY KEY,
    until   INTEGER NOT NULL,
    count   INTEGER NOT NULL,
    entries TEXT NOT NULL
);

INSERT INTO chunk (until, count, entries)
SELECT max(at), count(*), json_group_array(json_array(
           request, attempt, at, api, key, team, model, target, provider,
           CASE WHEN input IS NOT NULL THEN json_array(json_array(
               input, cached, cache_write, cache_write_1h, audio_input, image_input,
               output, reasoning, audio_output, image_output), NULL) END,
           cost, json(CASE WHEN estimated THEN 'true' ELSE 'false' END), "end", prices, scope))
FROM (SELECT * FROM single ORDER BY id)
GROUP BY id / 256
ORDER BY id / 256;

DROP TABLE single;
