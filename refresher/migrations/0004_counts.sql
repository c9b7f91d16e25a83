-- What each Envoy process has used of an account's or a client key's day, so that no restart gives a day's budget anew.
-- `instance` names the process; '' holds what those had used that were heard of longest ago.
CREATE TABLE day_counts (
    kind      TEXT    NOT NULL CHECK (kind IN ('account', 'key')),
    id        TEXT    NOT NULL,
    day_start INTEGER NOT NULL,
    instance  TEXT    NOT NULL,
    requests  INTEGER NOT NULL,
    tokens    INTEGER NOT NULL,
    PRIMARY KEY (kind, id, day_start, instance)
) STRICT, WITHOUT ROWID;
