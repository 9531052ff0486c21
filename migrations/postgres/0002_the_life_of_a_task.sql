-- A task has a life: it can be suspended and resumed, and it ends in one of four ways. The log says what is done to a name.

ALTER TABLE tasks DROP CONSTRAINT tasks_state_check;
ALTER TABLE tasks ADD CONSTRAINT tasks_state_check
    CHECK (state IN ('active', 'suspended', 'completed', 'failed', 'expired', 'revoked'));
ALTER TABLE tasks ADD COLUMN version bigint NOT NULL DEFAULT 0 CHECK (version >= 0); -- how often the state has changed
ALTER TABLE tasks ADD COLUMN last_transition text;                                        -- the last change: when, by whom, why, as JSON
CREATE INDEX tasks_by_deadline ON tasks (deadline, id) WHERE state IN ('active', 'suspended');

ALTER TABLE revocation_log ADD COLUMN verb text NOT NULL DEFAULT 'revoke' CHECK (verb IN ('revoke', 'suspend', 'resume'));
ALTER TABLE revocation_log ADD CONSTRAINT revocation_log_verb_by_kind_check CHECK (verb = 'revoke' OR kind = 'task');
