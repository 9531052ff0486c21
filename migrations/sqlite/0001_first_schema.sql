-- The first schema. The one for Postgres stands beside it and says the same, table by table.
--
-- Times are seconds since 1970 and come from the caller: nothing here judges by the database's clock, so there is no
-- now() in any statement. Lists and authorities are JSON text, written and read by the program alone. Text is compared
-- and sorted by its bytes, which is what SQLite does when nothing else is said.
-- A UUID is text, hyphenated, in lower case, so that its order as text is its order. There are no foreign keys, as there.

CREATE TABLE objects (                      -- the registry: issuers, agents, resources, admins
    kind TEXT NOT NULL CHECK (kind IN ('issuer', 'agent', 'resource', 'admin')),
    id TEXT NOT NULL,                       -- an issuer's URL, a client's id
    body TEXT NOT NULL,                     -- the object, as JSON, its kind included
    owner TEXT NOT NULL CHECK (owner IN ('file', 'api')), -- who may change it
    PRIMARY KEY (kind, id)
) STRICT;

CREATE TABLE secrets (                      -- what is kept instead of a client's secret
    client TEXT PRIMARY KEY,                -- the client's id
    tag BLOB NOT NULL,                      -- HMAC-SHA-256 under the pepper; of no use to try secrets with without it
    owner TEXT NOT NULL CHECK (owner IN ('file', 'api')) -- who gave the secret
) STRICT;

CREATE TABLE versions (                     -- what a change of the registry or of the keys builds on
    name TEXT PRIMARY KEY CHECK (name IN ('registry', 'keys')),
    version INTEGER NOT NULL CHECK (version >= 0) -- moves on by one with every write that changes it
) STRICT;
INSERT INTO versions (name, version) VALUES ('registry', 0), ('keys', 0);

CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY,                   -- its name in the JWKS
    algorithm TEXT NOT NULL CHECK (algorithm IN ('ES256', 'EdDSA', 'RS256')),
    created INTEGER NOT NULL CHECK (created >= 0),
    activates INTEGER NOT NULL CHECK (activates >= 0), -- from when on it signs
    retires INTEGER CHECK (retires >= 0),   -- from when on it does not sign any more
    gone INTEGER CHECK (gone >= 0),         -- from when on it is not published any more: then it is swept
    public_jwk TEXT NOT NULL,               -- the public key, as JSON
    sealed BLOB NOT NULL                    -- ENCRYPTED: the private key, AES-256-GCM under the key-encryption key
) STRICT;

CREATE TABLE tasks (
    id TEXT PRIMARY KEY,                    -- the `txn` claim
    requester_issuer TEXT NOT NULL,         -- who vouches for the requester
    requester_subject TEXT NOT NULL,        -- who they are, the issuer's prefix included
    root_agent TEXT NOT NULL,               -- the agent that opened it
    purpose TEXT NOT NULL,                  -- what it is for, in words
    authority TEXT NOT NULL,                -- what was approved, as JSON (`authorization_details`)
    state TEXT NOT NULL CHECK (state IN ('active', 'revoked')),
    created INTEGER NOT NULL CHECK (created >= 0),
    deadline INTEGER NOT NULL CHECK (deadline >= 0) -- no token of it lives longer
) STRICT;
CREATE INDEX tasks_by_created ON tasks (created, id);
CREATE INDEX tasks_by_requester ON tasks (requester_subject, requester_issuer, created, id);
CREATE INDEX tasks_by_agent ON tasks (root_agent, created, id);

CREATE TABLE tokens (                       -- the record of every issued token: everything but the token
    id TEXT PRIMARY KEY,                    -- its `jti`
    kind TEXT NOT NULL CHECK (kind IN ('access', 'hand_over', 'txn', 'api')),
    task TEXT,                              -- its `txn`; an API token has none
    requester_issuer TEXT,                  -- in whose name; an API token is in nobody's
    requester_subject TEXT,
    client TEXT NOT NULL,                   -- who got it
    agents TEXT NOT NULL,                   -- the agents of ours that act, the current one first: a JSON list
    audience TEXT NOT NULL,                 -- its `aud`
    lineage TEXT NOT NULL,                  -- the tokens it was derived from, oldest first: a JSON list
    authority TEXT NOT NULL,                -- what may be done with it, as JSON
    issued INTEGER NOT NULL CHECK (issued >= 0),
    expires INTEGER NOT NULL CHECK (expires >= 0),
    rev INTEGER NOT NULL CHECK (rev >= 0),  -- the place in the revocation log that its issuer had applied
    CHECK ((requester_issuer IS NULL) = (requester_subject IS NULL))
) STRICT;
CREATE INDEX tokens_by_issued ON tokens (issued, id);
CREATE INDEX tokens_by_task ON tokens (task, issued, id);
CREATE INDEX tokens_by_requester ON tokens (requester_subject, requester_issuer, issued, id);
CREATE INDEX tokens_by_client ON tokens (client, issued, id);
CREATE INDEX tokens_by_audience ON tokens (audience, issued, id);

CREATE TABLE grants (                       -- recorded permissions: this agent may act for this requester
    requester_issuer TEXT NOT NULL,
    requester_subject TEXT NOT NULL,
    agent TEXT NOT NULL,
    until INTEGER NOT NULL CHECK (until >= 0),
    actor TEXT NOT NULL,                  -- who recorded it
    occurred_at INTEGER NOT NULL CHECK (occurred_at >= 0),
    PRIMARY KEY (requester_issuer, requester_subject, agent)
) STRICT;

CREATE TABLE replay_guards (                 -- what was used and may not be used again
    digest TEXT PRIMARY KEY,                -- SHA-256 of party and id, base64url: both may be of any length, with any character
    keep_until INTEGER NOT NULL CHECK (keep_until >= 0)
) STRICT;
CREATE INDEX replay_guards_by_keep_until ON replay_guards (keep_until);

CREATE TABLE idempotency_keys (                  -- requests that may come again, and what they were answered
    digest TEXT PRIMARY KEY,                -- SHA-256 of caller and key, base64url
    fingerprint TEXT NOT NULL,              -- a digest of the request, so that a key is not used for another one
    response TEXT NOT NULL,                   -- JSON
    seq INTEGER,                            -- the place of its last entry in the revocation log, if it had any
    keep_until INTEGER NOT NULL CHECK (keep_until >= 0)
) STRICT;
CREATE INDEX idempotency_keys_by_keep_until ON idempotency_keys (keep_until);

CREATE TABLE revocation_log (               -- everything that was taken back, in commit order; only ever grows
    seq INTEGER PRIMARY KEY CHECK (seq > 0), -- its place: without gaps, given under the lock on log_head
    kind TEXT NOT NULL CHECK (kind IN ('token', 'task', 'requester', 'agent', 'resource', 'issuer', 'registry', 'keys')),
    key TEXT NOT NULL,                      -- the name among its kind
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,                  -- `admin:NAME`, `client:ID`
    occurred_at INTEGER NOT NULL CHECK (occurred_at >= 0),
    forget_after INTEGER NOT NULL CHECK (forget_after >= 0) -- after this it can end nothing that is alive
) STRICT;
CREATE INDEX revocation_log_by_forget_after ON revocation_log (forget_after, seq);

CREATE TABLE log_head (                     -- one row. Its lock, held to the commit, is what makes seq the commit order
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    seq INTEGER NOT NULL CHECK (seq >= 0)   -- the place of the last entry
) STRICT;
INSERT INTO log_head (singleton, seq) VALUES (1, 0);

CREATE TABLE audit (                        -- the trail. Nobody's permission to change it is needed: a change shows
    writer TEXT NOT NULL,                   -- one start of one process; each has its own chain
    n INTEGER NOT NULL CHECK (n > 0),       -- the number in the chain, from 1
    body TEXT NOT NULL,                     -- canonical JSON: writer, n, the hash before, the record
    hash TEXT NOT NULL,                     -- SHA-256 of the body, base64url
    occurred_at INTEGER NOT NULL CHECK (occurred_at >= 0), -- this and the rest: copies of parts of the body, for searching
    event TEXT NOT NULL,
    outcome TEXT NOT NULL,
    requester_issuer TEXT,
    requester_subject TEXT,
    task TEXT,                              -- as it stands in the body: a copy that was edited must be readable too
    token TEXT,
    resource TEXT,
    request_id TEXT,
    PRIMARY KEY (writer, n)
) STRICT;
CREATE INDEX audit_by_time ON audit (occurred_at, writer, n);
CREATE INDEX audit_by_task ON audit (task, occurred_at, writer, n);
CREATE INDEX audit_by_requester ON audit (requester_subject, requester_issuer, occurred_at, writer, n);
CREATE INDEX audit_by_token ON audit (token, occurred_at, writer, n);
CREATE INDEX audit_by_resource ON audit (resource, occurred_at, writer, n);
CREATE INDEX audit_by_request ON audit (request_id, occurred_at, writer, n);
CREATE INDEX audit_by_event ON audit (event, occurred_at, writer, n);
CREATE INDEX audit_by_outcome ON audit (outcome, occurred_at, writer, n);

CREATE TABLE audit_agents (                 -- whoever acted in a record: all agents of its chain, and its client. Copies too
    writer TEXT NOT NULL,
    n INTEGER NOT NULL,
    agent TEXT NOT NULL,
    occurred_at INTEGER NOT NULL,               -- that of the record, so that a search has its order
    PRIMARY KEY (writer, n, agent)
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_agents_by_agent ON audit_agents (agent, occurred_at, writer, n);

CREATE TABLE audit_writers (                -- the end of every chain, so that a cut at the end shows
    writer TEXT PRIMARY KEY,
    n INTEGER NOT NULL CHECK (n >= 0),      -- the number of the last record
    hash TEXT NOT NULL                      -- its hash; empty when there is none
) STRICT;
