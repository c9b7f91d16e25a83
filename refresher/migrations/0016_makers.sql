-- The client key that made a thing stands beside it, so that no key's things push out those of others. The thing is a hash
-- of the platform's id alone: what was kept before is of the id and the key, and cannot be told apart any more.
DROP TABLE homes;

CREATE TABLE homes (
    thing      BLOB    NOT NULL,
    client_key TEXT    NOT NULL,
    account    TEXT    NOT NULL,
    until      INTEGER NOT NULL,
    PRIMARY KEY (thing, client_key)
) STRICT, WITHOUT ROWID;

CREATE INDEX homes_by_until ON homes (until);
CREATE INDEX homes_by_key ON homes (client_key, until);
