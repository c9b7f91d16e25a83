-- The models of a pool that others serve, as the snapshot has them.
ALTER TABLE pools ADD COLUMN maps TEXT NOT NULL DEFAULT '[]';
