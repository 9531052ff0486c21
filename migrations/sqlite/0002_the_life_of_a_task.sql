-- A task has a life: it can be suspended and resumed, and it ends in one of four ways. The log says what is done to a name.
-- SQLite changes no CHECK, so the table is made anew.

CREATE TABLE tasks_new (
    id TEXT PRIMARY KEY,                    -- the `txn` claim
    requester_issuer TEXT NOT NULL,         -- who vouches for the requester
    requester_subject TEXT NOT NULL,        -- who they are, the issuer's prefix included
    root_agent TEXT NOT NULL,               -- the agent that opened it
    purpose TEXT NOT NULL,                  -- what it is for, in words
    authority TEXT NOT NULL,                -- what was approved, as JSON (`authorization_details`)
    state TEXT NOT NULL CHECK (state IN ('active', 'suspended', 'completed', 'failed', 'expired', 'revoked')),
    created INTEGER NOT NULL CHECK (created >= 0),
    deadline INTEGER NOT NULL CHECK (deadline >= 0), -- no token of it lives longer
    version INTEGER NOT NULL CHECK (version >= 0), -- how often the state has changed
    last_transition TEXT                             -- the last change: when, by whom, why, as JSON
) STRICT;
INSERT INTO tasks_new
    (id, requester_issuer, requester_subject, root_agent, purpose, authority, state, created, deadline, version)
    SELECT id, requester_issuer, requester_subject, root_agent, purpose, authority, state, created, deadline, 0 FROM tasks;
DROP TABLE tasks;
ALTER TABLE tasks_new RENAME TO tasks;
CREATE INDEX tasks_by_created ON tasks (created, id);
CREATE INDEX tasks_by_requester ON tasks (requester_subject, requester_issuer, created, id);
CREATE INDEX tasks_by_agent ON tasks (root_agent, created, id);
CREATE INDEX tasks_by_deadline ON tasks (deadline, id) WHERE state IN ('active', 'suspended');

ALTER TABLE revocation_log ADD COLUMN verb TEXT NOT NULL DEFAULT 'revoke' CHECK (verb IN ('revoke', 'suspend', 'resume') AND (verb = 'revoke' OR kind = 'task'));
