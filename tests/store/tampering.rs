//! Whatever a positive answer rests on is authenticated: a row that was changed, moved, or copied
//! from another store is an outage that names it, and the other rows stay usable.

use std::collections::BTreeMap;

use errand::{
    adapters::keyring::{Kek, KekSet, Keyring, generate_sealed_keys},
    domain::{
        id::KeyId,
        jose::jwk::SigningAlgorithm,
        keys::KeySchedule,
        registry::{Block, BlockKind, BlockSubject, ObjectKind, Source, StoredSecretTag},
        revocation::{LogAnchor, LogPosition, Target},
        sealed_key::{KeyPurpose, SealedKeyName, StoredSealedKey},
        secret::SecretTag,
        task::TaskState,
        time::Timestamp,
    },
    ports::{Outage, StateChange, Store, StoredKey, TamperingError, WriteSet},
};
use sqlx::{Connection, PgConnection, SqliteConnection, query_as};

use crate::{break_glass::sample_break_glass, fixtures::*, support::TestStore};

/// What keeps a table from being changed by others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protection {
    /// A tag on each row.
    Tag,
    /// One seal over all rows. The columns that it does not cover, with the reason.
    Seal(&'static [(&'static str, &'static str)]),
    /// None, for this reason.
    None(&'static str),
}

use Protection::{None as Unprotected, Seal, Tag};

/// Every table of the schema. A new one is tagged, sealed, or listed here with a reason.
const TABLES: [(&str, Protection); 25] = [
    ("applied_files", Unprotected("decides which file is applied, and an operator applies it")),
    ("audit", Unprotected("authenticated by its own chain, HMAC and checkpoints")),
    ("audit_agents", Unprotected("copies of parts of the audit trail, which are compared with it")),
    ("audit_checkpoints", Unprotected("signed texts")),
    ("audit_writers", Unprotected("heads of the chains, which checkpoints repeat")),
    ("blocks", Seal(&[])),
    ("break_glass", Tag),
    ("deployment", Unprotected("compared with the configuration file: another issuer only stops a start")),
    ("grants", Tag),
    ("idempotency_keys", Tag),
    ("log_anchor", Tag),
    ("log_head", Tag),
    ("objects", Seal(&[])),
    ("replay_guards", Unprotected("a row only denies, and a deleted row can't be found")),
    ("replicas", Unprotected("a deleted row can't be found, and a changed one means no more")),
    ("revocation_log", Tag),
    ("sealed_keys", Seal(&[])),
    ("secrets", Seal(&[])),
    ("signing_keys", Seal(&[])),
    ("status_shards", Unprotected("a counter of positions in lists, which grants nothing")),
    ("task_resources", Unprotected("an index of tasks, which are read and verified themselves")),
    ("tasks", Tag),
    ("tokens", Tag),
    (
        "tools",
        Seal(&[
            ("accepted_definition", "compared with the digest in `accepted`"),
            ("observed_definition", "compared with the digest in `observed`"),
            ("accepted_at", "for display"),
            ("accepted_by", "for display"),
            ("observed_at", "for display"),
        ]),
    ),
    ("write_probe", Unprotected("meaningless content")),
];
/// Sealed itself, in part by name: see `versions_are_bound`.
const OTHER_TABLES: [&str; 2] = ["versions", "_sqlx_migrations"];

/// A column: its name, its type in lower case, whether it may be NULL, and whether it is part of
/// the primary key.
struct Column {
    name: String,
    data_type: String,
    is_nullable: bool,
    is_key: bool,
}

fn is_sqlite(on: &TestStore) -> bool {
    on.url().starts_with("sqlite")
}

async fn read_columns(on: &TestStore) -> BTreeMap<String, Vec<Column>> {
    let rows: Vec<(String, String, String, bool, bool)> = if is_sqlite(on) {
        let sql = "SELECT m.name, c.name, lower(c.type), c.\"notnull\" = 0 AND c.pk = 0, c.pk > 0
            FROM sqlite_master AS m JOIN pragma_table_info(m.name) AS c
            WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE 'saved_%' ORDER BY 1, c.cid";
        query_as(sql).fetch_all(&mut SqliteConnection::connect(on.url()).await.unwrap()).await.unwrap()
    } else {
        let sql = "SELECT c.table_name::text, c.column_name::text, c.data_type::text, c.is_nullable = 'YES',
                EXISTS (SELECT 1 FROM information_schema.key_column_usage AS k
                    JOIN information_schema.table_constraints AS t ON t.constraint_name = k.constraint_name AND t.constraint_type = 'PRIMARY KEY'
                    WHERE k.table_name = c.table_name AND k.column_name = c.column_name)
            FROM information_schema.columns AS c WHERE c.table_schema = 'public' AND c.table_name NOT LIKE 'saved_%'
            ORDER BY 1, c.ordinal_position";
        query_as(sql).fetch_all(&mut PgConnection::connect(on.url()).await.unwrap()).await.unwrap()
    };
    let mut tables = BTreeMap::<String, Vec<Column>>::new();
    for (table, name, data_type, is_nullable, is_key) in rows {
        tables.entry(table).or_default().push(Column { name, data_type, is_nullable, is_key });
    }
    tables
}

async fn every_table_is_protected_or_listed(on: &TestStore) {
    on.open().await;
    let tables = read_columns(on).await;
    for (table, columns) in &tables {
        let has_tag = columns.iter().any(|column| column.name == "tag" && column.data_type == "text");
        match TABLES.iter().find(|(name, _)| name == table) {
            Some((_, Tag)) => assert!(has_tag, "`{table}` has no tag"),
            Some((_, Seal(exceptions))) => {
                for (exception, reason) in *exceptions {
                    assert!(columns.iter().any(|column| column.name == *exception) && !reason.is_empty(), "{table}");
                }
            }
            Some((_, Unprotected(reason))) => {
                assert!(!reason.is_empty() && !has_tag, "`{table}` is listed without need");
            }
            None => assert!(OTHER_TABLES.contains(&&**table), "`{table}` is neither tagged, sealed nor listed"),
        }
    }
    for (table, _) in TABLES {
        assert!(tables.contains_key(table), "`{table}` is listed and does not exist");
    }
}

/// Commits two rows in each table that is tagged or sealed.
async fn fill(store: &dyn Store) {
    let secret = |tag: u8| StoredSecretTag { tag: SecretTag::from_bytes(vec![tag; 32]), source: Source::Api };
    let block = |id: &str| Block {
        subject: BlockSubject::Object(ObjectKind::Agent, id.into()),
        kind: BlockKind::Suspended,
        reason: "lost laptop".parse().unwrap(),
        by: "admin:ops".into(),
        at: NOW,
    };
    let state_changes = vec![
        StateChange::PutObject(Box::new(admin("ops", "operator"))),
        StateChange::PutObject(Box::new(admin("audit", "auditor"))),
        StateChange::PutSecret(client("ops"), secret(1)),
        StateChange::PutSecret(client("audit"), secret(2)),
        StateChange::Block(block("one")),
        StateChange::Block(block("two")),
        StateChange::PutKey(signing_key("one")),
        StateChange::PutKey(signing_key("two")),
        StateChange::PutSealedKey(sealed_key(1)),
        StateChange::PutSealedKey(sealed_key(2)),
        StateChange::PutTool(Box::new(crate::registry::tool("files", "one", Some("a"), Some("b")))),
        StateChange::PutTool(Box::new(crate::registry::tool("files", "two", Some("a"), Some("b")))),
        StateChange::PutGrant(Box::new(grant(1, "alice", "planner"))),
        StateChange::PutGrant(Box::new(grant(2, "bob", "planner"))),
        StateChange::PutBreakGlass(Box::new(sample_break_glass(3))),
        StateChange::PutBreakGlass(Box::new(sample_break_glass(4))),
    ];
    let log_entries = [Target::Registry, Target::Keys, Target::Task(task_id(9))].map(entry).to_vec();
    commit_one(store, WriteSet { state_changes, log_entries, ..WriteSet::default() }).await;
    let mut anchor = LogAnchor::default();
    for linked in store.read_linked_log(LogPosition::default(), Timestamp::EPOCH, 9).await.unwrap() {
        anchor.advance(&linked);
    }
    store.store_log_anchor(&anchor).await.unwrap();
    for n in [1, 2] {
        let key = idempotency_key(&format!("key {n}"));
        commit_one(store, WriteSet { idempotency: Some(key), ..issue_token(n) }).await;
    }
}

fn signing_key(kid: &str) -> StoredKey {
    let schedule = KeySchedule {
        kid: kid.parse::<KeyId>().unwrap(),
        algorithm: SigningAlgorithm::ES256,
        created_at: NOW,
        activates_at: NOW,
        retires_at: None,
        unpublished_at: None,
    };
    StoredKey { schedule, public_jwk: "{}".into(), sealed_private_key: vec![1, 2, 3] }
}

fn sealed_key(epoch: u64) -> StoredSealedKey {
    let name = SealedKeyName { purpose: KeyPurpose::AuditRecords, epoch };
    StoredSealedKey { name, created_at: NOW, sealed: vec![4, 5, 6] }
}

/// Reads what rests on the first row of a table, and then what rests on the others.
async fn read_first(store: &dyn Store, table: &str) -> Result<bool, Outage> {
    let found = match table {
        "tasks" => store.find_task(task_id(1)).await?.is_some(),
        "tokens" => store.find_token(token_id(1)).await?.is_some(),
        "grants" => store.find_grant(grant_id(1)).await?.is_some(),
        "break_glass" => store.find_break_glass(grant_id(3)).await?.is_some(),
        "idempotency_keys" => store.find_idempotent_response("admin:ops", "key 1").await?.is_some(),
        "log_anchor" => store.load_log_anchor().await?.position > LogPosition::default(),
        "log_head" => {
            store.read_log_head().await?;
            true
        }
        "revocation_log" => !store.read_log_after(LogPosition::default(), Timestamp::EPOCH, 9).await?.is_empty(),
        "signing_keys" | "sealed_keys" => !store.load_keys().await?.keys.is_empty(),
        _ => !store.load_registry().await?.entries.is_empty(),
    };
    Ok(found)
}

async fn others_are_usable(store: &dyn Store, table: &str) -> bool {
    match table {
        "tasks" => store.find_task(task_id(2)).await.unwrap().is_some(),
        "tokens" => store.find_token(token_id(2)).await.unwrap().is_some(),
        "grants" => {
            let live = store.list_live_grants(&requester("bob"), &client("planner"), NOW, 9).await.unwrap();
            live.len() == 1
        }
        "break_glass" => store.find_break_glass(grant_id(4)).await.unwrap().is_some(),
        "idempotency_keys" => store.find_idempotent_response("admin:ops", "key 2").await.unwrap().is_some(),
        // The log, the registry and the keys are usable as a whole or not at all.
        _ => true,
    }
}

/// The first row of each table, and another key for it.
fn first_row(table: &str) -> String {
    match table {
        "tasks" | "tokens" | "grants" => format!("id = '{}'", uuid(1)),
        "break_glass" => format!("id = '{}'", uuid(3)),
        "idempotency_keys" => "response LIKE '%key 1%'".into(),
        "log_anchor" | "log_head" => "singleton = 1".into(),
        "revocation_log" => "seq = 1".into(),
        "signing_keys" => "kid = 'one'".into(),
        "sealed_keys" => "epoch = 1".into(),
        "objects" => "id = 'ops'".into(),
        "secrets" => "client = 'ops'".into(),
        "blocks" => "id = 'one'".into(),
        "tools" => "tool = 'one'".into(),
        other => panic!("{other}"),
    }
}

/// Removes what keeps a row from being changed at will.
async fn drop_constraints(on: &TestStore) {
    if !is_sqlite(on) {
        on.tamper(
            "DO $$ DECLARE c record; BEGIN
                FOR c IN SELECT conrelid::regclass AS t, conname FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace
                LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.t, c.conname); END LOOP; END $$",
        )
        .await;
    }
}

/// Returns other values for a column.
fn other_values(on: &TestStore, column: &Column) -> Vec<String> {
    let name = &column.name;
    let mut values = match (&*column.data_type, &**name) {
        ("boolean", _) => vec![format!("NOT {name}")],
        (_, "break_glass") => vec![format!("1 - {name}")],
        ("text", _) if !is_sqlite(on) || !["id", "task", "grant_id"].contains(&&**name) => {
            vec![format!("coalesce({name}, '') || 'x'")]
        }
        ("uuid", _) => vec![format!("CAST('{}' AS uuid)", uuid(99))],
        ("text", _) => vec![format!("'{}'", uuid(99))],
        ("bytea", _) => vec!["'\\x00'".into()],
        ("blob", _) => vec!["x'00'".into()],
        (_, _) => vec![format!("coalesce({name}, 0) + 1")],
    };
    if column.is_nullable {
        values.push(format!("CASE WHEN {name} IS NULL THEN {} END", values[0]));
    }
    values
}

async fn save(on: &TestStore, table: &str) {
    on.tamper(&format!("CREATE TABLE saved_{table} AS SELECT * FROM {table}")).await;
}

async fn restore(on: &TestStore, table: &str) {
    on.tamper(&format!("DELETE FROM {table}; INSERT INTO {table} SELECT * FROM saved_{table}")).await;
}

async fn every_changed_column_is_found(on: &TestStore) {
    let store = on.open().await;
    fill(&*store).await;
    drop_constraints(on).await;
    let tables = read_columns(on).await;
    for (table, protection) in TABLES {
        let exceptions = match protection {
            Unprotected(_) => continue,
            Tag => &[][..],
            Seal(exceptions) => exceptions,
        };
        save(on, table).await;
        assert!(read_first(&*store, table).await.unwrap(), "{table}");
        for column in &tables[table] {
            let is_exception = exceptions.iter().any(|(name, _)| *name == column.name) || column.name == "singleton";
            // A tagged row under another key is not found, and is tested below.
            let is_moved = column.is_key && protection == Tag && table != "revocation_log";
            if is_exception || is_moved {
                continue;
            }
            for value in other_values(on, column) {
                let name = &column.name;
                // A number that is taken would collide.
                let value = if (table, &**name) == ("revocation_log", "seq") { "99".to_owned() } else { value };
                let value = if (table, &**name) == ("sealed_keys", "epoch") { "99".to_owned() } else { value };
                let pragma = if is_sqlite(on) { "PRAGMA ignore_check_constraints = ON; " } else { "" };
                on.tamper(&format!("{pragma}UPDATE {table} SET {name} = {value} WHERE {}", first_row(table))).await;
                let outage = read_first(&*store, table).await.err();
                let outage = outage.unwrap_or_else(|| panic!("{table}.{name} = {value} was not found"));
                // A value that does not parse is no tampering by itself: the wrong tag is.
                assert!(protection != Tag || outage.tampering().is_some(), "{table}.{name} = {value}: {outage:?}");
                let text = errand::ports::ErrorChain(&outage).to_string();
                let names_it = text.contains(&format!("`{table}`")) || text.contains("`versions`");
                assert!(names_it, "{table}.{name}: {text}");
                assert!(others_are_usable(&*store, table).await, "{table}.{name}");
                restore(on, table).await;
            }
        }
        assert!(read_first(&*store, table).await.unwrap(), "{table}");
    }
}

/// A row of another store, a row under another key, and the tag of another row.
async fn foreign_and_moved_rows_are_found(on: &TestStore) {
    let store = on.open().await;
    fill(&*store).await;
    drop_constraints(on).await;
    let row_error = |table: &'static str, outage: Outage| {
        let tampering = outage.tampering().unwrap_or_else(|| panic!("{outage:?}")).clone();
        assert!(matches!(&tampering, TamperingError::Row { table: found, .. } if *found == table), "{tampering:?}");
    };
    for table in ["tasks", "tokens", "grants", "break_glass"] {
        save(on, table).await;
        let (first, second) = if table == "break_glass" { (3, 4) } else { (1, 2) };
        on.tamper(&format!(
            "UPDATE {table} SET tag = (SELECT o.tag FROM {table} AS o WHERE o.id = '{}') WHERE id = '{}'",
            uuid(second),
            uuid(first)
        ))
        .await;
        row_error(table, read_first(&*store, table).await.unwrap_err());
        restore(on, table).await;
        // The second row under the key of the first.
        on.tamper(&format!("DELETE FROM {table} WHERE id = '{}'", uuid(first))).await;
        on.tamper(&format!("UPDATE {table} SET id = '{}' WHERE id = '{}'", uuid(first), uuid(second))).await;
        row_error(table, read_first(&*store, table).await.unwrap_err());
        restore(on, table).await;
    }
    save(on, "idempotency_keys").await;
    on.tamper("CREATE TABLE saved_digest AS SELECT digest FROM idempotency_keys WHERE response LIKE '%key 1%'").await;
    on.tamper("DELETE FROM idempotency_keys WHERE response LIKE '%key 1%'").await;
    on.tamper("UPDATE idempotency_keys SET digest = (SELECT digest FROM saved_digest)").await;
    row_error("idempotency_keys", read_first(&*store, "idempotency_keys").await.unwrap_err());
    restore(on, "idempotency_keys").await;
    // A write of a program with other keys.
    let keks = KekSet::from(Kek::new(&[9; 32]).unwrap());
    let keys = generate_sealed_keys(&keks, &KeyPurpose::ALL, NOW).unwrap();
    let other = on.open_with(std::sync::Arc::new(Keyring::open_new(keks, keys).unwrap())).await;
    let write = WriteSet { idempotency: Some(idempotency_key("key 7")), ..issue_token(7) };
    commit_one(&*other, write).await;
    row_error("tasks", store.find_task(task_id(7)).await.unwrap_err());
    row_error("tokens", store.find_token(token_id(7)).await.unwrap_err());
    row_error("idempotency_keys", store.find_idempotent_response("admin:ops", "key 7").await.unwrap_err());
    row_error("log_head", other.read_log_head().await.unwrap_err());
    let grant = StateChange::PutGrant(Box::new(grant(7, "alice", "planner")));
    let error = other.commit(WRITER, &[WriteSet { state_changes: vec![grant], ..WriteSet::default() }]).await;
    error.unwrap_err();
}

/// A new tag or seal vouches for nothing that was changed by others.
async fn changed_rows_are_not_tagged_anew(on: &TestStore) {
    let store = on.open().await;
    fill(&*store).await;
    let refused = async |change: StateChange, log_entries: Vec<errand::domain::revocation::NewEntry>| {
        let write = WriteSet { state_changes: vec![change], log_entries, ..WriteSet::default() };
        let error = store.commit(WRITER, &[write]).await.unwrap_err();
        let text = format!("{error:?}");
        assert!(text.contains("Row {") || text.contains("Registry") || text.contains("Keys"), "{text}");
    };
    for (sql, undo, change) in [
        (
            "UPDATE tasks SET deadline = deadline + 1",
            "UPDATE tasks SET deadline = deadline - 1",
            transition_task(1, TaskState::Suspended),
        ),
        (
            "UPDATE break_glass SET until = until + 1",
            "UPDATE break_glass SET until = until - 1",
            StateChange::ReviewBreakGlass(grant_id(3), crate::break_glass::review("admin:boss")),
        ),
        (
            "UPDATE signing_keys SET activates = activates + 1",
            "UPDATE signing_keys SET activates = activates - 1",
            StateChange::PutKey(signing_key("three")),
        ),
        (
            "UPDATE blocks SET occurred_at = occurred_at + 1",
            "UPDATE blocks SET occurred_at = occurred_at - 1",
            StateChange::PutObject(Box::new(admin("third", "operator"))),
        ),
        (
            "UPDATE log_head SET keys_version = keys_version + 1",
            "UPDATE log_head SET keys_version = keys_version - 1",
            StateChange::PutGrant(Box::new(grant(8, "alice", "planner"))),
        ),
    ] {
        on.tamper(sql).await;
        refused(change.clone(), Vec::new()).await;
        on.tamper(undo).await;
        commit_one(&*store, WriteSet { state_changes: vec![change], ..WriteSet::default() }).await;
    }
    on.tamper("UPDATE log_head SET seq = seq + 1").await;
    refused(transition_task(2, TaskState::Suspended), vec![entry(Target::Task(task_id(2)))]).await;
}

/// An earlier state of the registry or of the keys, as a whole and with its seal.
async fn versions_are_bound(on: &TestStore) {
    let store = on.open().await;
    fill(&*store).await;
    let tables = ["objects", "secrets", "blocks", "tools", "signing_keys", "sealed_keys", "versions"];
    for table in tables {
        save(on, table).await;
    }
    let removed = signing_key("one").schedule.kid;
    commit_one(&*store, WriteSet { state_changes: vec![StateChange::RemoveKey(removed)], ..WriteSet::default() }).await;
    assert_eq!(store.load_keys().await.unwrap().keys.len(), 1);
    for table in tables {
        restore(on, table).await;
    }
    let outage = store.load_keys().await.unwrap_err();
    assert_eq!(outage.tampering(), Some(&TamperingError::Version("keys")));
    let unblock = StateChange::Unblock(BlockSubject::Object(ObjectKind::Agent, "one".into()));
    let write = WriteSet { state_changes: vec![unblock], ..WriteSet::default() };
    store.commit(WRITER, &[write]).await.unwrap_err();
}

/// An entry that is missing, moved, or of another log.
async fn log_has_no_gap_and_no_foreign_entry(on: &TestStore) {
    let store = on.open().await;
    for n in 1..=5 {
        commit_one(&*store, WriteSet { log_entries: vec![entry(Target::Task(task_id(n)))], ..WriteSet::default() })
            .await;
    }
    save(on, "revocation_log").await;
    let read = async |after: u64| {
        let read = store.read_log_after(LogPosition::new(after), Timestamp::EPOCH, 9).await;
        read.map(|entries| entries.len()).map_err(|outage| outage.tampering().cloned().unwrap())
    };
    assert_eq!(read(0).await, Ok(5));
    for gap in 1..=4 {
        on.tamper(&format!("DELETE FROM revocation_log WHERE seq = {gap}")).await;
        assert_eq!(read(0).await, Err(TamperingError::MissingLogEntry(gap)));
        assert_eq!(read(gap - 1).await, Err(TamperingError::MissingLogEntry(gap)));
        restore(on, "revocation_log").await;
    }
    on.tamper("UPDATE revocation_log SET seq = 77 WHERE seq = 2; UPDATE revocation_log SET seq = 2 WHERE seq = 3")
        .await;
    on.tamper("UPDATE revocation_log SET seq = 3 WHERE seq = 77").await;
    assert_eq!(read(0).await, Err(TamperingError::Row { table: "revocation_log", row: "2".into() }));
    restore(on, "revocation_log").await;
    // The end of the log is cut, and it grows again differently. An entry of the former end, with
    // its own tag, does not fit into the new one.
    save(on, "log_head").await;
    on.tamper("DELETE FROM revocation_log WHERE seq > 5").await;
    let append = async |n| {
        commit_one(&*store, WriteSet { log_entries: vec![entry(Target::Task(task_id(n)))], ..WriteSet::default() })
            .await
    };
    append(6).await;
    append(7).await;
    on.tamper("CREATE TABLE saved_former AS SELECT * FROM revocation_log WHERE seq = 7").await;
    on.tamper("DELETE FROM revocation_log WHERE seq > 5").await;
    restore(on, "log_head").await;
    append(8).await;
    append(7).await;
    assert_eq!(read(0).await, Ok(7));
    on.tamper("DELETE FROM revocation_log WHERE seq = 7; INSERT INTO revocation_log SELECT * FROM saved_former").await;
    assert_eq!(read(0).await, Err(TamperingError::UnlinkedLogEntry(7)));
}

conformance!(
    every_table_is_protected_or_listed,
    every_changed_column_is_found,
    foreign_and_moved_rows_are_found,
    changed_rows_are_not_tagged_anew,
    versions_are_bound,
    log_has_no_gap_and_no_foreign_entry,
);
