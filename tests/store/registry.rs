//! The registry, secrets, keys and grants: inserted, replaced and removed.

use std::collections::BTreeMap;

use errand::{
    domain::{
        configuration::{AppliedFile, ConfigurationHistory, FileVersion},
        grants::Grant,
        id::ClientId,
        jose::jwk::SigningAlgorithm,
        keys::KeySchedule,
        registry::{
            Block, BlockKind, BlockSubject, Entry, ObjectKind, RegistryObject, Source, StoredSecretTag,
            tool::{ObservedDefinition, ToolDefinition, ToolRecord},
        },
        revocation::Target,
        secret::SecretTag,
        settings::Retention,
        task::{Task, TaskState},
    },
    ports::{CommitError, GrantFilter, Precondition, StateChange, Store, StoredKey, WriteOutcome, WriteSet},
};
use serde_json::json;

use crate::{fixtures::*, support::TestStore};

async fn commit_changes(store: &dyn Store, changes: Vec<StateChange>) {
    commit_one(store, WriteSet { state_changes: changes, ..WriteSet::default() }).await;
}

fn object(kind: &str, body: &serde_json::Value) -> RegistryObject {
    serde_json::from_value(json!({"kind": kind, "body": body})).unwrap()
}

/// Returns one object of each kind with nearly every member.
fn objects() -> Vec<Entry> {
    let basic = json!({"method": "client_secret_basic"});
    let jwks = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "a", "y": "b", "kid": "🦀 '\" \\"}]});
    let issuer = json!({
        "issuer": "https://login.example.com", "keys": {"inline": jwks}, "audiences": ["a", "b"],
        "algorithms": ["RS256", "EdDSA"], "token_types": ["access_token"], "subject_prefix": "it's|",
        "allowed_networks": ["10.0.0.0/8"],
    });
    let rules = json!({"it's \" 🦀": {"one_of": [HOSTILE[2], 0.1, 1e21, null, {"a": []}]}, "n": {"max": 0.5}});
    let some = json!({"identifier": "drop", "constraints": rules, "additional_arguments": true});
    let agent = json!({
        "id": "planner", "kind": "broker", "name": HOSTILE[2], "authentication": {"method": "private_key_jwt", "jwks": jwks},
        "known_as": {"https://login.example.com": ["planner-app"]},
        "access": [{"resource": "files", "scopes": ["files:read"], "tools": ["write", some]}],
        "may_delegate_to": ["reader", {"agent": "writer", "depth": 2, "access": [{"resource": "files", "tools": [some]}]}],
    });
    let resource = json!({
        "id": "files", "uri": "https://files.example.com/mcp", "authentication": basic,
        "tools": [{"name": "read", "scope": "files:read", "effect": "read"}],
    });
    let entry = |kind, body, owner| Entry { object: object(kind, &body), source: owner };
    vec![
        admin("ops", "operator"),
        entry("agent", agent, Source::File),
        entry("issuer", issuer, Source::File),
        entry("resource", resource, Source::Api),
    ]
}

async fn applied_files_are_kept_in_order(on: &TestStore) {
    let store = on.open().await;
    assert_eq!(store.load_configuration_history().await.unwrap(), ConfigurationHistory::default());
    let file = |number: u64, digest: &str, generation| AppliedFile {
        number,
        version: FileVersion { digest: digest.to_owned(), generation },
        at: NOW,
        by: HOSTILE[0].to_owned(),
    };
    let files = [file(1, "a", None), file(2, HOSTILE[1], Some(7)), file(3, "a", Some(0))];
    let issuer = || StateChange::RecordIssuer("https://sts.example.com".parse().unwrap());
    commit_changes(&*store, vec![issuer(), StateChange::RecordFile(files[0].clone())]).await;
    for file in &files[1..] {
        commit_changes(&*store, vec![issuer(), StateChange::RecordFile(file.clone())]).await;
    }
    let history = store.load_configuration_history().await.unwrap();
    assert_eq!((history.issuer.as_deref(), history.applied.as_slice()), (Some("https://sts.example.com"), &files[..]));
    assert_eq!(store.load_registry().await.unwrap().version, 3, "of two applications at once, one is decided again");
}

async fn object_round_trips(on: &TestStore) {
    let store = on.open().await;
    assert!(store.load_registry().await.unwrap().entries.is_empty());
    let puts = objects().into_iter().map(|entry| StateChange::PutObject(Box::new(entry))).collect();
    commit_changes(&*store, puts).await;
    let registry = store.load_registry().await.unwrap();
    assert_eq!((registry.version, registry.entries), (1, objects()));
    commit_changes(
        &*store,
        vec![StateChange::PutObject(Box::new(Entry { source: Source::File, ..admin("ops", "auditor") }))],
    )
    .await;
    commit_changes(&*store, vec![StateChange::RemoveObject(ObjectKind::Agent, "planner".into())]).await;
    // An object of another kind with that name, and one that does not exist.
    commit_changes(&*store, vec![StateChange::RemoveObject(ObjectKind::Issuer, "files".into())]).await;
    let registry = store.load_registry().await.unwrap();
    assert_eq!(registry.version, 4);
    let mut want = objects();
    want[0] = Entry { source: Source::File, ..admin("ops", "auditor") };
    want.remove(1);
    assert_eq!(registry.entries, want);
}

fn tag_of(bytes: &[u8], owner: Source) -> StoredSecretTag {
    StoredSecretTag { tag: SecretTag::from_bytes(bytes.to_vec()), source: owner }
}

async fn secret_is_removed_with_client(on: &TestStore) {
    let store = on.open().await;
    let tags = || async {
        let tags = store.load_registry().await.unwrap().secret_tags;
        tags.into_iter()
            .map(|(client, owned)| (client, (owned.tag.as_bytes().to_vec(), owned.source)))
            .collect::<BTreeMap<ClientId, _>>()
    };
    let secret = |name: &str, tag: &[u8]| StateChange::PutSecret(client(name), tag_of(tag, Source::File));
    commit_changes(
        &*store,
        vec![StateChange::PutObject(Box::new(admin("ops", "operator"))), secret("ops", &[0, 255, 39, 92])],
    )
    .await;
    commit_changes(&*store, vec![secret("files", &[1; 32])]).await;
    assert_eq!(
        tags().await,
        [(client("files"), (vec![1; 32], Source::File)), (client("ops"), (vec![0, 255, 39, 92], Source::File))].into()
    );
    commit_changes(&*store, vec![StateChange::PutSecret(client("files"), tag_of(&[2; 32], Source::Api))]).await;
    commit_changes(&*store, vec![StateChange::RemoveObject(ObjectKind::Admin, "ops".into())]).await;
    assert_eq!(tags().await, [(client("files"), (vec![2; 32], Source::Api))].into());
    commit_changes(&*store, vec![StateChange::RemoveSecret(client("files"))]).await;
    assert_eq!(tags().await, [].into());
    assert_eq!(store.load_registry().await.unwrap().version, 5, "a secret belongs to the registry");
}

async fn key_is_kept_until_garbage_collection(on: &TestStore) {
    let store = on.open().await;
    let key = |kid: &str, algorithm, gone: Option<i64>| StoredKey {
        schedule: KeySchedule {
            kid: kid.parse().unwrap(),
            algorithm,
            created_at: at(10),
            activates_at: at(20),
            retires_at: gone.map(|gone| at(gone - 5)),
            unpublished_at: gone.map(at),
        },
        public_jwk: r#"{"kty":"OKP"}"#.into(),
        sealed_private_key: vec![0, 1, 39, 255],
    };
    let keys = [
        key("a", SigningAlgorithm::ES256, None),
        key("b", SigningAlgorithm::EdDSA, Some(100)),
        key("c", SigningAlgorithm::RS256, Some(101)),
    ];
    commit_changes(&*store, keys.iter().cloned().map(StateChange::PutKey).collect()).await;
    let stored = store.load_keys().await.unwrap();
    assert_eq!((stored.version, stored.keys), (1, keys.to_vec()));
    // A new schedule, and another ciphertext of the same key.
    let mut newer = key("a", SigningAlgorithm::ES256, Some(500));
    newer.sealed_private_key = vec![7; 100];
    commit_changes(&*store, vec![StateChange::PutKey(newer.clone())]).await;
    assert_eq!(store.load_keys().await.unwrap().keys[0], newer);
    assert_eq!(store.collect_garbage(at(100), &Retention::default().cutoffs(at(100))).await.unwrap().signing_keys, 1);
    let stored = store.load_keys().await.unwrap();
    assert_eq!(stored.keys, [newer.clone(), keys[2].clone()]);
    assert_eq!(stored.version, 2, "deletion of an expired key changes no version");
    commit_changes(
        &*store,
        vec![StateChange::RemoveKey("c".parse().unwrap()), StateChange::RemoveKey("unknown".parse().unwrap())],
    )
    .await;
    let left = store.load_keys().await.unwrap();
    assert_eq!((left.version, left.keys), (3, vec![newer]), "removed, regardless of its schedule");
    assert_eq!(store.load_registry().await.unwrap().version, 0);
}

async fn grant_is_created_found_and_withdrawn(on: &TestStore) {
    let store = on.open().await;
    let until = |seconds, grant: Grant| Grant { expires: at(NOW.unix() + seconds), ..grant };
    let all = [
        until(10, grant(1, "alice", "planner")),
        until(20, grant(2, "alice", "planner")),
        until(30, grant(3, "alice", "reader")),
        Grant { at: at(NOW.unix() - 1), ..until(30, grant(4, "bob", "planner")) },
    ];
    commit_changes(&*store, all.iter().cloned().map(Box::new).map(StateChange::PutGrant).collect()).await;
    let list = async |filter: GrantFilter| {
        let page = store.list_grants(&filter, &first_page(9)).await.unwrap();
        page.items.iter().map(|grant| grant.id).collect::<Vec<_>>()
    };
    assert_eq!(list(GrantFilter::default()).await, [3, 2, 1, 4].map(grant_id));
    let of = |name: &str| Some((requester(name).issuer, name.to_owned()));
    assert_eq!(list(GrantFilter { requester: of("alice"), agent: None }).await, [3, 2, 1].map(grant_id));
    assert_eq!(list(GrantFilter { requester: of("bob"), agent: Some(client("planner")) }).await, [4].map(grant_id));
    assert_eq!(list(GrantFilter { requester: None, agent: Some(client("planner")) }).await, [2, 1, 4].map(grant_id));
    assert_eq!(store.find_grant(grant_id(3)).await.unwrap(), Some(all[2].clone()));
    let between = async |name: &str, seconds, limit| {
        let (requester, now) = (requester(name), at(NOW.unix() + seconds));
        store.list_live_grants(&requester, &client("planner"), now, limit).await.unwrap()
    };
    assert_eq!(between("alice", 9, 9).await, [all[1].clone(), all[0].clone()]);
    assert_eq!(between("alice", 9, 1).await, [all[1].clone()]);
    assert_eq!(between("alice", 10, 9).await, [all[1].clone()], "a grant that ends now has expired");
    assert_eq!(between("carol", 0, 9).await, []);
    commit_changes(&*store, vec![StateChange::RemoveGrant(grant_id(2)), StateChange::RemoveGrant(grant_id(77))]).await;
    assert_eq!(store.find_grant(grant_id(2)).await.unwrap(), None);
    assert_eq!(list(GrantFilter::default()).await, [3, 1, 4].map(grant_id));
}

async fn tasks_without_grant_are_found(on: &TestStore) {
    let store = on.open().await;
    commit_changes(&*store, vec![StateChange::PutGrant(Box::new(grant(5, "alice", "planner")))]).await;
    let resting = |n, grant, state| WriteSet { task: Some(Task { grant, state, ..task(n) }), ..WriteSet::default() };
    let writes = [
        resting(1, Some(grant_id(5)), TaskState::Active),
        resting(2, Some(grant_id(5)), TaskState::Suspended),
        resting(3, Some(grant_id(5)), TaskState::Completed),
        resting(4, None, TaskState::Active),
    ];
    commit(&*store, &writes).await;
    assert_eq!(store.list_tasks_without_grant(9).await.unwrap(), []);
    commit_changes(&*store, vec![StateChange::RemoveGrant(grant_id(5))]).await;
    let mut found = store.list_tasks_without_grant(9).await.unwrap();
    found.sort_by_key(|task| task.id);
    assert_eq!(found.iter().map(|task| task.id).collect::<Vec<_>>(), [task_id(1), task_id(2)]);
    assert_eq!(store.list_tasks_without_grant(1).await.unwrap().len(), 1);
}

/// A task belongs to the agent and the issuer that were registered when it was opened. A replaced
/// object keeps its registration position, and a removed one takes its grants with it.
async fn removal_deletes_grants_and_orphans_tasks(on: &TestStore) {
    let store = on.open().await;
    let of_kind = |kind| objects().into_iter().find(|entry| entry.object.kind() == kind).unwrap();
    let object = |kind| StateChange::PutObject(Box::new(of_kind(kind)));
    let (agent, issuer) = (|| object(ObjectKind::Agent), || object(ObjectKind::Issuer));
    let logged = async |changes: Vec<StateChange>| {
        let log = vec![entry(Target::Registry)];
        commit_one(&*store, WriteSet { state_changes: changes, log_entries: log, ..WriteSet::default() }).await.unwrap()
    };
    let put = async || {
        let grants = [grant(1, "alice", "planner"), grant(2, "bob", "reader")];
        commit_changes(&*store, grants.map(Box::new).map(StateChange::PutGrant).into()).await;
    };
    let grants = async || {
        let page = store.list_grants(&GrantFilter::default(), &first_page(9)).await.unwrap();
        page.items.iter().map(|grant| grant.id).collect::<Vec<_>>()
    };
    let lost = async || {
        let mut lost = store.list_orphaned_tasks(9).await.unwrap().iter().map(|task| task.id).collect::<Vec<_>>();
        lost.sort();
        lost
    };
    let name = requester("a").issuer.to_string();
    let of = |kind, id: &str| (kind, id.to_owned());
    let seq = logged(vec![agent(), issuer()]).await;
    let since = store.load_registry().await.unwrap().registration_positions;
    assert_eq!(since[&of(ObjectKind::Agent, "planner")], since[&of(ObjectKind::Issuer, &name)]);
    assert!(since[&of(ObjectKind::Agent, "planner")] < seq);
    let open = |n, rev, state| WriteSet { task: Some(Task { rev, state, ..task(n) }), ..WriteSet::default() };
    commit(&*store, &[open(1, seq, TaskState::Active), open(2, seq, TaskState::Completed)]).await;
    logged(vec![agent()]).await;
    assert_eq!(store.load_registry().await.unwrap().registration_positions, since, "the position stays");
    assert_eq!(lost().await, []);
    put().await;
    logged(vec![StateChange::RemoveObject(ObjectKind::Agent, "planner".into())]).await;
    assert_eq!((grants().await, lost().await), (vec![grant_id(2)], vec![task_id(1)]));
    let seq = logged(vec![agent()]).await;
    assert_eq!(lost().await, [task_id(1)], "registered anew under the same name");
    commit(&*store, &[open(3, seq, TaskState::Suspended)]).await;
    assert_eq!(lost().await, [task_id(1)]);
    assert_eq!(store.list_orphaned_tasks(0).await.unwrap(), []);
    commit_changes(&*store, vec![StateChange::RemoveGrant(grant_id(2))]).await;
    put().await;
    logged(vec![
        StateChange::RemoveObject(ObjectKind::Resource, "planner".into()),
        StateChange::RemoveObject(ObjectKind::Admin, name.clone()),
    ])
    .await;
    assert_eq!(grants().await.len(), 2);
    logged(vec![StateChange::RemoveObject(ObjectKind::Issuer, name.clone())]).await;
    assert_eq!((grants().await, lost().await), (Vec::new(), vec![task_id(1), task_id(3)]));
}

async fn block_round_trips(on: &TestStore) {
    let store = on.open().await;
    let object = |kind, id: &str| BlockSubject::Object(kind, id.to_owned());
    let one = |who, how, n: usize| Block {
        subject: who,
        kind: how,
        reason: HOSTILE[n].trim().parse().unwrap(),
        by: format!("admin:{}", HOSTILE[n]),
        at: NOW,
    };
    let mut all = vec![
        one(object(ObjectKind::Admin, "ops"), BlockKind::Blocked, 0),
        one(object(ObjectKind::Agent, "planner"), BlockKind::Suspended, 1),
        one(object(ObjectKind::Issuer, "https://login.example.com"), BlockKind::Blocked, 2),
        one(BlockSubject::Requester(requester("Robert'); DROP TABLE tokens;--")), BlockKind::Blocked, 3),
        one(object(ObjectKind::Resource, "files"), BlockKind::Blocked, 4),
    ];
    commit_changes(&*store, all.iter().rev().cloned().map(StateChange::Block).collect()).await;
    let registry = store.load_registry().await.unwrap();
    assert_eq!((registry.version, &registry.blocks), (1, &all));
    all[1] = Block { at: at(5), ..one(all[1].subject.clone(), BlockKind::Blocked, 3) };
    commit_changes(&*store, vec![StateChange::Block(all[1].clone())]).await;
    commit_changes(
        &*store,
        vec![StateChange::Unblock(all[3].subject.clone()), StateChange::Unblock(object(ObjectKind::Agent, "ops"))],
    )
    .await;
    all.remove(3);
    // Neither the name of an object nor its existence matters.
    commit_changes(&*store, vec![StateChange::PutObject(Box::new(admin("ops", "operator")))]).await;
    commit_changes(&*store, vec![StateChange::RemoveObject(ObjectKind::Admin, "ops".into())]).await;
    let registry = store.load_registry().await.unwrap();
    assert_eq!((registry.version, registry.blocks), (5, all));
    on.tamper("UPDATE blocks SET reason = '' WHERE kind = 'agent'").await;
    let outage = store.load_registry().await.unwrap_err();
    assert!(outage.source.to_string().contains("table `blocks`, column `reason`, row `agent/planner`"));
}

/// No row can be changed, added, removed or put back outside the program. The registry is then
/// neither read nor changed.
async fn registry_is_sealed(on: &TestStore) {
    let store = on.open().await;
    let secret = |tag: u8| StoredSecretTag { tag: SecretTag::from_bytes(vec![tag; 32]), source: Source::Api };
    let block = Block {
        subject: BlockSubject::Object(ObjectKind::Admin, "audit".into()),
        kind: BlockKind::Blocked,
        reason: "lost laptop".parse().unwrap(),
        by: "admin:ops".into(),
        at: NOW,
    };
    let put = |id: &str, role: &str| StateChange::PutObject(Box::new(admin(id, role)));
    commit_changes(&*store, vec![put("ops", "auditor"), put("audit", "auditor")]).await;
    on.tamper("CREATE TABLE yesterday AS SELECT * FROM objects WHERE id = 'ops'").await;
    let rest = vec![
        put("ops", "operator"),
        StateChange::PutSecret(client("ops"), secret(1)),
        StateChange::PutSecret(client("audit"), secret(2)),
        StateChange::Block(block),
    ];
    commit_changes(&*store, rest).await;
    store.load_registry().await.unwrap();
    for table in ["objects", "secrets", "blocks", "versions"] {
        on.tamper(&format!("CREATE TABLE saved_{table} AS SELECT * FROM {table}")).await;
    }
    for sql in [
        "DELETE FROM blocks",
        "UPDATE blocks SET block_kind = 'suspended'",
        "UPDATE objects SET body = replace(body, 'auditor', 'operator') WHERE id = 'audit'",
        "INSERT INTO objects (kind, id, body, owner) SELECT kind, 'evil', replace(body, 'ops', 'evil'), owner FROM objects WHERE id = 'ops'",
        "DELETE FROM objects WHERE id = 'audit'",
        "UPDATE objects SET owner = 'file' WHERE id = 'audit'",
        "UPDATE objects SET registered_seq = registered_seq + 1 WHERE id = 'audit'",
        "DELETE FROM objects WHERE id = 'ops'; INSERT INTO objects SELECT * FROM yesterday",
        "UPDATE secrets SET tag = (SELECT o.tag FROM secrets AS o WHERE o.client = 'ops') WHERE client = 'audit'",
        "DELETE FROM secrets WHERE client = 'audit'",
        "UPDATE versions SET version = version + 1 WHERE name = 'registry'",
        "UPDATE versions SET seal = NULL WHERE name = 'registry'",
        "UPDATE versions SET seal = 'x' WHERE name = 'registry'",
    ] {
        for statement in sql.split("; ") {
            assert!(on.tamper(statement).await > 0, "{statement}");
        }
        let outage = crate::schema::error_text(&store.load_registry().await.unwrap_err());
        assert!(outage.contains("was changed, added or removed outside this program"), "{sql}: {outage}");
        let change = WriteSet { state_changes: vec![put("guest", "auditor")], ..WriteSet::default() };
        let refused = store.commit(WRITER, &[change]).await.unwrap_err();
        assert!(matches!(refused, CommitError::RolledBack(_)), "{sql}: a new seal would vouch for the row");
        for table in ["objects", "secrets", "blocks", "versions"] {
            on.tamper(&format!("DELETE FROM {table}")).await;
            on.tamper(&format!("INSERT INTO {table} SELECT * FROM saved_{table}")).await;
        }
        store.load_registry().await.unwrap();
    }
    commit_changes(&*store, vec![put("guest", "auditor")]).await;
    store.load_registry().await.unwrap();
}

async fn orphaned_task_is_ended(on: &TestStore) {
    let store = on.open().await;
    let write = WriteSet { task: Some(task(1)), ..WriteSet::default() };
    commit(&*store, &[write, WriteSet { task: Some(task(2)), ..WriteSet::default() }]).await;
    commit_changes(&*store, vec![transition_task(1, TaskState::Revoked), transition_task(9, TaskState::Revoked)]).await;
    let state = |n| {
        let store = &store;
        async move { store.find_task(task_id(n)).await.unwrap().map(|task| task.state) }
    };
    assert_eq!(
        (state(1).await, state(2).await, state(9).await),
        (Some(TaskState::Revoked), Some(TaskState::Active), None)
    );
}

/// Objects, tags and version are read in one snapshot despite concurrent changes.
async fn registry_is_read_in_one_snapshot(on: &TestStore) {
    const CHANGES: u64 = 60;
    let (writer, reader) = (on.open().await, on.open().await);
    let writing = tokio::spawn(async move {
        for n in 0..CHANGES {
            let name = format!("ops-{n}");
            let tag = tag_of(&[1], Source::File);
            let changes = vec![
                StateChange::PutObject(Box::new(admin(&name, "operator"))),
                StateChange::PutSecret(client(&name), tag),
            ];
            commit_changes(&*writer, changes).await;
        }
    });
    let mut reads = 0;
    loop {
        let registry = reader.load_registry().await.unwrap();
        let version = usize::try_from(registry.version).unwrap();
        assert_eq!((registry.entries.len(), registry.secret_tags.len()), (version, version));
        reads += 1;
        if registry.version == CHANGES {
            break;
        }
    }
    assert!(reads > 5, "too few concurrent reads: {reads}");
    writing.await.unwrap();
}

/// Returns a tool record: accepted and observed at different times.
pub fn tool(resource: &str, name: &str, accepted: Option<&str>, observed: Option<&str>) -> ToolRecord {
    let sighting = |text: Option<&str>, then| {
        text.map(|text| {
            let definition = ToolDefinition::new(name, Some(text), &serde_json::Map::new()).unwrap();
            ObservedDefinition::new(&definition, then)
        })
    };
    ToolRecord {
        resource: client(resource),
        tool: name.parse().unwrap(),
        accepted: sighting(accepted, NOW),
        accepted_by: accepted.map(|_| HOSTILE[0].to_owned()),
        observed: sighting(observed, at(NOW.unix() + 1)),
    }
}

async fn tool_records_are_removed_with_resource(on: &TestStore) {
    let store = on.open().await;
    let put = |record: &ToolRecord| StateChange::PutTool(Box::new(record.clone()));
    let known = || async { store.load_registry().await.unwrap().known_tools };
    assert_eq!(store.list_tools(&client("files")).await.unwrap(), []);
    commit_changes(&*store, objects().into_iter().map(|entry| StateChange::PutObject(Box::new(entry))).collect()).await;
    let before = store.load_registry().await.unwrap().version;
    let hostile = HOSTILE.join("\u{0}\u{1b}\u{202e}");
    // Sorted by bytes, in both stores.
    let records = [
        tool("files", "B", Some("a"), Some("a")),
        tool("files", "a.b", Some("a"), Some(&hostile)),
        tool("files", "a/b", None, Some("a")),
        tool("files", "a_b", Some("a"), None),
        tool("files", "b", None, None),
    ];
    commit_changes(&*store, records.iter().rev().map(put).collect()).await;
    commit_changes(&*store, vec![put(&tool("planner", "B", None, Some("b")))]).await;
    assert_eq!(store.list_tools(&client("files")).await.unwrap(), records);
    let registry = store.load_registry().await.unwrap();
    assert_eq!(registry.version, before + 2, "a tool record belongs to the registry");
    let want = records.iter().map(|record| (record.tool.clone(), record.known_tool())).collect::<BTreeMap<_, _>>();
    assert_eq!(registry.known_tools[&client("files")], want);

    let again = tool("files", "b", Some("now"), Some("now"));
    let gone = StateChange::RemoveTool(client("files"), "a_b".parse().unwrap());
    commit_changes(
        &*store,
        vec![put(&again), gone, StateChange::RemoveTool(client("files"), "nothing".parse().unwrap())],
    )
    .await;
    let after = [records[0].clone(), records[1].clone(), records[2].clone(), again];
    assert_eq!(store.list_tools(&client("files")).await.unwrap(), after);
    // A conflicting write has no effect.
    let late = WriteSet {
        precondition: Some(Precondition::RegistryVersion(before)),
        state_changes: vec![put(&records[4])],
        ..WriteSet::default()
    };
    assert_eq!(store.commit(WRITER, &[late]).await.unwrap(), [WriteOutcome::Conflict]);
    assert_eq!(store.list_tools(&client("files")).await.unwrap(), after);
    // An agent with that name does not matter. The removal of the resource removes its tools.
    commit_changes(&*store, vec![StateChange::RemoveObject(ObjectKind::Agent, "files".into())]).await;
    assert_eq!(store.list_tools(&client("files")).await.unwrap().len(), 4);
    commit_changes(&*store, vec![StateChange::RemoveObject(ObjectKind::Resource, "files".into())]).await;
    assert_eq!(known().await.keys().collect::<Vec<_>>(), [&client("planner")]);

    // A definition that was tampered with does not match its digest.
    let text = crate::schema::error_text(&{
        on.tamper("UPDATE tools SET observed_definition = '{\"description\":\"hunter2\"}'").await;
        store.list_tools(&client("planner")).await.unwrap_err()
    });
    assert!(text.contains("table `tools`, column `observed`, row `planner/B`") && !text.contains("hunter2"), "{text}");
    on.tamper("UPDATE tools SET observed = 'hunter2'").await;
    let text = crate::schema::error_text(&store.load_registry().await.unwrap_err());
    assert!(text.contains("table `tools`, column `observed`, row `planner/B`") && !text.contains("hunter2"), "{text}");
}

conformance!(
    tool_records_are_removed_with_resource,
    registry_is_read_in_one_snapshot,
    applied_files_are_kept_in_order,
    object_round_trips,
    secret_is_removed_with_client,
    key_is_kept_until_garbage_collection,
    grant_is_created_found_and_withdrawn,
    tasks_without_grant_are_found,
    removal_deletes_grants_and_orphans_tasks,
    block_round_trips,
    registry_is_sealed,
    orphaned_task_is_ended,
);
