-- For how many requests a row stands: those that were refused for one reason within a second are one.
ALTER TABLE requests ADD COLUMN count INTEGER NOT NULL DEFAULT 1 CHECK (count >= 1);
