-- Grants for an emergency: each is a grant, and is kept here, with the review of what was done with it, when the grant is gone.

ALTER TABLE grants ADD COLUMN break_glass INTEGER NOT NULL DEFAULT 0 CHECK (break_glass IN (0, 1));
ALTER TABLE tokens ADD COLUMN break_glass INTEGER NOT NULL DEFAULT 0 CHECK (break_glass IN (0, 1));  -- whether the grant that it rests on is one

CREATE TABLE break_glass (
    id TEXT PRIMARY KEY,
    requester_issuer TEXT NOT NULL,
    requester_subject TEXT NOT NULL,
    agent TEXT NOT NULL,
    authority TEXT NOT NULL,                -- what it is for, as JSON
    until INTEGER NOT NULL CHECK (until >= 0),
    actor TEXT NOT NULL,                  -- who made it: `admin:NAME`
    occurred_at INTEGER NOT NULL CHECK (occurred_at >= 0),
    reason TEXT NOT NULL,                   -- what the emergency is
    reviewed_by TEXT,                       -- who signed it off: another admin
    reviewed_at INTEGER CHECK (reviewed_at >= 0),
    note TEXT,                              -- what they found
    CHECK ((reviewed_by IS NULL) = (reviewed_at IS NULL) AND (note IS NULL) = (reviewed_at IS NULL)),
    CHECK (reviewed_by <> actor)
) STRICT;
CREATE INDEX break_glass_by_time ON break_glass (occurred_at, id);
CREATE INDEX break_glass_unreviewed ON break_glass (occurred_at, id) WHERE reviewed_at IS NULL;
