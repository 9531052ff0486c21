-- A token has a place in a status list. Tokens that end within the same five minutes are a shard; replicas take the numbers
-- of a shard in blocks, each block once.

CREATE TABLE status_shards (
    shard bigint PRIMARY KEY CHECK (shard > 0),   -- when its last token ends
    allocated_blocks bigint NOT NULL CHECK (allocated_blocks > 0)     -- how many of its blocks were taken
);

ALTER TABLE tokens ADD COLUMN status_shard bigint;  -- its shard
ALTER TABLE tokens ADD COLUMN status_index bigint CHECK (status_index >= 0); -- its number there
ALTER TABLE tokens ADD CONSTRAINT tokens_status_index_with_shard CHECK ((status_shard IS NULL) = (status_index IS NULL));
CREATE INDEX tokens_by_grant ON tokens (grant_id, issued, id) WHERE grant_id IS NOT NULL;
