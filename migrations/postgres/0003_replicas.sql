-- Replicas that answer from memory. While its lease holds, a replica does not ask whether something was taken back, so
-- whoever takes something back waits until it has acknowledged that, or until its lease is over.
--
-- The database's clock is not asked here either: a replica counts its lease from before it sent the renewal, on its own
-- monotonic clock; who waits counts the same length from after it saw the renewal, on theirs. A database whose clock is
-- set, or which is another one after a failover, can't make a lease end too early.

CREATE TABLE replicas (
    id uuid PRIMARY KEY,                    -- one start of one process
    name text NOT NULL,                     -- what its operator calls it
    version text NOT NULL,                  -- of the program
    started_at bigint NOT NULL CHECK (started_at >= 0), -- by its own clock
    heartbeat_number bigint NOT NULL CHECK (heartbeat_number > 0),  -- the how manieth renewal this is, by its own count: never the same twice
    applied_seq bigint NOT NULL CHECK (applied_seq >= 0), -- its acknowledgement: up to where it has applied the log
    lease_ms bigint NOT NULL CHECK (lease_ms > 0), -- for how long after it sent this renewal it may answer from memory
    renewed_at bigint NOT NULL CHECK (renewed_at >= 0) -- when, by its own clock: to be shown, never judged by
);
