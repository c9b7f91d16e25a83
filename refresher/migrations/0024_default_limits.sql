-- What a platform's profile says of the limits of its accounts, JSON: it holds for what an account's operator did not set.
ALTER TABLE platforms ADD COLUMN limits TEXT NOT NULL DEFAULT '{}';
-- The limits that an account's operator took off, whatever the profile says: a JSON list of their names.
ALTER TABLE accounts ADD COLUMN lifted TEXT NOT NULL DEFAULT '[]';
