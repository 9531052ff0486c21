//! Revocation: exactly the intended tokens end, everywhere, and tokens issued afterwards are
//! active.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{
    ACCESS_TOKEN, FILES, IDP, NOTES, Server, decode_claims, form, form_with_changes, read_response, without_propagation,
};

on_both_stores!(
    client_revokes_its_own_tokens,
    each_target_kind_ends_its_subtree,
    token_issued_after_revocation_stays_active,
    revocation_and_audit_record_commit_together,
    repeated_revocation_is_idempotent,
    revocation_records_its_admin,
    revocation_records_its_subject,
);

/// Tokens of two requesters, two agents and two resources.
struct TokenTree {
    /// (name, resource that introspects, token)
    tokens: Vec<(&'static str, &'static str, String)>,
    hand_over: String,
    txn: String,
}

impl TokenTree {
    fn get(&self, name: &str) -> &str {
        &self.tokens.iter().find(|(other, ..)| *other == name).unwrap().2
    }

    /// Returns the names of the active tokens, and whether the delegation token and the transaction
    /// token can be used.
    async fn active_tokens(&self, server: &Server) -> Vec<&'static str> {
        let mut alive = Vec::new();
        for (name, resource, token) in &self.tokens {
            let (_, answer) = server.post_as(resource, "/oauth2/introspect", &form(&[("token", token)])).await;
            if answer["active"] == true {
                alive.push(*name);
            } else {
                assert_eq!(answer, json!({"active": false}));
            }
        }
        let again = form_with_changes(&server.exchange_form(&self.hand_over), &[("purpose", "")]);
        if server.request_token_as("reader", &again).await.0 == 200 {
            alive.push("hand-over");
        }
        let again = form_with_changes(&server.txn_form(&self.txn, crate::server::TXN_TOKEN), &[("purpose", "")]);
        if server.request_token_as("planner", &again).await.0 == 200 {
            alive.push("txn");
        }
        alive
    }
}

const ALL: [&str; 7] = ["root", "child", "part", "joined", "notes", "bob", "reader"];

/// root → child, root → hand-over → part (reader), root → txn; joined: the same task; notes:
/// another resource; bob: another requester; reader: another agent.
async fn issue_tree(server: &Server) -> TokenTree {
    let root = server.task_token().await;
    let again = |token: &str| form_with_changes(&server.exchange_form(token), &[("purpose", "")]);
    let child = server.issue_token("planner", &again(&root)).await;
    let hand_over = server.issue_token("planner", &server.delegation_form(&root, "reader")).await;
    let part = server.issue_token("reader", &again(&hand_over)).await;
    let txn = server
        .issue_token("planner", &form_with_changes(&server.txn_form(&root, ACCESS_TOKEN), &[("purpose", "")]))
        .await;
    let task = decode_claims(&root)["txn"].as_str().unwrap().to_owned();
    let user = server.user_token(json!({}));
    let joined = form_with_changes(&server.exchange_form(&user), &[("purpose", ""), ("task_id", &task)]);
    let joined = server.issue_token("planner", &joined).await;
    let user = server.user_token(json!({"scope": "notes:read"}));
    let notes = form_with_changes(&server.exchange_form(&user), &[("resource", NOTES), ("scope", "notes:read")]);
    let notes = server.issue_token("planner", &notes).await;
    let bob = server.issue_token("planner", &server.exchange_form(&server.user_token(json!({"sub": "bob"})))).await;
    let other = server.user_token(json!({"client_id": "reader-client", "sub": "carol"}));
    let reader = server.issue_token("reader", &server.exchange_form(&other)).await;
    let at = ["files", "files", "files", "files", "notes", "files", "files"];
    let tokens = [root, child, part, joined, notes, bob, reader];
    let tokens = ALL.into_iter().zip(at).zip(tokens).map(|((name, at), token)| (name, at, token)).collect();
    TokenTree { tokens, hand_over, txn }
}

/// The target of a revocation, and the tokens that stay active.
type Row = (&'static str, fn(&TokenTree) -> Value, &'static [&'static str]);

async fn each_target_kind_ends_its_subtree(server: Server) {
    let other = server.replica().await;
    // All users here are of one issuer, so its revocation ends all tokens.
    let rows: [Row; 10] = [
        (
            "a leaf",
            |t| json!({"kind": "token", "id": decode_claims(t.get("child"))["jti"]}),
            &["root", "part", "joined", "notes", "bob", "reader", "hand-over", "txn"],
        ),
        (
            "the root",
            |t| json!({"kind": "token", "id": decode_claims(t.get("root"))["jti"]}),
            &["joined", "notes", "bob", "reader"],
        ),
        (
            "the hand-over",
            |t| json!({"kind": "token", "id": decode_claims(&t.hand_over)["jti"]}),
            &["root", "child", "joined", "notes", "bob", "reader", "txn"],
        ),
        (
            "the task",
            |t| json!({"kind": "task", "id": decode_claims(t.get("root"))["txn"]}),
            &["notes", "bob", "reader"],
        ),
        ("the requester", |_| json!({"kind": "requester", "issuer": IDP, "subject": "alice"}), &["bob", "reader"]),
        ("the first agent", |_| json!({"kind": "agent", "id": "planner"}), &["reader"]),
        (
            "the second agent",
            |_| json!({"kind": "agent", "id": "reader"}),
            &["root", "child", "joined", "notes", "bob", "txn"],
        ),
        ("a resource", |_| json!({"kind": "resource", "id": "files"}), &["notes"]),
        ("a resource, by where it is", |_| json!({"kind": "resource", "uri": FILES}), &["notes"]),
        ("the issuer", |_| json!({"kind": "issuer", "id": IDP}), &[]),
    ];
    for (name, target, want) in rows {
        let tree = issue_tree(&server).await;
        let whole = [&ALL[..], &["hand-over", "txn"]].concat();
        assert_eq!(tree.active_tokens(&other).await, whole, "before {name}");
        let mut body = target(&tree);
        body["reason"] = json!("for the test");
        let answer = server.revoke(body.clone()).await;
        assert_eq!(answer["kind"], body["kind"]);
        for at in [&other, &server] {
            assert_eq!(tree.active_tokens(at).await, want, "after {name}");
        }
        // Separates the tokens of this round from those of the next one.
        assert!(answer["seq"].as_u64().unwrap() > 0);
    }
    // The name of another party, an unknown name, or a part of a name ends no token.
    let tree = issue_tree(&server).await;
    let whole = [&ALL[..], &["hand-over", "txn"]].concat();
    for (body, want) in [
        (json!({"kind": "requester", "issuer": IDP, "subject": "alic"}), 200),
        (json!({"kind": "requester", "issuer": "https://login.example.org", "subject": "alice"}), 200),
        (json!({"kind": "agent", "id": "writer"}), 200),
        (json!({"kind": "agent", "id": "unknown-agent"}), 200),
        (json!({"kind": "resource", "id": "planner"}), 404),
        (json!({"kind": "resource", "uri": "https://files.example.com"}), 200),
        (json!({"kind": "resource", "id": "files", "uri": FILES}), 400),
        (json!({"kind": "resource"}), 400),
        (json!({"kind": "issuer", "id": "https://login.example.org"}), 200),
        (json!({"kind": "token", "id": "01970000-0000-7000-8000-00000000abcd"}), 404),
        (json!({"kind": "task", "id": "01970000-0000-7000-8000-00000000abcd"}), 404),
    ] {
        let mut body = body;
        body["reason"] = json!("for the test");
        let (status, answer) = server.admin(Method::POST, "/revocations", Some(body.clone())).await;
        assert_eq!(status, want, "{body} {answer}");
    }
    assert_eq!(tree.active_tokens(&other).await, whole);
    other.stop().await;
    server.stop().await;
}

async fn token_issued_after_revocation_stays_active(server: Server) {
    for body in [
        json!({"kind": "requester", "issuer": IDP, "subject": "alice"}),
        json!({"kind": "agent", "id": "planner"}),
        json!({"kind": "resource", "id": "files"}),
        json!({"kind": "issuer", "id": IDP}),
    ] {
        let before = server.task_token().await;
        let mut body = body;
        body["reason"] = json!("a new beginning");
        server.revoke(body.clone()).await;
        let after = server.task_token().await;
        assert_eq!((server.is_active(&before).await, server.is_active(&after).await), (false, true), "{body}");
        assert!(decode_claims(&before)["rev"].as_u64() < decode_claims(&after)["rev"].as_u64());
        // Tokens derived from revoked tokens stay revoked.
        let (status, _) = server.post_as_planner("/oauth2/token", &server.exchange_form(&before)).await;
        assert_eq!(status, 400);
    }
    // The API tokens of a revoked agent end too.
    let api = server.api_token("files", "errand:introspect").await;
    server.revoke(json!({"kind": "agent", "id": "files", "reason": "its API token leaked"})).await;
    let (status, _) = read_response(
        server.post("/oauth2/introspect").bearer_auth(&api).form(&form(&[("token", "x")])).send().await.unwrap(),
    )
    .await;
    assert_eq!(status, 401);
    server.stop().await;
}

async fn client_revokes_its_own_tokens(server: Server) {
    let root = server.task_token().await;
    let hand_over = server.issue_token("planner", &server.delegation_form(&root, "reader")).await;
    let again = |token: &str| form_with_changes(&server.exchange_form(token), &[("purpose", "")]);
    let part = server.issue_token("reader", &again(&hand_over)).await;
    let back = async |client: &str, token: &str| {
        let form = form(&[("token", token), ("token_type_hint", "access_token")]);
        let (status, body) = match client {
            "planner" => server.post_as_planner("/oauth2/revoke", &form).await,
            _ => server.post_as(client, "/oauth2/revoke", &form).await,
        };
        (status.as_u16(), body["error"].as_str().unwrap_or_default().to_owned())
    };
    let not_mine = (400, "unauthorized_client".to_owned());
    let done = (200, String::new());
    for client in ["stranger", "writer", "files", "ops"] {
        assert_eq!(back(client, &part).await, not_mine, "{client}");
    }
    assert_eq!(back("reader", &root).await, not_mine, "a client can't revoke an ancestor of its token");
    assert!(server.is_active(&part).await && server.is_active(&root).await);
    for unknown in ["x", "a.b.c", &server.user_token(json!({}))] {
        assert_eq!(back("reader", unknown).await, done);
    }
    assert_eq!(back("planner", &part).await, done, "a client can revoke a token derived from its own");
    assert!(!server.is_active(&part).await && server.is_active(&root).await);
    let entries = async || {
        let (_, list) = server.admin(Method::GET, "/revocations", None).await;
        list["items"].as_array().unwrap().len()
    };
    let before = entries().await;
    assert_eq!(back("planner", &part).await, done, "a repeated revocation succeeds");
    assert_eq!(
        back("stranger", &part).await,
        not_mine,
        "a token of another client can't be revoked, even after it ended"
    );
    assert_eq!(entries().await, before, "a repeated revocation adds no entry");
    let other = server.issue_token("reader", &again(&hand_over)).await;
    assert_eq!(back("reader", &other).await, done, "its own");
    assert!(!server.is_active(&other).await);
    let last = server.issue_token("reader", &again(&hand_over)).await;
    assert_eq!(back("planner", &root).await, done, "derived tokens are revoked too");
    assert!(!server.is_active(&root).await && !server.is_active(&last).await);
    let before = entries().await;
    assert_eq!(back("reader", &last).await, done, "a derived token ends with its ancestor");
    assert_eq!(entries().await, before);
    let (status, body) = server.post_as("reader", "/oauth2/revoke", &form(&[])).await;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!("invalid_request")));
    let (status, _) =
        read_response(server.post("/oauth2/revoke").form(&form(&[("token", &root)])).send().await.unwrap()).await;
    assert_eq!(status, 401);
    // Only its own client can revoke an API token.
    let api = server.api_token("ops", "errand:admin").await;
    assert_eq!(back("reader", &api).await, not_mine);
    assert_eq!(back("ops", &api).await, done);
    assert_eq!(server.admin_with(&api, Method::GET, "/agents", None).await.0, 401);
    server.stop().await;
}

async fn revocation_and_audit_record_commit_together(server: Server) {
    let claims = decode_claims(&server.task_token().await);
    let body = json!({"kind": "task", "id": claims["txn"], "reason": "an operator ended it"});
    let api = server.api_token("ops", "errand:admin errand:audit").await;
    let request = server.post("/v1/admin/revocations").bearer_auth(&api).header("x-request-id", "the-end-of-it");
    let (status, answer) = read_response(request.json(&body).send().await.unwrap()).await;
    assert_eq!(status, 200);
    let (_, list) = server.admin(Method::GET, "/revocations", None).await;
    let entry = &list["items"][0];
    assert_eq!((&entry["seq"], &entry["kind"], &entry["key"]), (&answer["seq"], &json!("task"), &claims["txn"]));
    assert_eq!((&entry["reason"], &entry["by"]), (&json!("an operator ended it"), &json!("admin:ops")));
    let (_, trail) = server.admin(Method::GET, &format!("/audit?task={}", claims["txn"].as_str().unwrap()), None).await;
    let records = trail["items"].as_array().unwrap().iter().map(|item| &item["record"]);
    let record = records.clone().find(|record| record["event"] == "revocation").unwrap_or_else(|| panic!("{trail}"));
    assert_eq!((&record["admin"], &record["reason"]), (&json!("admin:ops"), &json!("an operator ended it")));
    assert_eq!((&record["request_id"], &record["task"]), (&json!("the-end-of-it"), &claims["txn"]));
    assert_eq!(record["purpose"], "the quarterly report");
    server.stop().await;
}

async fn repeated_revocation_is_idempotent(server: Server) {
    let (one, two) = (decode_claims(&server.task_token().await), decode_claims(&server.task_token().await));
    let other = server.replica().await;
    let api = server.api_token("ops", "errand:admin").await;
    let send = async |at: &Server, key: &str, body: &Value| {
        let request = at.post("/v1/admin/revocations").bearer_auth(&api).header("idempotency-key", key);
        let (status, body) = read_response(request.json(body).send().await.unwrap()).await;
        (status.as_u16(), without_propagation(body))
    };
    let body = json!({"kind": "task", "id": one["txn"], "reason": "once"});
    let first = send(&server, "key-1", &body).await;
    assert_eq!(first.0, 200, "{first:?}");
    for at in [&server, &other, &server] {
        assert_eq!(
            send(at, "key-1", &body).await,
            first,
            "a repeated request gets the same response and adds no entry"
        );
    }
    let (_, list) = server.admin(Method::GET, "/revocations", None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    for changed in [
        json!({"kind": "task", "id": two["txn"], "reason": "once"}),
        json!({"kind": "task", "id": one["txn"], "reason": "twice"}),
        json!({"kind": "token", "id": one["jti"], "reason": "once"}),
    ] {
        assert_eq!(send(&other, "key-1", &changed).await.0, 422, "{changed}");
    }
    // Concurrent requests at both replicas: one entry, one answer.
    let body = json!({"kind": "task", "id": two["txn"], "reason": "at once"});
    let tries = (0..8).map(|n| {
        let at = if n % 2 == 0 { &server } else { &other };
        let request = at.post("/v1/admin/revocations").bearer_auth(&api).header("idempotency-key", "key-2");
        tokio::spawn(request.json(&body).send())
    });
    let mut answers = Vec::new();
    for answer in tries.collect::<Vec<_>>() {
        let (status, body) = read_response(answer.await.unwrap().unwrap()).await;
        assert_eq!(status, 200, "{body}");
        answers.push(body["seq"].as_u64().unwrap());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
    other.stop().await;
    server.stop().await;
}

async fn revocation_records_its_admin(server: Server) {
    let token = server.task_token().await;
    let body = json!({"kind": "token", "id": decode_claims(&token)["jti"], "reason": "let me"});
    let own = server.issue_token("planner", &form(&[("grant_type", "client_credentials")])).await;
    for (name, bearer, want) in [
        ("auditor", server.api_token("audit", "errand:audit").await, 403),
        ("operator without the scope", server.api_token("ops", "errand:audit").await, 403),
        ("resource", server.api_token("files", "errand:introspect errand:tasks").await, 403),
        ("agent", own, 403),
        ("task token", token.clone(), 401),
    ] {
        let (status, answer) = server.admin_with(&bearer, Method::POST, "/revocations", Some(body.clone())).await;
        assert_eq!(status, want, "{name} {answer}");
    }
    let bare = server.post("/v1/admin/revocations").json(&body).send().await.unwrap();
    assert_eq!(bare.status(), 401);
    assert!(bare.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer "));
    assert!(server.is_active(&token).await, "{FILES}");
    server.stop().await;
}

async fn revocation_records_its_subject(server: Server) {
    let tree = issue_tree(&server).await;
    let end = async |name: &str, body: Value| {
        let mut body = body;
        body["reason"] = json!("for the test");
        let api = server.api_token("ops", "errand:admin").await;
        let request = server.post("/v1/admin/revocations").bearer_auth(&api).header("x-request-id", name);
        let (status, answer) = read_response(request.json(&body).send().await.unwrap()).await;
        assert_eq!(status, 200, "{answer}");
        server.audit_record_of(name).await
    };
    let part = decode_claims(tree.get("part"));
    let record = end("a-token", json!({"kind": "token", "id": part["jti"]})).await;
    assert_eq!((&record["agents"], &record["resource"]), (&json!(["reader", "planner"]), &json!(FILES)));
    let record = end("an-issuer", json!({"kind": "issuer", "id": IDP})).await;
    assert_eq!((&record["resource"], &record["requested"]), (&Value::Null, &json!({"kind": "issuer", "key": IDP})));
    let record = end("a-resource", json!({"kind": "resource", "uri": NOTES})).await;
    assert_eq!(record["resource"], NOTES);
    server.stop().await;
}
