-- Another agent or issuer of the same name is another one: an object says from which place of the log on it is the one that it
-- is, and a task says where the log stood when it was opened.

ALTER TABLE objects ADD COLUMN registered_seq BIGINT NOT NULL DEFAULT 0 CHECK (registered_seq >= 0);
COMMENT ON COLUMN objects.registered_seq IS 'the head of the log before it was put for the first time';
ALTER TABLE tasks ADD COLUMN rev BIGINT NOT NULL DEFAULT 0 CHECK (rev >= 0);
COMMENT ON COLUMN tasks.rev IS 'the position of the log that its opener had applied';

-- Grants to agents that are no more.
DELETE FROM grants WHERE NOT EXISTS (SELECT 1 FROM objects WHERE objects.kind = 'agent' AND objects.id = grants.agent);
