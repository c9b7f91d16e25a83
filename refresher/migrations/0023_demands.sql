-- What the operator demands of a client key's requests, as the snapshot has it: effort, its bound, the service tier.
ALTER TABLE client_keys ADD COLUMN demands TEXT NOT NULL DEFAULT '{}';
