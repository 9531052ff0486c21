//! Transaction tokens: issued for the trust domain to an agent or to the called resource, replaced,
//! and never widened.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{
    ACCESS_TOKEN, FILES, Server, TXN_TOKEN, decode_claims, decode_header, form, form_with_changes, read_response,
};

on_both_stores!(
    agent_and_resource_get_transaction_token,
    replacement_keeps_transaction_claims,
    transaction_token_is_not_an_access_token
);

impl Server {
    async fn exchange_for_txn(&self, client: &str, token: &str, declared_type: &str) -> Value {
        let form = form_with_changes(&self.txn_form(token, declared_type), &[("purpose", "")]);
        let (status, body) = self.request_token_as(client, &form).await;
        assert_eq!(status, 200, "{client} {body}");
        body
    }
}

async fn agent_and_resource_get_transaction_token(server: Server) {
    let access = server.task_token().await;
    let parent = decode_claims(&access);
    for client in ["planner", "files"] {
        let form = form_with_changes(
            &server.txn_form(&access, ACCESS_TOKEN),
            &[("purpose", ""), ("request_context", r#"{"req_ip":"192.0.2.1"}"#)],
        );
        let (status, body) = server.request_token_as(client, &form).await;
        assert_eq!(status, 200, "{client} {body}");
        assert_eq!((&body["token_type"], &body["issued_token_type"]), (&json!("N_A"), &json!(TXN_TOKEN)));
        assert_eq!((&body["scope"], &body["txn"]), (&json!("files:read"), &parent["txn"]));
        let token = body["access_token"].as_str().unwrap();
        let claims = decode_claims(token);
        assert_eq!(decode_header(token)["typ"], "txntoken+jwt");
        assert_eq!((&claims["aud"], &claims["req_wl"]), (&json!("example.com"), &json!(client)));
        assert_eq!((&claims["iss"], &claims["rctx"]), (&json!(server.issuer), &json!({"req_ip": "192.0.2.1"})));
        for same in ["sub", "sub_iss", "txn", "act", "tctx", "authorization_details", "auth_time", "acr", "amr"] {
            assert_eq!(claims[same], parent[same], "{client} {same}");
        }
        assert!(claims["exp"].as_i64() <= parent["exp"].as_i64());
        assert_eq!(claims["lineage"], json!([parent["jti"]]));
    }
    // A user token can be exchanged directly, which opens a task.
    let form = form_with_changes(
        &server.txn_form(&server.user_token(json!({})), ACCESS_TOKEN),
        &[("request_details", r#"{"order":"4711"}"#)],
    );
    let (status, body) = server.post_as_planner("/oauth2/token", &form).await;
    assert_eq!(status, 200, "{body}");
    let claims = decode_claims(body["access_token"].as_str().unwrap());
    assert_eq!(claims["tctx"], json!({"purpose": "the quarterly report", "details": {"order": "4711"}}));
    // Another resource did not receive the token, and other agents are not parties of it.
    let form = form_with_changes(&server.txn_form(&access, ACCESS_TOKEN), &[("purpose", "")]);
    for other in ["notes", "reader", "stranger"] {
        let (status, body) = server.post_as(other, "/oauth2/token", &form).await;
        assert_eq!((status.as_u16(), &body["error"]), (400, &json!("actor_unauthorized")), "{other} {body}");
    }
    // A resource gets no other kind of token, and none for a user token.
    for (name, form) in
        [("access", server.exchange_form(&access)), ("hand-over", server.delegation_form(&access, "reader"))]
    {
        let (status, body) = server.post_as("files", "/oauth2/token", &form).await;
        assert_eq!((status.as_u16(), &body["error"]), (400, &json!("unauthorized_client")), "{name} {body}");
    }
    let user = server.txn_form(&server.user_token(json!({})), ACCESS_TOKEN);
    let (status, body) = server.post_as("files", "/oauth2/token", &user).await;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!("actor_unauthorized")), "{body}");
    server.stop().await;
}

async fn replacement_keeps_transaction_claims(server: Server) {
    let access = server.task_token().await;
    let first = server.exchange_for_txn("files", &access, ACCESS_TOKEN).await;
    let first = first["access_token"].as_str().unwrap();
    let second = server.exchange_for_txn("files", first, TXN_TOKEN).await;
    let second = second["access_token"].as_str().unwrap();
    let (claims, previous) = (decode_claims(second), decode_claims(first));
    for same in ["txn", "sub", "sub_iss", "aud", "act", "tctx", "scope", "authorization_details", "req_wl", "task"] {
        assert_eq!(claims[same], previous[same], "{same}");
    }
    assert_ne!(claims["jti"], previous["jti"]);
    assert!(claims["exp"].as_i64() <= previous["exp"].as_i64());
    for (name, changes) in [
        ("more", vec![("scope", "files:read files:write")]),
        ("another task", vec![("task_id", "01970000-0000-7000-8000-00000000abcd")]),
        ("for an agent", vec![("requested_actor", "reader")]),
        ("for a resource", vec![("resource", FILES)]),
        ("another domain", vec![("audience", "other.example")]),
    ] {
        let form = form_with_changes(&server.txn_form(first, TXN_TOKEN), &[&[("purpose", "")], &changes[..]].concat());
        let (status, body) = server.post_as("files", "/oauth2/token", &form).await;
        assert_eq!(status, 400, "{name} {body}");
    }
    let form = form_with_changes(&server.txn_form(first, TXN_TOKEN), &[("purpose", "")]);
    let (status, body) = server.post_as_planner("/oauth2/token", &form).await;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!("actor_unauthorized")), "not its holder: {body}");
    // It ends with its parent.
    server.revoke(json!({"kind": "token", "id": decode_claims(&access)["jti"], "reason": "test"})).await;
    let (status, _) = server.post_as("files", "/oauth2/token", &form).await;
    assert_eq!(status, 400);
    server.stop().await;
}

async fn transaction_token_is_not_an_access_token(server: Server) {
    let access = server.task_token().await;
    let txn =
        server.exchange_for_txn("planner", &access, ACCESS_TOKEN).await["access_token"].as_str().unwrap().to_owned();
    // It is not exchanged for an access token, whichever type is declared.
    for declared_type in [ACCESS_TOKEN, TXN_TOKEN] {
        let form =
            form_with_changes(&server.exchange_form(&txn), &[("subject_token_type", declared_type), ("purpose", "")]);
        let (status, body) = server.post_as_planner("/oauth2/token", &form).await;
        assert_eq!((status.as_u16(), &body["error"]), (400, &json!("invalid_request")), "{declared_type} {body}");
    }
    // An access token is not a transaction token.
    let form = form_with_changes(&server.txn_form(&access, TXN_TOKEN), &[("purpose", "")]);
    let (status, body) = server.post_as_planner("/oauth2/token", &form).await;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!("invalid_request")), "{body}");
    for resource in ["files", "notes"] {
        let (_, body) = server.post_as(resource, "/oauth2/introspect", &form_of(&txn)).await;
        assert_eq!(body, json!({"active": false}));
    }
    for path in ["/v1/admin/agents", "/v1/admin/tokens"] {
        let response = server.request(Method::GET, path).bearer_auth(&txn).send().await.unwrap();
        assert_eq!(read_response(response).await.0, 401);
    }
    // Its holder may revoke it.
    let (status, _) = server.post_as_planner("/oauth2/revoke", &form_of(&txn)).await;
    assert_eq!(status, 200);
    let form = form_with_changes(&server.txn_form(&txn, TXN_TOKEN), &[("purpose", "")]);
    assert_eq!(server.post_as_planner("/oauth2/token", &form).await.0, 400);
    assert!(server.is_active(&access).await, "the parent of the revoked token stays active");
    server.stop().await;
}

fn form_of(token: &str) -> crate::server::Form {
    form(&[("token", token)])
}
