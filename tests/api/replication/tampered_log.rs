//! A revocation log that was changed outside the program: no replica applies it.

use errand::{
    app::RequestContext,
    bootstrap::{Application, MigrationPolicy},
    domain::{
        audit::WriterId,
        id::TaskId,
        revocation::{LogAction, NewEntry, Target},
        time::Timestamp,
    },
    ports::WriteSet,
};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::server::{IDP, Server, decode_claims, form, read_response, wait_until};

on_both_stores!(
    removed_revocation_is_an_outage,
    changed_revocation_is_an_outage,
    raised_head_is_an_outage,
    removed_revocation_stops_a_start,
    anchored_revocation_stops_a_start,
    restored_revocation_is_applied,
);

fn token_target(token: &str) -> serde_json::Value {
    json!({"kind": "token", "id": decode_claims(token)["jti"], "reason": "in a test"})
}

/// A replica that has yet to apply an entry never answers "active" without it.
async fn check_replica(server: Server, change: impl Fn(u64) -> String, undo: impl Fn(u64) -> String, named: &str) {
    let (first, second) = (server.task_token().await, server.task_token().await);
    let mut other = server.replica().await;
    wait_until("the token is active", || async { other.is_active(&first).await }).await;
    other.stop_following().await;
    wait_until("the lease has lapsed", || async { !other.application.service.holds_lease() }).await;
    let seq = server.revoke(token_target(&first)).await["seq"].as_u64().unwrap();
    server.revoke(token_target(&second)).await;
    server.store.tamper("CREATE TABLE saved AS SELECT * FROM revocation_log").await;
    server.store.tamper("CREATE TABLE saved_head AS SELECT * FROM log_head").await;
    server.store.tamper(&change(seq)).await;
    for token in [&first, &second] {
        let (status, body) = other.post_as("files", "/oauth2/introspect", &form(&[("token", token)])).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    }
    assert!(!other.application.service.holds_lease());
    let ready = other.request(Method::GET, "/readyz").send().await.unwrap();
    let (status, body) = read_response(ready).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body["detail"].as_str().unwrap().contains(named), "{body}");
    server.store.tamper(&undo(seq)).await;
    for token in [&first, &second] {
        assert!(!other.is_active(token).await, "the replica goes on when the row is back");
    }
    server.stop().await;
}

async fn removed_revocation_is_an_outage(server: Server) {
    check_replica(
        server,
        |seq| format!("DELETE FROM revocation_log WHERE seq = {seq}"),
        |seq| format!("INSERT INTO revocation_log SELECT * FROM saved WHERE seq = {seq}"),
        "`revocation_log`",
    )
    .await;
}

async fn changed_revocation_is_an_outage(server: Server) {
    let other = "018f0000-0000-7000-8000-000000000000";
    check_replica(
        server,
        |seq| format!("UPDATE revocation_log SET key = '{other}' WHERE seq = {seq}"),
        |seq| {
            format!(
                "DELETE FROM revocation_log WHERE seq = {seq}; \
                 INSERT INTO revocation_log SELECT * FROM saved WHERE seq = {seq}"
            )
        },
        "`revocation_log`",
    )
    .await;
}

async fn raised_head_is_an_outage(server: Server) {
    check_replica(
        server,
        |_| "UPDATE log_head SET seq = seq + 1".to_owned(),
        |_| "UPDATE log_head SET seq = seq - 1".to_owned(),
        "`log_head`",
    )
    .await;
}

/// Returns the reason why a server on this store does not start.
async fn refused_start(server: &Server) -> String {
    let application = Application::build(&server.config, MigrationPolicy::Always).await.unwrap();
    let refused = application.initialize(&server.config).await.unwrap_err().to_string();
    application.service.shutdown().await;
    refused
}

async fn removed_revocation_stops_a_start(server: Server) {
    let token = server.task_token().await;
    let seq = server.revoke(token_target(&token)).await["seq"].as_u64().unwrap();
    server.revoke(token_target(&server.task_token().await)).await;
    server.store.tamper("CREATE TABLE saved AS SELECT * FROM revocation_log").await;
    server.store.tamper(&format!("DELETE FROM revocation_log WHERE seq = {seq}")).await;
    let refused = refused_start(&server).await;
    assert!(refused.contains(&format!("row `{seq}` of the table `revocation_log` was removed")), "{refused}");
    server.store.tamper(&format!("INSERT INTO revocation_log SELECT * FROM saved WHERE seq = {seq}")).await;
    // The last entry: the head names it.
    server.store.tamper(&format!("DELETE FROM revocation_log WHERE seq > {seq}")).await;
    let refused = refused_start(&server).await;
    assert!(refused.contains(&format!("row `{}` of the table `revocation_log` was removed", seq + 1)), "{refused}");
    server.store.tamper(&format!("INSERT INTO revocation_log SELECT * FROM saved WHERE seq > {seq}")).await;
    let replica = server.replica().await;
    assert!(!replica.is_active(&token).await);
    replica.stop().await;
    server.stop().await;
}

/// More entries than a replica that starts reads one by one.
const ENTRIES: u128 = 1_500;

/// Appends entries, and lets maintenance move the anchor behind them. Returns the last position.
async fn append_until_anchored(server: &Server) -> u64 {
    let store = server.open_store().await;
    let now = server.application.service.clock().now();
    let end = |n: u128| {
        let (target, reason, by) =
            (Target::Task(TaskId::new(uuid::Uuid::from_u128(n))), "x".into(), "admin:ops".into());
        // Every other entry is past its retention for long.
        let forget_after =
            if n.is_multiple_of(2) { Timestamp::from_unix(now.unix() + 900) } else { Timestamp::from_unix(1) };
        NewEntry { verb: LogAction::Revoke, target, reason, by, at: now, forget_after }
    };
    let write = WriteSet { log_entries: (1..=ENTRIES).map(end).collect(), ..WriteSet::default() };
    store.commit(WriterId(uuid::Uuid::nil()), &[write]).await.unwrap();
    let last = store.read_log_head().await.unwrap();
    wait_until("the replica follows", || async { server.application.service.applied_seq() >= last }).await;
    let cx = RequestContext::internal("gc".parse().unwrap(), now);
    server.application.service.collect_garbage(&cx).await.unwrap();
    assert!(store.load_log_anchor().await.unwrap().position >= last);
    last.number()
}

/// A replica that began to read a log with a missing entry applies it when it is put back.
async fn restored_revocation_is_applied(server: Server) {
    let form = server.exchange_form(&server.user_token(json!({"client_id": "reader-client"})));
    assert_eq!(server.post_as("reader", "/oauth2/token", &form).await.0, StatusCode::OK);
    let before = server.application.service.applied_seq().number();
    let requester = json!({"kind": "requester", "issuer": IDP, "subject": "alice", "reason": "in a test"});
    let last = server.revoke(requester).await["seq"].as_u64().unwrap();
    append_until_anchored(&server).await;
    server.store.tamper("CREATE TABLE saved AS SELECT * FROM revocation_log").await;
    let application = Application::build(&server.config, MigrationPolicy::Always).await.unwrap();
    let entries = format!("seq > {before} AND seq <= {last}");
    server.store.tamper(&format!("DELETE FROM revocation_log WHERE {entries}")).await;
    let refused = application.initialize(&server.config).await.unwrap_err().to_string();
    assert!(refused.contains("outside this program"), "{refused}");
    server.store.tamper(&format!("INSERT INTO revocation_log SELECT * FROM saved WHERE {entries}")).await;
    application.initialize(&server.config).await.unwrap();
    let replica = server.replica_of(application).await;
    replica.wait_until_leased().await;
    let (status, body) = replica.post_as("reader", "/oauth2/token", &form).await;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!("invalid_request")), "{body}");
    let other = server.user_token(json!({"client_id": "reader-client", "sub": "bob"}));
    let (status, body) = replica.post_as("reader", "/oauth2/token", &server.exchange_form(&other)).await;
    assert_eq!(status, StatusCode::OK, "another requester: {body}");
    replica.stop().await;
    server.stop().await;
}

async fn anchored_revocation_stops_a_start(server: Server) {
    let head = append_until_anchored(&server).await;
    let token = server.task_token().await;
    server.revoke(token_target(&token)).await;
    let replica = server.replica().await;
    assert!(!replica.is_active(&token).await);
    replica.stop().await;

    server.store.tamper("CREATE TABLE saved AS SELECT * FROM revocation_log").await;
    let restore = "DELETE FROM revocation_log; INSERT INTO revocation_log SELECT * FROM saved";
    for (name, change) in [
        ("a removed entry", format!("DELETE FROM revocation_log WHERE seq = {}", head - 100)),
        (
            "a removed entry, with another in its place",
            format!("UPDATE revocation_log SET forget_after = 1 WHERE seq = {}", head - 100),
        ),
        ("the entry at the anchor", format!("DELETE FROM revocation_log WHERE seq = {head}")),
    ] {
        assert!(server.store.tamper(&change).await > 0, "{name}");
        let refused = refused_start(&server).await;
        assert!(refused.contains("`revocation_log`") && refused.contains("outside this program"), "{name}: {refused}");
        server.store.tamper(restore).await;
    }
    // Entries past their retention end nothing, and are not read.
    server.store.tamper(&format!("DELETE FROM revocation_log WHERE forget_after = 1 AND seq < {head}")).await;
    let replica = server.replica().await;
    assert!(!replica.is_active(&token).await);
    replica.stop().await;
    server.store.tamper(restore).await;
    // Without the anchor, all entries are read.
    server.store.tamper("DELETE FROM log_anchor").await;
    let replica = server.replica().await;
    assert!(!replica.is_active(&token).await);
    replica.stop().await;
    server.stop().await;
}
