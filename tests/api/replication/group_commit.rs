//! Writes that are committed together: what the store refuses of one does not fail the others.

use reqwest::Method;
use serde_json::json;
use sqlx::{Connection, Executor, PgConnection};

use crate::{
    server::{Server, decode_claims, form, read_response, secret, wait_until, with_assertion},
    support::TestStore,
};

on_both_stores!(rejected_write_fails_alone, full_queue_returns_503);

/// From now on the database takes no token of the planner.
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

/// While writes are held: writes, until one is in the works and another waits for it. What comes then is one batch with that
/// one.
async fn block_one_write(server: &Server, mut write: impl FnMut()) {
    let (mut looks, mut waits) = (0_u32, 0_u32);
    wait_until("one is in the works, and one waits", || {
        // The first two may have been taken up together: then it takes a third.
        if looks.is_multiple_of(40) || looks == 1 {
            write();
        }
        looks += 1;
        // What is seen to wait may be about to be taken up, once.
        waits = if server.application.service.write_queue_depth() > 0 { waits + 1 } else { 0 };
        let is_so = waits > 10;
        async move { is_so }
    })
    .await;
}

async fn rejected_write_fails_alone(server: Server) {
    let service = &server.application.service;
    // With numbers for the status lists in memory, so that all wait for the same.
    server.task_token().await;
    reject_planner_writes(&server.store).await;
    let grant = form(&[("grant_type", "client_credentials")]);
    let by_secret = |client: &str| {
        let request = server.post("/oauth2/token").basic_auth(client, Some(secret(client))).form(&grant);
        tokio::spawn(request.send())
    };
    let exchange = with_assertion(&server.exchange_form(&server.user_token(json!({}))), &server.assertion(json!({})));
    let by_planner = || server.post("/oauth2/token").form(&exchange).send();

    // When one waits, another one is in the works before it; so those that come now are one batch.
    let held = server.store.lock_writes().await;
    let mut first = Vec::new();
    block_one_write(&server, || first.push(by_secret("stranger"))).await;
    let clients = ["reader", "writer", "stranger", "reader", "files", "notes", "writer"];
    let mut others = clients.iter().take(4).map(|client| by_secret(client)).collect::<Vec<_>>();
    wait_until("they wait", async || service.write_queue_depth() >= 5).await;
    let planner = tokio::spawn(by_planner());
    wait_until("the planner waits with them", async || service.write_queue_depth() >= 6).await;
    others.extend(clients.iter().skip(4).map(|client| by_secret(client)));
    wait_until("all wait", async || service.write_queue_depth() >= 9).await;
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
        assert_eq!((status.as_u16(), &record["jti"]), (200, &json!(id)), "its record is there: {record}");
    }

    // Nothing of what was refused happened, and so its assertion is as good as before, once.
    accept_planner_writes(&server.store).await;
    let (status, body) = read_response(by_planner().await.unwrap()).await;
    assert_eq!(status, 200, "{body}");
    assert!(server.is_active(body["access_token"].as_str().unwrap()).await);
    let (status, _) = read_response(by_planner().await.unwrap()).await;
    assert_eq!(status, 401, "a replay");
    let verified = service.verify_audit().await.unwrap();
    assert!(verified.findings.is_empty(), "{verified:?}");
    server.stop().await;
}

/// Somebody holds the registry in the database and does not let go: who wants to change it waits in vain, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn timed_out_write_fails_alone() {
    let server = Server::start(TestStore::postgres().await).await;
    let service = &server.application.service;
    let admin = server.api_token("ops", "errand:admin").await;
    let mut elsewhere = PgConnection::connect(server.store.url()).await.unwrap();
    elsewhere.execute("BEGIN; SELECT * FROM versions FOR UPDATE").await.unwrap();

    let grant = form(&[("grant_type", "client_credentials")]);
    let issue = || {
        let request = server.post("/oauth2/token").basic_auth("reader", Some(secret("reader"))).form(&grant);
        tokio::spawn(request.send())
    };
    let held = server.store.lock_writes().await;
    let mut issues = Vec::new();
    block_one_write(&server, || issues.push(issue())).await;
    let before = service.write_queue_depth();
    let suspend = json!({"kind": "agent", "id": "writer", "verb": "suspend", "reason": "in a test"});
    let change = server.request(Method::POST, "/v1/admin/revocations").bearer_auth(&admin).json(&suspend);
    let change = tokio::spawn(change.send());
    wait_until("the change waits with it", async || service.write_queue_depth() > before).await;
    issues.push(issue());
    wait_until("and one more", async || service.write_queue_depth() > before + 1).await;
    drop(held);

    for one in issues {
        assert_eq!(one.await.unwrap().unwrap().status(), 200);
    }
    assert!(!change.is_finished(), "they are told when what they asked for is durable, and do not wait for who waits");
    assert_eq!(change.await.unwrap().unwrap().status(), 503, "nobody let go");
    elsewhere.execute("COMMIT").await.unwrap();
    let (status, body) = server.admin_with(&admin, Method::POST, "/revocations", Some(suspend)).await;
    assert_eq!(status, 200, "{body}");
    server.stop().await;
}

/// While nothing can be written, who finds the queue full is told so, and when to come again; nobody piles up.
async fn full_queue_returns_503(server: Server) {
    let small = server.replica_with(|config| config.requests.queue = 4).await;
    let grant = form(&[("grant_type", "client_credentials")]);
    let held = server.store.lock_writes().await;
    let sent = (0..40).map(|_| {
        let request = small.post("/oauth2/token").basic_auth("reader", Some(secret("reader"))).form(&grant);
        tokio::spawn(request.send())
    });
    let mut sent = sent.collect::<Vec<_>>();
    // Those that wait for the writer are few; all others have their answer though nothing was written.
    wait_until("the rest was shed", || {
        let waiting = sent.iter().filter(|one| !one.is_finished()).count();
        async move { waiting <= 16 }
    })
    .await;
    let (shed, waiting): (Vec<_>, Vec<_>) = sent.drain(..).partition(tokio::task::JoinHandle::is_finished);
    assert!(shed.len() >= 24 && !waiting.is_empty(), "{} while nothing was written", shed.len());
    for one in shed {
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
    wait_until("it writes again", || async { small.post_as("reader", "/oauth2/token", &grant).await.0 == 200 }).await;
    small.stop().await;
    server.stop().await;
}
