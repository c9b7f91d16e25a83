-- What was published, sealed with its id: who writes the database without the sealing key has no say in where and how a
-- credential goes. `serve` seals at its start what stands here without.
ALTER TABLE platforms ADD COLUMN seal BLOB NOT NULL DEFAULT x'';
ALTER TABLE doors ADD COLUMN seal BLOB NOT NULL DEFAULT x'';
