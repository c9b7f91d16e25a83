-- The calls by which the refresher itself asks a platform about an account that one client key says is dead. Times are
-- Unix milliseconds.
CREATE TABLE probes (
    account     TEXT    PRIMARY KEY REFERENCES accounts (id) ON DELETE CASCADE,
    -- The credential that was said to be dead, and the platform's reason in a word.
    generation  INTEGER NOT NULL,
    reason      TEXT    NOT NULL,
    -- How often it was asked in a row, and when last.
    asked       INTEGER NOT NULL DEFAULT 0,
    asked_at    INTEGER NOT NULL DEFAULT 0,
    -- When it is to be asked; NULL where it is not.
    due_at      INTEGER,
    -- Who is asking, and until when nobody else may, on the database's clock.
    claim_token TEXT,
    claim_until INTEGER
) STRICT, WITHOUT ROWID;

-- No death that was met until then counts: the platform was asked then, and the account was alive.
ALTER TABLE health ADD COLUMN alive_at INTEGER NOT NULL DEFAULT 0;
