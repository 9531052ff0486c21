//! Revocation of a parent while children are being issued. After the acknowledgement, no child is
//! active.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::server::{IDP, Server, decode_claims, form, form_with_changes, read_response, secret};

on_both_stores!(no_derived_token_outlives_revoked_parent);

const RACE_ROUNDS: usize = 60;

/// Runs one round: four clients at two replicas issue children of one parent, one after the other,
/// until a stop signal. In between, the parent is revoked. No child, issued before, meanwhile or
/// after, is active at either replica.
async fn no_derived_token_outlives_revoked_parent(server: Server) {
    let other = Arc::new(server.replica().await);
    let server = Arc::new(server);
    let admin = server.api_token("ops", "errand:admin").await;
    let (mut issued, mut refused) = (0, 0);
    for round in 0..RACE_ROUNDS {
        // The reader needs no assertion, so its requests follow each other without delay.
        let user = server.user_token(json!({"client_id": "reader-client", "sub": format!("alice-{round}")}));
        let parent = server.issue_token("reader", &server.exchange_form(&user)).await;
        let claims = decode_claims(&parent);
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for n in 0..4 {
            let (at, stop, parent) =
                (Arc::clone(if n % 2 == 0 { &server } else { &other }), Arc::clone(&stop), parent.clone());
            clients.spawn(async move {
                let form = form_with_changes(&at.exchange_form(&parent), &[("purpose", "")]);
                let (mut children, mut refused) = (Vec::new(), 0);
                while !stop.load(Ordering::SeqCst) && children.len() + refused < 40 {
                    let (status, body) = at.post_as("reader", "/oauth2/token", &form).await;
                    match status.as_u16() {
                        200 => children.push(body["access_token"].as_str().unwrap().to_owned()),
                        _ => {
                            assert_eq!((status.as_u16(), &body["error"]), (400, &json!("invalid_request")), "{body}");
                            refused += 1;
                        }
                    }
                }
                (children, refused)
            });
        }
        revoke_parent(if round % 2 == 0 { &server } else { &other }, &admin, round, &parent, &claims).await;
        // Acknowledged. Every later introspection must apply the revocation, also to tokens that
        // are issued only now.
        for at in [&server, &other] {
            assert!(!at.is_active(&parent).await, "round {round}: the parent");
        }
        let late = form_with_changes(&other.exchange_form(&parent), &[("purpose", "")]);
        assert_eq!(other.post_as("reader", "/oauth2/token", &late).await.0, 400, "round {round}");
        stop.store(true, Ordering::SeqCst);
        while let Some(done) = clients.join_next().await {
            let (children, no) = done.unwrap();
            refused += no;
            issued += children.len();
            for child in children {
                for at in [&server, &other] {
                    assert!(!at.is_active(&child).await, "round {round}: a child lives");
                }
            }
        }
    }
    assert!(issued > 0 && refused > 0, "it was no race: {issued} issued, {refused} refused");
}

/// Revocation by token, task, requester or agent, or by the client itself.
async fn revoke_parent(at: &Server, admin: &str, round: usize, parent: &str, claims: &Value) {
    let body = match round % 5 {
        0 => json!({"kind": "token", "id": claims["jti"], "reason": "the race"}),
        1 => json!({"kind": "task", "id": claims["txn"], "reason": "the race"}),
        2 => json!({"kind": "requester", "issuer": IDP, "subject": claims["sub"], "reason": "the race"}),
        3 => json!({"kind": "agent", "id": "reader", "reason": "the race"}),
        _ => {
            let request = at.post("/oauth2/revoke").basic_auth("reader", Some(secret("reader")));
            let (status, body) = read_response(request.form(&form(&[("token", parent)])).send().await.unwrap()).await;
            assert_eq!(status, 200, "{body}");
            return;
        }
    };
    let (status, body) = at.admin_with(admin, Method::POST, "/revocations", Some(body)).await;
    assert_eq!(status, 200, "{body}");
}
