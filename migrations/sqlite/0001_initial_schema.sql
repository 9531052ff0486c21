-- The schema of the store on SQLite. The schema for PostgreSQL has the same tables in the same
-- order.
--
-- Times are seconds since 1970 and come from the caller. No statement uses the database's clock, so
-- now() does not appear. Lists and authorities are JSON text that only the program writes and
-- reads. Text is compared and sorted by its bytes, which is SQLite's default. A UUID is hyphenated
-- text in lower case, so that its order as text is its order as a number. There are no foreign
-- keys, as on PostgreSQL.

CREATE TABLE objects (                      -- the registry: issuers, agents, resources, admins
    kind TEXT NOT NULL CHECK (kind IN ('issuer', 'agent', 'resource', 'admin')),
    id TEXT NOT NULL,                       -- an issuer's URL or a client's id
    body TEXT NOT NULL,                     -- the object as JSON, with its kind
    owner TEXT NOT NULL CHECK (owner IN ('file', 'api')), -- which of the two may change it
    -- the log head before the object was registered: an object registered later under the same name
    -- is a different one
    registered_seq INTEGER NOT NULL DEFAULT 0 CHECK (registered_seq >= 0),
    PRIMARY KEY (kind, id)
) STRICT;

CREATE TABLE secrets (                      -- tags of client secrets
    client TEXT PRIMARY KEY,                -- the client's id
    -- HMAC-SHA-256 under the pepper, without which no secret can be tested against it
    tag BLOB NOT NULL,
    owner TEXT NOT NULL CHECK (owner IN ('file', 'api')) -- where the secret comes from
) STRICT;

CREATE TABLE versions (                     -- versions for optimistic concurrency
    name TEXT PRIMARY KEY CHECK (name IN ('registry', 'keys')),
    -- every write that changes the registry or the keys adds one
    version INTEGER NOT NULL CHECK (version >= 0),
    -- HMAC-SHA-256 over the version and all rows of the registry or all keys
    seal TEXT
) STRICT;
INSERT INTO versions (name, version) VALUES ('registry', 0), ('keys', 0);

-- one row, from the first start of a server on
CREATE TABLE deployment (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    -- `issuer` of the configuration: every token contains it, so it never changes
    issuer TEXT NOT NULL
) STRICT;

-- the configuration files that were applied; the last one is in force. Append-only
CREATE TABLE applied_files (
    number INTEGER PRIMARY KEY CHECK (number > 0), -- from 1, without gaps
    digest TEXT NOT NULL, -- SHA-256 of the declared objects and secret tags, base64url
    generation INTEGER CHECK (generation >= 0), -- `generation` of the file, if it has one
    actor TEXT NOT NULL, -- the replica or the operator that applied the file
    occurred_at INTEGER NOT NULL CHECK (occurred_at >= 0)
) STRICT;

CREATE TABLE signing_keys (
    kid TEXT PRIMARY KEY,                   -- the name in the JWK set
    algorithm TEXT NOT NULL CHECK (algorithm IN ('ES256', 'EdDSA', 'RS256')),
    created INTEGER NOT NULL CHECK (created >= 0),
    activates INTEGER NOT NULL CHECK (activates >= 0), -- the key signs from this time on
    retires INTEGER CHECK (retires >= 0),   -- the key no longer signs from this time on
    -- the key is no longer published from this time on, and is then deleted
    gone INTEGER CHECK (gone >= 0),
    public_jwk TEXT NOT NULL,               -- the public key, as JSON
    -- ENCRYPTED: the private key, AES-256-GCM under the key-encryption key
    sealed BLOB NOT NULL
) STRICT;

-- keys of the server for other purposes than the signing of tokens
CREATE TABLE sealed_keys (
    purpose TEXT NOT NULL
        CHECK (purpose IN ('client_secrets', 'audit_records', 'audit_checkpoints', 'row_tags')),
    -- the number among the keys of this purpose; the last one is in use
    epoch INTEGER NOT NULL CHECK (epoch > 0),
    created INTEGER NOT NULL CHECK (created >= 0),
    -- ENCRYPTED: the key, AES-256-GCM under the key-encryption key
    sealed BLOB NOT NULL,
    PRIMARY KEY (purpose, epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE tasks (
    id TEXT PRIMARY KEY,                    -- the `txn` claim
    requester_issuer TEXT NOT NULL,
    requester_subject TEXT NOT NULL,        -- with the issuer's prefix
    root_agent TEXT NOT NULL,               -- the agent that opened the task
    purpose TEXT NOT NULL,                  -- free text
    -- the approved authority, as JSON (`authorization_details`)
    authority TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('active', 'suspended', 'completed', 'failed', 'expired', 'revoked')),
    created INTEGER NOT NULL CHECK (created >= 0),
    deadline INTEGER NOT NULL CHECK (deadline >= 0), -- no token of the task outlives it
    version INTEGER NOT NULL CHECK (version >= 0), -- the number of transitions so far
    last_transition TEXT,                   -- the last transition: time, actor and reason, as JSON
    grant_id TEXT,                          -- the grant on which the task was opened
    -- the log position that the opening replica had applied
    rev INTEGER NOT NULL DEFAULT 0 CHECK (rev >= 0),
    tag TEXT NOT NULL                       -- HMAC-SHA-256 over the row, base64url
) STRICT;
-- A list of tasks reads each state in its order and merges them. A list of one state, or of the
-- open tasks only, therefore reads no task in another state, however many there are.
CREATE INDEX tasks_by_state ON tasks (state, created, id);
CREATE INDEX tasks_by_requester ON tasks (requester_subject, requester_issuer, state, created, id);
CREATE INDEX tasks_by_agent ON tasks (root_agent, state, created, id);
CREATE INDEX tasks_by_deadline ON tasks (deadline, id) WHERE state IN ('active', 'suspended');
CREATE INDEX tasks_open_by_agent ON tasks (root_agent, deadline) WHERE state IN ('active', 'suspended');
CREATE INDEX tasks_open_by_requester ON tasks (requester_subject, requester_issuer, deadline) WHERE state IN ('active', 'suspended');
CREATE INDEX tasks_by_grant ON tasks (grant_id) WHERE grant_id IS NOT NULL AND state IN ('active', 'suspended');

-- the resources in the authority of each task, for lists of the tasks at a resource: copies of
-- parts of the task, which never change
CREATE TABLE task_resources (
    resource TEXT NOT NULL,                 -- its URI
    opened INTEGER NOT NULL,                -- `created` of the task
    task TEXT NOT NULL,                     -- its id
    agent TEXT NOT NULL,                    -- its root agent
    issuer TEXT NOT NULL,                   -- its requester
    subject TEXT NOT NULL,
    PRIMARY KEY (resource, opened, task)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_resources_by_task ON task_resources (task);
CREATE INDEX task_resources_by_agent ON task_resources (agent, resource, opened, task);
CREATE INDEX task_resources_by_requester ON task_resources (subject, issuer, resource, opened, task);

-- records of issued tokens: everything except the tokens themselves
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,                    -- the `jti` claim
    kind TEXT NOT NULL CHECK (kind IN ('access', 'hand_over', 'txn', 'api')),
    task TEXT,                              -- the `txn` claim; API tokens have none
    requester_issuer TEXT,                  -- API tokens have no requester
    requester_subject TEXT,
    client TEXT NOT NULL,                   -- the client to which the token was issued
    -- the acting agents of this server, the current one first: a JSON list
    agents TEXT NOT NULL,
    audience TEXT NOT NULL,                 -- the `aud` claim
    -- the tokens from which this one was derived, oldest first: a JSON list
    lineage TEXT NOT NULL,
    authority TEXT NOT NULL,                -- the authority that the token carries, as JSON
    issued INTEGER NOT NULL CHECK (issued >= 0),
    expires INTEGER NOT NULL CHECK (expires >= 0),
    rev INTEGER NOT NULL CHECK (rev >= 0),  -- the log position that the issuing replica had applied
    grant_id TEXT,                          -- the grant on which the token was issued
    -- whether that grant is a break-glass grant
    break_glass INTEGER NOT NULL DEFAULT 0 CHECK (break_glass IN (0, 1)),
    status_shard INTEGER,                   -- the shard of the status list index
    status_index INTEGER CHECK (status_index >= 0), -- the status list index within the shard
    evidence TEXT,               -- the user token that was exchanged: a digest of its issuer and `jti`, or of its text
    evidence_issued INTEGER CHECK (evidence_issued >= 0), -- its `iat`; 0 if it has none
    evidence_expires INTEGER CHECK (evidence_expires >= 0), -- its `exp`
    session TEXT,                -- the session of its sign-in: a digest of its issuer and `sid`
    tag TEXT NOT NULL,                      -- HMAC-SHA-256 over the row, base64url
    CHECK ((evidence IS NULL) = (evidence_issued IS NULL) AND (evidence IS NULL) = (evidence_expires IS NULL)),
    CHECK (evidence IS NOT NULL OR session IS NULL),
    CHECK ((requester_issuer IS NULL) = (requester_subject IS NULL)),
    CHECK ((status_shard IS NULL) = (status_index IS NULL))
) STRICT;
CREATE INDEX tokens_by_issued ON tokens (issued, id);
CREATE INDEX tokens_by_task ON tokens (task, issued, id);
CREATE INDEX tokens_by_requester ON tokens (requester_subject, requester_issuer, issued, id);
CREATE INDEX tokens_by_session ON tokens (requester_subject, requester_issuer, session) WHERE session IS NOT NULL;
CREATE INDEX tokens_by_client ON tokens (client, issued, id);
CREATE INDEX tokens_by_audience ON tokens (audience, issued, id);
CREATE INDEX tokens_by_grant ON tokens (grant_id, issued, id) WHERE grant_id IS NOT NULL;

CREATE TABLE grants (                       -- permissions of agents to act for requesters
    id TEXT PRIMARY KEY,
    requester_issuer TEXT NOT NULL,
    requester_subject TEXT NOT NULL,
    agent TEXT NOT NULL,
    -- the authority that the requester consents to, as JSON; NULL: the grant names the agent only
    authority TEXT,
    until INTEGER NOT NULL CHECK (until >= 0),
    actor TEXT NOT NULL,                    -- the party that recorded the grant
    occurred_at INTEGER NOT NULL CHECK (occurred_at >= 0),
    break_glass INTEGER NOT NULL DEFAULT 0 CHECK (break_glass IN (0, 1)),
    tag TEXT NOT NULL                       -- HMAC-SHA-256 over the row, base64url
) STRICT;
CREATE INDEX grants_by_time ON grants (occurred_at, id);
CREATE INDEX grants_by_requester_and_agent ON grants (requester_subject, requester_issuer, agent, until, id);
CREATE INDEX grants_by_agent ON grants (agent, occurred_at, id);
CREATE INDEX grants_by_requester ON grants (requester_subject, requester_issuer, occurred_at, id);

-- break-glass grants and their reviews, kept when the grant itself is removed
CREATE TABLE break_glass (
    id TEXT PRIMARY KEY,                    -- the id of the grant
    requester_issuer TEXT NOT NULL,
    requester_subject TEXT NOT NULL,
    agent TEXT NOT NULL,
    authority TEXT NOT NULL,                -- the authority of the grant, as JSON
    until INTEGER NOT NULL CHECK (until >= 0),
    actor TEXT NOT NULL,                    -- the admin who created the grant: `admin:NAME`
    occurred_at INTEGER NOT NULL CHECK (occurred_at >= 0),
    reason TEXT NOT NULL,                   -- the emergency
    reviewed_by TEXT,                       -- the reviewer: a different admin
    reviewed_at INTEGER CHECK (reviewed_at >= 0),
    note TEXT,                              -- the reviewer's findings
    tag TEXT NOT NULL,                      -- HMAC-SHA-256 over the row, base64url
    CHECK ((reviewed_by IS NULL) = (reviewed_at IS NULL) AND (note IS NULL) = (reviewed_at IS NULL)),
    CHECK (reviewed_by <> actor)
) STRICT;
CREATE INDEX break_glass_by_time ON break_glass (occurred_at, id);
CREATE INDEX break_glass_unreviewed ON break_glass (occurred_at, id) WHERE reviewed_at IS NULL;
CREATE INDEX break_glass_reviewed ON break_glass (occurred_at, id) WHERE reviewed_at IS NOT NULL;

-- parties that an admin has blocked. Blocks are separate from the objects, so that they apply to
-- objects of the configuration file and survive a restart
CREATE TABLE blocks (
    kind TEXT NOT NULL CHECK (kind IN ('issuer', 'agent', 'resource', 'admin', 'requester', 'agents')),
    -- an issuer's URL, a client's id, or a requester's issuer and subject with a space
    id TEXT NOT NULL,
    -- tokens are suspended, or were revoked
    block_kind TEXT NOT NULL CHECK (block_kind IN ('suspended', 'blocked')),
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,                    -- the admin who blocked the party
    occurred_at INTEGER NOT NULL CHECK (occurred_at >= 0),
    PRIMARY KEY (kind, id)
) STRICT;

-- tool definitions that MCP servers list, and those that an admin has accepted. They are separate
-- from the objects, because the configuration file owns some objects and holds no digests
CREATE TABLE tools (
    resource TEXT NOT NULL,                 -- the client id of the resource
    tool TEXT NOT NULL,                     -- the tool's name at the resource
    accepted TEXT,                          -- the digest of the accepted definition
    accepted_definition TEXT,               -- its canonical JSON: name, description, inputSchema
    accepted_at INTEGER CHECK (accepted_at >= 0),
    accepted_by TEXT,                       -- `admin:NAME`
    -- the digest of the last listed definition; NULL if the server lists none
    observed TEXT,
    observed_definition TEXT,               -- its canonical JSON: untrusted input
    observed_at INTEGER CHECK (observed_at >= 0),   -- the time when this definition was first seen
    PRIMARY KEY (resource, tool),
    CHECK ((accepted IS NULL) = (accepted_definition IS NULL)),
    CHECK ((accepted IS NULL) = (accepted_at IS NULL)),
    CHECK ((accepted IS NULL) = (accepted_by IS NULL)),
    CHECK ((observed IS NULL) = (observed_definition IS NULL)),
    CHECK ((observed IS NULL) = (observed_at IS NULL))
) STRICT;

-- the shards of the status lists: tokens that expire within the same five minutes. Replicas
-- allocate a shard's indexes in blocks, each block once
CREATE TABLE status_shards (
    shard INTEGER PRIMARY KEY CHECK (shard > 0), -- the expiry of its last token
    allocated_blocks INTEGER NOT NULL CHECK (allocated_blocks > 0)
) STRICT;

CREATE TABLE replay_guards (                -- identifiers that were used and may not be used again
    -- SHA-256 of party and id, base64url: both may have any length and any character
    digest TEXT PRIMARY KEY,
    keep_until INTEGER NOT NULL CHECK (keep_until >= 0)
) STRICT;
CREATE INDEX replay_guards_by_keep_until ON replay_guards (keep_until);

CREATE TABLE idempotency_keys (             -- requests that may be retried, with their responses
    digest TEXT PRIMARY KEY,                -- SHA-256 of caller and key, base64url
    -- a digest of the request, so that a key can't be reused for a different one
    fingerprint TEXT NOT NULL,
    response TEXT NOT NULL,                 -- JSON
    -- the position of the request's last log entry, if it had any
    seq INTEGER,
    keep_until INTEGER NOT NULL CHECK (keep_until >= 0),
    tag TEXT NOT NULL DEFAULT ''            -- HMAC-SHA-256 over the row, base64url
) STRICT;
CREATE INDEX idempotency_keys_by_keep_until ON idempotency_keys (keep_until);

-- all revocations, suspensions and changes in commit order; append-only
CREATE TABLE revocation_log (
    -- the position: without gaps, assigned with the update of log_head
    seq INTEGER PRIMARY KEY CHECK (seq > 0),
    kind TEXT NOT NULL CHECK (kind IN
        ('token', 'task', 'grant', 'requester', 'agent', 'agents', 'credentials', 'resource', 'issuer', 'tool',
         'break_glass', 'delegation', 'evidence', 'registry', 'keys', 'configuration',
         'issuer_key', 'issuer_keys')),
    key TEXT NOT NULL,                      -- the name within the kind
    verb TEXT NOT NULL DEFAULT 'revoke'
        CHECK (verb IN ('revoke', 'suspend', 'resume') AND (verb = 'revoke' OR kind IN ('task', 'agent', 'agents', 'tool', 'delegation', 'issuer_key'))),
    reason TEXT NOT NULL,
    actor TEXT NOT NULL,                    -- `admin:NAME`, `client:ID`, `requester:ISSUER SUBJECT`
    occurred_at INTEGER NOT NULL CHECK (occurred_at >= 0),
    -- the end of retention: the entry affects no live token after it
    forget_after INTEGER NOT NULL CHECK (forget_after >= 0),
    -- the first version of the program that knows the kind and the verb: an older replica stops
    -- here instead of skipping the entry
    min_version TEXT NOT NULL DEFAULT '0.1.0',
    previous TEXT NOT NULL,                 -- the tag of the entry before; empty at the first
    tag TEXT NOT NULL                       -- HMAC-SHA-256 over the entry, base64url
) STRICT;
-- Retained entries are found by the hours in which their retention ends. There are few such hours,
-- and within each the entries are in log order, which is that of the row ids, so a reader skips the
-- others at no cost, however many there are.
CREATE INDEX revocation_log_by_hour ON revocation_log (forget_after / 3600);

-- Revoked parties, whose tasks end: a task may outlive the retention of the entry.
CREATE INDEX revocation_log_by_party ON revocation_log (kind, key, seq)
    WHERE verb = 'revoke' AND kind IN ('requester', 'agent', 'issuer', 'delegation');

CREATE TABLE log_head (                     -- one row
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    seq INTEGER NOT NULL CHECK (seq >= 0),  -- the position of the last entry
    link TEXT NOT NULL DEFAULT '',          -- its tag
    -- the versions in the table versions: earlier rows that are put back do not match them
    registry_version INTEGER NOT NULL DEFAULT 0,
    keys_version INTEGER NOT NULL DEFAULT 0,
    tag TEXT NOT NULL DEFAULT ''            -- HMAC-SHA-256 over the row; empty in a new store
) STRICT;
INSERT INTO log_head (singleton, seq) VALUES (1, 0);

-- at most one row: what a replica that starts must find up to a position of the log
CREATE TABLE log_anchor (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    seq INTEGER NOT NULL CHECK (seq > 0),   -- the position
    link TEXT NOT NULL,                     -- the tag of the entry there
    -- for each hour in which retention ends, the number of entries and a digest of their tags: JSON
    hours TEXT NOT NULL,
    tag TEXT NOT NULL                       -- HMAC-SHA-256 over the row, base64url
) STRICT;

-- Replicas with a lease answer from memory. A replica with a valid lease does not check the log for
-- revocations, so a revoker waits until the replica has acknowledged the revocation, or until its
-- lease has expired.
--
-- The database's clock plays no part. A replica counts its lease from before it sent the heartbeat,
-- on its own monotonic clock. A revoker counts the same duration from after it saw the heartbeat,
-- on its own monotonic clock. Several processes may serve from one file, and a command
-- may write to it.
CREATE TABLE replicas (
    id TEXT PRIMARY KEY,                    -- one start of one process
    name TEXT NOT NULL,                     -- the operator's name for the replica
    version TEXT NOT NULL,                  -- the version of the program
    started_at INTEGER NOT NULL CHECK (started_at >= 0), -- by the replica's clock
    -- the replica's count of its heartbeats; never repeated
    heartbeat_number INTEGER NOT NULL CHECK (heartbeat_number > 0),
    -- the acknowledgement: the log position that the replica has applied
    applied_seq INTEGER NOT NULL CHECK (applied_seq >= 0),
    -- the duration of the lease from the sending of the heartbeat
    lease_ms INTEGER NOT NULL CHECK (lease_ms > 0),
    renewed_at INTEGER NOT NULL CHECK (renewed_at >= 0), -- by the replica's clock: for display only
    -- what its configuration file declares, as in applied_files
    file_digest TEXT,
    file_generation INTEGER CHECK (file_generation >= 0),
    pending_restart TEXT NOT NULL DEFAULT '[]' -- the keys of its file that need a restart: JSON
) STRICT;

-- one row that is rewritten to find out whether failed writes succeed again
CREATE TABLE write_probe (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    content TEXT NOT NULL                   -- a few kilobytes without meaning
) STRICT;
INSERT INTO write_probe (singleton, content) VALUES (1, '');

-- the audit trail, a hash chain per writer: a changed record is detected
CREATE TABLE audit (
    writer TEXT NOT NULL,                   -- one start of one process
    n INTEGER NOT NULL CHECK (n > 0),       -- the number in the chain, from 1
    -- canonical JSON: writer, n, the previous hash, and the record with salted digests in place of
    -- personal values
    body TEXT NOT NULL,
    personal TEXT NOT NULL,                 -- the personal values with their salts, as JSON
    hash TEXT NOT NULL,                     -- SHA-256 of the body, base64url
    -- the number of the sealed key `audit_records` of the MAC
    epoch INTEGER NOT NULL CHECK (epoch > 0),
    mac TEXT NOT NULL,                      -- HMAC-SHA-256 over the hash, base64url
    -- this and all below: copies of parts of the body, for searches
    occurred_at INTEGER NOT NULL CHECK (occurred_at >= 0),
    event TEXT NOT NULL,
    outcome TEXT NOT NULL,
    requester_issuer TEXT,
    requester_subject TEXT,
    -- as in the body, so that a copy that was tampered with can still be read
    task TEXT,
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

-- the acting parties of each record: its chain of agents and its client; copies too
CREATE TABLE audit_agents (
    writer TEXT NOT NULL,
    n INTEGER NOT NULL,
    agent TEXT NOT NULL,
    occurred_at INTEGER NOT NULL,           -- the time of the record, for the order of a search
    PRIMARY KEY (writer, n, agent)
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_agents_by_agent ON audit_agents (agent, occurred_at, writer, n);

-- the head of every chain, so that a truncated chain is detected
CREATE TABLE audit_writers (
    writer TEXT PRIMARY KEY,
    n INTEGER NOT NULL CHECK (n >= 0),      -- the number of the last record
    hash TEXT NOT NULL                      -- its hash; empty before the first record
) STRICT;

-- signed statements of how far every chain reaches; append-only
CREATE TABLE audit_checkpoints (
    number INTEGER PRIMARY KEY CHECK (number > 0), -- without gaps
    jws TEXT NOT NULL                       -- the signed text, a compact JWS
) STRICT;
