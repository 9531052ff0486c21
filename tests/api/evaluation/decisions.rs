//! Decisions: what a token permits, for whom, and until when.

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    evaluation::{EVALUATION, EVALUATIONS, call, detail, list, with_change},
    idp::b64,
    replication::store_outage::{make_store_unavailable, restore_store},
    server::{
        ACCESS_TOKEN, FILES, NOTES, Server, decode_claims, form, form_with_changes, read_response, secret, wait_until,
    },
};

on_both_stores!(
    decision_follows_token_and_constraints,
    only_resources_evaluate,
    inactive_tokens_get_identical_answers,
    ended_token_permits_nothing_on_any_replica,
    state_after_the_body_decides,
    unknown_state_is_no_decision,
);

/// Checks an answer against an expected decision and context members.
fn assert_denied(answer: &Value, reason: &str, at: Option<&str>) {
    let context = &answer["context"];
    let found = (&answer["decision"], context["reason"].as_str(), context["at"].as_str());
    assert_eq!(found, (&json!(false), Some(reason), at), "{answer}");
    assert!(context["message"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
}

async fn decision_follows_token_and_constraints(server: Server) {
    let constraints = json!({"path": {"prefix": "/reports/"}, "limit": {"max": 100}});
    let token = server.token_with_details(&json!([detail("read_file", constraints)])).await;
    let claims = decode_claims(&token);
    let ask = |arguments: Value| call(&token, "read_file", arguments);
    let good = json!({"path": "/reports/q3.md", "limit": 100});

    let permitted = server.evaluate(&ask(good.clone())).await;
    let context = permitted["context"].as_object().unwrap();
    assert_eq!(permitted["decision"], true, "{permitted}");
    assert_eq!(context.keys().collect::<Vec<_>>(), ["evaluation_id", "txn", "jti"]);
    assert_eq!((&context["txn"], &context["jti"]), (&claims["txn"], &claims["jti"]));
    assert!(uuid::Uuid::parse_str(context["evaluation_id"].as_str().unwrap()).is_ok());
    let again = server.evaluate(&ask(good.clone())).await;
    assert_ne!(again["context"]["evaluation_id"], context["evaluation_id"], "each decision has an id");

    for (question, reason, at) in [
        (ask(json!({"path": "/reports/../etc", "limit": 1})), "constraint", "arguments.path"),
        (ask(json!({"path": "/reports/q3.md", "limit": 100.5})), "constraint", "arguments.limit"),
        (ask(json!({"path": "/reports/q3.md"})), "constraint", "arguments.limit"),
        (ask(json!({"path": "/reports/q3.md", "limit": 1, "mode": "x"})), "constraint", "arguments.mode"),
        (ask(json!({})), "constraint", "arguments.limit"),
        (with_change(ask(json!({})), "/resource/properties", Value::Null), "constraint", "arguments.limit"),
        (call(&token, "write_file", json!({})), "not_permitted", "resource.id"),
        (call(&token, "no_such_tool", json!({})), "not_permitted", "resource.id"),
        (with_change(ask(good.clone()), "/subject/id", json!("bob")), "not_permitted", "subject.id"),
        (with_change(ask(good.clone()), "/context/agent", json!("reader")), "not_permitted", "context.agent"),
        (with_change(ask(good.clone()), "/action/name", json!("resources/read")), "not_permitted", "action.name"),
        (with_change(ask(good.clone()), "/resource/type", json!("record")), "not_permitted", "resource.type"),
        (list(&token, "tools/list", FILES), "not_permitted", "action.name"),
        (list(&token, "tools/list", NOTES), "not_permitted", "resource.id"),
    ] {
        let answer = server.evaluate(&question).await;
        assert_denied(&answer, reason, Some(at));
        assert_eq!((&answer["context"]["txn"], &answer["context"]["jti"]), (&claims["txn"], &claims["jti"]));
    }
    // The agent is optional, the type of the subject says nothing, and arguments may be absent.
    let open = server.task_token().await;
    let without_agent = with_change(call(&open, "list_files", json!({})), "/context/agent", Value::Null);
    assert!(server.is_permitted(&without_agent).await);
    let user = with_change(without_agent.clone(), "/subject/type", json!("user"));
    assert!(server.is_permitted(&with_change(user, "/resource/properties", Value::Null)).await);
    // The agent of a token that was handed over is the one that received it.
    let narrow = json!([detail("read_file", json!({"path": {"prefix": "/reports/"}, "limit": {"max": 10}}))]);
    let narrow = narrow.to_string();
    let delegation = form_with_changes(
        &server.delegation_form(&token, "reader"),
        &[("scope", ""), ("authorization_details", &narrow)],
    );
    let hand_over = server.issue_token("planner", &delegation).await;
    let form = form_with_changes(
        &server.exchange_form(&hand_over),
        &[("purpose", ""), ("scope", ""), ("authorization_details", &narrow)],
    );
    let derived = server.issue_token("reader", &form).await;
    let asked = call(&derived, "read_file", json!({"path": "/reports/a", "limit": 10}));
    assert_denied(&server.evaluate(&asked).await, "not_permitted", Some("context.agent"));
    assert!(server.is_permitted(&with_change(asked, "/context/agent", json!("reader"))).await);
    server.stop().await;
}

async fn only_resources_evaluate(server: Server) {
    let token = server.task_token().await;
    let body = call(&token, "read_file", json!({}));
    for path in [EVALUATION, EVALUATIONS] {
        for (client, want) in [("files", 200), ("reader", 403), ("ops", 403), ("audit", 403)] {
            let (status, answer) = server.evaluate_as(client, path, &body).await;
            assert_eq!(status, want, "{path} {client} {answer}");
            assert_eq!(answer["decision"].is_boolean(), want == 200, "{answer}");
        }
        let send = async |request: reqwest::RequestBuilder| {
            let response = request.json(&body).send().await.unwrap();
            let challenge = response.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
            (read_response(response).await, challenge)
        };
        let ((status, answer), _) =
            send(server.post(path).bearer_auth(server.api_token("files", "errand:evaluate").await)).await;
        assert_eq!((status.as_u16(), &answer["decision"]), (200, &json!(true)), "{answer}");
        for (name, token, want) in [
            ("another scope", server.api_token("files", "errand:introspect").await, 403),
            ("an agent's", server.api_token("reader", "errand:tasks").await, 403),
            ("an admin's", server.api_token("ops", "errand:admin").await, 403),
            ("a task token", token.clone(), 401),
            ("no token", "x".to_owned(), 401),
        ] {
            let ((status, answer), challenge) = send(server.post(path).bearer_auth(token)).await;
            assert_eq!((status.as_u16(), &answer["decision"]), (want, &Value::Null), "{name} {answer}");
            assert!(challenge.is_some_and(|text| text.starts_with("Bearer ")), "{name}");
        }
        for (name, request) in [
            ("no credentials", server.post(path)),
            ("a wrong secret", server.post(path).basic_auth("files", Some("wrong"))),
            ("an unknown client", server.post(path).basic_auth("unknown", Some(secret("files")))),
            ("another scheme", server.post(path).header("authorization", "Digest x")),
        ] {
            let ((status, answer), challenge) = send(request).await;
            assert_eq!((status.as_u16(), &answer["decision"]), (401, &Value::Null), "{name} {answer}");
            assert_eq!(answer["title"], "Client authentication failed", "{name}");
            assert!(challenge.is_some_and(|text| text.starts_with("Basic ")), "{name}");
        }
        let basic = format!("Basic {}", b64(format!("files:{}", secret("files"))));
        let twice = server.post(path).header("authorization", &basic).header("authorization", &basic);
        assert_eq!(send(twice).await.0.0, 400, "two credentials");
        for method in [Method::GET, Method::PUT] {
            let request = server.request(method, path).basic_auth("files", Some(secret("files")));
            assert_eq!(send(request).await.0.0, 405);
        }
    }
    let (status, _) = server
        .post_as(
            "reader",
            "/oauth2/token",
            &form(&[("grant_type", "client_credentials"), ("scope", "errand:evaluate")]),
        )
        .await;
    assert_eq!(status, 400, "an agent gets no token for evaluation");
    server.stop().await;
}

async fn inactive_tokens_get_identical_answers(server: Server) {
    let good = server.task_token().await;
    let short = form_with_changes(&server.exchange_form(&server.user_token(json!({}))), &[("expires_in", "1")]);
    let expired = server.issue_token("planner", &short).await;
    wait_until("the token has expired", || async { Server::now() >= decode_claims(&expired)["exp"].as_i64().unwrap() })
        .await;
    let revoked = server.task_token().await;
    server.post_as_planner("/oauth2/revoke", &form(&[("token", &revoked)])).await;
    let suspended = server.task_token().await;
    let task = decode_claims(&suspended)["txn"].clone();
    let path = format!("/tasks/{}/suspend", task.as_str().unwrap());
    let (status, body) = server.admin(Method::POST, &path, Some(json!({"reason": "a question"}))).await;
    assert_eq!(status, 200, "{body}");
    let mut texts = std::collections::BTreeSet::new();
    for (_, token) in [
        ("not a token", "x".to_owned()),
        ("empty", String::new()),
        ("longer than a token", "x".repeat(20_000)),
        ("of the identity provider", server.user_token(json!({}))),
        ("expired", expired),
        ("revoked", revoked),
        ("of a suspended task", suspended.clone()),
        ("malformed", good[..good.len() - 1].to_owned()),
        ("for another resource", server.notes_token().await),
        ("a hand-over token", server.issue_token("planner", &server.delegation_form(&good, "reader")).await),
        ("a transaction token", server.issue_token("planner", &server.txn_form(&good, ACCESS_TOKEN)).await),
        ("an API token", server.api_token("files", "errand:evaluate").await),
    ] {
        let mut answer = server.evaluate(&call(&token, "read_file", json!({}))).await;
        assert_denied(&answer, "inactive", None);
        answer["context"].as_object_mut().unwrap().remove("evaluation_id").unwrap();
        texts.insert(answer.to_string());
        // The answer comes before any other reason.
        let other = call(&token, "no_such_tool", json!({"n": 1.5}));
        let other = with_change(other, "/subject/id", json!("bob"));
        assert_denied(&server.evaluate(&other).await, "inactive", None);
    }
    assert_eq!(texts.len(), 1, "{texts:?}");
    let (_, own) = server.evaluate_as("notes", EVALUATION, &call(&good, "read_file", json!({}))).await;
    assert_denied(&own, "inactive", None);
    let path = format!("/tasks/{}/resume", task.as_str().unwrap());
    assert_eq!(server.admin(Method::POST, &path, Some(json!({"reason": "answered"}))).await.0, 200);
    assert!(server.is_permitted(&call(&suspended, "read_file", json!({}))).await, "the task was resumed");
    server.stop().await;
}

/// Whatever ends a token is acknowledged only when no replica permits a call with it.
async fn ended_token_permits_nothing_on_any_replica(server: Server) {
    let replicas = [server.replica().await, server.replica().await];
    let all = || std::iter::once(&server).chain(&replicas);
    for end in ["token", "task", "agent", "resource", "issuer"] {
        let token = server.task_token().await;
        let claims = decode_claims(&token);
        let asked = call(&token, "read_file", json!({}));
        for replica in all() {
            assert!(replica.is_permitted(&asked).await, "{end}");
        }
        let what = match end {
            "token" => json!({"kind": "token", "id": claims["jti"]}),
            "task" => json!({"kind": "task", "id": claims["txn"]}),
            "agent" => json!({"kind": "agent", "id": "planner"}),
            "resource" => json!({"kind": "resource", "id": "files"}),
            _ => json!({"kind": "issuer", "id": crate::server::IDP}),
        };
        server.revoke(with_change(what, "/reason", json!("a test"))).await;
        for replica in all() {
            assert_denied(&replica.evaluate(&asked).await, "inactive", None);
        }
    }
    for replica in replicas {
        replica.stop().await;
    }
    server.stop().await;
}

/// A body of more than 64 KiB, of which a part is sent.
struct SlowRequest {
    stream: TcpStream,
    rest: String,
}

impl SlowRequest {
    /// Sends so much of the body that the server authenticates the resource.
    async fn begin(server: &Server, token: &str) -> Self {
        let body = call(token, "read_file", json!({"text": "x".repeat(200_000)})).to_string();
        let credentials = STANDARD.encode(format!("files:{}", secret("files")));
        let head = format!(
            "POST {EVALUATION} HTTP/1.1\r\nhost: {}\r\nauthorization: Basic {credentials}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            server.address,
            body.len()
        );
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let (start, rest) = body.split_at(150_000);
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        Self { stream, rest: rest.to_owned() }
    }

    /// Sends the rest and returns the response.
    async fn finish(mut self) -> String {
        self.stream.write_all(self.rest.as_bytes()).await.unwrap();
        let mut answer = String::new();
        self.stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

/// What happens while the body arrives counts: the decision is made at the state afterwards.
async fn state_after_the_body_decides(server: Server) {
    let (token, other) = (server.task_token().await, server.task_token().await);
    let answer = SlowRequest::begin(&server, &token).await.finish().await;
    assert!(answer.contains(r#"{"decision":true,"#), "{answer}");
    let request = SlowRequest::begin(&server, &token).await;
    server.revoke(json!({"kind": "token", "id": decode_claims(&token)["jti"], "reason": "a test"})).await;
    let answer = request.finish().await;
    assert!(answer.contains(r#"{"decision":false,"#) && answer.contains(r#""reason":"inactive""#), "{answer}");
    // The replica lost its lease, so it does not know what was revoked.
    wait_until("the lease is valid", || async { server.application.service.holds_lease() }).await;
    let request = SlowRequest::begin(&server, &other).await;
    make_store_unavailable(&server.store).await;
    wait_until("the lease has lapsed", || async { !server.application.service.holds_lease() }).await;
    let answer = request.finish().await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && !answer.contains("decision"), "{answer}");
    restore_store(&server.store).await;
    let recovered =
        async || server.evaluate_as("files", EVALUATION, &call(&other, "read_file", json!({}))).await.0 == 200;
    wait_until("the store is back", recovered).await;
    server.stop().await;
}

async fn unknown_state_is_no_decision(server: Server) {
    let token = server.task_token().await;
    let asked = call(&token, "read_file", json!({}));
    assert!(server.is_permitted(&asked).await);
    wait_until("the lease is valid", || async { server.application.service.holds_lease() }).await;
    make_store_unavailable(&server.store).await;
    wait_until("the lease has lapsed", || async { !server.application.service.holds_lease() }).await;
    let bearer = server.post(EVALUATION).bearer_auth("x");
    for (name, request) in [
        ("evaluation", server.evaluation_request("files", EVALUATION, &asked)),
        ("no token of this server", server.evaluation_request("files", EVALUATION, &call("x", "read_file", json!({})))),
        ("batch", server.evaluation_request("files", EVALUATIONS, &json!({"evaluations": [asked]}))),
        ("by bearer", bearer.json(&asked)),
    ] {
        let response = request.send().await.unwrap();
        let headers = response.headers().clone();
        let (status, body) = read_response(response).await;
        assert_eq!((status.as_u16(), &body["decision"]), (503, &Value::Null), "{name}: {body}");
        assert_eq!(body["type"], "urn:errand:problem:temporarily_unavailable", "{name}: {body}");
        assert_eq!(headers["retry-after"], "1", "{name}");
    }
    restore_store(&server.store).await;
    let recovered = async || server.evaluate_as("files", EVALUATION, &asked).await.1["decision"] == true;
    wait_until("the store is back", recovered).await;
    server.stop().await;
}
