-- Where the account is reached, if not where its platform's profile says. Its credential is sealed for that place.
ALTER TABLE accounts ADD COLUMN base_url TEXT;
-- What is known of an account at its platform is sealed from here on: the first start does that to what stands here now.
ALTER TABLE accounts ADD COLUMN sealed_vars BLOB NOT NULL DEFAULT x'';
UPDATE accounts SET sealed_vars = CAST(vars AS BLOB);
ALTER TABLE accounts DROP COLUMN vars;
ALTER TABLE accounts RENAME COLUMN sealed_vars TO vars;
