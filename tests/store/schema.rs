//! The schema, the statements, and the diagnostics for an operator.

use std::time::Duration;

use errand::{
    adapters::store::{self, StoreOptions, connect},
    domain::{
        replication::{Heartbeat, Replica, ReplicaId},
        revocation::{LogPosition, Target},
    },
    ports::{ListError, OP_CHECK_SCHEMA, Outage, StateChange, Store, TaskFilter, WriteSet},
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row, SqlSafeStr, SqliteConnection};

use crate::{
    fixtures::*,
    support::{TestStore, sealer},
};

pub fn error_text(outage: &Outage) -> String {
    format!("{outage}: {}", outage.source)
}

async fn foreign_schema_is_rejected(on: &TestStore) {
    let store = on.open().await;
    store.ping().await.unwrap();
    store.migrate().await.unwrap();
    store.ping().await.unwrap();
    on.tamper("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'x', true, '', 0)").await;
    let newer = error_text(&store.ping().await.unwrap_err());
    assert!(newer.contains("version 9999") && newer.contains("newer program"), "{newer}");
    let newer = error_text(&store.migrate().await.unwrap_err());
    assert!(newer.contains("newer program"), "{newer}");
    on.tamper("UPDATE _sqlx_migrations SET version = version - 2 WHERE version <> 9999").await;
    on.tamper("DELETE FROM _sqlx_migrations WHERE version = 9999").await;
    let none = error_text(&store.ping().await.unwrap_err());
    assert!(none.ends_with("run `errand migrate`"), "{none}");
}

async fn development_schema_is_rejected_with_remedy(on: &TestStore) {
    let store = on.open().await;
    let name = on.url().rsplit('/').next().unwrap();
    let remedy = if on.url().starts_with("sqlite") { "delete `/" } else { "drop the database `" };
    // A development schema had other migrations under the first number, and more of them.
    on.tamper("UPDATE _sqlx_migrations SET checksum = ''").await;
    for version in [2, 12] {
        for outage in [store.ping().await.unwrap_err(), store.migrate().await.unwrap_err()] {
            assert_eq!(outage.operation, OP_CHECK_SCHEMA);
            let text = error_text(&outage);
            assert!(text.contains("development version") && !text.contains("newer program"), "{text}");
            assert!(text.contains(remedy) && text.contains(name), "{text}");
        }
        on.tamper(&format!("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES ({version}, 'x', true, '', 0)")).await;
    }
}

async fn unreadable_column_is_named(on: &TestStore) {
    let store = on.open().await;
    commit_one(&*store, WriteSet { log_entries: vec![entry(Target::Registry)], ..issue_token(1) }).await;
    let id = task_id(1);
    for (sql, want) in [
        (
            "UPDATE tasks SET authority = '{\"password\":\"hunter2\"'",
            format!("table `tasks`, column `authority`, row `{id}`"),
        ),
        (
            "UPDATE tasks SET authority = '[]', requester_issuer = 'hunter2'",
            format!("table `tasks`, column `requester_issuer`, row `{id}`"),
        ),
        (
            "UPDATE tasks SET requester_issuer = 'https://a.example', created = 999999999999999",
            format!("table `tasks`, column `created`, row `{id}`"),
        ),
    ] {
        on.tamper(sql).await;
        let ListError::Outage(list) = store.list_tasks(&TaskFilter::default(), &first_page(9)).await.unwrap_err()
        else {
            panic!("the cursor is valid")
        };
        for outage in [store.find_task(id).await.unwrap_err(), list] {
            let text = error_text(&outage);
            assert!(text.contains(&want) && !text.contains("hunter2"), "{text}");
        }
    }
    on.tamper("UPDATE tokens SET lineage = '[\"hunter2\"]'").await;
    let token = error_text(&store.find_token(token_id(1)).await.unwrap_err());
    assert!(token.contains("table `tokens`, column `lineage`") && !token.contains("hunter2"), "{token}");
    on.tamper("UPDATE revocation_log SET key = 'x'").await;
    let log = error_text(&store.read_log_after(LogPosition::default(), NOW, 9).await.unwrap_err());
    assert!(log.contains("table `revocation_log`, column `key`, row `1`"), "{log}");
    on.tamper("UPDATE tasks SET created = 0, last_transition = '{\"by\":\"hunter2\"}'").await;
    let turned = error_text(&store.find_task(id).await.unwrap_err());
    assert!(turned.contains("table `tasks`, column `last_transition`") && !turned.contains("hunter2"), "{turned}");
    on.tamper("INSERT INTO objects (kind, id, body, owner) VALUES ('agent', 'planner', '{}', 'api')").await;
    let object = error_text(&store.load_registry().await.unwrap_err());
    assert!(object.contains("table `objects`, column `body`, row `agent/planner`"), "{object}");
    on.tamper("INSERT INTO replicas (id, name, version, started_at, heartbeat_number, applied_seq, lease_ms, renewed_at) VALUES ('00000000-0000-0000-0000-000000000001', 'x', 'x', 999999999999999, 1, 0, 1, 0)").await;
    let replica = error_text(&store.list_replicas().await.unwrap_err());
    assert!(replica.contains("table `replicas`, column `started_at`"), "{replica}");
    on.tamper("DELETE FROM objects").await;
    // An object under the name of another.
    let body = serde_json::to_string(&admin("ops", "operator").object).unwrap();
    on.tamper(&format!("INSERT INTO objects (kind, id, body, owner) VALUES ('admin', 'other', '{body}', 'api')")).await;
    let object = error_text(&store.load_registry().await.unwrap_err());
    assert!(object.contains("table `objects`, column `id`, row `admin/other`"), "{object}");
}

async fn migrate_at_once(on: &TestStore) {
    let none = error_text(&on.open().await.ping().await.unwrap_err());
    assert!(none.contains("no schema") && none.ends_with("run `errand migrate`"), "{none}");
    let mut programs = Vec::new();
    for _ in 0..4 {
        let on = on.open().await;
        programs.push(tokio::spawn(async move { on.migrate().await }));
    }
    for program in programs {
        program.await.unwrap().unwrap();
    }
    let store = on.open().await;
    store.ping().await.unwrap();
    commit_one(&*store, issue_token(1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_migrations_work_on_sqlite() {
    migrate_at_once(&TestStore::empty_sqlite().await).await;
    // If the table of migrations exists already, all programs begin by reading it.
    let on = TestStore::empty_sqlite().await;
    on.open().await;
    on.tamper(
        "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
            installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL,
            execution_time BIGINT NOT NULL)",
    )
    .await;
    migrate_at_once(&on).await;
}

/// Another connection writes to a new file before its write-ahead log is enabled.
#[tokio::test]
async fn sqlite_opens_file_in_use() {
    let on = TestStore::empty_sqlite().await;
    let new = format!("{}?mode=rwc", on.url());
    let mut other = SqliteConnection::connect(&new).await.unwrap();
    other.execute("CREATE TABLE x (y INTEGER)").await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let (store, ()) = tokio::join!(on.open(), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        other.execute("ROLLBACK").await.unwrap();
    });
    store.migrate().await.unwrap();
    store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_migrations_work_on_postgres() {
    migrate_at_once(&TestStore::empty_postgres().await).await;
}

/// A lock that another transaction keeps holding causes an outage in time, and nothing happens.
async fn assert_held_lock_is_unavailable(url: &str, lock: &'static str) {
    let timeout = Duration::from_millis(300);
    let options = StoreOptions {
        acquire_timeout: timeout,
        statement_timeout: timeout,
        max_connections: 2,
        ..StoreOptions::default()
    };
    let store = connect(url, &options).await.unwrap();
    store.unlock(sealer());
    let write = WriteSet { log_entries: vec![entry(Target::Keys)], ..issue_token(1) };
    if url.starts_with("sqlite") {
        let mut other = SqliteConnection::connect(url).await.unwrap();
        other.execute(lock).await.unwrap();
        assert_refused_soon(&*store, &write).await;
        other.execute("ROLLBACK").await.unwrap();
    } else {
        let mut other = PgConnection::connect(url).await.unwrap();
        other.execute(lock).await.unwrap();
        assert_refused_soon(&*store, &write).await;
        other.execute("ROLLBACK").await.unwrap();
    }
    assert_eq!(store.find_task(task_id(1)).await.unwrap(), None);
    assert_eq!(commit_one(&*store, write).await.map(LogPosition::number), Some(1));
}

async fn assert_refused_soon(store: &dyn Store, write: &WriteSet) {
    let commit = store.commit(WRITER, std::slice::from_ref(write));
    let refused = tokio::time::timeout(Duration::from_secs(20), commit).await.expect("the commit times out");
    refused.unwrap_err();
}

#[tokio::test]
async fn file_lock_is_unavailable() {
    let on = TestStore::sqlite().await;
    on.open().await;
    assert_held_lock_is_unavailable(on.url(), "BEGIN IMMEDIATE").await;
}

#[tokio::test]
async fn log_lock_is_unavailable() {
    let on = TestStore::postgres().await;
    on.open().await;
    assert_held_lock_is_unavailable(on.url(), "BEGIN; UPDATE log_head SET seq = seq + 1").await;
}

/// The settings of every connection: all waits are limited, including the server's wait for a
/// program that was stopped within a transaction, and acknowledged writes are durable.
#[tokio::test]
async fn postgres_connections_are_configured() {
    let on = TestStore::postgres().await;
    let (_, settings) = store::postgres::STATEMENTS.iter().find(|(name, _)| *name == "CONFIGURE_CONNECTION").unwrap();
    for (before, after) in [("off", "on"), ("on", "on"), ("local", "local"), ("remote_apply", "remote_apply")] {
        let mut connection = PgConnection::connect(on.url()).await.unwrap();
        sqlx::query("SELECT set_config('synchronous_commit', $1, false)")
            .bind(before)
            .execute(&mut connection)
            .await
            .unwrap();
        let row =
            sqlx::query(*settings).bind("1234ms").bind("force_custom_plan").fetch_one(&mut connection).await.unwrap();
        assert!(!row.get::<bool, _>("standby"));
        for (setting, want) in [
            ("synchronous_commit", after),
            ("statement_timeout", "1234ms"),
            ("jit", "off"),
            ("plan_cache_mode", "force_custom_plan"),
            ("idle_in_transaction_session_timeout", "1234ms"),
        ] {
            let query = sqlx::query_scalar::<_, String>("SELECT current_setting($1)").bind(setting);
            assert_eq!(query.fetch_one(&mut connection).await.unwrap(), want, "{setting}");
        }
    }
    let mut connection = PgConnection::connect(on.url()).await.unwrap();
    let store = on.open().await;
    store.ping().await.unwrap();
    let named = sqlx::query("SELECT 1 FROM pg_stat_activity WHERE application_name = 'errand'");
    assert!(!named.fetch_all(&mut connection).await.unwrap().is_empty());
}

/// Every commit is durable by its own transaction, whatever has become of the session's settings.
/// The trigger notes the setting at its first call in a transaction, and then switches durability
/// off for the session.
#[tokio::test]
async fn postgres_commits_are_durable_in_any_session() {
    let on = TestStore::postgres().await;
    on.tamper("CREATE TABLE seen (place text, setting text, xact text UNIQUE)").await;
    on.tamper(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO seen VALUES (TG_TABLE_NAME, current_setting('synchronous_commit'), pg_current_xact_id()::text)
                ON CONFLICT DO NOTHING;
            PERFORM set_config('synchronous_commit', 'off', false);
            RETURN NEW; END $$",
    )
    .await;
    for table in ["tokens", "replicas", "status_shards", "write_probe"] {
        let trigger = "BEFORE INSERT OR UPDATE ON";
        on.tamper(&format!("CREATE TRIGGER note {trigger} {table} FOR EACH ROW EXECUTE FUNCTION note()")).await;
    }
    let store = on.open().await;
    for n in 1..=3_u64 {
        commit_one(&*store, issue_token(n.into())).await;
        store.probe_write(n).await.unwrap();
        store.allocate_status_block(status_index(1).shard).await.unwrap();
        let replica = Replica {
            id: ReplicaId(uuid(9)),
            name: "a".into(),
            version: "1".into(),
            started_at: NOW,
            file: None,
            pending_restart: Vec::new(),
        };
        let beat =
            Heartbeat { replica, number: n, applied: LogPosition::default(), lease: Duration::from_secs(2), at: NOW };
        store.record_heartbeat(&beat, false).await.unwrap();
    }
    let mut connection = PgConnection::connect(on.url()).await.unwrap();
    let seen = sqlx::query_as::<_, (String, String)>("SELECT DISTINCT place, setting FROM seen ORDER BY place");
    let seen = seen.fetch_all(&mut connection).await.unwrap();
    let want = ["replicas", "status_shards", "tokens", "write_probe"].map(|place| (place.to_owned(), "on".to_owned()));
    assert_eq!(seen, want);
}

/// The defaults of the database do not change the isolation of transactions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_defaults_are_overridden() {
    for isolation in ["serializable", "repeatable read"] {
        let (one, other) = (TestStore::postgres().await, TestStore::postgres().await);
        for on in [&one, &other] {
            let alter = "ALTER DATABASE %I SET default_transaction_isolation = %L";
            let alter = format!("EXECUTE format('{alter}', current_database(), '{isolation}')");
            on.tamper(&format!("DO $$ BEGIN {alter}; END $$")).await;
        }
        crate::preconditions::concurrent_changes_of_a_version_have_one_winner(&one).await;
        crate::log::concurrent_reader_skips_no_entry(&other).await;
    }
}

/// The lists; `_BY_…` may follow.
const LISTS: [&str; 13] = [
    "TASKS",
    "OVERDUE_TASKS",
    "TOKENS",
    "AUDIT",
    "GRANTS",
    "LIVE_GRANTS",
    "BREAK_GLASS_LIST",
    "BREAK_GLASS_UNREVIEWED",
    "BREAK_GLASS_REVIEWED",
    "REVOCATIONS",
    "LOG_AFTER",
    "DELETE_EXPIRED_REPLAY_GUARDS",
    "DELETE_EXPIRED_IDEMPOTENCY_KEYS",
];

fn is_list(name: &str) -> bool {
    LISTS.iter().any(|list| name == *list || name.strip_prefix(list).is_some_and(|rest| rest.starts_with("_BY_")))
}

/// An index serves every list in its order, however long the table is. The statement is planned
/// without its parameters, and without the methods that read a whole table or sort it.
#[tokio::test]
async fn postgres_list_queries_use_indexes() {
    let on = TestStore::postgres().await;
    let mut connection = PgConnection::connect(on.url()).await.unwrap();
    for setting in ["enable_seqscan = off", "enable_bitmapscan = off", "plan_cache_mode = force_generic_plan"] {
        connection.execute(sqlx::AssertSqlSafe(format!("SET {setting}"))).await.unwrap();
    }
    let mut seen = 0;
    for (name, sql) in store::postgres::STATEMENTS.iter().filter(|(name, _)| is_list(name)) {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!("PREPARE list_{name} AS {sql}")))
            .execute(&mut connection)
            .await
            .unwrap();
        let parameters = (1..=20).filter(|n| sql.contains(&format!("${n}"))).max().unwrap_or_default();
        let nulls = vec!["NULL"; parameters].join(", ");
        let explain = sqlx::AssertSqlSafe(format!("EXPLAIN (COSTS OFF) EXECUTE list_{name} ({nulls})"));
        let plan = sqlx::raw_sql(explain).fetch_all(&mut connection).await.unwrap();
        let plan = plan.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>();
        let has = |node: &str| plan.iter().any(|line| line.trim_start_matches(['-', '>', ' ']).starts_with(node));
        assert!(!has("Seq Scan"), "{name}:\n{}", plan.join("\n"));
        let sorts = plan.iter().filter(|line| line.trim_start_matches(['-', '>', ' ']) == "Sort").count();
        assert!(sorts == 0 && !has("Incremental Sort"), "{name}:\n{}", plan.join("\n"));
        seen += 1;
    }
    assert!(seen >= 18, "{seen}");
}

/// An index serves every list in its order, however long the table is.
#[tokio::test]
async fn sqlite_list_queries_use_indexes() {
    let on = TestStore::sqlite().await;
    let mut connection = SqliteConnection::connect(on.url()).await.unwrap();
    let mut seen = 0;
    for (name, sql) in store::sqlite::STATEMENTS {
        if !is_list(name) {
            continue;
        }
        let plan = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
        let plan = plan.fetch_all(&mut connection).await.unwrap();
        let plan = plan.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("; ");
        // The expansion of JSON in a row that was found does not scan the table.
        let plan = plan.replace("SCAN json_each", "");
        assert!(plan.contains("USING") && !plan.contains("SCAN"), "{name}: {plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{name}: {plan}");
        seen += 1;
    }
    assert!(seen >= 15, "{seen}");
}

/// Every statement is valid SQL of its database and fits the schema, including those that no test
/// runs.
#[tokio::test]
async fn sqlite_statements_prepare() {
    let on = TestStore::sqlite().await;
    let mut connection = SqliteConnection::connect(on.url()).await.unwrap();
    for (name, sql) in store::sqlite::STATEMENTS {
        if let Err(error) = (&mut connection).prepare((*sql).into_sql_str()).await {
            panic!("{name}: {error}");
        }
    }
    assert!(store::sqlite::STATEMENTS.len() > 50);
}

#[tokio::test]
async fn postgres_statements_prepare() {
    let on = TestStore::postgres().await;
    let mut connection = PgConnection::connect(on.url()).await.unwrap();
    for (name, sql) in store::postgres::STATEMENTS {
        if let Err(error) = (&mut connection).prepare((*sql).into_sql_str()).await {
            panic!("{name}: {error}");
        }
    }
}

/// The statements of commands that the owner of the tables runs: they change the audit trail.
const OWNER_STATEMENTS: [&str; 3] = ["PRUNE_AUDIT_AGENTS", "PRUNE_AUDIT", "REPLACE_PERSONAL_VALUES"];

/// The role with the rights of `deploy/postgres/service-role.sql` may run every other statement,
/// and can neither rewrite the trail nor change the schema.
#[tokio::test]
async fn service_role_has_sufficient_and_limited_rights() {
    let on = TestStore::postgres().await;
    let mut connection = PgConnection::connect(on.url()).await.unwrap();
    // Roles belong to the server, not to the database.
    let role = format!("service_of_{}", on.url().rsplit('/').next().unwrap());
    let grants = include_str!("../../deploy/postgres/service-role.sql").replace(":\"service\"", &role);
    let mut run =
        async |sql: String| connection.execute(AssertSqlSafe(sql)).await.map(|_| ()).map_err(|e| e.to_string());
    run(format!("CREATE ROLE {role}; {grants}; SET ROLE {role}")).await.unwrap();
    let (mut planned, mut refused) = (0, 0);
    for (name, sql) in store::postgres::STATEMENTS {
        if !["SELECT", "INSERT", "UPDATE", "DELETE", "WITH"].iter().any(|verb| sql.trim_start().starts_with(verb)) {
            continue;
        }
        let parameters = (1..100).rev().find(|n| sql.contains(&format!("${n}"))).unwrap_or_default();
        let nulls = vec!["NULL"; parameters].join(", ");
        let execute = if nulls.is_empty() { "s".to_owned() } else { format!("s({nulls})") };
        // A plan needs the same rights as the execution.
        let explained = run(format!("PREPARE s AS {sql}; EXPLAIN EXECUTE {execute}; DEALLOCATE s")).await;
        if OWNER_STATEMENTS.contains(name) {
            let error = explained.unwrap_err();
            assert!(error.contains("permission denied"), "{name}: {error}");
            run("DEALLOCATE s".to_owned()).await.unwrap();
            refused += 1;
            continue;
        }
        assert_eq!(explained, Ok(()), "{name}");
        planned += 1;
    }
    assert!(planned > 50, "{planned} statements");
    assert_eq!(refused, OWNER_STATEMENTS.len());
    for sql in [
        "UPDATE audit SET body = body",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "UPDATE audit_agents SET agent = agent",
        "DELETE FROM audit_agents",
        "UPDATE revocation_log SET reason = reason",
        "DELETE FROM revocation_log",
        "DELETE FROM _sqlx_migrations",
        "UPDATE _sqlx_migrations SET success = success",
        "CREATE TABLE other (id int)",
        "DROP TABLE audit",
        "ALTER TABLE audit DISABLE TRIGGER ALL",
    ] {
        let error = run(sql.to_owned()).await.unwrap_err();
        assert!(error.contains("permission denied") || error.contains("must be owner"), "{sql}: {error}");
    }
    run(format!("RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")).await.unwrap();
}

#[test]
fn stores_have_the_same_statements() {
    let names = |of: &[(&'static str, &str)]| of.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    let postgres = names(store::postgres::STATEMENTS).into_iter().filter(|name| *name != "CONFIGURE_CONNECTION");
    assert_eq!(postgres.collect::<Vec<_>>(), names(store::sqlite::STATEMENTS));
    for (name, sql) in store::postgres::STATEMENTS.iter().chain(store::sqlite::STATEMENTS) {
        let sql = sql.to_lowercase();
        assert!(!sql.contains("now()") && !sql.contains("current_t") && !sql.contains("select *"), "{name}");
    }
}

#[tokio::test]
async fn unreachable_url_is_explained() {
    let timeout = Duration::from_millis(300);
    let options = StoreOptions { acquire_timeout: timeout, ..StoreOptions::default() };
    for (url, want) in [
        ("mysql://errand:hunter2@db/errand", "must begin with `postgres://`, `postgresql://` or `sqlite:`"),
        ("hunter2", "must begin with"),
        ("", "must begin with"),
        ("postgres://errand:hunter2@db:hunter2/errand", "is not valid"),
        ("postgres://errand:hunter2@db/errand?sslmod=hunter2", "unknown parameter"),
        ("sqlite:///no/such/folder/errand.db", "open the store's file failed"),
    ] {
        let Err(outage) = connect(url, &options).await else { panic!("{url} was accepted") };
        let text = error_text(&outage);
        assert!(text.contains(want) && !text.contains("hunter2"), "{text}");
    }
}

#[tokio::test]
async fn in_memory_store_lasts_while_open() {
    let options = StoreOptions::default();
    for url in ["sqlite::memory:", "sqlite://:memory:", "sqlite://name?mode=memory"] {
        let store = connect(url, &options).await.unwrap();
        store.unlock(sealer());
        store.migrate().await.unwrap();
        store.ping().await.unwrap();
        commit_one(&*store, issue_token(1)).await;
        assert_eq!(store.find_task(task_id(1)).await.unwrap(), Some(task(1)));
        let seal = WriteSet { state_changes: vec![StateChange::SealNewStore], ..WriteSet::default() };
        commit_one(&*store, seal).await;
        let (a, b) = tokio::join!(store.load_registry(), store.commit(WRITER, &[]));
        assert!(a.is_ok() && b.is_ok());
    }
}

#[cfg(unix)]
#[tokio::test]
async fn store_file_is_private() {
    use std::os::unix::fs::PermissionsExt;

    let on = TestStore::sqlite().await;
    commit_one(&*on.open().await, issue_token(1)).await;
    let path = std::path::Path::new(on.url().trim_start_matches("sqlite://"));
    let folder = path.parent().unwrap();
    let mut files = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.file_name());
        files += 1;
    }
    assert!(files >= 1);
}

conformance!(foreign_schema_is_rejected, development_schema_is_rejected_with_remedy, unreadable_column_is_named);
