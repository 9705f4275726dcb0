-- Who made which response, the last ones: whatever goes on from one goes there.
CREATE TABLE response (
    number   INTEGER PRIMARY KEY,
    id       TEXT NOT NULL,
    key      TEXT NOT NULL,
    team     TEXT,
    model    TEXT NOT NULL,
    provider TEXT NOT NULL
);
