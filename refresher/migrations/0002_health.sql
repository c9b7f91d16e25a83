-- What Envoys learned about accounts, and what people had forgotten of it. Times are Unix milliseconds.

CREATE TABLE health (
    account      TEXT    PRIMARY KEY REFERENCES accounts (id) ON DELETE CASCADE,
    -- The windows of its quota as last reported, a JSON list, and when that was.
    windows      TEXT    NOT NULL DEFAULT '[]',
    windows_at   INTEGER NOT NULL DEFAULT 0,
    -- Nothing that was learned until then counts.
    reset_at     INTEGER NOT NULL DEFAULT 0,
    -- No guess about all of the account that was learned until then counts: it has answered.
    recovered_at INTEGER NOT NULL DEFAULT 0,
    revision     INTEGER NOT NULL UNIQUE
) STRICT;

-- What is held against an account: it is not to be used for a while.
CREATE TABLE health_entries (
    account TEXT    NOT NULL REFERENCES health (account) ON DELETE CASCADE,
    -- A JSON text: "account", or {"model": name}.
    scope   TEXT    NOT NULL,
    until   INTEGER NOT NULL,
    -- Whether the platform did not say when.
    guessed INTEGER NOT NULL CHECK (guessed IN (0, 1)),
    reason  TEXT    NOT NULL,
    -- When it was learned.
    at      INTEGER NOT NULL,
    PRIMARY KEY (account, scope)
) STRICT;
