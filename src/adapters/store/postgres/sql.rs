//! The SQL statements for PostgreSQL. Those for SQLite have the same names and the same order.

use crate::adapters::store::statements::statements;

/// Makes the current transaction durable: an acknowledged write must survive a crash. Only a
/// `synchronous_commit` of `off` is overridden, since all other values wait for this server's disk.
macro_rules! set_durable {
    () => {
        "set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, true)"
    };
}

/// Begins a write, at an isolation level independent of the database's default. Every statement
/// sees the commits before its own start, so after a wait for another transaction's lock, the next
/// statement sees what that transaction wrote.
///
/// The second statement makes the commit durable whatever became of the session's settings.
pub(super) const BEGIN: &str = concat!("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT ", set_durable!());
/// Begins a read whose statements all see the same snapshot.
pub(super) const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The channel for new log entries, notified at their commit.
pub(super) const LOG_CHANNEL: &str = "errand_log";
/// The channel for acknowledgements of replicas.
pub(super) const ACK_CHANNEL: &str = "errand_acks";

/// Describes the server and the session, as one simple query.
pub(super) const DESCRIBE_SERVER: &str =
    "SELECT current_setting('server_version_num')::int4 AS version, current_setting('server_version') AS version_name,
    pg_is_in_recovery() AS standby, pg_backend_pid() AS session";
/// Returns the id of the session, as one simple query.
pub(super) const SESSION_ID: &str = "SELECT pg_backend_pid() AS session";

/// Returns whether the server ended the session, or will accept no more of it: a connection
/// exception, an ended or a timed-out session, a server that has become read-only.
pub(super) fn ends_session(code: &str) -> bool {
    ["08", "57P", "25P03", "25P04", "25006"].iter().any(|class| code.starts_with(class))
}

/// Returns whether the server canceled a statement because it took longer than its limit.
pub(super) fn is_statement_timeout(code: &str) -> bool {
    code == "57014"
}

/// Returns whether the server rejected a value or a row (PostgreSQL manual, appendix A): a data
/// exception, a violated constraint, a value that is too large for an index.
pub(super) fn is_data_error_code(code: &str) -> bool {
    ["22", "23", "54"].iter().any(|class| code.starts_with(class))
}

/// The tasks in one state. An index that begins with the first condition and the state serves them
/// in their order; the other conditions filter the result. A state that the filter excludes is not
/// read at all.
macro_rules! tasks_in_state {
    ($state:literal, $first:literal, $if_state:literal) => {
        concat!(
            "(SELECT id::text AS id, requester_issuer, requester_subject, root_agent, purpose, authority, state, created, deadline, version, last_transition, grant_id::text AS grant_id, rev, tag, tasks.id AS position FROM tasks WHERE ",
            $first,
            "state = '",
            $state,
            "' AND ($4::text IS NULL OR $4 = '",
            $state,
            "') ",
            $if_state,
            "AND ($1::text IS NULL OR (requester_issuer = $1 AND requester_subject = $2)) AND ($3::text IS NULL OR root_agent = $3)
             AND ($9::text IS NULL OR EXISTS (SELECT 1 FROM task_resources AS r WHERE r.resource = $9 AND r.opened = tasks.created AND r.task = tasks.id))
             AND created >= $8 AND (created, id) < ($5, $6) ORDER BY created DESC, tasks.id DESC LIMIT $7)"
        )
    };
}

/// The tasks in all states, merged in their order. The states that are final are left out if only
/// open tasks are wanted.
macro_rules! tasks_where {
    ($first:literal) => {
        concat!(
            tasks_in_state!("active", $first, ""),
            " UNION ALL ",
            tasks_in_state!("suspended", $first, ""),
            " UNION ALL ",
            tasks_in_state!("completed", $first, "AND NOT $10::bool "),
            " UNION ALL ",
            tasks_in_state!("failed", $first, "AND NOT $10::bool "),
            " UNION ALL ",
            tasks_in_state!("expired", $first, "AND NOT $10::bool "),
            " UNION ALL ",
            tasks_in_state!("revoked", $first, "AND NOT $10::bool "),
            " ORDER BY created DESC, position DESC LIMIT $7"
        )
    };
}

/// The tasks at a resource. An index serves the first condition in the order of the list.
macro_rules! tasks_at_resource {
    ($first:literal) => {
        concat!(
            "SELECT id::text AS id, requester_issuer, requester_subject, root_agent, purpose, authority, state, created, deadline, version, last_transition, grant_id::text AS grant_id, rev, tag FROM task_resources AS r JOIN tasks ON tasks.id = r.task WHERE ",
            $first,
            "r.resource = $9 AND ($4::text IS NULL OR state = $4)
             AND ($1::text IS NULL OR (r.issuer = $1 AND r.subject = $2)) AND ($3::text IS NULL OR r.agent = $3)
             AND NOT $10::bool AND r.opened >= $8 AND (r.opened, r.task) < ($5, $6) ORDER BY r.opened DESC, r.task DESC LIMIT $7"
        )
    };
}

/// An index serves the first condition, and the others filter its result.
macro_rules! tokens_where {
    ($first:literal) => {
        concat!(
            "SELECT id::text AS id, kind, task::text AS task, requester_issuer, requester_subject, client, agents, audience, lineage, authority, issued, expires, rev, grant_id::text AS grant_id, break_glass, status_shard, status_index, evidence, evidence_issued, evidence_expires, session, tag FROM tokens WHERE ",
            $first,
            "($1::uuid IS NULL OR task = $1) AND ($2::text IS NULL OR (requester_issuer = $2 AND requester_subject = $3))
             AND ($4::text IS NULL OR client = $4) AND ($5::text IS NULL OR audience = $5) AND ($6::bigint IS NULL OR expires > $6)
             AND issued >= $10 AND (issued, id) < ($7, $8) ORDER BY issued DESC, tokens.id DESC LIMIT $9"
        )
    };
}

/// Tokens that a revocation may affect. A lifetime lies within `$3` and `$2`, so an index finds the
/// tokens by their time of issue.
macro_rules! status_tokens_where {
    ($first:literal) => {
        concat!(
            "SELECT id::text AS id, kind, task::text AS task, requester_issuer, requester_subject, client, agents, audience, lineage, authority, issued, expires, rev, grant_id::text AS grant_id, break_glass, status_shard, status_index, evidence, evidence_issued, evidence_expires, session, tag FROM tokens WHERE ",
            $first,
            " AND status_shard IS NOT NULL AND expires > $2 AND issued >= $3 AND (issued, id) > ($4, $5) ORDER BY issued, tokens.id LIMIT $6"
        )
    };
}

macro_rules! grants_where {
    ($first:literal) => {
        concat!(
            "SELECT id::text AS id, requester_issuer, requester_subject, agent, authority, until, actor, occurred_at, break_glass, tag FROM grants WHERE ",
            $first,
            "($1::text IS NULL OR (requester_issuer = $1 AND requester_subject = $2)) AND ($3::text IS NULL OR agent = $3)
             AND (occurred_at, id) < ($4, $5) ORDER BY occurred_at DESC, grants.id DESC LIMIT $6"
        )
    };
}

/// A withdrawn grant has no row in `grants`.
macro_rules! break_glass_where {
    ($where:literal) => {
        concat!(
            "SELECT id::text AS id, requester_issuer, requester_subject, agent, authority, until, actor, occurred_at, reason, tag,
             NOT EXISTS (SELECT 1 FROM grants WHERE grants.id = break_glass.id) AS withdrawn, reviewed_by, reviewed_at, note
             FROM break_glass WHERE ",
            $where
        )
    };
}

macro_rules! audit_columns {
    () => {
        "audit.writer::text AS writer, audit.n AS n, body, personal, hash, epoch, mac, audit.occurred_at AS occurred_at, event, outcome, requester_issuer, requester_subject, task, token, resource, request_id,
             (SELECT coalesce(json_agg(CASE WHEN a.occurred_at = audit.occurred_at THEN a.agent ELSE '' END), '[]')::text
             FROM audit_agents AS a WHERE a.writer = audit.writer AND a.n = audit.n) AS agents"
    };
}

/// `$table` is the table whose index provides the order.
macro_rules! audit_where {
    ($from:literal, $table:literal, $first:literal) => {
        concat!(
            "SELECT ",
            audit_columns!(),
            " FROM ",
            $from,
            " WHERE ",
            $first,
            "($1::text IS NULL OR request_id = $1) AND ($2::text IS NULL OR token = $2) AND ($3::text IS NULL OR task = $3)
             AND ($4::text IS NULL OR (requester_issuer = $4 AND requester_subject = $5))
             AND ($6::text IS NULL OR EXISTS (SELECT 1 FROM audit_agents AS b WHERE b.writer = audit.writer AND b.n = audit.n AND b.agent = $6))
             AND ($7::text IS NULL OR resource = $7) AND ($8::text IS NULL OR event = $8) AND ($9::text IS NULL OR outcome = $9)
             AND ",
            $table,
            ".occurred_at >= $10 AND (",
            $table,
            ".occurred_at, ",
            $table,
            ".writer, ",
            $table,
            ".n) < ($11, $12, $13) ORDER BY ",
            $table,
            ".occurred_at DESC, ",
            $table,
            ".writer DESC, ",
            $table,
            ".n DESC LIMIT $14"
        )
    };
    ($first:literal) => {
        audit_where!("audit", "audit", $first)
    };
}

statements! {
    // ---- connection and schema ----

    /// Configures a connection, and returns the version of the server and whether it is a standby,
    /// whose data may be stale.
    ///
    /// A process that is stopped within a transaction must not keep others from revoking, so the
    /// server ends the transaction. An acknowledged write must be durable, so a
    /// `synchronous_commit` of `off`, and only that, is overridden. No statement runs long enough
    /// for JIT compilation to pay off.
    CONFIGURE_CONNECTION = "SELECT set_config('statement_timeout', $1, false), set_config('idle_in_transaction_session_timeout', $1, false),
        set_config('jit', 'off', false),
        set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false),
        set_config('plan_cache_mode', $2, false), current_setting('server_version_num')::int4 AS version, current_setting('server_version') AS version_name,
        pg_is_in_recovery() AS standby";
    HAS_SCHEMA = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
    APPLIED_MIGRATIONS = "SELECT version, checksum FROM _sqlx_migrations WHERE success";

    // ---- commit: guards ----

    /// Locks both rows in a fixed order until the end of the transaction, so that preconditions
    /// keep holding.
    LOCK_VERSIONS = "SELECT name, version FROM versions ORDER BY name FOR UPDATE";
    /// Waits for another transaction that holds one of the keys. The response is stored later, when
    /// it is known.
    TAKE_IDEMPOTENCY_KEYS = "INSERT INTO idempotency_keys (digest, fingerprint, response, keep_until)
        SELECT digest, '', '', keep_until FROM json_to_recordset($1::json) AS r(digest text, keep_until bigint)
        ON CONFLICT DO NOTHING RETURNING digest";
    EARLIER_RESPONSES = "SELECT digest, fingerprint, response, seq, keep_until, tag FROM idempotency_keys
        WHERE digest IN (SELECT digest FROM json_to_recordset($1::json) AS r(digest text))";
    RELEASE_IDEMPOTENCY_KEYS = "DELETE FROM idempotency_keys WHERE digest IN (SELECT json_array_elements_text($1::json))";
    /// Waits for another transaction that holds one of the guards: exactly one of the two gets it.
    /// The guards are sorted, so transactions that take the same ones wait in one order.
    TAKE_REPLAY_GUARDS = "INSERT INTO replay_guards (digest, keep_until)
        SELECT digest, keep_until FROM json_to_recordset($1::json) AS r(digest text, keep_until bigint)
        ON CONFLICT DO NOTHING RETURNING digest";
    /// Locks the rows in a fixed order until the end of the transaction, so that preconditions keep
    /// holding.
    LOCK_TASKS = "SELECT id::text AS id, requester_issuer, requester_subject, root_agent, purpose, authority, state, created, deadline, version, last_transition, grant_id::text AS grant_id, rev, tag
        FROM tasks WHERE id IN (SELECT t::uuid FROM json_array_elements_text($1::json) AS t)
        ORDER BY tasks.id FOR UPDATE";
    COUNT_GRANTS = "SELECT count(*) FROM grants WHERE requester_issuer = $1 AND requester_subject = $2 AND agent = $3
        AND break_glass = $4 AND until > $5";
    RELEASE_REPLAY_GUARDS = "DELETE FROM replay_guards WHERE digest IN (SELECT json_array_elements_text($1::json))";
    UPDATE_VERSION = "UPDATE versions SET version = $2 WHERE name = $1";
    SET_SEAL = "UPDATE versions SET seal = $2 WHERE name = $1";

    // ---- commit: writes ----

    /// Takes the single lock of all state changes. It is taken before the changes, so that two
    /// batches can't deadlock. It is held to the commit, so that positions are in commit order and
    /// a reader that sees a position sees all before it.
    ///
    /// Returns the head before it was advanced.
    ADVANCE_LOG_HEAD = "UPDATE log_head SET seq = seq + $1 WHERE singleton = 1
        RETURNING seq - $1 AS seq, link, registry_version, keys_version, tag";
    SET_LOG_HEAD = "UPDATE log_head SET link = $1, registry_version = $2, keys_version = $3, tag = $4 WHERE singleton = 1";
    /// Appends entries and sets the head. Notifies listeners when the transaction commits, and not
    /// before.
    INSERT_LOG = "WITH appended AS (INSERT INTO revocation_log (seq, verb, kind, key, reason, actor, occurred_at, forget_after, min_version, previous, tag)
        SELECT seq, verb, kind, key, reason, actor, occurred_at, forget_after, min_version, previous, tag
        FROM json_to_recordset($1::json) AS r(seq bigint, verb text, kind text, key text, reason text, actor text, occurred_at bigint, forget_after bigint,
            min_version text, previous text, tag text)
        RETURNING seq), head AS (UPDATE log_head SET link = $2, registry_version = $3, keys_version = $4, tag = $5 WHERE singleton = 1) SELECT pg_notify('errand_log', '') FROM appended LIMIT 1";
    INSERT_TASKS = "INSERT INTO tasks (id, requester_issuer, requester_subject, root_agent, purpose, authority, state, created, deadline, version, last_transition, grant_id, rev, tag)
        SELECT id, requester_issuer, requester_subject, root_agent, purpose, authority, state, created, deadline, version, last_transition, grant_id, rev, tag
        FROM json_to_recordset($1::json) AS r(id uuid, requester_issuer text, requester_subject text, root_agent text, purpose text,
            authority text, state text, created bigint, deadline bigint, version bigint, last_transition text, grant_id uuid, rev bigint, tag text)";
    INSERT_TASK_RESOURCES = "INSERT INTO task_resources (resource, opened, task, agent, issuer, subject)
        SELECT resource, opened, task, agent, issuer, subject
        FROM json_to_recordset($1::json) AS r(resource text, opened bigint, task uuid, agent text, issuer text, subject text)";
    INSERT_TOKENS = "INSERT INTO tokens (id, kind, task, requester_issuer, requester_subject, client, agents, audience, lineage, authority, issued, expires, rev, grant_id, break_glass, status_shard, status_index,
            evidence, evidence_issued, evidence_expires, session, tag)
        SELECT id, kind, task, requester_issuer, requester_subject, client, agents, audience, lineage, authority, issued, expires, rev, grant_id, break_glass, status_shard, status_index,
            evidence, evidence_issued, evidence_expires, session, tag
        FROM json_to_recordset($1::json) AS r(id uuid, kind text, task uuid, requester_issuer text, requester_subject text, client text,
            agents text, audience text, lineage text, authority text, issued bigint, expires bigint, rev bigint, grant_id uuid, break_glass boolean,
            status_shard bigint, status_index bigint, evidence text, evidence_issued bigint, evidence_expires bigint, session text, tag text)";
    STORE_RESPONSES = "UPDATE idempotency_keys AS i SET fingerprint = r.fingerprint, response = r.response, seq = r.seq, keep_until = r.keep_until, tag = r.tag
        FROM json_to_recordset($1::json) AS r(digest text, fingerprint text, response text, seq bigint, keep_until bigint, tag text)
        WHERE i.digest = r.digest";
    /// Locks the head of the writer's chain until this batch's records are appended.
    LOCK_WRITER = "SELECT writer::text AS writer, n, hash FROM audit_writers WHERE writer = $1 FOR UPDATE";
    INSERT_WRITER = "INSERT INTO audit_writers (writer, n, hash) VALUES ($1, 0, '') ON CONFLICT DO NOTHING";
    INSERT_AUDIT = "INSERT INTO audit (writer, n, body, personal, hash, epoch, mac, occurred_at, event, outcome, requester_issuer, requester_subject, task, token, resource, request_id)
        SELECT writer, n, body, personal, hash, epoch, mac, occurred_at, event, outcome, requester_issuer, requester_subject, task, token, resource, request_id
        FROM json_to_recordset($1::json) AS r(writer uuid, n bigint, body text, personal text, hash text, epoch bigint, mac text, occurred_at bigint, event text, outcome text,
            requester_issuer text, requester_subject text, task text, token text, resource text, request_id text)";
    INSERT_AUDIT_AGENTS = "INSERT INTO audit_agents (writer, n, agent, occurred_at) SELECT writer, n, agent, occurred_at
        FROM json_to_recordset($1::json) AS r(writer uuid, n bigint, agent text, occurred_at bigint)";
    UPDATE_WRITER = "UPDATE audit_writers SET n = $2, hash = $3 WHERE writer = $1";

    // ---- commit: state changes ----

    RECORD_ISSUER = "INSERT INTO deployment (singleton, issuer) VALUES (1, $1)
        ON CONFLICT (singleton) DO UPDATE SET issuer = excluded.issuer";
    RECORD_FILE = "INSERT INTO applied_files (number, digest, generation, actor, occurred_at) VALUES ($1, $2, $3, $4, $5)";
    /// An existing object keeps its registration position.
    PUT_OBJECT = "INSERT INTO objects (kind, id, body, owner, registered_seq) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body, owner = excluded.owner";
    REMOVE_OBJECT = "DELETE FROM objects WHERE kind = $1 AND id = $2";
    PUT_SECRET = "INSERT INTO secrets (client, tag, owner) VALUES ($1, $2, $3)
        ON CONFLICT (client) DO UPDATE SET tag = excluded.tag, owner = excluded.owner";
    REMOVE_SECRET = "DELETE FROM secrets WHERE client = $1";
    PUT_KEY = "INSERT INTO signing_keys (kid, algorithm, created, activates, retires, gone, public_jwk, sealed)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (kid) DO UPDATE SET algorithm = excluded.algorithm, created = excluded.created, activates = excluded.activates,
            retires = excluded.retires, gone = excluded.gone, public_jwk = excluded.public_jwk, sealed = excluded.sealed";
    REMOVE_KEY = "DELETE FROM signing_keys WHERE kid = $1";
    PUT_SEALED_KEY = "INSERT INTO sealed_keys (purpose, epoch, created, sealed) VALUES ($1, $2, $3, $4)
        ON CONFLICT (purpose, epoch) DO UPDATE SET sealed = excluded.sealed";
    PUT_CHECKPOINT = "INSERT INTO audit_checkpoints (number, jws) VALUES ($1, $2)";
    PUT_GRANT = "INSERT INTO grants (id, requester_issuer, requester_subject, agent, authority, until, actor, occurred_at, break_glass, tag)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    REMOVE_GRANT = "DELETE FROM grants WHERE id = $1";
    REMOVE_GRANTS_TO_AGENT = "DELETE FROM grants WHERE agent = $1";
    REMOVE_GRANTS_OF_ISSUER = "DELETE FROM grants WHERE requester_issuer = $1";
    PUT_BREAK_GLASS = "INSERT INTO break_glass (id, requester_issuer, requester_subject, agent, authority, until, actor, occurred_at, reason, tag)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    FIND_BREAK_GLASS = "SELECT id::text AS id, requester_issuer, requester_subject, agent, authority, until, actor, occurred_at, reason, reviewed_by, reviewed_at, note, tag
        FROM break_glass WHERE id = $1 FOR UPDATE";
    REVIEW_BREAK_GLASS = "UPDATE break_glass SET reviewed_by = $2, reviewed_at = $3, note = $4, tag = $5 WHERE id = $1 AND reviewed_at IS NULL";
    PUT_BLOCK = "INSERT INTO blocks (kind, id, block_kind, reason, actor, occurred_at) VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (kind, id) DO UPDATE SET block_kind = excluded.block_kind, reason = excluded.reason, actor = excluded.actor, occurred_at = excluded.occurred_at";
    REMOVE_BLOCK = "DELETE FROM blocks WHERE kind = $1 AND id = $2";
    TRANSITION_TASK = "UPDATE tasks SET state = $2, version = $3, last_transition = $4, tag = $5 WHERE id = $1";

    PUT_TOOL = "INSERT INTO tools (resource, tool, accepted, accepted_definition, accepted_at, accepted_by, observed, observed_definition, observed_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        ON CONFLICT (resource, tool) DO UPDATE SET accepted = excluded.accepted, accepted_definition = excluded.accepted_definition,
            accepted_at = excluded.accepted_at, accepted_by = excluded.accepted_by, observed = excluded.observed,
            observed_definition = excluded.observed_definition, observed_at = excluded.observed_at";
    REMOVE_TOOL = "DELETE FROM tools WHERE resource = $1 AND tool = $2";
    REMOVE_TOOLS = "DELETE FROM tools WHERE resource = $1";

    // ---- reads ----

    LOG_HEAD = "SELECT seq, link, registry_version, keys_version, tag FROM log_head WHERE singleton = 1";
    LOG_ANCHOR = "SELECT seq, link, hours, tag FROM log_anchor WHERE singleton = 1";
    PUT_LOG_ANCHOR = "INSERT INTO log_anchor (singleton, seq, link, hours, tag) VALUES (1, $1, $2, $3, $4)
        ON CONFLICT (singleton) DO UPDATE SET seq = excluded.seq, link = excluded.link, hours = excluded.hours, tag = excluded.tag
        WHERE log_anchor.seq < excluded.seq";
    LOG_AFTER = "SELECT seq, verb, kind, key, reason, actor, occurred_at, forget_after, min_version, previous, tag FROM revocation_log
        WHERE seq > $1 AND forget_after >= $2 ORDER BY seq LIMIT $3";
    /// Finds the hours in which the retention of an entry ends, then the first retained entry after
    /// a position, then the entries in a range from there. Each step uses the index by hour, so it
    /// reads no entry past its retention. `seq + 0` matches that index and no other.
    RETAINED_LOG_AFTER = "WITH RECURSIVE hours (hour) AS (
            (SELECT forget_after / 3600 FROM revocation_log WHERE forget_after / 3600 >= ($2 + 1) / 3600 ORDER BY forget_after / 3600 LIMIT 1)
            UNION ALL
            SELECT (SELECT forget_after / 3600 FROM revocation_log WHERE forget_after / 3600 > hour ORDER BY forget_after / 3600 LIMIT 1)
            FROM hours WHERE hour IS NOT NULL),
        next_entry (position) AS MATERIALIZED (SELECT min((SELECT seq FROM revocation_log
            WHERE forget_after / 3600 = hour AND seq + 0 > $1 AND forget_after > $2 ORDER BY seq + 0 LIMIT 1)) FROM hours)
        SELECT entry.seq, verb, kind, key, reason, actor, occurred_at, forget_after, min_version, previous, tag FROM next_entry CROSS JOIN hours CROSS JOIN LATERAL
            (SELECT seq, verb, kind, key, reason, actor, occurred_at, forget_after, min_version, previous, tag FROM revocation_log
            WHERE forget_after / 3600 = hour AND seq + 0 >= position AND seq + 0 < position + $4 AND forget_after > $2 ORDER BY seq + 0 LIMIT $3) AS entry
        ORDER BY entry.seq LIMIT $3";
    REVOCATIONS = "SELECT seq, verb, kind, key, reason, actor, occurred_at, forget_after, min_version, previous, tag FROM revocation_log
        WHERE seq < $1 AND kind NOT IN ('evidence', 'registry', 'keys', 'configuration') ORDER BY seq DESC LIMIT $2";
    VERSIONS = "SELECT name, version FROM versions";
    ISSUER = "SELECT issuer FROM deployment";
    APPLIED_FILES = "SELECT number, digest, generation, actor, occurred_at FROM applied_files ORDER BY number";
    SEAL = "SELECT seal FROM versions WHERE name = $1";
    OBJECTS = "SELECT kind, id, body, owner, registered_seq FROM objects ORDER BY kind, id";
    SECRETS = "SELECT client, tag, owner FROM secrets";
    /// Only the digests, because the definitions may be long.
    KNOWN_TOOLS = "SELECT resource, tool, accepted, observed FROM tools";
    TOOLS = "SELECT resource, tool, accepted, accepted_definition, accepted_at, accepted_by, observed, observed_definition, observed_at
        FROM tools WHERE resource = $1 ORDER BY tool";
    BLOCKS = "SELECT kind, id, block_kind, reason, actor, occurred_at FROM blocks ORDER BY kind, id";
    SIGNING_KEYS = "SELECT kid, algorithm, created, activates, retires, gone, public_jwk, sealed FROM signing_keys ORDER BY created, kid";
    SEALED_KEYS = "SELECT purpose, epoch, created, sealed FROM sealed_keys ORDER BY purpose, epoch";
    IS_UNUSED = "SELECT NOT EXISTS (SELECT 1 FROM objects) AND NOT EXISTS (SELECT 1 FROM signing_keys) AND NOT EXISTS (SELECT 1 FROM audit)";
    TASK = "SELECT id::text AS id, requester_issuer, requester_subject, root_agent, purpose, authority, state, created, deadline, version, last_transition, grant_id::text AS grant_id, rev, tag
        FROM tasks WHERE id = $1";
    OVERDUE_TASKS = "SELECT id::text AS id, requester_issuer, requester_subject, root_agent, purpose, authority, state, created, deadline, version, last_transition, grant_id::text AS grant_id, rev, tag
        FROM tasks WHERE state IN ('active', 'suspended') AND deadline <= $1 ORDER BY deadline, tasks.id LIMIT $2";
    LIVE_TASKS = "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE state IN ('active', 'suspended') LIMIT $1) AS live";
    LIVE_TOKENS = "SELECT count(*) FROM (SELECT 1 FROM tokens WHERE issued >= $2 AND expires > $1 LIMIT $3) AS live";
    TASKS_WITHOUT_GRANT = "SELECT id::text AS id, requester_issuer, requester_subject, root_agent, purpose, authority, state, created, deadline, version, last_transition, grant_id::text AS grant_id, rev, tag
        FROM tasks WHERE grant_id IS NOT NULL AND state IN ('active', 'suspended')
            AND NOT EXISTS (SELECT 1 FROM grants WHERE grants.id = tasks.grant_id) LIMIT $1";
    /// Counts up to a limit. Parameters: agent, time, limit.
    OPEN_TASKS_OF_AGENT = "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE root_agent = $1 AND deadline > $2
        AND state IN ('active', 'suspended') LIMIT $3) AS open_tasks";
    /// Counts up to a limit. Parameters: issuer, subject, time, limit.
    OPEN_TASKS_OF_REQUESTER = "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE requester_issuer = $1 AND requester_subject = $2
        AND deadline > $3 AND state IN ('active', 'suspended') LIMIT $4) AS open_tasks";
    /// Counts up to a limit. Tokens that were issued earlier have expired. Parameters: task, time,
    /// earliest issue, limit.
    LIVE_TOKENS_OF_TASK = "SELECT count(*) FROM (SELECT 1 FROM tokens WHERE task = $1 AND expires > $2
        AND issued >= $3 LIMIT $4) AS live_tokens";
    ORPHANED_TASKS = "SELECT id::text AS id, requester_issuer, requester_subject, root_agent, purpose, authority, state, created, deadline, version, last_transition, grant_id::text AS grant_id, rev, tag
        FROM tasks WHERE state IN ('active', 'suspended')
            AND (NOT EXISTS (SELECT 1 FROM objects WHERE objects.kind = 'agent' AND objects.id = tasks.root_agent AND objects.registered_seq <= tasks.rev)
                OR NOT EXISTS (SELECT 1 FROM objects WHERE objects.kind = 'issuer' AND objects.id = tasks.requester_issuer AND objects.registered_seq <= tasks.rev))
        LIMIT $1";
    /// The condition on `kind` is that of the partial index.
    PARTY_REVOKED = "SELECT EXISTS (SELECT 1 FROM revocation_log WHERE verb = 'revoke' AND kind IN ('requester', 'agent', 'issuer', 'delegation') AND seq > $5
        AND (kind = 'requester' AND key = $1 OR kind = 'agent' AND key = $2 OR kind = 'issuer' AND key = $3
            OR kind = 'delegation' AND key = $4))";
    /// Without a recent entry, no task is read.
    TASKS_OF_REVOKED_PARTIES = "SELECT id::text AS id, requester_issuer, requester_subject, root_agent, purpose, authority, state, created, deadline, version, last_transition, grant_id::text AS grant_id, rev, tag
        FROM tasks WHERE state IN ('active', 'suspended')
            AND EXISTS (SELECT 1 FROM revocation_log WHERE verb = 'revoke' AND kind IN ('requester', 'agent', 'issuer', 'delegation') AND occurred_at >= $1)
            AND (EXISTS (SELECT 1 FROM revocation_log WHERE verb = 'revoke' AND kind IN ('requester', 'agent', 'issuer', 'delegation')
                    AND kind = 'agent' AND key = tasks.root_agent AND seq > tasks.rev)
                OR EXISTS (SELECT 1 FROM revocation_log WHERE verb = 'revoke' AND kind IN ('requester', 'agent', 'issuer', 'delegation')
                    AND kind = 'requester' AND key = tasks.requester_issuer || ' ' || tasks.requester_subject AND seq > tasks.rev)
                OR EXISTS (SELECT 1 FROM revocation_log WHERE verb = 'revoke' AND kind IN ('requester', 'agent', 'issuer', 'delegation')
                    AND kind = 'issuer' AND key = tasks.requester_issuer AND seq > tasks.rev)
                OR EXISTS (SELECT 1 FROM revocation_log WHERE verb = 'revoke' AND kind IN ('requester', 'agent', 'issuer', 'delegation')
                    AND kind = 'delegation' AND key = tasks.root_agent || ' ' || tasks.requester_issuer || ' ' || tasks.requester_subject
                    AND seq > tasks.rev))
        LIMIT $2";
    TASKS = tasks_where!("");
    TASKS_BY_REQUESTER = tasks_where!("requester_subject = $2 AND requester_issuer = $1 AND ");
    TASKS_BY_AGENT = tasks_where!("root_agent = $3 AND ");
    TASKS_BY_RESOURCE = tasks_at_resource!("");
    TASKS_BY_RESOURCE_AND_REQUESTER = tasks_at_resource!("r.subject = $2 AND r.issuer = $1 AND ");
    TASKS_BY_RESOURCE_AND_AGENT = tasks_at_resource!("r.agent = $3 AND ");
    TOKEN = "SELECT id::text AS id, kind, task::text AS task, requester_issuer, requester_subject, client, agents, audience, lineage,
        authority, issued, expires, rev, grant_id::text AS grant_id, break_glass, status_shard, status_index, evidence, evidence_issued, evidence_expires, session, tag FROM tokens WHERE id = $1";
    TOKENS = tokens_where!("");
    TOKENS_BY_TASK = tokens_where!("task = $1 AND ");
    TOKENS_BY_REQUESTER = tokens_where!("requester_subject = $3 AND requester_issuer = $2 AND ");
    TOKENS_BY_CLIENT = tokens_where!("client = $4 AND ");
    TOKENS_BY_AUDIENCE = tokens_where!("audience = $5 AND ");
    STATUS_TOKENS_BY_TOKEN = status_tokens_where!("task IN (SELECT p.task FROM tokens AS p WHERE p.id IN (SELECT t::uuid FROM json_array_elements_text($1::json) AS t))");
    STATUS_TOKENS_BY_TASK = status_tokens_where!("task IN (SELECT t::uuid FROM json_array_elements_text($1::json) AS t)");
    STATUS_TOKENS_BY_GRANT = status_tokens_where!("grant_id IN (SELECT t::uuid FROM json_array_elements_text($1::json) AS t)");
    STATUS_TOKENS_BY_REQUESTER = status_tokens_where!("(requester_subject, requester_issuer) IN (SELECT r->>1, r->>0 FROM json_array_elements($1::json) AS r)");
    /// An agent that acts in a token has an earlier token of the same task, which expires no
    /// sooner.
    STATUS_TOKENS_BY_AGENT = status_tokens_where!("task IN (SELECT p.task FROM tokens AS p
            WHERE p.client IN (SELECT json_array_elements_text($1::json)) AND p.issued >= $3 AND p.expires > $2)");
    STATUS_TOKENS_BY_AUDIENCE = status_tokens_where!("audience IN (SELECT json_array_elements_text($1::json))");
    STATUS_TOKENS_BY_ISSUER = status_tokens_where!("requester_issuer IN (SELECT json_array_elements_text($1::json))");
    EVIDENCE_BY_TASK = "SELECT DISTINCT client, evidence, evidence_expires FROM tokens
        WHERE task IN (SELECT t::uuid FROM json_array_elements_text($1::json) AS t) AND evidence IS NOT NULL AND evidence_expires > $2
        ORDER BY client, evidence";
    /// A token is issued after the user token that was exchanged for it, within the clock skew, so
    /// the index on the time of issue bounds what is read.
    EVIDENCE_BY_REQUESTER = "SELECT DISTINCT client, evidence, evidence_expires FROM tokens
        WHERE requester_subject = $2 AND requester_issuer = $1 AND issued >= $5 AND evidence IS NOT NULL AND evidence_issued >= $3
            AND evidence_expires > $4
        ORDER BY client, evidence";
    /// Reads one entry of the index for each session, however many tokens a session has.
    SESSIONS_BY_REQUESTER = "WITH RECURSIVE found (session) AS (
            SELECT (SELECT min(session) FROM tokens WHERE requester_subject = $2 AND requester_issuer = $1 AND session IS NOT NULL)
            UNION ALL
            SELECT (SELECT min(later.session) FROM tokens AS later
                WHERE later.requester_subject = $2 AND later.requester_issuer = $1 AND later.session > found.session)
            FROM found WHERE found.session IS NOT NULL)
        SELECT session FROM found WHERE session IS NOT NULL";
    STATUS_SHARDS = "SELECT shard, allocated_blocks FROM status_shards WHERE shard > $1 ORDER BY shard";
    GRANT = "SELECT id::text AS id, requester_issuer, requester_subject, agent, authority, until, actor, occurred_at, break_glass, tag FROM grants
        WHERE id = $1";
    LIVE_GRANTS = "SELECT id::text AS id, requester_issuer, requester_subject, agent, authority, until, actor, occurred_at, break_glass, tag FROM grants
        WHERE requester_issuer = $1 AND requester_subject = $2 AND agent = $3 AND until > $4
        ORDER BY until DESC, grants.id DESC LIMIT $5";
    GRANTS = grants_where!("");
    GRANTS_BY_AGENT = grants_where!("agent = $3 AND ");
    GRANTS_BY_REQUESTER = grants_where!("requester_subject = $2 AND requester_issuer = $1 AND ");
    BREAK_GLASS = break_glass_where!("id = $1");
    BREAK_GLASS_LIST = break_glass_where!("(occurred_at, id) < ($1, $2) ORDER BY occurred_at DESC, break_glass.id DESC LIMIT $3");
    BREAK_GLASS_UNREVIEWED =
        break_glass_where!("reviewed_at IS NULL AND (occurred_at, id) < ($1, $2) ORDER BY occurred_at DESC, break_glass.id DESC LIMIT $3");
    BREAK_GLASS_REVIEWED =
        break_glass_where!("reviewed_at IS NOT NULL AND (occurred_at, id) < ($1, $2) ORDER BY occurred_at DESC, break_glass.id DESC LIMIT $3");
    IDEMPOTENT_RESPONSE = "SELECT digest, fingerprint, response, seq, keep_until, tag FROM idempotency_keys WHERE digest = $1";
    AUDIT = audit_where!("");
    AUDIT_BY_REQUEST = audit_where!("request_id = $1 AND ");
    AUDIT_BY_TOKEN = audit_where!("token = $2 AND ");
    AUDIT_BY_TASK = audit_where!("task = $3 AND ");
    AUDIT_BY_REQUESTER = audit_where!("requester_subject = $5 AND requester_issuer = $4 AND ");
    AUDIT_BY_AGENT = audit_where!("audit_agents AS g JOIN audit ON audit.writer = g.writer AND audit.n = g.n", "g", "g.agent = $6 AND ");
    AUDIT_BY_RESOURCE = audit_where!("resource = $7 AND ");
    AUDIT_BY_EVENT = audit_where!("event = $8 AND ");
    AUDIT_BY_OUTCOME = audit_where!("outcome = $9 AND ");
    AUDIT_HEADS = "SELECT writer::text AS writer, n, hash FROM audit_writers ORDER BY audit_writers.writer";
    AUDIT_CHAIN = concat!("SELECT ", audit_columns!(), " FROM audit WHERE audit.writer = $1 AND audit.n > $2 ORDER BY audit.n LIMIT $3");
    CHECKPOINTS = "SELECT number, jws FROM audit_checkpoints WHERE number < $1 ORDER BY number DESC LIMIT $2";
    CHECKPOINTS_AFTER = "SELECT number, jws FROM audit_checkpoints WHERE number > $1 ORDER BY number LIMIT $2";

    // ---- status lists ----

    /// Concurrent allocations run one after the other, so they get different blocks.
    ALLOCATE_STATUS_BLOCK = "INSERT INTO status_shards (shard, allocated_blocks) VALUES ($1, 1)
        ON CONFLICT (shard) DO UPDATE SET allocated_blocks = status_shards.allocated_blocks + 1 RETURNING allocated_blocks";

    // ---- replicas ----

    /// Skips a heartbeat that arrives after a later one, and then returns no row.
    RECORD_HEARTBEAT = concat!("WITH recorded AS (INSERT INTO replicas (id, name, version, started_at, heartbeat_number, applied_seq, lease_ms, renewed_at, file_digest,
            file_generation, pending_restart)
        SELECT $1::uuid, $2::text, $3::text, $4::bigint, $5::bigint, $6::bigint, $7::bigint, $8::bigint, $9::text, $10::bigint, $11::text WHERE ", set_durable!(), " IS NOT NULL
        ON CONFLICT (id) DO UPDATE SET heartbeat_number = excluded.heartbeat_number, applied_seq = excluded.applied_seq, lease_ms = excluded.lease_ms,
            renewed_at = excluded.renewed_at, file_digest = excluded.file_digest, file_generation = excluded.file_generation,
            pending_restart = excluded.pending_restart WHERE replicas.heartbeat_number < excluded.heartbeat_number RETURNING id)
        SELECT CASE WHEN $12::bool THEN pg_notify('errand_acks', '')::text END FROM recorded");
    REPLICAS = "SELECT id::text AS id, name, version, started_at, heartbeat_number, applied_seq, lease_ms, renewed_at, file_digest, file_generation,
        pending_restart FROM replicas
        ORDER BY started_at, replicas.id";
    DEREGISTER_REPLICA = "DELETE FROM replicas WHERE id = $1 AND heartbeat_number <= $2";

    // ---- pruning of the audit trail ----

    /// Locks the records, so that another prune does not change which ones the next statement
    /// finds.
    PRUNE_AUDIT_AGENTS = "DELETE FROM audit_agents WHERE writer = $1 AND n IN
        (SELECT audit.n FROM audit WHERE audit.writer = $1 AND audit.n <= $2 ORDER BY audit.n LIMIT $3 FOR UPDATE)";
    PRUNE_AUDIT = "DELETE FROM audit WHERE writer = $1 AND n IN
        (SELECT audit.n FROM audit WHERE audit.writer = $1 AND audit.n <= $2 ORDER BY audit.n LIMIT $3)";

    /// Writes a new value of a size that needs space on the disk.
    WRITE_PROBE = concat!("UPDATE write_probe SET content = repeat(md5($1::text), 512) WHERE singleton = 1 AND ", set_durable!(), " IS NOT NULL");

    // ---- garbage collection ----

    /// Skips rows that another garbage collection has locked, so that two can't deadlock.
    DELETE_EXPIRED_REPLAY_GUARDS = "DELETE FROM replay_guards WHERE digest IN
        (SELECT digest FROM replay_guards WHERE keep_until <= $1 LIMIT 10000 FOR UPDATE SKIP LOCKED)";
    DELETE_EXPIRED_IDEMPOTENCY_KEYS = "DELETE FROM idempotency_keys WHERE digest IN
        (SELECT digest FROM idempotency_keys WHERE keep_until <= $1 LIMIT 10000 FOR UPDATE SKIP LOCKED)";
    HAS_EXPIRED_SIGNING_KEYS = "SELECT EXISTS (SELECT 1 FROM signing_keys WHERE gone <= $1)";
    DELETE_EXPIRED_SIGNING_KEYS = "DELETE FROM signing_keys WHERE gone <= $1";
    DELETE_EXPIRED_STATUS_SHARDS = "DELETE FROM status_shards WHERE shard IN
        (SELECT shard FROM status_shards WHERE shard <= $1 LIMIT 10000 FOR UPDATE SKIP LOCKED)";

    // ---- retention ----

    /// Deletes records of tokens of which nothing is left: the token and the user token behind it
    /// have expired, and the task has ended.
    DELETE_OLD_TOKENS = "DELETE FROM tokens WHERE id IN
        (SELECT old.id FROM tokens AS old WHERE old.issued <= $1 AND old.expires <= $1
            AND (old.evidence_expires IS NULL OR old.evidence_expires <= $1)
            AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.id = old.task AND tasks.state IN ('active', 'suspended'))
        ORDER BY old.issued, old.id LIMIT 500 FOR UPDATE SKIP LOCKED)";
    /// The ended tasks of whose tokens there is no record left.
    OLD_TASKS = "SELECT id::text FROM tasks WHERE state IN ('completed', 'failed', 'expired', 'revoked')
        AND created <= $1 AND deadline <= $1 AND NOT EXISTS (SELECT 1 FROM tokens WHERE tokens.task = tasks.id)
        LIMIT 500 FOR UPDATE SKIP LOCKED";
    DELETE_RESOURCES_OF_TASKS = "DELETE FROM task_resources WHERE task IN (SELECT json_array_elements_text($1::json)::uuid)";
    DELETE_TASKS = "DELETE FROM tasks WHERE id IN (SELECT json_array_elements_text($1::json)::uuid) AND state IN ('completed', 'failed', 'expired', 'revoked')";

    // ---- what is stored about a person ----

    REPLACE_PERSONAL_VALUES = "UPDATE audit SET personal = $3, requester_issuer = $4, requester_subject = $5, resource = $6
        WHERE writer = $1 AND n = $2";
    DELETE_TOKENS_OF_REQUESTER = "DELETE FROM tokens WHERE id IN
        (SELECT old.id FROM tokens AS old WHERE old.requester_subject = $2 AND old.requester_issuer = $1
            AND old.issued <= $3 AND old.expires <= $3
            AND (old.evidence_expires IS NULL OR old.evidence_expires <= $3)
            AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.id = old.task AND tasks.state IN ('active', 'suspended'))
        LIMIT 500 FOR UPDATE SKIP LOCKED)";
    OLD_TASKS_OF_REQUESTER = "SELECT id::text FROM tasks WHERE requester_subject = $2 AND requester_issuer = $1
        AND state IN ('completed', 'failed', 'expired', 'revoked') AND created <= $3 AND deadline <= $3
        AND NOT EXISTS (SELECT 1 FROM tokens WHERE tokens.task = tasks.id) LIMIT 500 FOR UPDATE SKIP LOCKED";
    /// Deletes reviewed break-glass grants, before the grants: a grant without its row there counts
    /// as withdrawn, and the review must not say so.
    DELETE_BREAK_GLASS_OF_REQUESTER = "DELETE FROM break_glass WHERE id IN
        (SELECT old.id FROM break_glass AS old WHERE old.requester_subject = $2 AND old.requester_issuer = $1
            AND old.until <= $3 AND old.reviewed_at IS NOT NULL LIMIT 500 FOR UPDATE SKIP LOCKED)";
    DELETE_GRANTS_OF_REQUESTER = "DELETE FROM grants WHERE id IN
        (SELECT old.id FROM grants AS old WHERE old.requester_subject = $2 AND old.requester_issuer = $1
            AND old.until <= $3
            AND NOT EXISTS (SELECT 1 FROM break_glass WHERE break_glass.id = old.id)
        LIMIT 500 FOR UPDATE SKIP LOCKED)";
    COUNT_TOKENS_OF_REQUESTER = "SELECT count(*) FROM tokens WHERE requester_subject = $2 AND requester_issuer = $1";
    COUNT_TASKS_OF_REQUESTER = "SELECT count(*) FROM tasks WHERE requester_subject = $2 AND requester_issuer = $1";
    COUNT_GRANTS_OF_REQUESTER = "SELECT count(*) FROM grants WHERE requester_subject = $2 AND requester_issuer = $1";
    COUNT_BREAK_GLASS_OF_REQUESTER = "SELECT count(*) FROM break_glass WHERE requester_subject = $2 AND requester_issuer = $1";
}
