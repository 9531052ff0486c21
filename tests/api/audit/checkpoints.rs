//! Checkpoints, and the detection of what they and the keys of the server protect.

use errand::{
    app::AuditReport,
    bootstrap::{Application, MigrationPolicy},
    domain::{
        audit::{Head, Record, SALT_LEN, WriterId, checkpoint::Checkpoint, link, read},
        jose::jws::CompactJws,
    },
    ports::ErrorChain,
};
use reqwest::Method;
use serde_json::Value;

use crate::{server::Server, support::TestStore};

on_both_stores!(
    every_kind_of_tampering_is_found,
    older_copy_of_the_database_is_found_by_a_kept_checkpoint,
    checkpoints_are_listed,
    checkpoint_is_signed_when_due,
    removed_checkpoint_is_reported_at_the_next_one,
    removed_personal_values_keep_the_chain,
);

const TABLES: [&str; 4] = ["audit", "audit_agents", "audit_writers", "audit_checkpoints"];
/// The longest chain.
const CHAIN: &str = "writer = (SELECT writer FROM audit_writers ORDER BY n DESC, writer LIMIT 1)";

async fn save(store: &TestStore, name: &str) {
    for table in TABLES {
        store.tamper(&format!("CREATE TABLE {name}_{table} AS SELECT * FROM {table}")).await;
    }
}

async fn restore(store: &TestStore, name: &str) {
    for table in TABLES {
        store.tamper(&format!("DELETE FROM {table}")).await;
        store.tamper(&format!("INSERT INTO {table} SELECT * FROM {name}_{table}")).await;
    }
}

async fn sign_checkpoint(application: &Application) -> String {
    application.service.sign_checkpoint(&application.system_context().unwrap()).await.unwrap().text
}

async fn verify(application: &Application, kept: &[String]) -> AuditReport {
    application.service.verify_audit(kept, &application.system_context().unwrap()).await.unwrap()
}

fn texts(report: &AuditReport) -> String {
    report.findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Stops the server, and returns an application on its store.
async fn stop(server: Server) -> (Application, std::sync::Arc<TestStore>) {
    let (store, config) = (std::sync::Arc::clone(&server.store), std::sync::Arc::clone(&server.config));
    server.stop().await;
    (Application::build(&config, MigrationPolicy::Always).await.unwrap(), store)
}

/// Rewrites a chain from its second record on, with hashes and links that fit.
async fn rewrite_chain(store: &TestStore) {
    let opened = store.open().await;
    let heads = opened.list_audit_heads().await.unwrap();
    let (writer, _) = heads.into_iter().max_by_key(|(writer, head)| (head.n, std::cmp::Reverse(writer.0))).unwrap();
    let rows = opened.read_audit_chain(writer, 0, 1000).await.unwrap();
    let mut head = Head { n: 1, hash: rows[0].hash.clone() };
    for row in &rows[1..] {
        let record = read(writer, row.text()).unwrap().record;
        let forged = Record { admin: Some("admin:another".into()), ..record };
        let linked = link(writer, &mut head, &forged, || [7; SALT_LEN]);
        let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let (body, personal) = (quote(&linked.body), quote(&serde_json::to_string(&linked.personal).unwrap()));
        let (hash, WriterId(writer), n) = (quote(&linked.hash), writer, row.n);
        let update = format!("UPDATE audit SET body = {body}, personal = {personal}, hash = {hash}");
        assert_eq!(store.tamper(&format!("{update} WHERE writer = '{writer}' AND n = {n}")).await, 1);
    }
    store.tamper(&format!("UPDATE audit_writers SET hash = '{}' WHERE {CHAIN}", head.hash)).await;
}

async fn every_kind_of_tampering_is_found(server: Server) {
    for _ in 0..3 {
        server.task_token().await;
        sign_checkpoint(&server.application).await;
    }
    server.task_token().await;
    let (application, store) = stop(server).await;
    let clean = verify(&application, &[]).await;
    assert!(clean.findings.is_empty() && clean.checkpoints == 3, "{clean:?}");
    assert!(clean.uncovered_records >= 2, "the last token, and the record of the last checkpoint: {clean:?}");
    save(&store, "saved").await;
    let swap = |table: &str, column: &str| {
        [("2", "900"), ("3", "2"), ("900", "3")]
            .map(|(from, to)| format!("UPDATE {table} SET {column} = {to} WHERE {column} = {from}"))
            .join("; ")
    };
    let chain = |sql: &str| sql.replace("CHAIN", CHAIN);
    for (name, sql, want) in [
        (
            "edit",
            chain("UPDATE audit SET body = replace(body, 'done', 'failed') WHERE n = 2 AND CHAIN"),
            "record 2 was edited",
        ),
        (
            "edit of a personal value",
            chain("UPDATE audit SET personal = replace(personal, 'alice', 'carol') WHERE CHAIN"),
            "was edited",
        ),
        ("deletion in the middle", chain("DELETE FROM audit WHERE n = 2 AND CHAIN"), "record 3 follows record 1"),
        (
            "deletion of the end with the head",
            chain(
                "DELETE FROM audit WHERE n > 2 AND CHAIN; UPDATE audit_writers SET n = 2, hash = (SELECT hash FROM audit WHERE n = 2 AND CHAIN) WHERE CHAIN",
            ),
            "the chain ends at record 2, but checkpoint 3 names",
        ),
        (
            "removal of a chain",
            chain(
                "DELETE FROM audit_agents WHERE CHAIN; DELETE FROM audit WHERE CHAIN; DELETE FROM audit_writers WHERE CHAIN",
            ),
            "the chain ends at record 0, but checkpoint 3 names",
        ),
        (
            "removal of the first checkpoint",
            "DELETE FROM audit_checkpoints WHERE number = 1".into(),
            "checkpoint 2 follows checkpoint 0",
        ),
        (
            "removal of a checkpoint",
            "DELETE FROM audit_checkpoints WHERE number = 2".into(),
            "checkpoint 3 follows checkpoint 1",
        ),
        (
            "removal of the last checkpoint",
            "DELETE FROM audit_checkpoints WHERE number = 3".into(),
            "checkpoint 3 is missing",
        ),
        ("removal of all checkpoints", "DELETE FROM audit_checkpoints".into(), "checkpoint 1 is missing"),
        (
            "edit of a checkpoint",
            "UPDATE audit_checkpoints SET jws = jws || 'A' WHERE number = 2".into(),
            "is not signed with one of the given keys",
        ),
        ("reordering of checkpoints", swap("audit_checkpoints", "number"), "checkpoint 3 follows checkpoint 1"),
        ("reordering of records", swap("audit", "n"), "record 2 was edited"),
        (
            "another MAC",
            chain(
                "UPDATE audit SET mac = (SELECT b.mac FROM audit AS b WHERE b.n = 1 AND b.CHAIN) WHERE n = 2 AND CHAIN",
            ),
            "record 2 was not written by this server",
        ),
    ] {
        for statement in sql.split("; ") {
            assert!(store.tamper(statement).await > 0, "{name}: {statement}");
        }
        let report = verify(&application, &[]).await;
        assert!(texts(&report).contains(want), "{name}: {report:?}");
        restore(&store, "saved").await;
        assert!(verify(&application, &[]).await.findings.is_empty(), "{name}: undone");
    }
    rewrite_chain(&store).await;
    let report = verify(&application, &[]).await;
    assert!(texts(&report).contains("record 2 was not written by this server"), "{report:?}");
    restore(&store, "saved").await;
    // The registry at the same version has other rows.
    assert_eq!(store.tamper("UPDATE objects SET owner = 'api' WHERE kind = 'admin' AND id = 'audit'").await, 1);
    let report = verify(&application, &[]).await;
    assert!(texts(&report).contains("the registry was changed outside this server"), "{report:?}");
    application.service.shutdown().await;
}

async fn older_copy_of_the_database_is_found_by_a_kept_checkpoint(server: Server) {
    server.task_token().await;
    let first = sign_checkpoint(&server.application).await;
    save(&server.store, "older").await;
    server.task_token().await;
    let second = sign_checkpoint(&server.application).await;
    let (application, store) = stop(server).await;
    let kept = [first.clone(), second.clone()];
    assert!(verify(&application, &kept).await.findings.is_empty());
    restore(&store, "older").await;
    assert!(verify(&application, &[]).await.findings.is_empty(), "the copy itself is consistent");
    assert!(verify(&application, &kept[..1]).await.findings.is_empty());
    let report = verify(&application, &kept).await;
    assert!(texts(&report).contains("checkpoint 2 is missing"), "{report:?}");
    let forged = [format!("{second}A"), "x".into(), String::new()];
    assert_eq!(verify(&application, &forged).await.findings.len(), 3);
    application.service.shutdown().await;
}

async fn checkpoints_are_listed(server: Server) {
    let mut signed = Vec::new();
    for _ in 0..3 {
        server.task_token().await;
        signed.push(sign_checkpoint(&server.application).await);
    }
    let (status, page) = server.admin(Method::GET, "/audit/checkpoints?limit=2", None).await;
    assert_eq!(status, 200, "{page}");
    let listed = |page: &Value| {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| item["checkpoint"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed(&page), [signed[2].clone(), signed[1].clone()]);
    let next = format!("/audit/checkpoints?limit=2&after={}", page["next"].as_str().unwrap());
    let (_, rest) = server.admin(Method::GET, &next, None).await;
    assert_eq!((listed(&rest), &rest["next"]), (vec![signed[0].clone()], &Value::Null));
    let (status, _) = server.admin(Method::GET, "/audit/checkpoints?after=x", None).await;
    assert_eq!(status, 400);
    let (status, keys) = server.admin(Method::GET, "/audit/keys", None).await;
    assert_eq!((status.as_u16(), keys["keys"].as_array().map(Vec::len)), (200, Some(1)), "{keys}");
    let jws = CompactJws::parse(&signed[2]).unwrap();
    let header = jws.decode_header().unwrap();
    assert_eq!(header.typ.as_deref(), Some("errand-audit-checkpoint+jwt"));
    assert_eq!(header.kid.as_deref(), keys["keys"][0]["kid"].as_str());
    let checkpoint: Checkpoint = serde_json::from_slice(&jws.into_payload()).unwrap();
    assert_eq!((checkpoint.number, &page["items"][1]["hash"]), (3, &Value::from(checkpoint.previous.clone())));
    assert!(checkpoint.record_count() > 0 && checkpoint.iss == server.issuer);
    // The keys of tokens don't verify a checkpoint, and those of checkpoints verify no token.
    assert!(server.jwks().await["keys"].as_array().unwrap().iter().all(|key| key["kid"] != keys["keys"][0]["kid"]));
    assert!(!server.is_active(&signed[2]).await);
    server.stop().await;
}

async fn checkpoint_is_signed_when_due(server: Server) {
    server.task_token().await;
    let cx = server.application.system_context().unwrap();
    let service = &server.application.service;
    let due = async |seconds| {
        let now = errand::domain::time::Timestamp::from_unix(cx.now.unix() + seconds);
        let cx = errand::app::RequestContext { now, ..cx.clone() };
        service.sign_due_checkpoint(&cx).await.unwrap().map(|signed| signed.number)
    };
    assert_eq!(due(0).await, Some(1), "the first records");
    assert_eq!(due(3600).await, None, "nothing but the record of the checkpoint is new");
    server.task_token().await;
    assert_eq!(due(1).await, None, "the last one is recent");
    assert_eq!(due(3600).await, Some(2));
    // Two replicas that sign at once store one checkpoint for each number.
    let other = server.replica().await;
    let (a, b) = tokio::join!(sign_checkpoint(&server.application), sign_checkpoint(&other.application));
    assert_ne!(a, b);
    let report = verify(&other.application, &[a, b]).await;
    assert!(report.findings.is_empty() && report.checkpoints == 4, "{report:?}");
    other.stop().await;
    server.stop().await;
}

async fn removed_personal_values_keep_the_chain(server: Server) {
    server.task_token().await;
    sign_checkpoint(&server.application).await;
    let remove = "UPDATE audit SET personal = '{}', requester_issuer = NULL, requester_subject = NULL, resource = NULL WHERE event = 'token.issue'";
    assert!(server.store.tamper(remove).await > 0);
    let report = verify(&server.application, &[]).await;
    assert!(report.findings.is_empty() && report.removed_values > 2, "{report:?}");
    let records = server.audit_records("&event=token.issue").await;
    let record = records.iter().find(|record| record["client"] == "planner").unwrap();
    assert!(record["task"].is_string() && record["requester"].is_null() && record["purpose"].is_null(), "{record}");
    server.stop().await;
}

/// The next checkpoint would have the number of the removed one.
async fn removed_checkpoint_is_reported_at_the_next_one(server: Server) {
    let (application, store) = stop(server).await;
    for _ in 0..2 {
        sign_checkpoint(&application).await;
    }
    store.tamper("DELETE FROM audit_checkpoints WHERE number = (SELECT max(number) FROM audit_checkpoints)").await;
    let cx = application.system_context().unwrap();
    let error = application.service.sign_checkpoint(&cx).await.unwrap_err();
    let text = ErrorChain(&error).to_string();
    assert!(text.contains("is missing"), "{text}");
}
