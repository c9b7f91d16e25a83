-- What the file that an account was imported from said beside its credential, sealed; so that an export writes it again.
ALTER TABLE accounts ADD COLUMN origin BLOB;
