-- When a login ends for good, in Unix milliseconds: its refresh token's end, where the platform told one.
ALTER TABLE accounts ADD COLUMN login_ends_at INTEGER;
