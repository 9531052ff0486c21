-- Grants for an emergency: each is a grant, and is kept here, with the review of what was done with it, when the grant is gone.

ALTER TABLE grants ADD COLUMN break_glass boolean NOT NULL DEFAULT false;
ALTER TABLE tokens ADD COLUMN break_glass boolean NOT NULL DEFAULT false;  -- whether the grant that it rests on is one

CREATE TABLE break_glass (
    id uuid PRIMARY KEY,
    requester_issuer text NOT NULL,
    requester_subject text NOT NULL,
    agent text NOT NULL,
    authority text NOT NULL,                -- what it is for, as JSON
    until bigint NOT NULL CHECK (until >= 0),
    actor text NOT NULL,                  -- who made it: `admin:NAME`
    occurred_at bigint NOT NULL CHECK (occurred_at >= 0),
    reason text NOT NULL,                   -- what the emergency is
    reviewed_by text,                       -- who signed it off: another admin
    reviewed_at bigint CHECK (reviewed_at >= 0),
    note text,                              -- what they found
    CHECK ((reviewed_by IS NULL) = (reviewed_at IS NULL) AND (note IS NULL) = (reviewed_at IS NULL)),
    CHECK (reviewed_by <> actor)
);
CREATE INDEX break_glass_by_time ON break_glass (occurred_at, id);
CREATE INDEX break_glass_unreviewed ON break_glass (occurred_at, id) WHERE reviewed_at IS NULL;
