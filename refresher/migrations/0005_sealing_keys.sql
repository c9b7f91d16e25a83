-- Records sealed so far with each key, so that a key's bound holds across restarts and if a key comes back.
CREATE TABLE sealing_keys (
    id    BLOB    PRIMARY KEY CHECK (length(id) = 4),
    seals INTEGER NOT NULL
) STRICT;
