-- A token has a place in a status list. Tokens that end within the same five minutes are a shard; replicas take the numbers
-- of a shard in blocks, each block once.

CREATE TABLE status_shards (
    shard INTEGER PRIMARY KEY CHECK (shard > 0),  -- when its last token ends
    blocks INTEGER NOT NULL CHECK (blocks > 0)    -- how many of its blocks were taken
) STRICT;

ALTER TABLE tokens ADD COLUMN status_shard INTEGER;  -- its shard
ALTER TABLE tokens ADD COLUMN status_number INTEGER  -- its number there
    CHECK (status_number >= 0) CHECK ((status_shard IS NULL) = (status_number IS NULL));
CREATE INDEX tokens_on_grants ON tokens (grant_id, issued, id) WHERE grant_id IS NOT NULL;
