-- Requests that each Envoy process let in, and how many of them are recorded. The difference is under way, or died with
-- the process.
CREATE TABLE envoys (
    -- Names the process: 32 hex digits.
    instance TEXT    PRIMARY KEY,
    -- The node id that the operator gave the Envoy.
    node     TEXT,
    begun    INTEGER NOT NULL,
    recorded INTEGER NOT NULL,
    heard_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

DROP TABLE vms;
