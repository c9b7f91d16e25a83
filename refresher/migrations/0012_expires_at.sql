-- One name for each end, in every table: `expires_at` is the end that an operator set, `credential_expires_at` that of a
-- credential.
ALTER TABLE accounts RENAME COLUMN expires_at TO credential_expires_at;
ALTER TABLE accounts RENAME COLUMN ends_at TO expires_at;
