-- The maps of client keys and accounts, as the snapshot has them; and what a key or a pool forbids.
ALTER TABLE accounts ADD COLUMN maps TEXT NOT NULL DEFAULT '[]';
ALTER TABLE client_keys ADD COLUMN maps TEXT NOT NULL DEFAULT '[]';
ALTER TABLE client_keys ADD COLUMN untranslated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE client_keys ADD COLUMN exact_model INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pools ADD COLUMN untranslated INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pools ADD COLUMN exact_model INTEGER NOT NULL DEFAULT 0;
