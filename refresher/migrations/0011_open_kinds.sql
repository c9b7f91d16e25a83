-- Kinds, statuses, policies and the like are words that the code checks as it reads them. The lists of them that tables
-- had would have stood in the way of each new one, so those tables are made anew without. A table that refers to one of
-- them is made anew as well: dropping the old one would else delete its rows.

CREATE TABLE new_accounts (
    id                  TEXT    PRIMARY KEY,
    name                TEXT    NOT NULL UNIQUE,
    platform            TEXT    NOT NULL,
    kind                TEXT    NOT NULL,
    status              TEXT    NOT NULL,
    -- Why the status is what it is, for people.
    reason              TEXT,
    -- A JSON object of text.
    vars                TEXT    NOT NULL,
    generation          INTEGER NOT NULL CHECK (generation >= 1),
    -- Sealed, bound to `id` and `generation`.
    credential          BLOB    NOT NULL,
    issued_at           INTEGER NOT NULL,
    -- When the credential ends, where that is known.
    expires_at          INTEGER,
    -- Who may renew the credential, until when.
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
    revision            INTEGER NOT NULL UNIQUE,
    -- When the account ends, whatever its credential: from then on it serves nobody. NULL: it does not end.
    ends_at             INTEGER
) STRICT;
INSERT INTO new_accounts
    (id, name, platform, kind, status, reason, vars, generation, credential, issued_at, expires_at, claim_token,
     claim_until, unanswered, first_unanswered_at, failures, retry_at, requests_per_minute, tokens_per_minute,
     tokens_per_day, concurrent_streams, time_zone, created_at, models, updated_at, revision, ends_at)
SELECT id, name, platform, kind, status, reason, vars, generation, credential, issued_at, expires_at, claim_token,
     claim_until, unanswered, first_unanswered_at, failures, retry_at, requests_per_minute, tokens_per_minute,
     tokens_per_day, concurrent_streams, time_zone, created_at, models, updated_at, revision, ends_at
FROM accounts;

CREATE TABLE new_pools (
    id       TEXT    PRIMARY KEY,
    policy   TEXT    NOT NULL,
    revision INTEGER NOT NULL UNIQUE
) STRICT;
INSERT INTO new_pools (id, policy, revision) SELECT id, policy, revision FROM pools;

CREATE TABLE new_pool_members (
    pool     TEXT    NOT NULL REFERENCES new_pools (id) ON DELETE CASCADE,
    account  TEXT    NOT NULL REFERENCES new_accounts (id) ON DELETE CASCADE,
    weight   INTEGER NOT NULL DEFAULT 1 CHECK (weight BETWEEN 1 AND 10000),
    tier     INTEGER NOT NULL DEFAULT 0 CHECK (tier BETWEEN 0 AND 99),
    position INTEGER NOT NULL,
    PRIMARY KEY (pool, account)
) STRICT;
INSERT INTO new_pool_members (pool, account, weight, tier, position)
SELECT pool, account, weight, tier, position FROM pool_members;

-- The pools that a key's caller may choose beside the key's own.
CREATE TABLE new_client_key_pools (
    client_key TEXT NOT NULL REFERENCES client_keys (id) ON DELETE CASCADE,
    pool       TEXT NOT NULL REFERENCES new_pools (id),
    PRIMARY KEY (client_key, pool)
) STRICT;
INSERT INTO new_client_key_pools (client_key, pool) SELECT client_key, pool FROM client_key_pools;

CREATE TABLE new_health (
    account      TEXT    PRIMARY KEY REFERENCES new_accounts (id) ON DELETE CASCADE,
    -- The windows of its quota as last reported, a JSON list, and when that was.
    windows      TEXT    NOT NULL DEFAULT '[]',
    windows_at   INTEGER NOT NULL DEFAULT 0,
    -- Nothing that was learned until then counts.
    reset_at     INTEGER NOT NULL DEFAULT 0,
    -- No guess about all of the account that was learned until then counts: it has answered.
    recovered_at INTEGER NOT NULL DEFAULT 0,
    revision     INTEGER NOT NULL UNIQUE
) STRICT;
INSERT INTO new_health (account, windows, windows_at, reset_at, recovered_at, revision)
SELECT account, windows, windows_at, reset_at, recovered_at, revision FROM health;

-- The cooldowns of an account.
CREATE TABLE new_health_entries (
    account TEXT    NOT NULL REFERENCES new_health (account) ON DELETE CASCADE,
    -- A JSON text: "account", or {"model": name}.
    scope   TEXT    NOT NULL,
    until   INTEGER NOT NULL,
    -- 1 where the platform did not say when.
    guessed INTEGER NOT NULL CHECK (guessed IN (0, 1)),
    reason  TEXT    NOT NULL,
    -- When it was learned.
    at      INTEGER NOT NULL,
    PRIMARY KEY (account, scope)
) STRICT;
INSERT INTO new_health_entries (account, scope, until, guessed, reason, at)
SELECT account, scope, until, guessed, reason, at FROM health_entries;

-- What was deleted, so that a delta can say so.
CREATE TABLE new_tombstones (
    kind     TEXT    NOT NULL,
    id       TEXT    NOT NULL,
    revision INTEGER NOT NULL UNIQUE,
    PRIMARY KEY (kind, id)
) STRICT;
INSERT INTO new_tombstones (kind, id, revision) SELECT kind, id, revision FROM tombstones;

-- What each Envoy process has used of an account's or a client key's day, so that no restart gives a day's budget anew.
-- `instance` names the process; '' holds what those had used that were heard of longest ago.
CREATE TABLE new_day_counts (
    kind      TEXT    NOT NULL,
    id        TEXT    NOT NULL,
    day_start INTEGER NOT NULL,
    instance  TEXT    NOT NULL,
    requests  INTEGER NOT NULL,
    tokens    INTEGER NOT NULL,
    PRIMARY KEY (kind, id, day_start, instance)
) STRICT, WITHOUT ROWID;
INSERT INTO new_day_counts (kind, id, day_start, instance, requests, tokens)
SELECT kind, id, day_start, instance, requests, tokens FROM day_counts;

-- One request each, or `count` that were refused for one reason within a second. Accounts, pools and keys may be gone by
-- now, so nothing here refers to them.
CREATE TABLE new_requests (
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
    completeness  TEXT    NOT NULL,
    count         INTEGER NOT NULL DEFAULT 1 CHECK (count >= 1)
) STRICT;
INSERT INTO new_requests
    (at, request_id, client_key, pool, account, platform, dialect, asked, model, status, verdict, error, attempts, input,
     output, cached_input, cache_write, reasoning, total, estimate, first_byte_ms, duration_ms, completeness, count)
SELECT at, request_id, client_key, pool, account, platform, dialect, asked, model, status, verdict, error, attempts, input,
     output, cached_input, cache_write, reasoning, total, estimate, first_byte_ms, duration_ms, completeness, count
FROM requests;

-- Those that refer to others go first.
DROP TABLE pool_members;
DROP TABLE client_key_pools;
DROP TABLE health_entries;
DROP TABLE health;
DROP TABLE accounts;
DROP TABLE pools;
DROP TABLE tombstones;
DROP TABLE day_counts;
DROP TABLE requests;

-- What refers to a table follows its new name.
ALTER TABLE new_accounts RENAME TO accounts;
ALTER TABLE new_pools RENAME TO pools;
ALTER TABLE new_pool_members RENAME TO pool_members;
ALTER TABLE new_client_key_pools RENAME TO client_key_pools;
ALTER TABLE new_health RENAME TO health;
ALTER TABLE new_health_entries RENAME TO health_entries;
ALTER TABLE new_tombstones RENAME TO tombstones;
ALTER TABLE new_day_counts RENAME TO day_counts;
ALTER TABLE new_requests RENAME TO requests;

CREATE INDEX requests_at ON requests (at);
