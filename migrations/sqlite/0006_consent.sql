-- A grant has a name of its own, and may say what for. Tasks and tokens say which one they rest on, so that withdrawing it
-- is one entry of the log. Grants from before say nothing of what may be done, as ever.
-- SQLite changes no key and no CHECK, so these tables are made anew.

CREATE TABLE grants_new (
    requester_issuer TEXT NOT NULL,
    requester_subject TEXT NOT NULL,
    agent TEXT NOT NULL,
    until INTEGER NOT NULL CHECK (until >= 0),
    actor TEXT NOT NULL,                  -- who recorded it
    occurred_at INTEGER NOT NULL CHECK (occurred_at >= 0),
    id TEXT PRIMARY KEY,
    authority TEXT                          -- what the requester consents to, as JSON; none: only who may act
) STRICT;
INSERT INTO grants_new (requester_issuer, requester_subject, agent, until, actor, occurred_at, id)
    SELECT requester_issuer, requester_subject, agent, until, actor, occurred_at,
        lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8'
            || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))
    FROM grants;
DROP TABLE grants;
ALTER TABLE grants_new RENAME TO grants;
CREATE INDEX grants_by_time ON grants (occurred_at, id);
CREATE INDEX grants_by_requester_and_agent ON grants (requester_subject, requester_issuer, agent, until, id);
CREATE INDEX grants_by_requester ON grants (requester_subject, requester_issuer, occurred_at, id);

ALTER TABLE tasks ADD COLUMN grant_id TEXT;    -- the grant that it rests on
CREATE INDEX tasks_by_grant ON tasks (grant_id) WHERE grant_id IS NOT NULL AND state IN ('active', 'suspended');
ALTER TABLE tokens ADD COLUMN grant_id TEXT;   -- the grant that it rests on

CREATE TABLE revocation_log_new (
    seq INTEGER PRIMARY KEY CHECK (seq > 0), -- its place: without gaps, given under the lock on log_head
    kind TEXT NOT NULL CHECK (kind IN ('token', 'task', 'grant', 'requester', 'agent', 'resource', 'issuer', 'registry', 'keys')),
    key TEXT NOT NULL,                      -- the name among its kind
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,                  -- `admin:NAME`, `client:ID`, `requester:ISSUER SUBJECT`
    occurred_at INTEGER NOT NULL CHECK (occurred_at >= 0),
    forget_after INTEGER NOT NULL CHECK (forget_after >= 0), -- after this it can end nothing that is alive
    verb TEXT NOT NULL DEFAULT 'revoke' CHECK (verb IN ('revoke', 'suspend', 'resume') AND (verb = 'revoke' OR kind = 'task'))
) STRICT;
INSERT INTO revocation_log_new (seq, kind, key, reason, actor, occurred_at, forget_after, verb)
    SELECT seq, kind, key, reason, actor, occurred_at, forget_after, verb FROM revocation_log;
DROP TABLE revocation_log;
ALTER TABLE revocation_log_new RENAME TO revocation_log;
CREATE INDEX revocation_log_by_forget_after ON revocation_log (forget_after, seq);
