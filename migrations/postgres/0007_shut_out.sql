-- Somebody is shut out by an admin, whatever their entry in the registry says: a fact of its own, so that it holds for what
-- the configuration file declares, and outlives every start.

CREATE TABLE blocks (
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('issuer', 'agent', 'resource', 'admin', 'requester')),
    id text COLLATE "C" NOT NULL,           -- an issuer's URL, a client's id; of a requester, issuer and subject with a blank between
    block_kind text NOT NULL CHECK (block_kind IN ('suspended', 'blocked')), -- what they had is held back, or was ended
    reason text NOT NULL,
    actor text NOT NULL,                  -- who did it
    occurred_at bigint NOT NULL CHECK (occurred_at >= 0),
    PRIMARY KEY (kind, id)
);

-- An agent can be held back like a task. What a client got by its old credentials ends with them.
ALTER TABLE revocation_log DROP CONSTRAINT revocation_log_verb_by_kind_check;
ALTER TABLE revocation_log ADD CONSTRAINT revocation_log_verb_by_kind_check CHECK (verb = 'revoke' OR kind IN ('task', 'agent'));
ALTER TABLE revocation_log DROP CONSTRAINT revocation_log_kind_check;
ALTER TABLE revocation_log ADD CONSTRAINT revocation_log_kind_check
    CHECK (kind IN ('token', 'task', 'grant', 'requester', 'agent', 'credentials', 'resource', 'issuer', 'registry', 'keys'));
