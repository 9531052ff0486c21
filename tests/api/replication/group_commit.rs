//! Group commit: a write that the store rejects does not fail the others of its batch.

use reqwest::Method;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};

use crate::{
    server::{Server, decode_claims, form, read_response, secret, wait_until, with_assertion},
    support::TestStore,
};

on_both_stores!(rejected_write_fails_alone, full_queue_returns_503);

/// Makes the database reject tokens of the planner.
async fn reject_planner_writes(store: &TestStore) {
    let sql = if store.url().starts_with("sqlite") {
        "CREATE TRIGGER no_planner BEFORE INSERT ON tokens WHEN NEW.client = 'planner' BEGIN SELECT RAISE(ABORT, 'no'); END"
    } else {
        "ALTER TABLE tokens ADD CONSTRAINT no_planner CHECK (client <> 'planner') NOT VALID"
    };
    store.tamper(sql).await;
}

async fn accept_planner_writes(store: &TestStore) {
    let sql = if store.url().starts_with("sqlite") {
        "DROP TRIGGER no_planner"
    } else {
        "ALTER TABLE tokens DROP CONSTRAINT no_planner"
    };
    store.tamper(sql).await;
}

/// While writes are blocked: sends writes until one is being committed and another is queued. Later
/// writes are in one batch with the queued one.
async fn block_one_write(server: &Server, mut write: impl FnMut()) {
    let (mut polls, mut queued) = (0_u32, 0_u32);
    wait_until("one write is being committed, and one is queued", || {
        // The first two may be in one batch; then a third is needed.
        if polls.is_multiple_of(40) || polls == 1 {
            write();
        }
        polls += 1;
        // A queued write may be about to be taken from the queue, so it must be seen repeatedly.
        queued = if server.application.service.write_queue_depth() > 0 { queued + 1 } else { 0 };
        let is_queued = queued > 10;
        async move { is_queued }
    })
    .await;
}

async fn rejected_write_fails_alone(server: Server) {
    let service = &server.application.service;
    // Reserve status list indexes first, so that the requests below only wait for their commit.
    server.task_token().await;
    reject_planner_writes(&server.store).await;
    let grant = form(&[("grant_type", "client_credentials")]);
    let by_secret = |client: &str| {
        let request = server.post("/oauth2/token").basic_auth(client, Some(secret(client))).form(&grant);
        tokio::spawn(request.send())
    };
    let exchange = with_assertion(&server.exchange_form(&server.user_token(json!({}))), &server.assertion(json!({})));
    let by_planner = || server.post("/oauth2/token").form(&exchange).send();

    // A queued write waits for the commit in flight, so all writes from here on are one batch.
    let held = server.store.lock_writes().await;
    let mut first = Vec::new();
    block_one_write(&server, || first.push(by_secret("stranger"))).await;
    let clients = ["reader", "writer", "stranger", "reader", "files", "notes", "writer"];
    let mut others = clients.iter().take(4).map(|client| by_secret(client)).collect::<Vec<_>>();
    wait_until("they are queued", async || service.write_queue_depth() >= 5).await;
    let planner = tokio::spawn(by_planner());
    wait_until("the planner is queued with them", async || service.write_queue_depth() >= 6).await;
    others.extend(clients.iter().skip(4).map(|client| by_secret(client)));
    wait_until("all are queued", async || service.write_queue_depth() >= 9).await;
    drop(held);

    for one in first {
        assert_eq!(one.await.unwrap().unwrap().status(), 200);
    }
    let response = planner.await.unwrap().unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    for other in others {
        let (status, body) = read_response(other.await.unwrap().unwrap()).await;
        assert_eq!(status, 200, "{body}");
        let id = decode_claims(body["access_token"].as_str().unwrap())["jti"].as_str().unwrap().to_owned();
        let (status, record) = server.admin(Method::GET, &format!("/tokens/{id}"), None).await;
        assert_eq!((status.as_u16(), &record["jti"]), (200, &json!(id)), "the token is recorded: {record}");
    }

    // Nothing of the rejected write was committed, so its assertion is still valid, once.
    accept_planner_writes(&server.store).await;
    let (status, body) = read_response(by_planner().await.unwrap()).await;
    assert_eq!(status, 200, "{body}");
    assert!(server.is_active(body["access_token"].as_str().unwrap()).await);
    let (status, _) = read_response(by_planner().await.unwrap()).await;
    assert_eq!(status, 401, "a replay");
    let cx = server.application.system_context().unwrap();
    let verified = service.verify_audit(&[], &cx).await.unwrap();
    assert!(verified.findings.is_empty(), "{verified:?}");
    server.stop().await;
}

/// Another session holds a lock on the registry. A change of the registry times out, and no other
/// write fails.
#[tokio::test(flavor = "multi_thread")]
async fn timed_out_write_fails_alone() {
    let server = Server::start(TestStore::postgres().await).await;
    let service = &server.application.service;
    let admin = server.api_token("ops", "errand:admin").await;
    let mut other_session = PgConnection::connect(server.store.url()).await.unwrap();
    other_session.execute("BEGIN; SELECT * FROM versions FOR UPDATE").await.unwrap();

    let grant = form(&[("grant_type", "client_credentials")]);
    let issue = || {
        let request = server.post("/oauth2/token").basic_auth("reader", Some(secret("reader"))).form(&grant);
        tokio::spawn(request.send())
    };
    let held = server.store.lock_writes().await;
    let mut issues = Vec::new();
    block_one_write(&server, || issues.push(issue())).await;
    let queued = service.write_queue_depth();
    let suspend = json!({"kind": "agent", "id": "writer", "verb": "suspend", "reason": "in a test"});
    let change = server.request(Method::POST, "/v1/admin/revocations").bearer_auth(&admin).json(&suspend);
    let change = tokio::spawn(change.send());
    wait_until("the change is queued with it", async || service.write_queue_depth() > queued).await;
    issues.push(issue());
    wait_until("one more is queued", async || service.write_queue_depth() > queued + 1).await;
    drop(held);

    for one in issues {
        assert_eq!(one.await.unwrap().unwrap().status(), 200);
    }
    assert!(!change.is_finished(), "the other writes do not wait for the blocked one");
    assert_eq!(change.await.unwrap().unwrap().status(), 503, "the lock is still held");
    other_session.execute("COMMIT").await.unwrap();
    let (status, body) = server.admin_with(&admin, Method::POST, "/revocations", Some(suspend)).await;
    assert_eq!(status, 200, "{body}");
    server.stop().await;
}

/// While writes are blocked and the queue is full, requests get 503 with `Retry-After`, and don't
/// accumulate.
async fn full_queue_returns_503(server: Server) {
    let small = server.replica_with(|config| config.requests.write_queue = 4).await;
    let grant = form(&[("grant_type", "client_credentials")]);
    let held = server.store.lock_writes().await;
    let sent = (0..40).map(|_| {
        let request = small.post("/oauth2/token").basic_auth("reader", Some(secret("reader"))).form(&grant);
        tokio::spawn(request.send())
    });
    let mut sent = sent.collect::<Vec<_>>();
    // Few requests wait for the writer; all others have a response although nothing was written.
    wait_until("the rest was rejected", || {
        let waiting = sent.iter().filter(|one| !one.is_finished()).count();
        async move { waiting <= 16 }
    })
    .await;
    let (rejected, waiting): (Vec<_>, Vec<_>) = sent.drain(..).partition(tokio::task::JoinHandle::is_finished);
    assert!(rejected.len() >= 24 && !waiting.is_empty(), "{} rejected while nothing was written", rejected.len());
    for one in rejected {
        let response = one.await.unwrap().unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &"1".parse().unwrap()));
        let body = read_response(response).await.1;
        assert_eq!(body["error"], "temporarily_unavailable", "{body}");
    }
    drop(held);
    for one in waiting {
        let status = one.await.unwrap().unwrap().status().as_u16();
        assert!(status == 200 || status == 503, "{status}");
    }
    wait_until("writes are accepted again", || async {
        small.post_as("reader", "/oauth2/token", &grant).await.0 == 200
    })
    .await;
    small.stop().await;
    server.stop().await;
}
