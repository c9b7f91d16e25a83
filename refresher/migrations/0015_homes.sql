-- The account that made a thing: what requests name later exists there alone. The thing is a hash of the client key and
-- of the platform's id.
CREATE TABLE homes (
    thing   BLOB    PRIMARY KEY,
    account TEXT    NOT NULL,
    until   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX homes_by_until ON homes (until);
