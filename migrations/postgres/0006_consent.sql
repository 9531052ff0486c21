-- A grant has a name of its own, and may say what for. Tasks and tokens say which one they rest on, so that withdrawing it
-- is one entry of the log. Grants from before say nothing of what may be done, as ever.

ALTER TABLE grants DROP CONSTRAINT grants_pkey;
ALTER TABLE grants ADD COLUMN id uuid;
UPDATE grants SET id = gen_random_uuid();
ALTER TABLE grants ADD PRIMARY KEY (id);
ALTER TABLE grants ADD COLUMN authority text;  -- what the requester consents to, as JSON; none: only who may act
CREATE INDEX grants_by_time ON grants (occurred_at, id);
CREATE INDEX grants_by_requester_and_agent ON grants (requester_subject, requester_issuer, agent, until, id);
CREATE INDEX grants_by_requester ON grants (requester_subject, requester_issuer, occurred_at, id);

ALTER TABLE tasks ADD COLUMN grant_id uuid;    -- the grant that it rests on
CREATE INDEX tasks_by_grant ON tasks (grant_id) WHERE grant_id IS NOT NULL AND state IN ('active', 'suspended');
ALTER TABLE tokens ADD COLUMN grant_id uuid;   -- the grant that it rests on

ALTER TABLE revocation_log DROP CONSTRAINT revocation_log_kind_check;
ALTER TABLE revocation_log ADD CONSTRAINT revocation_log_kind_check
    CHECK (kind IN ('token', 'task', 'grant', 'requester', 'agent', 'resource', 'issuer', 'registry', 'keys'));
