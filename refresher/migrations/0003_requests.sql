-- Batches of records that were taken, so that one that comes again is not counted again.
CREATE TABLE batches (
    id       BLOB    PRIMARY KEY CHECK (length(id) = 16),
    taken_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX batches_taken_at ON batches (taken_at);

-- One request each. Accounts, pools and keys may be gone by now, so nothing here refers to them.
CREATE TABLE requests (
    at            INTEGER NOT NULL,
    request_id    TEXT,
    client_key    TEXT    NOT NULL,
    pool          TEXT    NOT NULL,
    -- None where the gateway itself answered.
    account       TEXT,
    platform      TEXT,
    dialect       TEXT    NOT NULL,
    -- The model that was asked for, and the one that the platform says it served.
    asked         TEXT,
    model         TEXT,
    -- 0 where the caller went away before there was an answer.
    status        INTEGER NOT NULL,
    verdict       TEXT,
    error         TEXT,
    attempts      INTEGER NOT NULL,
    -- Tokens; all NULL where nothing is known of them.
    input         INTEGER,
    output        INTEGER,
    cached_input  INTEGER,
    cache_write   INTEGER,
    reasoning     INTEGER,
    total         INTEGER,
    estimate      INTEGER NOT NULL CHECK (estimate IN (0, 1)),
    first_byte_ms INTEGER,
    duration_ms   INTEGER NOT NULL,
    completeness  TEXT    NOT NULL CHECK (completeness IN ('whole', 'partial', 'cut'))
) STRICT;

CREATE INDEX requests_at ON requests (at);
