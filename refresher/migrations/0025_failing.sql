-- How an account's refreshes fail, and since when: JSON, null where the last one went well.
ALTER TABLE accounts ADD COLUMN failing TEXT NOT NULL DEFAULT 'null';
