//! The registry, secrets, keys and grants: what is put, put again and removed.

use std::collections::BTreeMap;

use errand::{
    domain::{
        grant::Grant,
        id::ClientId,
        jwk::SigningAlgorithm,
        keys::KeyDates,
        registry::{Entry, How, Kind, Object, OwnedTag, Owner, ShutOut, Who},
        revocation::Target,
        secret::SecretTag,
        task::{Task, TaskState},
        tool::{Definition, ToolRecord},
    },
    ports::{Change, Expected, GrantFilter, Store, StoredKey, Write, Written},
};
use serde_json::json;

use crate::{samples::*, support::TestStore};

async fn change(store: &dyn Store, changes: Vec<Change>) {
    done(store, Write { changes, ..Write::default() }).await;
}

fn object(kind: &str, body: &serde_json::Value) -> Object {
    serde_json::from_value(json!({"kind": kind, "body": body})).unwrap()
}

/// One of each kind, with about everything in it that one can have.
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
    let entry = |kind, body, owner| Entry { object: object(kind, &body), owner };
    vec![
        admin("ops", "operator"),
        entry("agent", agent, Owner::File),
        entry("issuer", issuer, Owner::File),
        entry("resource", resource, Owner::Api),
    ]
}

async fn an_object_comes_back_as_it_was(on: &TestStore) {
    let store = on.open().await;
    assert!(store.registry().await.unwrap().entries.is_empty());
    let puts = objects().into_iter().map(|entry| Change::PutObject(Box::new(entry))).collect();
    change(&*store, puts).await;
    let registry = store.registry().await.unwrap();
    assert_eq!((registry.version, registry.entries), (1, objects()));
    change(&*store, vec![Change::PutObject(Box::new(Entry { owner: Owner::File, ..admin("ops", "auditor") }))]).await;
    change(&*store, vec![Change::RemoveObject(Kind::Agent, "planner".into())]).await;
    // Another kind's object of that name, and one that is not there.
    change(&*store, vec![Change::RemoveObject(Kind::Issuer, "files".into())]).await;
    let registry = store.registry().await.unwrap();
    assert_eq!(registry.version, 4);
    let mut want = objects();
    want[0] = Entry { owner: Owner::File, ..admin("ops", "auditor") };
    want.remove(1);
    assert_eq!(registry.entries, want);
}

fn tag_of(bytes: &[u8], owner: Owner) -> OwnedTag {
    OwnedTag { tag: SecretTag::from_bytes(bytes.to_vec()), owner }
}

async fn a_secret_goes_with_its_client(on: &TestStore) {
    let store = on.open().await;
    let tags = || async {
        let tags = store.registry().await.unwrap().tags;
        tags.into_iter()
            .map(|(client, owned)| (client, (owned.tag.as_bytes().to_vec(), owned.owner)))
            .collect::<BTreeMap<ClientId, _>>()
    };
    let secret = |name: &str, tag: &[u8]| Change::PutSecret(client(name), tag_of(tag, Owner::File));
    change(&*store, vec![Change::PutObject(Box::new(admin("ops", "operator"))), secret("ops", &[0, 255, 39, 92])])
        .await;
    change(&*store, vec![secret("files", &[1; 32])]).await;
    assert_eq!(
        tags().await,
        [(client("files"), (vec![1; 32], Owner::File)), (client("ops"), (vec![0, 255, 39, 92], Owner::File))].into()
    );
    change(&*store, vec![Change::PutSecret(client("files"), tag_of(&[2; 32], Owner::Api))]).await;
    change(&*store, vec![Change::RemoveObject(Kind::Admin, "ops".into())]).await;
    assert_eq!(tags().await, [(client("files"), (vec![2; 32], Owner::Api))].into());
    change(&*store, vec![Change::RemoveSecret(client("files"))]).await;
    assert_eq!(tags().await, [].into());
    assert_eq!(store.registry().await.unwrap().version, 5, "a secret is a part of the registry");
}

async fn a_key_lives_until_it_is_swept(on: &TestStore) {
    let store = on.open().await;
    let key = |kid: &str, algorithm, gone: Option<i64>| StoredKey {
        dates: KeyDates {
            kid: kid.parse().unwrap(),
            algorithm,
            created: at(10),
            activates: at(20),
            retires: gone.map(|gone| at(gone - 5)),
            gone: gone.map(at),
        },
        public_jwk: r#"{"kty":"OKP"}"#.into(),
        sealed: vec![0, 1, 39, 255],
    };
    let keys = [
        key("a", SigningAlgorithm::ES256, None),
        key("b", SigningAlgorithm::EdDSA, Some(100)),
        key("c", SigningAlgorithm::RS256, Some(101)),
    ];
    change(&*store, keys.iter().cloned().map(Change::PutKey).collect()).await;
    let stored = store.keys().await.unwrap();
    assert_eq!((stored.version, stored.keys), (1, keys.to_vec()));
    // New dates, and another sealing of the same key.
    let mut newer = key("a", SigningAlgorithm::ES256, Some(500));
    newer.sealed = vec![7; 100];
    change(&*store, vec![Change::PutKey(newer.clone())]).await;
    assert_eq!(store.keys().await.unwrap().keys[0], newer);
    assert_eq!(store.sweep(at(100)).await.unwrap().keys, 1);
    let stored = store.keys().await.unwrap();
    assert_eq!(stored.keys, [newer.clone(), keys[2].clone()]);
    assert_eq!(stored.version, 2, "nobody plans with a key that is gone");
    change(&*store, vec![Change::RemoveKey("c".parse().unwrap()), Change::RemoveKey("nobody".parse().unwrap())]).await;
    let left = store.keys().await.unwrap();
    assert_eq!((left.version, left.keys), (3, vec![newer]), "removed, whatever its dates say");
    assert_eq!(store.registry().await.unwrap().version, 0);
}

async fn a_grant_is_put_found_and_withdrawn(on: &TestStore) {
    let store = on.open().await;
    let until = |seconds, grant: Grant| Grant { until: at(NOW.unix() + seconds), ..grant };
    let all = [
        until(10, grant(1, "alice", "planner")),
        until(20, grant(2, "alice", "planner")),
        until(30, grant(3, "alice", "reader")),
        Grant { at: at(NOW.unix() - 1), ..until(30, grant(4, "bob", "planner")) },
    ];
    change(&*store, all.iter().cloned().map(Box::new).map(Change::PutGrant).collect()).await;
    let list = async |filter: GrantFilter| {
        let page = store.grants(&filter, &first(9)).await.unwrap();
        page.items.iter().map(|grant| grant.id).collect::<Vec<_>>()
    };
    assert_eq!(list(GrantFilter::default()).await, [3, 2, 1, 4].map(grant_id));
    let of = |name: &str| Some((requester(name).issuer, name.to_owned()));
    assert_eq!(list(GrantFilter { requester: of("alice"), agent: None }).await, [3, 2, 1].map(grant_id));
    assert_eq!(list(GrantFilter { requester: of("bob"), agent: Some(client("planner")) }).await, [4].map(grant_id));
    assert_eq!(list(GrantFilter { requester: None, agent: Some(client("planner")) }).await, [2, 1, 4].map(grant_id));
    assert_eq!(store.grant(grant_id(3)).await.unwrap(), Some(all[2].clone()));
    let between = async |name: &str, seconds, limit| {
        let (requester, now) = (requester(name), at(NOW.unix() + seconds));
        store.grants_between(&requester, &client("planner"), now, limit).await.unwrap()
    };
    assert_eq!(between("alice", 9, 9).await, [all[1].clone(), all[0].clone()]);
    assert_eq!(between("alice", 9, 1).await, [all[1].clone()]);
    assert_eq!(between("alice", 10, 9).await, [all[1].clone()], "one that ends now is over");
    assert_eq!(between("carol", 0, 9).await, []);
    change(&*store, vec![Change::RemoveGrant(grant_id(2)), Change::RemoveGrant(grant_id(77))]).await;
    assert_eq!(store.grant(grant_id(2)).await.unwrap(), None);
    assert_eq!(list(GrantFilter::default()).await, [3, 1, 4].map(grant_id));
}

async fn tasks_whose_grant_is_gone_are_found(on: &TestStore) {
    let store = on.open().await;
    change(&*store, vec![Change::PutGrant(Box::new(grant(5, "alice", "planner")))]).await;
    let resting = |n, grant, state| Write { task: Some(Task { grant, state, ..task(n) }), ..Write::default() };
    let writes = [
        resting(1, Some(grant_id(5)), TaskState::Active),
        resting(2, Some(grant_id(5)), TaskState::Suspended),
        resting(3, Some(grant_id(5)), TaskState::Completed),
        resting(4, None, TaskState::Active),
    ];
    commit(&*store, &writes).await;
    assert_eq!(store.tasks_without_grant(9).await.unwrap(), []);
    change(&*store, vec![Change::RemoveGrant(grant_id(5))]).await;
    let mut found = store.tasks_without_grant(9).await.unwrap();
    found.sort_by_key(|task| task.id);
    assert_eq!(found.iter().map(|task| task.id).collect::<Vec<_>>(), [task_id(1), task_id(2)]);
    assert_eq!(store.tasks_without_grant(1).await.unwrap().len(), 1);
}

/// A task belongs to the agent and the issuer that were there when it was opened; an object that is put again stays the one that
/// it is, and one that is removed takes with it what was granted.
async fn what_is_removed_takes_its_grants_and_tasks_with_it(on: &TestStore) {
    let store = on.open().await;
    let of_kind = |kind| objects().into_iter().find(|entry| entry.object.kind() == kind).unwrap();
    let object = |kind| Change::PutObject(Box::new(of_kind(kind)));
    let (agent, issuer) = (|| object(Kind::Agent), || object(Kind::Issuer));
    let logged = async |changes: Vec<Change>| {
        let log = vec![entry(Target::Registry)];
        done(&*store, Write { changes, log, ..Write::default() }).await.unwrap()
    };
    let put = async || {
        let grants = [grant(1, "alice", "planner"), grant(2, "bob", "reader")];
        change(&*store, grants.map(Box::new).map(Change::PutGrant).into()).await;
    };
    let grants = async || {
        let page = store.grants(&GrantFilter::default(), &first(9)).await.unwrap();
        page.items.iter().map(|grant| grant.id).collect::<Vec<_>>()
    };
    let lost = async || {
        let mut lost = store.tasks_of_removed(9).await.unwrap().iter().map(|task| task.id).collect::<Vec<_>>();
        lost.sort();
        lost
    };
    let name = requester("a").issuer.to_string();
    let of = |kind, id: &str| (kind, id.to_owned());
    let seq = logged(vec![agent(), issuer()]).await;
    let since = store.registry().await.unwrap().since;
    assert_eq!(since[&of(Kind::Agent, "planner")], since[&of(Kind::Issuer, &name)]);
    assert!(since[&of(Kind::Agent, "planner")] < seq);
    let open = |n, rev, state| Write { task: Some(Task { rev, state, ..task(n) }), ..Write::default() };
    commit(&*store, &[open(1, seq, TaskState::Active), open(2, seq, TaskState::Completed)]).await;
    logged(vec![agent()]).await;
    assert_eq!(store.registry().await.unwrap().since, since, "changed, and the same");
    assert_eq!(lost().await, []);
    put().await;
    logged(vec![Change::RemoveObject(Kind::Agent, "planner".into())]).await;
    assert_eq!((grants().await, lost().await), (vec![grant_id(2)], vec![task_id(1)]));
    let seq = logged(vec![agent()]).await;
    assert_eq!(lost().await, [task_id(1)], "another one of its name is another one");
    commit(&*store, &[open(3, seq, TaskState::Suspended)]).await;
    assert_eq!(lost().await, [task_id(1)]);
    assert_eq!(store.tasks_of_removed(0).await.unwrap(), []);
    change(&*store, vec![Change::RemoveGrant(grant_id(2))]).await;
    put().await;
    logged(vec![
        Change::RemoveObject(Kind::Resource, "planner".into()),
        Change::RemoveObject(Kind::Admin, name.clone()),
    ])
    .await;
    assert_eq!(grants().await.len(), 2);
    logged(vec![Change::RemoveObject(Kind::Issuer, name.clone())]).await;
    assert_eq!((grants().await, lost().await), (Vec::new(), vec![task_id(1), task_id(3)]));
}

async fn who_is_shut_out_comes_back_as_it_was(on: &TestStore) {
    let store = on.open().await;
    let object = |kind, id: &str| Who::Object(kind, id.to_owned());
    let one = |who, how, n: usize| ShutOut {
        who,
        how,
        reason: HOSTILE[n].trim().parse().unwrap(),
        by: format!("admin:{}", HOSTILE[n]),
        at: NOW,
    };
    let mut all = vec![
        one(object(Kind::Admin, "ops"), How::Disabled, 0),
        one(object(Kind::Agent, "planner"), How::Suspended, 1),
        one(object(Kind::Issuer, "https://login.example.com"), How::Disabled, 2),
        one(Who::Requester(requester("Robert'); DROP TABLE tokens;--")), How::Disabled, 3),
        one(object(Kind::Resource, "files"), How::Disabled, 4),
    ];
    change(&*store, all.iter().rev().cloned().map(Change::ShutOut).collect()).await;
    let registry = store.registry().await.unwrap();
    assert_eq!((registry.version, &registry.shut_out), (1, &all));
    all[1] = ShutOut { at: at(5), ..one(all[1].who.clone(), How::Disabled, 3) };
    change(&*store, vec![Change::ShutOut(all[1].clone())]).await;
    change(&*store, vec![Change::LetIn(all[3].who.clone()), Change::LetIn(object(Kind::Agent, "ops"))]).await;
    all.remove(3);
    // What an object is called, or whether it is there, makes no difference.
    change(&*store, vec![Change::PutObject(Box::new(admin("ops", "operator")))]).await;
    change(&*store, vec![Change::RemoveObject(Kind::Admin, "ops".into())]).await;
    let registry = store.registry().await.unwrap();
    assert_eq!((registry.version, registry.shut_out), (5, all));
    on.tamper("UPDATE shut_out SET reason = '' WHERE kind = 'agent'").await;
    let outage = store.registry().await.unwrap_err();
    assert!(outage.source.to_string().contains("table `shut_out`, column `reason`, row `agent/planner`"));
}

async fn a_task_is_brought_to_its_end(on: &TestStore) {
    let store = on.open().await;
    let write = Write { task: Some(task(1)), ..Write::default() };
    commit(&*store, &[write, Write { task: Some(task(2)), ..Write::default() }]).await;
    change(&*store, vec![turning(1, TaskState::Revoked), turning(9, TaskState::Revoked)]).await;
    let state = |n| {
        let store = &store;
        async move { store.task(task_id(n)).await.unwrap().map(|task| task.state) }
    };
    assert_eq!(
        (state(1).await, state(2).await, state(9).await),
        (Some(TaskState::Revoked), Some(TaskState::Active), None)
    );
}

/// Objects, tags and version are read at one moment, whoever changes them meanwhile.
async fn the_registry_is_read_at_one_moment(on: &TestStore) {
    const CHANGES: u64 = 60;
    let (writer, reader) = (on.open().await, on.open().await);
    let writing = tokio::spawn(async move {
        for n in 0..CHANGES {
            let name = format!("ops-{n}");
            let tag = tag_of(&[1], Owner::File);
            let changes =
                vec![Change::PutObject(Box::new(admin(&name, "operator"))), Change::PutSecret(client(&name), tag)];
            change(&*writer, changes).await;
        }
    });
    let mut reads = 0;
    loop {
        let registry = reader.registry().await.unwrap();
        let version = usize::try_from(registry.version).unwrap();
        assert_eq!((registry.entries.len(), registry.tags.len()), (version, version));
        reads += 1;
        if registry.version == CHANGES {
            break;
        }
    }
    assert!(reads > 5, "the reader was there while it changed: {reads}");
    writing.await.unwrap();
}

/// What is known of a tool: accepted and seen, at different times.
fn tool(resource: &str, name: &str, accepted: Option<&str>, seen: Option<&str>) -> ToolRecord {
    let sighting = |text: Option<&str>, then| {
        text.map(|text| Definition::new(name, Some(text), &serde_json::Map::new()).unwrap().seen(then))
    };
    ToolRecord {
        resource: client(resource),
        tool: name.parse().unwrap(),
        accepted: sighting(accepted, NOW),
        accepted_by: accepted.map(|_| HOSTILE[0].to_owned()),
        seen: sighting(seen, at(NOW.unix() + 1)),
    }
}

async fn what_is_known_of_a_tool_goes_with_its_resource(on: &TestStore) {
    let store = on.open().await;
    let put = |record: &ToolRecord| Change::PutTool(Box::new(record.clone()));
    let known = || async { store.registry().await.unwrap().tools };
    assert_eq!(store.tools(&client("files")).await.unwrap(), []);
    change(&*store, objects().into_iter().map(|entry| Change::PutObject(Box::new(entry))).collect()).await;
    let before = store.registry().await.unwrap().version;
    let hostile = HOSTILE.join("\u{0}\u{1b}\u{202e}");
    // Sorted by bytes, in both stores.
    let records = [
        tool("files", "B", Some("a"), Some("a")),
        tool("files", "a.b", Some("a"), Some(&hostile)),
        tool("files", "a/b", None, Some("a")),
        tool("files", "a_b", Some("a"), None),
        tool("files", "b", None, None),
    ];
    change(&*store, records.iter().rev().map(put).collect()).await;
    change(&*store, vec![put(&tool("planner", "B", None, Some("b")))]).await;
    assert_eq!(store.tools(&client("files")).await.unwrap(), records);
    let registry = store.registry().await.unwrap();
    assert_eq!(registry.version, before + 2, "a change of what is known is one of the registry");
    let want = records.iter().map(|record| (record.tool.clone(), record.known())).collect::<BTreeMap<_, _>>();
    assert_eq!(registry.tools[&client("files")], want);

    let again = tool("files", "b", Some("now"), Some("now"));
    let gone = Change::RemoveTool(client("files"), "a_b".parse().unwrap());
    change(&*store, vec![put(&again), gone, Change::RemoveTool(client("files"), "nothing".parse().unwrap())]).await;
    let after = [records[0].clone(), records[1].clone(), records[2].clone(), again];
    assert_eq!(store.tools(&client("files")).await.unwrap(), after);
    // Somebody was quicker: nothing happens.
    let late =
        Write { expected: Some(Expected::Registry(before)), changes: vec![put(&records[4])], ..Write::default() };
    assert_eq!(store.commit(WRITER, &[late]).await.unwrap(), [Written::Moved]);
    assert_eq!(store.tools(&client("files")).await.unwrap(), after);
    // An agent of that name is none of its business; the resource takes its tools with it.
    change(&*store, vec![Change::RemoveObject(Kind::Agent, "files".into())]).await;
    assert_eq!(store.tools(&client("files")).await.unwrap().len(), 4);
    change(&*store, vec![Change::RemoveObject(Kind::Resource, "files".into())]).await;
    assert_eq!(known().await.keys().collect::<Vec<_>>(), [&client("planner")]);

    // What somebody wrote into it is not what was accepted.
    let text = crate::schema::said(&{
        on.tamper("UPDATE tools SET seen_definition = '{\"description\":\"hunter2\"}'").await;
        store.tools(&client("planner")).await.unwrap_err()
    });
    assert!(text.contains("table `tools`, column `seen`, row `planner/B`") && !text.contains("hunter2"), "{text}");
    on.tamper("UPDATE tools SET seen = 'hunter2'").await;
    let text = crate::schema::said(&store.registry().await.unwrap_err());
    assert!(text.contains("table `tools`, column `seen`, row `planner/B`") && !text.contains("hunter2"), "{text}");
}

conformance!(
    what_is_known_of_a_tool_goes_with_its_resource,
    the_registry_is_read_at_one_moment,
    an_object_comes_back_as_it_was,
    a_secret_goes_with_its_client,
    a_key_lives_until_it_is_swept,
    a_grant_is_put_found_and_withdrawn,
    tasks_whose_grant_is_gone_are_found,
    what_is_removed_takes_its_grants_and_tasks_with_it,
    who_is_shut_out_comes_back_as_it_was,
    a_task_is_brought_to_its_end,
);
