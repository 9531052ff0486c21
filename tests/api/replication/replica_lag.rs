//! Requests at a replica that lags behind the log: a success is reported only when it holds at
//! every replica.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    replication::replicas::{replica_counts, token_target},
    server::{Server, decode_claims, decode_header, form, read_response, wait_until, with_changes},
};

on_both_stores!(
    lagging_replica_revokes_token_of_unknown_key,
    lagging_replica_revokes_unknown_key,
    token_of_removed_key_is_already_revoked,
    exhausted_selection_waits_for_propagation,
    unknown_key_is_accepted_without_a_write
);

async fn revoke_token(at: &Server, token: &str) -> u16 {
    at.post_as("reader", "/oauth2/revoke", &form(&[("token", token)])).await.0.as_u16()
}

async fn reader_token(server: &Server) -> String {
    server.issue_token("reader", &server.exchange_form(&server.user_token(json!({"client_id": "reader-client"})))).await
}

/// A key is revoked and its successor signs at once. A lagging replica, which knows the old key
/// only, is requested to revoke a token of the successor.
async fn lagging_replica_revokes_token_of_unknown_key(server: Server) {
    let mut silent = server.replica_with_long_lease().await;
    server.wait_until_leased().await;
    let old = reader_token(&server).await;
    let kid = decode_header(&old)["kid"].as_str().unwrap().to_owned();
    assert!(silent.is_active(&old).await);
    silent.isolate().await;
    let api = server.api_token("ops", "errand:admin").await;
    let path = format!("/keys/{kid}/revoke");
    let leaked = server.admin_with(&api, Method::POST, &path, Some(json!({"reason": "it leaked"})));
    let meanwhile = async {
        wait_until("the other replica has removed the old key", || async { !server.is_active(&old).await }).await;
        let token = reader_token(&server).await;
        assert_ne!(decode_header(&token)["kid"], json!(kid));
        assert!(server.is_active(&token).await);
        assert!(silent.is_active(&old).await, "the lagging replica has not applied the removal");
        assert_eq!(revoke_token(&silent, &token).await, 200);
        assert!(!server.is_active(&token).await, "the token is revoked");
        assert!(!silent.is_active(&token).await);
    };
    let (leaked, ()) = tokio::join!(leaked, meanwhile);
    assert!(leaked.0.is_success(), "{leaked:?}");
}

/// The successor of a revoked key is revoked as well, at a lagging replica that does not know the
/// successor.
async fn lagging_replica_revokes_unknown_key(server: Server) {
    let mut silent = server.replica_with_long_lease().await;
    server.wait_until_leased().await;
    let kid = |token: &str| decode_header(token)["kid"].as_str().unwrap().to_owned();
    let old = reader_token(&server).await;
    silent.isolate().await;
    let api = server.api_token("ops", "errand:admin").await;
    let leaked = async |at: &Server, kid: &str| {
        at.admin_with(&api, Method::POST, &format!("/keys/{kid}/revoke"), Some(json!({"reason": "it leaked"}))).await
    };
    let meanwhile = async {
        wait_until("the other replica has removed the old key", || async { !server.is_active(&old).await }).await;
        let token = reader_token(&server).await;
        let (status, body) = leaked(&silent, &kid(&token)).await;
        assert!(status.is_success(), "the key exists: {status} {body}");
        assert!(!server.is_active(&token).await && !silent.is_active(&token).await);
    };
    let first = kid(&old);
    tokio::join!(leaked(&server, &first), meanwhile);
}

/// A token is revoked whose key was removed: the response waits until every replica has applied the
/// removal.
async fn token_of_removed_key_is_already_revoked(server: Server) {
    let mut silent = server.replica_with_long_lease().await;
    server.wait_until_leased().await;
    let token = reader_token(&server).await;
    assert!(silent.is_active(&token).await);
    silent.isolate().await;
    let api = server.api_token("ops", "errand:admin").await;
    let path = format!("/keys/{}/revoke", decode_header(&token)["kid"].as_str().unwrap());
    let leaked = server.admin_with(&api, Method::POST, &path, Some(json!({"reason": "it leaked"})));
    assert!(timeout(Duration::from_millis(400), leaked).await.is_err(), "the revocation waits");
    wait_until("the first replica has removed the key", || async { !server.is_active(&token).await }).await;
    assert!(silent.is_active(&token).await);
    assert_eq!(revoke_token(&server, &token).await, 200);
    assert!(!silent.is_active(&token).await);
}

/// RFC 7009 §2.2: a token that this server did not issue gets a success response, and nothing is
/// written.
async fn unknown_key_is_accepted_without_a_write(server: Server) {
    let token = reader_token(&server).await;
    let (signed, _) = token.rsplit_once('.').unwrap();
    for token in
        [format!("{signed}.{}", "A".repeat(86)), format!("{signed}."), "x".to_owned(), server.user_token(json!({}))]
    {
        assert_eq!(revoke_token(&server, &token).await, 200, "{token}");
    }
    assert!(server.is_active(&token).await);
    let (_, list) = server.admin(Method::GET, "/revocations", None).await;
    assert_eq!(list["items"], json!([]));
}

/// The tasks of a confirmed selection have ended meanwhile, and that change is not acknowledged
/// yet. The selection is requested at a replica that has applied the change, and at one that lags
/// behind.
async fn exhausted_selection_waits_for_propagation(server: Server) {
    for has_applied in [false, true] {
        let mut silent = server.replica_with_long_lease().await;
        server.wait_until_leased().await;
        let token = server.task_token().await;
        assert!(silent.is_active(&token).await);
        let selection = json!({"kind": "tasks", "ids": [decode_claims(&token)["txn"]], "reason": "in a test"});
        let api = server.api_token("ops", "errand:admin").await;
        let select = async |at: &Server, more| {
            let request =
                at.post("/v1/admin/revocations").bearer_auth(&api).json(&with_changes(selection.clone(), more));
            let (status, answer) = read_response(request.send().await.unwrap()).await;
            (status.as_u16(), answer)
        };
        let (_, dry_run) = select(&silent, json!({"dry_run": true})).await;
        silent.isolate().await;
        let (status, answer) = server.revoke_with_preference(&api, &token_target(&token), Some("wait=0")).await;
        assert_eq!(status, 202, "{answer}");
        let task = json!({"kind": "task", "id": decode_claims(&token)["txn"], "reason": "in a test"});
        let (status, answer) = server.revoke_with_preference(&api, &task, Some("wait=0")).await;
        assert_eq!(status, 202, "{answer}");
        assert!(silent.is_active(&token).await);
        let at = if has_applied { &server } else { &silent };
        for is_retry in [false, true] {
            let (status, answer) = select(at, json!({"confirmation": dry_run["confirmation"]})).await;
            assert_eq!(
                (status, &answer["tasks"], replica_counts(&answer)[2]),
                (200, &json!(0), 0),
                "{is_retry}: {answer}"
            );
            assert!(!silent.is_active(&token).await, "{answer}");
        }
        silent.stop().await;
    }
}
