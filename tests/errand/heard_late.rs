//! What one replica has not heard of yet, another one may be asked about: it says that something is done when it is so at all
//! of them.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    replicas::{counts, token_of},
    server::{Server, changed, claims, form, header, read, until},
};

on_both_stores!(
    a_key_that_was_not_heard_of,
    a_new_key_that_leaks_as_well,
    a_key_that_is_gone_here,
    a_selection_with_nothing_left,
    a_key_of_nobody
);

async fn give_back(at: &Server, token: &str) -> u16 {
    at.post_as("reader", "/oauth2/revoke", &form(&[("token", token)])).await.0.as_u16()
}

async fn of_the_reader(server: &Server) -> String {
    server.issued("reader", &server.exchange_form(&server.user_token(json!({"client_id": "reader-client"})))).await
}

/// A key leaked, and so a new one signs at once. A replica that knows neither of the two is asked to take back what the new one
/// signed.
async fn a_key_that_was_not_heard_of(server: Server) {
    let mut silent = server.with_long_lease().await;
    server.leased().await;
    let old = of_the_reader(&server).await;
    let kid = header(&old)["kid"].as_str().unwrap().to_owned();
    assert!(silent.is_live(&old).await);
    silent.silence().await;
    let api = server.api_token("ops", "errand:admin").await;
    let path = format!("/keys/{kid}/revoke");
    let leaked = server.admin_with(&api, Method::POST, &path, Some(json!({"reason": "it leaked"})));
    let meanwhile = async {
        until("the old key is gone at home", || async { !server.is_live(&old).await }).await;
        let token = of_the_reader(&server).await;
        assert_ne!(header(&token)["kid"], json!(kid));
        assert!(server.is_live(&token).await);
        assert!(silent.is_live(&old).await, "it has not heard of it");
        assert_eq!(give_back(&silent, &token).await, 200);
        assert!(!server.is_live(&token).await, "it was taken back");
        assert!(!silent.is_live(&token).await);
    };
    let (leaked, ()) = tokio::join!(leaked, meanwhile);
    assert!(leaked.0.is_success(), "{leaked:?}");
}

/// The key that took the place of the leaked one is to go too, says somebody to a replica that has never heard of it.
async fn a_new_key_that_leaks_as_well(server: Server) {
    let mut silent = server.with_long_lease().await;
    server.leased().await;
    let kid = |token: &str| header(token)["kid"].as_str().unwrap().to_owned();
    let old = of_the_reader(&server).await;
    silent.silence().await;
    let api = server.api_token("ops", "errand:admin").await;
    let leaked = async |at: &Server, kid: &str| {
        at.admin_with(&api, Method::POST, &format!("/keys/{kid}/revoke"), Some(json!({"reason": "it leaked"}))).await
    };
    let meanwhile = async {
        until("the old key is gone at home", || async { !server.is_live(&old).await }).await;
        let token = of_the_reader(&server).await;
        let (status, body) = leaked(&silent, &kid(&token)).await;
        assert!(status.is_success(), "there is such a key: {status} {body}");
        assert!(!server.is_live(&token).await && !silent.is_live(&token).await);
    };
    let first = kid(&old);
    tokio::join!(leaked(&server, &first), meanwhile);
}

/// It was taken back with its key, and that is answered when everybody knows.
async fn a_key_that_is_gone_here(server: Server) {
    let mut silent = server.with_long_lease().await;
    server.leased().await;
    let token = of_the_reader(&server).await;
    assert!(silent.is_live(&token).await);
    silent.silence().await;
    let api = server.api_token("ops", "errand:admin").await;
    let path = format!("/keys/{}/revoke", header(&token)["kid"].as_str().unwrap());
    let leaked = server.admin_with(&api, Method::POST, &path, Some(json!({"reason": "it leaked"})));
    assert!(timeout(Duration::from_millis(400), leaked).await.is_err(), "it waits");
    until("it is gone at home", || async { !server.is_live(&token).await }).await;
    assert!(silent.is_live(&token).await);
    assert_eq!(give_back(&server, &token).await, 200);
    assert!(!silent.is_live(&token).await);
}

/// What never was ours: nothing is written, and nobody is told more than that all is well.
async fn a_key_of_nobody(server: Server) {
    let token = of_the_reader(&server).await;
    let (signed, _) = token.rsplit_once('.').unwrap();
    for token in
        [format!("{signed}.{}", "A".repeat(86)), format!("{signed}."), "x".to_owned(), server.user_token(json!({}))]
    {
        assert_eq!(give_back(&server, &token).await, 200, "{token}");
    }
    assert!(server.is_live(&token).await);
    let (_, list) = server.admin(Method::GET, "/revocations", None).await;
    assert_eq!(list["items"], json!([]));
}

/// Somebody else has ended the tasks of a selection, and was not acknowledged. Where it has not been heard of, and where it has.
async fn a_selection_with_nothing_left(server: Server) {
    for at_home in [false, true] {
        let mut silent = server.with_long_lease().await;
        server.leased().await;
        let token = server.task_token().await;
        assert!(silent.is_live(&token).await);
        let selection = json!({"kind": "tasks", "ids": [claims(&token)["txn"]], "reason": "in a test"});
        let api = server.api_token("ops", "errand:admin").await;
        let ask = async |at: &Server, more| {
            let request = at.post("/v1/admin/revocations").bearer_auth(&api).json(&changed(selection.clone(), more));
            let (status, answer) = read(request.send().await.unwrap()).await;
            (status.as_u16(), answer)
        };
        let (_, found) = ask(&silent, json!({"dry_run": true})).await;
        silent.silence().await;
        let (status, answer) = server.take_back(&api, &token_of(&token), Some("wait=0")).await;
        assert_eq!(status, 202, "{answer}");
        let task = json!({"kind": "task", "id": claims(&token)["txn"], "reason": "in a test"});
        let (status, answer) = server.take_back(&api, &task, Some("wait=0")).await;
        assert_eq!(status, 202, "{answer}");
        assert!(silent.is_live(&token).await);
        let at = if at_home { &server } else { &silent };
        for again in [false, true] {
            let (status, answer) = ask(at, json!({"confirmation": found["confirmation"]})).await;
            assert_eq!((status, &answer["tasks"], counts(&answer)[2]), (200, &json!(0), 0), "{again}: {answer}");
            assert!(!silent.is_live(&token).await, "{answer}");
        }
        silent.stop().await;
    }
}
