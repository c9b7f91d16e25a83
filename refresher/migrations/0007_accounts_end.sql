-- When an account ends, whatever its credential: from then on it serves nobody. NULL: it does not end.
ALTER TABLE accounts ADD COLUMN ends_at INTEGER;
