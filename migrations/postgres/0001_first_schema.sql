-- The first schema. The one for SQLite stands beside it and says the same, table by table.
--
-- Times are seconds since 1970 and come from the caller: nothing here judges by the database's clock, so there is no
-- now() in any statement. Lists and authorities are JSON text, written and read by the program alone. Text that is
-- compared or sorted has the collation "C": an order must not change with an operating system's upgrade.
-- There are no foreign keys: a row lock on a task would be the only thing that two issuers share.

CREATE TABLE objects (                      -- the registry: issuers, agents, resources, admins
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('issuer', 'agent', 'resource', 'admin')),
    id text COLLATE "C" NOT NULL,           -- an issuer's URL, a client's id
    body text NOT NULL,                     -- the object, as JSON, its kind included
    owner text NOT NULL CHECK (owner IN ('file', 'api')), -- who may change it
    PRIMARY KEY (kind, id)
);

CREATE TABLE secrets (                      -- what is kept instead of a client's secret
    client text COLLATE "C" PRIMARY KEY,    -- the client's id
    tag bytea NOT NULL,                     -- HMAC-SHA-256 under the pepper; of no use to try secrets with without it
    owner text NOT NULL CHECK (owner IN ('file', 'api')) -- who gave the secret
);

CREATE TABLE versions (                     -- what a change of the registry or of the keys builds on
    name text COLLATE "C" PRIMARY KEY CHECK (name IN ('registry', 'keys')),
    version bigint NOT NULL CHECK (version >= 0) -- moves on by one with every write that changes it
);
INSERT INTO versions (name, version) VALUES ('registry', 0), ('keys', 0);

CREATE TABLE signing_keys (
    kid text COLLATE "C" PRIMARY KEY,       -- its name in the JWKS
    algorithm text NOT NULL CHECK (algorithm IN ('ES256', 'EdDSA', 'RS256')),
    created bigint NOT NULL CHECK (created >= 0),
    activates bigint NOT NULL CHECK (activates >= 0), -- from when on it signs
    retires bigint CHECK (retires >= 0),    -- from when on it does not sign any more
    gone bigint CHECK (gone >= 0),          -- from when on it is not published any more: then it is swept
    public_jwk text NOT NULL,               -- the public key, as JSON
    sealed bytea NOT NULL                   -- ENCRYPTED: the private key, AES-256-GCM under the key-encryption key
);

CREATE TABLE tasks (
    id uuid PRIMARY KEY,                    -- the `txn` claim
    requester_issuer text COLLATE "C" NOT NULL,  -- who vouches for the requester
    requester_subject text COLLATE "C" NOT NULL, -- who they are, the issuer's prefix included
    root_agent text COLLATE "C" NOT NULL,   -- the agent that opened it
    purpose text NOT NULL,                  -- what it is for, in words
    authority text NOT NULL,                -- what was approved, as JSON (`authorization_details`)
    state text NOT NULL CHECK (state IN ('active', 'revoked')),
    created bigint NOT NULL CHECK (created >= 0),
    deadline bigint NOT NULL CHECK (deadline >= 0) -- no token of it lives longer
);
CREATE INDEX tasks_by_created ON tasks (created, id);
CREATE INDEX tasks_by_requester ON tasks (requester_subject, requester_issuer, created, id);
CREATE INDEX tasks_by_agent ON tasks (root_agent, created, id);

CREATE TABLE tokens (                       -- the record of every issued token: everything but the token
    id uuid PRIMARY KEY,                    -- its `jti`
    kind text NOT NULL CHECK (kind IN ('access', 'hand_over', 'txn', 'api')),
    task uuid,                              -- its `txn`; an API token has none
    requester_issuer text COLLATE "C",      -- in whose name; an API token is in nobody's
    requester_subject text COLLATE "C",
    client text COLLATE "C" NOT NULL,       -- who got it
    agents text NOT NULL,                   -- the agents of ours that act, the current one first: a JSON list
    audience text COLLATE "C" NOT NULL,     -- its `aud`
    lineage text NOT NULL,                  -- the tokens it was derived from, oldest first: a JSON list
    authority text NOT NULL,                -- what may be done with it, as JSON
    issued bigint NOT NULL CHECK (issued >= 0),
    expires bigint NOT NULL CHECK (expires >= 0),
    rev bigint NOT NULL CHECK (rev >= 0),   -- the place in the revocation log that its issuer had applied
    CHECK ((requester_issuer IS NULL) = (requester_subject IS NULL))
);
CREATE INDEX tokens_by_issued ON tokens (issued, id);
CREATE INDEX tokens_by_task ON tokens (task, issued, id);
CREATE INDEX tokens_by_requester ON tokens (requester_subject, requester_issuer, issued, id);
CREATE INDEX tokens_by_client ON tokens (client, issued, id);
CREATE INDEX tokens_by_audience ON tokens (audience, issued, id);

CREATE TABLE grants (                       -- recorded permissions: this agent may act for this requester
    requester_issuer text COLLATE "C" NOT NULL,
    requester_subject text COLLATE "C" NOT NULL,
    agent text COLLATE "C" NOT NULL,
    until bigint NOT NULL CHECK (until >= 0),
    actor text NOT NULL,                  -- who recorded it
    occurred_at bigint NOT NULL CHECK (occurred_at >= 0),
    PRIMARY KEY (requester_issuer, requester_subject, agent)
);

CREATE TABLE replay_guards (                 -- what was used and may not be used again
    digest text COLLATE "C" PRIMARY KEY,    -- SHA-256 of party and id, base64url: both may be of any length, with any character
    keep_until bigint NOT NULL CHECK (keep_until >= 0)
);
CREATE INDEX replay_guards_by_keep_until ON replay_guards (keep_until);

CREATE TABLE idempotency_keys (                  -- requests that may come again, and what they were answered
    digest text COLLATE "C" PRIMARY KEY,    -- SHA-256 of caller and key, base64url
    fingerprint text NOT NULL,              -- a digest of the request, so that a key is not used for another one
    response text NOT NULL,                   -- JSON
    seq bigint,                             -- the place of its last entry in the revocation log, if it had any
    keep_until bigint NOT NULL CHECK (keep_until >= 0)
);
CREATE INDEX idempotency_keys_by_keep_until ON idempotency_keys (keep_until);

CREATE TABLE revocation_log (               -- everything that was taken back, in commit order; only ever grows
    seq bigint PRIMARY KEY CHECK (seq > 0), -- its place: without gaps, given under the lock on log_head
    kind text NOT NULL CHECK (kind IN ('token', 'task', 'requester', 'agent', 'resource', 'issuer', 'registry', 'keys')),
    key text NOT NULL,                      -- the name among its kind
    reason text NOT NULL,
    actor text NOT NULL,                  -- `admin:NAME`, `client:ID`
    occurred_at bigint NOT NULL CHECK (occurred_at >= 0),
    forget_after bigint NOT NULL CHECK (forget_after >= 0) -- after this it can end nothing that is alive
);
CREATE INDEX revocation_log_by_forget_after ON revocation_log (forget_after, seq);

CREATE TABLE log_head (                     -- one row. Its lock, held to the commit, is what makes seq the commit order
    singleton smallint PRIMARY KEY CHECK (singleton = 1),
    seq bigint NOT NULL CHECK (seq >= 0)    -- the place of the last entry
);
INSERT INTO log_head (singleton, seq) VALUES (1, 0);

CREATE TABLE audit (                        -- the trail. Nobody's permission to change it is needed: a change shows
    writer uuid NOT NULL,                   -- one start of one process; each has its own chain
    n bigint NOT NULL CHECK (n > 0),        -- the number in the chain, from 1
    body text NOT NULL,                     -- canonical JSON: writer, n, the hash before, the record
    hash text NOT NULL,                     -- SHA-256 of the body, base64url
    occurred_at bigint NOT NULL CHECK (occurred_at >= 0), -- this and the rest: copies of parts of the body, for searching
    event text COLLATE "C" NOT NULL,
    outcome text COLLATE "C" NOT NULL,
    requester_issuer text COLLATE "C",
    requester_subject text COLLATE "C",
    task text COLLATE "C",                  -- text and no uuid: a copy that was edited must be readable too
    token text COLLATE "C",
    resource text COLLATE "C",
    request_id text COLLATE "C",
    PRIMARY KEY (writer, n)
);
CREATE INDEX audit_by_time ON audit (occurred_at, writer, n);
CREATE INDEX audit_by_task ON audit (task, occurred_at, writer, n);
CREATE INDEX audit_by_requester ON audit (requester_subject, requester_issuer, occurred_at, writer, n);
CREATE INDEX audit_by_token ON audit (token, occurred_at, writer, n);
CREATE INDEX audit_by_resource ON audit (resource, occurred_at, writer, n);
CREATE INDEX audit_by_request ON audit (request_id, occurred_at, writer, n);
CREATE INDEX audit_by_event ON audit (event, occurred_at, writer, n);
CREATE INDEX audit_by_outcome ON audit (outcome, occurred_at, writer, n);

CREATE TABLE audit_agents (                 -- whoever acted in a record: all agents of its chain, and its client. Copies too
    writer uuid NOT NULL,
    n bigint NOT NULL,
    agent text COLLATE "C" NOT NULL,
    occurred_at bigint NOT NULL,                -- that of the record, so that a search has its order
    PRIMARY KEY (writer, n, agent)
);
CREATE INDEX audit_agents_by_agent ON audit_agents (agent, occurred_at, writer, n);

CREATE TABLE audit_writers (                -- the end of every chain, so that a cut at the end shows
    writer uuid PRIMARY KEY,
    n bigint NOT NULL CHECK (n >= 0),       -- the number of the last record
    hash text NOT NULL                      -- its hash; empty when there is none
);
