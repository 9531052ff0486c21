//! Introspection: active for the one resource it is for, as long as everything is well; otherwise one answer for all.

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
    /// The whole body that a resource gets.
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
    wait_until("it expired", || async { Server::now() >= decode_claims(&expired)["exp"].as_i64().unwrap() }).await;
    let revoked = server.task_token().await;
    let (status, _) = server.post_as_planner("/oauth2/revoke", &form(&[("token", &revoked)])).await;
    assert_eq!(status, 200);
    for (name, token) in [
        ("unknown", "00000000-0000-0000-0000-000000000000"),
        ("nothing like a token", "x"),
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
    assert_eq!(answer["active"], true, "a hint is no more than that");
    for kept_back in ["lineage", "rev", "rctx"] {
        assert_eq!(answer[kept_back], Value::Null);
    }
    server.stop().await;
}

async fn only_audience_resource_may_introspect(server: Server) {
    let good = server.task_token().await;
    let asked = form(&[("token", &good)]);
    for (client, want) in [("reader", 403), ("ops", 403), ("audit", 403), ("files", 200)] {
        let (status, body) = server.post_as(client, "/oauth2/introspect", &asked).await;
        assert_eq!(status, want, "{client} {body}");
        assert!(want == 200 || (body["error"] == "access_denied" && body["active"].is_null()), "{body}");
    }
    let (status, body) = server.post_as_planner("/oauth2/introspect", &asked).await;
    assert_eq!((status.as_u16(), &body["error"]), (403, &json!("access_denied")));

    let bearer = async |token: &str| {
        let response = server.post("/oauth2/introspect").bearer_auth(token).form(&asked).send().await.unwrap();
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
        ("no API token", good.clone(), 401),
        ("no token", "x".to_owned(), 401),
    ] {
        let (status, challenge, body) = bearer(&token).await;
        assert_eq!((status, &body["active"]), (want, &Value::Null), "{name} {body}");
        assert!(challenge.is_some_and(|text| text.starts_with("Bearer ")), "{name}");
    }
    let nobody = server.post("/oauth2/introspect").form(&asked).send().await.unwrap();
    assert_eq!(nobody.status(), 401);
    assert!(nobody.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic "));
    let both = server.post("/oauth2/introspect").bearer_auth(server.api_token("files", "errand:introspect").await);
    let both = both.form(&crate::server::with_assertion(&asked, &server.assertion(json!({}))));
    assert_eq!(both.send().await.unwrap().status(), 400, "two ways in one request");
    for method in [Method::GET, Method::HEAD, Method::PUT] {
        let request = server.request(method, &format!("/oauth2/introspect?token={good}"));
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
            let says = decode_claims(&jwt);
            let names = says.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>();
            assert_eq!(names, ["iss", "aud", "iat", "token_introspection"], "nobody takes it for a token");
            assert_eq!((&says["iss"], &says["aud"]), (&json!(server.issuer), &json!("files")));
            assert!((Server::now() - says["iat"].as_i64().unwrap()).abs() < 60);
            assert_eq!(says["token_introspection"], server.introspect(token).await);
            assert_eq!(says["token_introspection"]["active"], active);
        }
    }
    server.stop().await;
}

/// A party that is disabled or removed ends its tokens; the same byte for byte.
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
    let ask = async |token: &str| {
        let request = server.post("/oauth2/introspect").basic_auth("vault", Some(&secrets[1]));
        let response = request.form(&form(&[("token", token)])).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let (status, body) = issue().await;
    assert_eq!(status, 200, "{body}");
    let token = body["access_token"].as_str().unwrap().to_owned();
    assert!(ask(&token).await.1.contains(r#""active":true"#));

    put("/agents/guest", agent(true)).await;
    assert_eq!(ask(&token).await, (200, INACTIVE.to_owned()), "its agent is disabled");
    assert_eq!(issue().await.0, 401, "and can't come in");
    put("/agents/guest", agent(false)).await;
    assert!(ask(&token).await.1.contains(r#""active":true"#), "disabling holds back; ending is a revocation");

    put("/resources/vault", resource(true)).await;
    assert_eq!(ask(&token).await.0, 401, "a disabled resource can't ask");
    let (status, body) = issue().await;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!("invalid_target")));
    put("/resources/vault", resource(false)).await;

    let (status, body) = server.admin_with(&admin, Method::DELETE, "/agents/guest", None).await;
    assert_eq!(status, 204, "{body}");
    assert_eq!(ask(&token).await, (200, INACTIVE.to_owned()), "its agent is gone");
    assert_eq!(issue().await.0, 401);
    server.stop().await;
}

/// A first answer whose record was dropped, because the writer could not keep up, is made up for by the next one.
async fn dropped_audit_record_is_written_by_next_introspection(server: Server) {
    let token = server.task_token().await;
    let small = server.replica_with(|config| config.requests.queue = 4).await;
    let held = small.store.lock_writes().await;
    let grant = form(&[("grant_type", "client_credentials")]);
    let (service, mut waiting) = (&small.application.service, Vec::new());
    for _ in 0..500 {
        if service.write_queue_depth() > 2 {
            break;
        }
        let request = small.post("/oauth2/token").basic_auth("reader", Some(secret("reader"))).form(&grant);
        waiting.push(tokio::spawn(request.send()));
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let dropped = service.dropped_audit_records();
    assert!(small.is_active(&token).await);
    assert_eq!(service.dropped_audit_records(), dropped + 1);
    drop(held);
    for one in waiting {
        drop(one.await);
    }
    wait_until("the queue is empty", async || small.application.service.write_queue_depth() == 0).await;
    assert!(small.is_active(&token).await && small.is_active(&token).await);
    let task = decode_claims(&token)["txn"].as_str().unwrap().to_owned();
    let query = format!("&task={task}");
    let answers = async || {
        let records = server.audit_records(&query).await;
        records.iter().filter(|record| record["event"] == "token.introspect").count()
    };
    wait_until("it is on record", async || answers().await > 0).await;
    assert_eq!(answers().await, 1);
    small.stop().await;
    server.stop().await;
}

/// An admin changes what stands under a scope while a token is alive. Who goes by the scope alone reads no more out of it than was
/// given when the token was issued, and no more than there is; whether the token was asked about before or not.
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
    let ask = async |at: &Server, token: &str| {
        let request = at.post("/oauth2/introspect").basic_auth("vault", Some(&secrets[1]));
        let (_, says) = read_response(request.form(&[("token", token)]).send().await.unwrap()).await;
        let details = says["authorization_details"].as_array().cloned().unwrap_or_default();
        let tools = details.iter().map(|d| d["identifier"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ");
        (says["active"].as_bool().unwrap(), says["scope"].as_str().unwrap_or_default().to_owned(), tools)
    };
    let (replica, known, fresh) = (server.replica().await, issue().await, issue().await);
    let answer = |scope: &str, tools: &str| (true, scope.to_owned(), tools.to_owned());
    let whole = answer("vault:list vault:use", "list look open");
    assert_eq!(ask(&server, &known).await, whole);
    for (tools, want) in [
        (&[open, look, list, ("destroy", "vault:use")][..], answer("vault:list", "list look open")),
        (&[open, look, list], whole.clone()),
        (&[open, list], answer("vault:list vault:use", "list open")),
        (&[open, ("look", "vault:list"), list], whole.clone()),
        (&[open, look, ("list", "vault:other"), ("more", "vault:list")], answer("vault:use", "list look open")),
        (&[("other", "vault:use"), ("more", "vault:list")], (false, String::new(), String::new())),
        (&[open, look, list], whole.clone()),
    ] {
        offer(tools).await;
        for at in [&server, &replica] {
            assert_eq!(ask(at, &known).await, want, "{tools:?}");
            assert_eq!(ask(at, &known).await, want, "{tools:?}, once more");
        }
        assert_eq!(ask(&server, &fresh).await, want, "{tools:?}, maybe for the first time");
    }
    replica.stop().await;
    server.stop().await;
}
