-- Somebody is shut out by an admin, whatever their entry in the registry says: a fact of its own, so that it holds for what
-- the configuration file declares, and outlives every start.

CREATE TABLE blocks (
    kind TEXT NOT NULL CHECK (kind IN ('issuer', 'agent', 'resource', 'admin', 'requester')),
    id TEXT NOT NULL,                       -- an issuer's URL, a client's id; of a requester, issuer and subject with a blank between
    block_kind TEXT NOT NULL CHECK (block_kind IN ('suspended', 'blocked')), -- what they had is held back, or was ended
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,                  -- who did it
    occurred_at INTEGER NOT NULL CHECK (occurred_at >= 0),
    PRIMARY KEY (kind, id)
) STRICT;

-- An agent can be held back like a task. What a client got by its old credentials ends with them. SQLite changes no
-- CHECK, so the table is made anew.
CREATE TABLE revocation_log_new (
    seq INTEGER PRIMARY KEY CHECK (seq > 0), -- its place: without gaps, given under the lock on log_head
    kind TEXT NOT NULL CHECK (kind IN ('token', 'task', 'grant', 'requester', 'agent', 'credentials', 'resource', 'issuer', 'registry', 'keys')),
    key TEXT NOT NULL,                      -- the name among its kind
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,                  -- `admin:NAME`, `client:ID`
    occurred_at INTEGER NOT NULL CHECK (occurred_at >= 0),
    forget_after INTEGER NOT NULL CHECK (forget_after >= 0), -- after this it can end nothing that is alive
    verb TEXT NOT NULL DEFAULT 'revoke' CHECK (verb IN ('revoke', 'suspend', 'resume') AND (verb = 'revoke' OR kind IN ('task', 'agent')))
) STRICT;
INSERT INTO revocation_log_new (seq, kind, key, reason, actor, occurred_at, forget_after, verb)
    SELECT seq, kind, key, reason, actor, occurred_at, forget_after, verb FROM revocation_log;
DROP TABLE revocation_log;
ALTER TABLE revocation_log_new RENAME TO revocation_log;
CREATE INDEX revocation_log_by_forget_after ON revocation_log (forget_after, seq);
