//! Who was refused what is on record, as far as it is known who it was.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::server::{Server, changed, changed_form, form, read, secret, with_assertion};

on_both_stores!(a_replayed_assertion, outside_the_grammar, wrong_credentials);

impl Server {
    /// The record of a refused request, which is sent here.
    async fn refusal(&self, id: &str, request: RequestBuilder, want: u16) -> Value {
        let (status, body) = read(request.header("x-request-id", id).send().await.unwrap()).await;
        assert_eq!(status, want, "{id}: {body}");
        let record = self.record_of(id).await;
        assert_eq!(record["outcome"], "refused", "{id}: {record}");
        record
    }
}

async fn a_replayed_assertion(server: Server) {
    let token = server.task_token().await;
    let user = server.user_token(json!({}));
    let grant = form(&[("grant_type", "client_credentials")]);
    let assertion = server.assertion(json!({}));
    assert_eq!(server.post_with_assertion("/oauth2/token", &grant, &assertion).await.0, 200);
    for (id, path, form) in [
        ("again-exchange", "/oauth2/token", server.exchange_form(&user)),
        ("again-refused", "/oauth2/token", changed_form(&server.exchange_form(&user), &[("scope", "files:delete")])),
        ("again-grammar", "/oauth2/token", form(&[("grant_type", "password")])),
        ("again-api", "/oauth2/token", grant.clone()),
        ("again-api-scope", "/oauth2/token", changed_form(&grant, &[("scope", "errand:admin")])),
        ("again-introspect", "/oauth2/introspect", form(&[("token", &token)])),
        ("again-revoke", "/oauth2/revoke", form(&[("token", &token)])),
    ] {
        let record = server.refusal(id, server.post(path).form(&with_assertion(&form, &assertion)), 401).await;
        assert_eq!((&record["event"], &record["client"]), (&json!("client.authenticate"), &json!("planner")), "{id}");
        assert!(record["reason"].as_str().unwrap().contains("used before"), "{record}");
    }
    assert!(server.is_live(&token).await);
    server.stop().await;
}

async fn outside_the_grammar(server: Server) {
    let exchange = server.exchange_form(&server.user_token(json!({})));
    let grant = form(&[("grant_type", "client_credentials"), ("scope", "\"")]);
    for (id, path, form, event) in [
        ("no-subject", "/oauth2/token", changed_form(&exchange, &[("subject_token", "")]), "token.issue"),
        ("no-grant", "/oauth2/token", changed_form(&exchange, &[("grant_type", "")]), "token.issue"),
        ("other-grant", "/oauth2/token", changed_form(&exchange, &[("grant_type", "password")]), "token.issue"),
        ("no-scope", "/oauth2/token", grant, "token.issue"),
        ("no-token", "/oauth2/revoke", form(&[("x", "y")]), "revocation"),
    ] {
        let request = server.post(path).basic_auth("reader", Some(secret("reader"))).form(&form);
        let record = server.refusal(id, request, 400).await;
        assert_eq!((&record["event"], &record["client"]), (&json!(event), &json!("reader")), "{id}");
        assert!(record["reason"].is_string(), "{record}");
    }
    server.stop().await;
}

async fn wrong_credentials(server: Server) {
    let grant = form(&[("grant_type", "client_credentials")]);
    let basic = |client: &str| server.post("/oauth2/token").basic_auth(client, Some("wrong")).form(&grant);
    let signed = |assertion: &str| server.post("/oauth2/token").form(&with_assertion(&grant, assertion));
    let by = |claims: Value| changed(server.assertion_claims(), claims);
    let forged = server.idp.sign("client-authentication+jwt", &server.assertion_claims());
    let late = server.assertion(json!({"exp": 1}));
    let nobody = server.planner.sign("JWT", &by(json!({"iss": "nobody", "sub": "nobody"})));
    for (id, request, who) in [
        ("wrong-secret", basic("reader"), json!("reader")),
        ("wrong-method", basic("planner"), json!("planner")),
        ("wrong-key", signed(&forged), json!("planner")),
        ("wrong-time", signed(&late), json!("planner")),
        ("unknown-basic", basic("nobody"), Value::Null),
        ("unknown-signed", signed(&nobody), Value::Null),
        ("nothing", signed("a.b.c"), Value::Null),
    ] {
        let record = server.refusal(id, request, 401).await;
        assert_eq!((&record["event"], &record["client"]), (&json!("client.authenticate"), &who), "{id} {record}");
        assert!(!record.to_string().contains("nobody"), "what was claimed is not repeated: {record}");
    }
    server.stop().await;
}
