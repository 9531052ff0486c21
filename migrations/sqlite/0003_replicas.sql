-- Replicas that answer from memory. While its lease holds, a replica does not ask whether something was taken back, so
-- whoever takes something back waits until it has acknowledged that, or until its lease is over. Two programs may serve
-- from one file, and a command may write to it.
--
-- The database's clock is not asked here either: a replica counts its lease from before it sent the renewal, on its own
-- monotonic clock; who waits counts the same length from after it saw the renewal, on theirs.

CREATE TABLE replicas (
    id TEXT PRIMARY KEY,                    -- one start of one process
    name TEXT NOT NULL,                     -- what its operator calls it
    version TEXT NOT NULL,                  -- of the program
    started_at INTEGER NOT NULL CHECK (started_at >= 0), -- by its own clock
    heartbeat_number INTEGER NOT NULL CHECK (heartbeat_number > 0), -- the how manieth renewal this is, by its own count: never the same twice
    applied_seq INTEGER NOT NULL CHECK (applied_seq >= 0), -- its acknowledgement: up to where it has applied the log
    lease_ms INTEGER NOT NULL CHECK (lease_ms > 0), -- for how long after it sent this renewal it may answer from memory
    renewed_at INTEGER NOT NULL CHECK (renewed_at >= 0) -- when, by its own clock: to be shown, never judged by
) STRICT;
