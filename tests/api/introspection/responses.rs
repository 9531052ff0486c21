//! Introspection: a valid token is active for its one audience. Every other token gets one
//! identical response.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{
    ACCESS_TOKEN, IDP, Server, decode_claims, decode_header, form, form_with_changes, read_response, secret, wait_until,
};

on_both_stores!(
    scope_change_does_not_widen_issued_token,
    inactive_tokens_get_identical_responses,
    only_audience_resource_may_introspect,
    signed_response_follows_rfc_9701,
    disabled_or_removed_party_ends_tokens,
    dropped_audit_record_is_written_by_next_introspection,
);

impl Server {
    /// Introspects as a resource, and returns the whole body.
    async fn introspect_as(&self, resource: &str, token: &str) -> String {
        let request = self.post("/oauth2/introspect").basic_auth(resource, Some(secret(resource)));
        let response = request.form(&form(&[("token", token)])).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["cache-control"], "no-store");
        response.text().await.unwrap()
    }
}

const INACTIVE: &str = r#"{"active":false}"#;

async fn inactive_tokens_get_identical_responses(server: Server) {
    let good = server.task_token().await;
    let hand_over = server.issue_token("planner", &server.delegation_form(&good, "reader")).await;
    let txn = server.issue_token("planner", &server.txn_form(&good, ACCESS_TOKEN)).await;
    let api = server.issue_token("planner", &form(&[("grant_type", "client_credentials")])).await;
    let short = form_with_changes(&server.exchange_form(&server.user_token(json!({}))), &[("expires_in", "1")]);
    let expired = server.issue_token("planner", &short).await;
    wait_until("the token has expired", || async { Server::now() >= decode_claims(&expired)["exp"].as_i64().unwrap() })
        .await;
    let revoked = server.task_token().await;
    let (status, _) = server.post_as_planner("/oauth2/revoke", &form(&[("token", &revoked)])).await;
    assert_eq!(status, 200);
    for (name, token) in [
        ("unknown", "00000000-0000-0000-0000-000000000000"),
        ("not a token", "x"),
        ("foreign", &server.user_token(json!({}))),
        ("expired", &expired),
        ("revoked", &revoked),
        ("malformed", &good[..good.len() - 1]),
        ("hand-over", &hand_over),
        ("txn", &txn),
        ("API", &api),
        ("assertion", &server.assertion(json!({}))),
    ] {
        assert_eq!(server.introspect_as("files", token).await, INACTIVE, "{name}");
    }
    assert_eq!(server.introspect_as("notes", &good).await, INACTIVE, "another audience");
    let hinted = form(&[("token", &good), ("token_type_hint", "refresh_token")]);
    let (_, answer) = server.post_as("files", "/oauth2/introspect", &hinted).await;
    assert_eq!(answer["active"], true, "a token type hint does not decide");
    for internal in ["lineage", "rev", "rctx"] {
        assert_eq!(answer[internal], Value::Null);
    }
    server.stop().await;
}

async fn only_audience_resource_may_introspect(server: Server) {
    let token = server.task_token().await;
    let request = form(&[("token", &token)]);
    for (client, want) in [("reader", 403), ("ops", 403), ("audit", 403), ("files", 200)] {
        let (status, body) = server.post_as(client, "/oauth2/introspect", &request).await;
        assert_eq!(status, want, "{client} {body}");
        assert!(want == 200 || (body["error"] == "access_denied" && body["active"].is_null()), "{body}");
    }
    let (status, body) = server.post_as_planner("/oauth2/introspect", &request).await;
    assert_eq!((status.as_u16(), &body["error"]), (403, &json!("access_denied")));

    let bearer = async |token: &str| {
        let response = server.post("/oauth2/introspect").bearer_auth(token).form(&request).send().await.unwrap();
        let challenge = response.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), challenge, response.json::<Value>().await.unwrap())
    };
    let (status, _, body) = bearer(&server.api_token("files", "errand:introspect").await).await;
    assert_eq!((status, &body["active"]), (200, &json!(true)));
    let (status, _, body) = bearer(&server.api_token("notes", "errand:introspect").await).await;
    assert_eq!((status, body), (200, json!({"active": false})));
    for (name, token, want) in [
        ("another scope", server.api_token("files", "errand:tasks").await, 403),
        ("an agent's", server.api_token("reader", "errand:tasks").await, 403),
        ("an admin's", server.api_token("ops", "errand:admin").await, 403),
        ("not an API token", token.clone(), 401),
        ("not a token", "x".to_owned(), 401),
    ] {
        let (status, challenge, body) = bearer(&token).await;
        assert_eq!((status, &body["active"]), (want, &Value::Null), "{name} {body}");
        assert!(challenge.is_some_and(|text| text.starts_with("Bearer ")), "{name}");
    }
    let anonymous = server.post("/oauth2/introspect").form(&request).send().await.unwrap();
    assert_eq!(anonymous.status(), 401);
    assert!(anonymous.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    let both = server.post("/oauth2/introspect").bearer_auth(server.api_token("files", "errand:introspect").await);
    let both = both.form(&crate::server::with_assertion(&request, &server.assertion(json!({}))));
    assert_eq!(both.send().await.unwrap().status(), 400, "two authentication methods in one request");
    for method in [Method::GET, Method::HEAD, Method::PUT] {
        let request = server.request(method, &format!("/oauth2/introspect?token={token}"));
        assert_eq!(request.basic_auth("files", Some(secret("files"))).send().await.unwrap().status(), 405);
    }
    server.stop().await;
}

/// RFC 9701.
async fn signed_response_follows_rfc_9701(server: Server) {
    let good = server.task_token().await;
    let signed = async |token: &str, accept: &str| {
        let request = server.post("/oauth2/introspect").basic_auth("files", Some(secret("files")));
        let response = request.header("accept", accept).form(&form(&[("token", token)])).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/token-introspection+jwt");
        response.text().await.unwrap()
    };
    let jwks = read_response(server.request(Method::GET, "/oauth2/jwks").send().await.unwrap()).await.1;
    for (token, active) in [(&good[..], true), ("x", false)] {
        for accept in
            ["application/token-introspection+jwt", "application/json;q=0.5, Application/Token-Introspection+JWT;q=0.9"]
        {
            let jwt = signed(token, accept).await;
            assert_eq!(decode_header(&jwt)["typ"], "token-introspection+jwt");
            crate::keys::key_rotation::verify_signature(&jwks, &jwt);
            let claims = decode_claims(&jwt);
            let names = claims.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
            assert_eq!(names, ["iss", "aud", "iat", "token_introspection"], "a signed response is not a token");
            assert_eq!((&claims["iss"], &claims["aud"]), (&json!(server.issuer), &json!("files")));
            assert!((Server::now() - claims["iat"].as_i64().unwrap()).abs() < 60);
            assert_eq!(claims["token_introspection"], server.introspect(token).await);
            assert_eq!(claims["token_introspection"]["active"], active);
        }
    }
    server.stop().await;
}

/// A token with a disabled or removed party is inactive, with the identical response.
async fn disabled_or_removed_party_ends_tokens(server: Server) {
    let admin = server.api_token("ops", "errand:admin errand:audit").await;
    let put = async |path: &str, body: Value| {
        let (status, body) = server.admin_with(&admin, Method::PUT, path, Some(body)).await;
        assert!(status.is_success(), "{body}");
    };
    let agent = |disabled: bool| {
        json!({"id": "guest", "authentication": {"method": "client_secret_basic"}, "disabled": disabled,
            "known_as": {(crate::server::IDP): ["guest-client"]}, "access": [{"resource": "vault", "scopes": ["vault:read"]}]})
    };
    let resource = |disabled: bool| {
        json!({"id": "vault", "uri": "https://vault.example.com", "authentication": {"method": "client_secret_basic"},
            "disabled": disabled, "tools": [{"name": "open", "scope": "vault:read", "effect": "read"}]})
    };
    put("/resources/vault", resource(false)).await;
    put("/agents/guest", agent(false)).await;
    let mut secrets = Vec::new();
    for client in ["guest", "vault"] {
        let (_, made) = server.admin_with(&admin, Method::POST, &format!("/clients/{client}/secret"), None).await;
        secrets.push(made["client_secret"].as_str().unwrap().to_owned());
    }
    let exchange = || {
        let user = server.user_token(json!({"client_id": "guest-client", "scope": "vault:read"}));
        let changes = [("resource", "https://vault.example.com"), ("scope", "vault:read")];
        form_with_changes(&server.exchange_form(&user), &changes)
    };
    let issue = async || {
        let request = server.post("/oauth2/token").basic_auth("guest", Some(&secrets[0])).form(&exchange());
        read_response(request.send().await.unwrap()).await
    };
    let introspect = async |token: &str| {
        let request = server.post("/oauth2/introspect").basic_auth("vault", Some(&secrets[1]));
        let response = request.form(&form(&[("token", token)])).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (status, body) = issue().await;
    assert_eq!(status, 200, "{body}");
    let token = body["access_token"].as_str().unwrap().to_owned();
    assert!(introspect(&token).await.1.contains(r#""active":true"#));

    put("/agents/guest", agent(true)).await;
    assert_eq!(introspect(&token).await, (200, INACTIVE.to_owned()), "the agent is disabled");
    assert_eq!(issue().await.0, 401, "a disabled agent can't authenticate");
    put("/agents/guest", agent(false)).await;
    assert_eq!(introspect(&token).await, (200, INACTIVE.to_owned()), "disabling ended it for good");
    let token = issue().await.1["access_token"].as_str().unwrap().to_owned();
    assert!(introspect(&token).await.1.contains(r#""active":true"#));

    put("/resources/vault", resource(true)).await;
    assert_eq!(introspect(&token).await.0, 401, "a disabled resource can't introspect");
    let (status, body) = issue().await;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!("invalid_target")));
    put("/resources/vault", resource(false)).await;

    let (status, body) = server.admin_with(&admin, Method::DELETE, "/agents/guest", None).await;
    assert_eq!(status, 204, "{body}");
    assert_eq!(introspect(&token).await, (200, INACTIVE.to_owned()), "the agent is removed");
    assert_eq!(issue().await.0, 401);
    server.stop().await;
}

/// If the record of a first active introspection is dropped because the queue of audit records is
/// full, the next introspection is recorded.
async fn dropped_audit_record_is_written_by_next_introspection(server: Server) {
    let (token, first, second) = (server.task_token().await, server.task_token().await, server.task_token().await);
    let small = server.replica_with(|config| config.requests.audit_queue = 1).await;
    let lock = small.store.lock_writes().await;
    let service = &small.application.service;
    // The record of one token is being committed, and that of another one fills the queue.
    assert!(small.is_active(&first).await);
    wait_until("the first record is being committed", async || service.write_queue_depth() == 0).await;
    assert!(small.is_active(&second).await);
    assert_eq!(service.write_queue_depth(), 1);
    let dropped = service.dropped_audit_records();
    assert!(small.is_active(&token).await);
    assert_eq!(service.dropped_audit_records(), dropped + 1);
    drop(lock);
    wait_until("the queue is empty", async || small.application.service.write_queue_depth() == 0).await;
    assert!(small.is_active(&token).await && small.is_active(&token).await);
    let task = decode_claims(&token)["txn"].as_str().unwrap().to_owned();
    let query = format!("&task={task}");
    let recorded = async || {
        let records = server.audit_records(&query).await;
        records.iter().filter(|record| record["event"] == "token.introspect").count()
    };
    wait_until("the introspection is recorded", async || recorded().await > 0).await;
    assert_eq!(recorded().await, 1);
    small.stop().await;
    server.stop().await;
}

/// An admin changes the tools of a scope while a token is active. A resource that reads only the
/// scope infers no more than the token was issued for, and no more than is offered now, whether the
/// token is cached or not.
async fn scope_change_does_not_widen_issued_token(server: Server) {
    const VAULT: &str = "https://vault.example.com";
    let admin = server.api_token("ops", "errand:admin").await;
    let put = async |path: &str, body: Value| {
        let (status, body) = server.admin_with(&admin, Method::PUT, path, Some(body)).await;
        assert!(status.is_success(), "{body}");
    };
    let offer = async |tools: &[(&str, &str)]| {
        let tool = |(name, scope): &(&str, &str)| json!({"name": name, "scope": scope, "effect": "read"});
        let tools = tools.iter().map(tool).collect::<Value>();
        let authentication = json!({"method": "client_secret_basic"});
        put("/resources/vault", json!({"id": "vault", "uri": VAULT, "authentication": authentication, "tools": tools}))
            .await;
    };
    let (open, look, list) = (("open", "vault:use"), ("look", "vault:use"), ("list", "vault:list"));
    offer(&[open, look, list]).await;
    let access = json!([{"resource": "vault", "scopes": ["vault:use", "vault:list"]}]);
    let (authentication, known_as) = (json!({"method": "client_secret_basic"}), json!({(IDP): ["guest-client"]}));
    put(
        "/agents/guest",
        json!({"id": "guest", "authentication": authentication, "known_as": known_as, "access": access}),
    )
    .await;
    let mut secrets = Vec::new();
    for client in ["guest", "vault"] {
        let (_, made) = server.admin_with(&admin, Method::POST, &format!("/clients/{client}/secret"), None).await;
        secrets.push(made["client_secret"].as_str().unwrap().to_owned());
    }
    let user = server.user_token(json!({"client_id": "guest-client", "scope": "vault:use vault:list"}));
    let form =
        form_with_changes(&server.exchange_form(&user), &[("resource", VAULT), ("scope", "vault:use vault:list")]);
    let issue = async || {
        let request = server.post("/oauth2/token").basic_auth("guest", Some(&secrets[0])).form(&form);
        let (status, body) = read_response(request.send().await.unwrap()).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    };
    let introspect = async |at: &Server, token: &str| {
        let request = at.post("/oauth2/introspect").basic_auth("vault", Some(&secrets[1]));
        let (_, body) = read_response(request.form(&[("token", token)]).send().await.unwrap()).await;
        let details = body["authorization_details"].as_array().cloned().unwrap_or_default();
        let tools = details.iter().map(|d| d["identifier"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ");
        (body["active"].as_bool().unwrap(), body["scope"].as_str().unwrap_or_default().to_owned(), tools)
    };
    let (replica, cached, fresh) = (server.replica().await, issue().await, issue().await);
    let active = |scope: &str, tools: &str| (true, scope.to_owned(), tools.to_owned());
    let whole = active("vault:list vault:use", "list look open");
    assert_eq!(introspect(&server, &cached).await, whole);
    for (tools, want) in [
        (&[open, look, list, ("destroy", "vault:use")][..], active("vault:list", "list look open")),
        (&[open, look, list], whole.clone()),
        (&[open, list], active("vault:list vault:use", "list open")),
        // A removed tool that comes back is not in the tokens that were issued before.
        (&[open, look, list], active("vault:list", "list open")),
        (&[open, look, ("list", "vault:other"), ("more", "vault:list")], active("", "list open")),
        (&[("other", "vault:use"), ("more", "vault:list")], (false, String::new(), String::new())),
        (&[open, look, list], (false, String::new(), String::new())),
    ] {
        offer(tools).await;
        for at in [&server, &replica] {
            assert_eq!(introspect(at, &cached).await, want, "{tools:?}");
            assert_eq!(introspect(at, &cached).await, want, "{tools:?}, second time");
        }
        assert_eq!(introspect(&server, &fresh).await, want, "{tools:?}, second token");
    }
    replica.stop().await;
    server.stop().await;
}
