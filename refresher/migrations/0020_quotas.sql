-- What platforms said of the quotas of accounts when the refresher asked them.
CREATE TABLE quotas (
    account  TEXT    PRIMARY KEY REFERENCES accounts (id) ON DELETE CASCADE,
    -- The windows, a JSON list, and when they were told.
    figures  TEXT    NOT NULL DEFAULT '[]',
    said_at  INTEGER NOT NULL DEFAULT 0,
    -- When the last call left.
    asked_at INTEGER NOT NULL,
    -- Calls in a row that told nothing.
    failures INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- The minutes after midnight at which the day of a limit begins; NULL for midnight.
ALTER TABLE accounts ADD COLUMN day_starts INTEGER CHECK (day_starts BETWEEN 1 AND 1439);
ALTER TABLE client_keys ADD COLUMN day_starts INTEGER CHECK (day_starts BETWEEN 1 AND 1439);
