-- The proxies by which single accounts leave: URLs with their passwords, sealed.
CREATE TABLE egress (
    account TEXT PRIMARY KEY REFERENCES accounts (id) ON DELETE CASCADE,
    proxy   BLOB NOT NULL
) STRICT, WITHOUT ROWID;
