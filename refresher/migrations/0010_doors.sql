-- What callers may ask: one record as it goes to Envoy.
CREATE TABLE doors (
    id       TEXT    PRIMARY KEY,
    record   TEXT    NOT NULL,
    revision INTEGER NOT NULL UNIQUE
) STRICT;

-- Platforms are published anew at each start, in the form of the build that runs; what an older one left could not be
-- read.
DELETE FROM platforms;
