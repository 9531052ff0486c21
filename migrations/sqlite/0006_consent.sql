-- A grant has a name of its own, and may say what for. Tasks and tokens say which one they rest on, so that withdrawing it
-- is one entry of the log. Grants from before say nothing of what may be done, as ever.
-- SQLite changes no key and no CHECK, so these tables are made anew.

CREATE TABLE grants_with_names (
    requester_issuer TEXT NOT NULL,
    requester_subject TEXT NOT NULL,
    agent TEXT NOT NULL,
    until INTEGER NOT NULL CHECK (until >= 0),
    done_by TEXT NOT NULL,                  -- who recorded it
    done_at INTEGER NOT NULL CHECK (done_at >= 0),
    id TEXT PRIMARY KEY,
    authority TEXT                          -- what the requester consents to, as JSON; none: only who may act
) STRICT;
INSERT INTO grants_with_names (requester_issuer, requester_subject, agent, until, done_by, done_at, id)
    SELECT requester_issuer, requester_subject, agent, until, done_by, done_at,
        lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-8'
            || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6)))
    FROM grants;
DROP TABLE grants;
ALTER TABLE grants_with_names RENAME TO grants;
CREATE INDEX grants_newest ON grants (done_at, id);
CREATE INDEX grants_between ON grants (requester_subject, requester_issuer, agent, until, id);
CREATE INDEX grants_by_requester ON grants (requester_subject, requester_issuer, done_at, id);

ALTER TABLE tasks ADD COLUMN grant_id TEXT;    -- the grant that it rests on
CREATE INDEX tasks_on_grants ON tasks (grant_id) WHERE grant_id IS NOT NULL AND state IN ('active', 'suspended');
ALTER TABLE tokens ADD COLUMN grant_id TEXT;   -- the grant that it rests on

CREATE TABLE revocation_log_of_grants (
    seq INTEGER PRIMARY KEY CHECK (seq > 0), -- its place: without gaps, given under the lock on log_head
    kind TEXT NOT NULL CHECK (kind IN ('token', 'task', 'grant', 'requester', 'agent', 'resource', 'issuer', 'registry', 'keys')),
    key TEXT NOT NULL,                      -- the name among its kind
    reason TEXT NOT NULL,
    done_by TEXT NOT NULL,                  -- `admin:NAME`, `client:ID`, `requester:ISSUER SUBJECT`
    done_at INTEGER NOT NULL CHECK (done_at >= 0),
    forget_after INTEGER NOT NULL CHECK (forget_after >= 0), -- after this it can end nothing that is alive
    verb TEXT NOT NULL DEFAULT 'revoke' CHECK (verb IN ('revoke', 'suspend', 'resume') AND (verb = 'revoke' OR kind = 'task'))
) STRICT;
INSERT INTO revocation_log_of_grants (seq, kind, key, reason, done_by, done_at, forget_after, verb)
    SELECT seq, kind, key, reason, done_by, done_at, forget_after, verb FROM revocation_log;
DROP TABLE revocation_log;
ALTER TABLE revocation_log_of_grants RENAME TO revocation_log;
CREATE INDEX revocation_log_not_forgotten ON revocation_log (forget_after, seq);
