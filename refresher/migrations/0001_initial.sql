-- `LTCH`: this SQLite file is Latchkey's.
PRAGMA application_id = 1280590664;

-- Times are Unix milliseconds. `revision` is that of the record's last change; no two records share one.

CREATE TABLE meta (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    epoch       BLOB    NOT NULL CHECK (length(epoch) = 16),
    revision    INTEGER NOT NULL,
    -- The id of the key that seals, in every process.
    sealing_key BLOB    NOT NULL CHECK (length(sealing_key) = 4),
    -- A known text, sealed: tells at start whether the key is the right one.
    key_check   BLOB    NOT NULL
) STRICT;

-- Published platforms: the record as it goes to Envoy, and the authority of their accounts.
CREATE TABLE platforms (
    id        TEXT    PRIMARY KEY,
    record    TEXT    NOT NULL,
    authority TEXT    NOT NULL,
    revision  INTEGER NOT NULL UNIQUE
) STRICT;

CREATE TABLE accounts (
    id                  TEXT    PRIMARY KEY,
    name                TEXT    NOT NULL UNIQUE,
    platform            TEXT    NOT NULL,
    kind                TEXT    NOT NULL CHECK (kind IN ('oauth', 'api_key')),
    status              TEXT    NOT NULL CHECK (status IN ('active', 'disabled', 'needs_login', 'dead')),
    -- Why the status is what it is, for people.
    reason              TEXT,
    -- A JSON object of text.
    vars                TEXT    NOT NULL,
    generation          INTEGER NOT NULL CHECK (generation >= 1),
    -- Sealed, bound to `id` and `generation`.
    credential          BLOB    NOT NULL,
    issued_at           INTEGER NOT NULL,
    expires_at          INTEGER,
    -- Who may spend the refresh token, until when.
    claim_token         TEXT,
    claim_until         INTEGER,
    -- Calls to the token endpoint with this generation's refresh token that got no answer.
    unanswered          INTEGER NOT NULL DEFAULT 0,
    first_unanswered_at INTEGER,
    failures            INTEGER NOT NULL DEFAULT 0,
    retry_at            INTEGER,
    -- Limits; NULL for none. The day begins at midnight in `time_zone`, NULL for UTC.
    requests_per_minute INTEGER CHECK (requests_per_minute > 0),
    tokens_per_minute   INTEGER CHECK (tokens_per_minute > 0),
    tokens_per_day      INTEGER CHECK (tokens_per_day > 0),
    concurrent_streams  INTEGER CHECK (concurrent_streams > 0),
    time_zone           TEXT,
    created_at          INTEGER NOT NULL,
    -- Those that it serves, a JSON list of patterns; an empty one means all.
    models              TEXT    NOT NULL DEFAULT '[]',
    updated_at          INTEGER NOT NULL,
    revision            INTEGER NOT NULL UNIQUE
) STRICT;

CREATE TABLE pools (
    id       TEXT    PRIMARY KEY,
    policy   TEXT    NOT NULL CHECK (policy IN ('sticky', 'round_robin', 'most_quota_left', 'soonest_reset_first',
                                                'least_in_flight', 'fill_first')),
    revision INTEGER NOT NULL UNIQUE
) STRICT;

CREATE TABLE pool_members (
    pool     TEXT    NOT NULL REFERENCES pools (id) ON DELETE CASCADE,
    account  TEXT    NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    weight   INTEGER NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 10000),
    tier     INTEGER NOT NULL DEFAULT 0 CHECK (tier BETWEEN 0 AND 99),
    position INTEGER NOT NULL,
    PRIMARY KEY (pool, account)
) STRICT;

CREATE TABLE client_keys (
    id         TEXT    PRIMARY KEY,
    name       TEXT    NOT NULL,
    sha256     TEXT    NOT NULL UNIQUE CHECK (length(sha256) = 64),
    -- The key's first characters, so that a person can tell keys apart.
    prefix     TEXT    NOT NULL,
    -- Where the key is revoked, it may be gone.
    pool       TEXT    NOT NULL,
    -- Those that it may ask for, a JSON list of patterns; an empty one means all.
    models     TEXT    NOT NULL DEFAULT '[]',
    may_choose_account INTEGER NOT NULL DEFAULT 0 CHECK (may_choose_account IN (0, 1)),
    created_at INTEGER NOT NULL,
    revoked_at INTEGER,
    expires_at INTEGER,
    -- As those of accounts.
    requests_per_minute INTEGER CHECK (requests_per_minute > 0),
    tokens_per_minute   INTEGER CHECK (tokens_per_minute > 0),
    tokens_per_day      INTEGER CHECK (tokens_per_day > 0),
    concurrent_streams  INTEGER CHECK (concurrent_streams > 0),
    time_zone           TEXT,
    revision   INTEGER NOT NULL UNIQUE
) STRICT;

-- The pools that a key's caller may choose beside the key's own.
CREATE TABLE client_key_pools (
    client_key TEXT NOT NULL REFERENCES client_keys (id) ON DELETE CASCADE,
    pool       TEXT NOT NULL REFERENCES pools (id),
    PRIMARY KEY (client_key, pool)
) STRICT;

-- Two keys in use never share a name; a revoked one gives its name back.
CREATE UNIQUE INDEX client_keys_in_use ON client_keys (name) WHERE revoked_at IS NULL;

-- What was deleted, so that a delta can say so.
CREATE TABLE tombstones (
    kind     TEXT    NOT NULL CHECK (kind IN ('platform', 'account', 'pool')),
    id       TEXT    NOT NULL,
    revision INTEGER NOT NULL UNIQUE,
    PRIMARY KEY (kind, id)
) STRICT;
