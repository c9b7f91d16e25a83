-- What each VM of an Envoy last said of its requests, so that those are counted that die with it: what it had begun and
-- neither told of nor dropped. `instance` names the process; '' holds those that were missed longest ago, added up.
CREATE TABLE vms (
    instance  TEXT    NOT NULL,
    vm        INTEGER NOT NULL,
    -- The node id that the operator gave the Envoy.
    node      TEXT,
    -- The number of the tally that says what was begun and dropped.
    number    INTEGER NOT NULL,
    begun     INTEGER NOT NULL,
    told      INTEGER NOT NULL,
    dropped   INTEGER NOT NULL,
    heard_at  INTEGER NOT NULL,
    -- Since when it counts as gone, and what it has not told of as lost; NULL as long as it speaks.
    missed_at INTEGER,
    PRIMARY KEY (instance, vm)
) STRICT, WITHOUT ROWID;
