//! Blocks and suspensions of parties by admins. They also cover parties from the configuration
//! file, and apply at every replica at once until they are lifted.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{FILES, IDP, Server, decode_claims, form, form_with_changes};

on_both_stores!(
    file_agent_can_be_blocked,
    requester_can_be_blocked,
    resource_issuer_and_admin_can_be_blocked,
    agent_can_be_suspended,
    task_can_be_suspended_by_revocation_request,
    block_transitions_follow_in_order,
    invalid_blocks_are_rejected,
    block_and_revocation_commit_atomically,
    repeated_block_is_idempotent,
    no_token_survives_concurrent_block,
);

/// Returns the answer of an admin's revocation request.
async fn send_revocation(server: &Server, body: Value) -> (u16, Value) {
    let mut body = body;
    body["reason"] = json!("for the test");
    let (status, answer) = server.admin(Method::POST, "/revocations", Some(body)).await;
    (status.as_u16(), answer)
}

async fn revoke_acknowledged(server: &Server, body: Value) -> Value {
    let (status, answer) = send_revocation(server, body.clone()).await;
    assert_eq!(status, 200, "{body}: {answer}");
    answer
}

/// Returns the answer when the planner exchanges a fresh user token of this person.
async fn exchange(server: &Server, sub: &str) -> (u16, Value) {
    let user = server.user_token(json!({"sub": sub}));
    let (status, body) = server.request_token_as("planner", &server.exchange_form(&user)).await;
    (status.as_u16(), body)
}

async fn can_exchange(server: &Server, sub: &str) -> bool {
    let (status, body) = exchange(server, sub).await;
    assert!(status == 200 || body["error"].is_string(), "{body}");
    status == 200
}

fn requester_target(sub: &str, changes: Value) -> Value {
    crate::server::with_changes(json!({"kind": "requester", "issuer": IDP, "subject": sub}), changes)
}

fn agent_target(id: &str, changes: Value) -> Value {
    crate::server::with_changes(json!({"kind": "agent", "id": id}), changes)
}

async fn file_agent_can_be_blocked(server: Server) {
    let other = server.replica().await;
    let root = server.task_token().await;
    let hand_over = server.issue_token("planner", &server.delegation_form(&root, "reader")).await;
    let part =
        server.issue_token("reader", &form_with_changes(&server.exchange_form(&hand_over), &[("purpose", "")])).await;
    let api = server.api_token("reader", "errand:tasks").await;
    let answer = revoke_acknowledged(&server, agent_target("reader", json!({"verb": "block"}))).await;
    assert_eq!((&answer["kind"], &answer["key"]), (&json!("agent"), &json!("reader")));
    for at in [&other, &server] {
        assert!(!at.is_active(&part).await && at.is_active(&root).await);
        let (status, body) = at.request_token_as("reader", &at.exchange_form(&hand_over)).await;
        assert_eq!((status.as_u16(), &body["error"]), (401, &json!("invalid_client")));
        let path = format!("/v1/tasks/{}", decode_claims(&root)["txn"].as_str().unwrap());
        assert_eq!(at.request(Method::GET, &path).bearer_auth(&api).send().await.unwrap().status(), 401);
    }
    // No task is delegated to a blocked agent.
    let (status, body) = server.request_token_as("planner", &server.delegation_form(&root, "reader")).await;
    assert_eq!((status.as_u16(), &body["error"]), (400, &json!("invalid_target")));

    // The configuration file is applied at every start and does not lift the block.
    let started = server.replica().await;
    assert_eq!(started.request_token_as("reader", &started.exchange_form(&hand_over)).await.0, 401);
    let (_, view) = started.admin(Method::GET, "/agents/reader", None).await;
    assert_eq!((&view["owner"], &view["body"]["disabled"]), (&json!("file"), &json!(false)));
    let out = &view["block"];
    assert_eq!(
        (&out["mode"], &out["by"], &out["reason"]),
        (&json!("blocked"), &json!("admin:ops"), &json!("for the test"))
    );
    let (_, list) = started.admin(Method::GET, "/blocks", None).await;
    assert_eq!(list["items"], json!([out]), "{list}");
    let (_, all) = started.admin(Method::GET, "/agents", None).await;
    let views = all["items"].as_array().unwrap().iter().filter(|view| view["block"].is_object()).count();
    assert_eq!(views, 1, "{all}");

    revoke_acknowledged(&started, agent_target("reader", json!({"verb": "unblock"}))).await;
    for at in [&other, &server, &started] {
        assert!(!at.is_active(&part).await, "a revoked token stays revoked");
        let api_again = at.request(Method::GET, "/v1/tasks/x").bearer_auth(&api).send().await.unwrap();
        assert_eq!(api_again.status(), 401);
    }
    let (_, list) = other.admin(Method::GET, "/blocks", None).await;
    assert_eq!(list["items"], json!([]));
    let hand_over = server.issue_token("planner", &server.delegation_form(&root, "reader")).await;
    let fresh =
        server.issue_token("reader", &form_with_changes(&server.exchange_form(&hand_over), &[("purpose", "")])).await;
    assert!(other.is_active(&fresh).await, "new tokens are active");
    for at in [started, other, server] {
        at.stop().await;
    }
}

async fn requester_can_be_blocked(server: Server) {
    let other = server.replica().await;
    let (alice, bob) = (server.task_token().await, exchange(&server, "bob").await.1);
    let bob = bob["access_token"].as_str().unwrap();
    revoke_acknowledged(&server, requester_target("alice", json!({"verb": "block"}))).await;
    for at in [&other, &server] {
        assert!(!at.is_active(&alice).await && at.is_active(bob).await);
        let (status, body) = exchange(at, "alice").await;
        assert_eq!((status, &body["error"]), (400, &json!("invalid_request")), "{body}");
        assert!(body["error_description"].as_str().unwrap().contains("requester is blocked"), "{body}");
        assert!(can_exchange(at, "bob").await && can_exchange(at, "alic").await);
    }
    let started = server.replica().await;
    assert!(!can_exchange(&started, "alice").await);
    revoke_acknowledged(&other, requester_target("alice", json!({"verb": "unblock"}))).await;
    assert!(can_exchange(&started, "alice").await && can_exchange(&server, "alice").await);
    assert!(!server.is_active(&alice).await);
    for at in [started, other, server] {
        at.stop().await;
    }
}

async fn resource_issuer_and_admin_can_be_blocked(server: Server) {
    for body in [
        json!({"kind": "resource", "id": "files"}),
        json!({"kind": "resource", "uri": FILES}),
        json!({"kind": "issuer", "id": IDP}),
    ] {
        let token = server.task_token().await;
        revoke_acknowledged(&server, crate::server::with_changes(body.clone(), json!({"verb": "block"}))).await;
        assert!(!can_exchange(&server, "alice").await, "{body}");
        revoke_acknowledged(&server, crate::server::with_changes(body.clone(), json!({"verb": "unblock"}))).await;
        assert!(can_exchange(&server, "alice").await, "{body}");
        assert!(!server.is_active(&token).await, "{body}");
    }
    let api = server.api_token("audit", "errand:audit").await;
    revoke_acknowledged(&server, agent_target("audit", json!({"verb": "block"}))).await;
    assert_eq!(server.admin_with(&api, Method::GET, "/agents", None).await.0, 401);
    let asked = form(&[("grant_type", "client_credentials")]);
    assert_eq!(server.request_token_as("audit", &asked).await.0, 401);
    revoke_acknowledged(&server, agent_target("audit", json!({"verb": "unblock"}))).await;
    assert_eq!(server.request_token_as("audit", &asked).await.0, 200);
    server.stop().await;
}

async fn agent_can_be_suspended(server: Server) {
    let other = server.replica().await;
    let root = server.task_token().await;
    let hand_over = server.issue_token("planner", &server.delegation_form(&root, "reader")).await;
    let again = form_with_changes(&server.exchange_form(&hand_over), &[("purpose", "")]);
    let part = server.issue_token("reader", &again).await;
    revoke_acknowledged(&server, agent_target("planner", json!({"verb": "suspend"}))).await;
    for at in [&other, &server] {
        assert!(!at.is_active(&root).await && !at.is_active(&part).await, "at any position of the chain");
        assert!(!can_exchange(at, "alice").await);
        assert_eq!(at.request_token_as("reader", &again).await.0, 400, "no token is derived from it");
    }
    // A replica that starts now applies the suspension.
    let started = server.replica().await;
    assert!(!started.is_active(&root).await && !can_exchange(&started, "alice").await);
    let path = format!("/tasks/{}", decode_claims(&root)["txn"].as_str().unwrap());
    let (_, tree) = started.admin(Method::GET, &path, None).await;
    assert_eq!(tree["tokens"][0]["standing"], "suspended", "{tree}");
    let (_, list) = started.admin(Method::GET, "/revocations", None).await;
    assert_eq!((&list["items"][0]["verb"], &list["items"][0]["kind"]), (&json!("suspend"), &json!("agent")));
    revoke_acknowledged(&started, agent_target("planner", json!({"verb": "resume"}))).await;
    for at in [&other, &server, &started] {
        assert!(at.is_active(&root).await && at.is_active(&part).await, "the same tokens");
        assert!(can_exchange(at, "alice").await);
    }
    let last = server.replica().await;
    assert!(last.is_active(&root).await, "the last entry applies after a start too");
    for at in [last, started, other, server] {
        at.stop().await;
    }
}

async fn task_can_be_suspended_by_revocation_request(server: Server) {
    let token = server.task_token().await;
    let task = json!({"kind": "task", "id": decode_claims(&token)["txn"]});
    let with = |verb: &str| crate::server::with_changes(task.clone(), json!({"verb": verb}));
    for (verb, status, live) in [
        ("resume", 409, true),
        ("suspend", 200, false),
        ("suspend", 409, false),
        ("resume", 200, true),
        ("suspend", 200, false),
        ("revoke", 200, false),
        ("resume", 409, false),
    ] {
        let (got, answer) = send_revocation(&server, with(verb)).await;
        assert_eq!((got, server.is_active(&token).await), (status, live), "{verb}: {answer}");
        if status == 409 {
            assert_eq!(answer["type"], "urn:errand:problem:wrong_state");
            assert!(answer["state"].is_string(), "{answer}");
        }
    }
    let path = format!("/tasks/{}/trail", task["id"].as_str().unwrap());
    let (_, trail) = server.admin(Method::GET, &path, None).await;
    let texts = trail["steps"].as_array().unwrap().iter().map(|step| step["text"].as_str().unwrap());
    let count = |what: &str| texts.clone().filter(|text| text.contains(what)).count();
    assert_eq!((count("admin:ops suspended the task"), count("admin:ops resumed the task")), (2, 1), "{trail}");
    server.stop().await;
}

async fn block_transitions_follow_in_order(server: Server) {
    // Request, status, whether the first token works afterwards, whether new tokens are issued.
    let first = server.task_token().await;
    for (changes, status, old_works, new_works) in [
        (json!({"verb": "unblock"}), 409, true, true),
        (json!({"verb": "resume"}), 409, true, true),
        (json!({"verb": "suspend"}), 200, false, false),
        (json!({"verb": "suspend"}), 409, false, false),
        (json!({"verb": "unblock"}), 409, false, false),
        (json!({"verb": "block"}), 200, false, false),
        (json!({"verb": "resume"}), 409, false, false),
        (json!({"verb": "suspend"}), 409, false, false),
        (json!({"verb": "block"}), 200, false, false),
        (json!({"verb": "unblock"}), 200, false, true),
        (json!({"verb": "suspend"}), 200, false, false),
        (json!({"verb": "revoke"}), 200, false, false),
        (json!({"verb": "resume"}), 200, false, true),
    ] {
        let (got, answer) = send_revocation(&server, agent_target("planner", changes.clone())).await;
        assert_eq!(got, status, "{changes}: {answer}");
        let started = server.replica().await;
        for at in [&server, &started] {
            let works = (at.is_active(&first).await, can_exchange(at, "alice").await);
            assert_eq!(works, (old_works, new_works), "{changes}");
        }
        started.stop().await;
    }
    server.stop().await;
}

async fn invalid_blocks_are_rejected(server: Server) {
    let token = decode_claims(&server.task_token().await);
    for (body, status, text) in [
        (agent_target("unknown-agent", json!({"verb": "block"})), 404, "agent"),
        (agent_target("unknown-agent", json!({"verb": "suspend"})), 404, "agent"),
        (agent_target("unknown-agent", json!({"verb": "unblock"})), 404, "agent"),
        (agent_target("files", json!({"verb": "block"})), 400, "resource"),
        (agent_target("files", json!({"verb": "suspend"})), 400, "only tasks and agents"),
        (agent_target("ops", json!({"verb": "suspend"})), 400, "only tasks and agents"),
        (json!({"kind": "resource", "id": "files", "verb": "suspend"}), 400, "only tasks and agents"),
        (json!({"kind": "resource", "id": "planner", "verb": "block"}), 404, "resource"),
        (json!({"kind": "resource", "uri": "https://files.example.com", "verb": "block"}), 404, "resource"),
        (json!({"kind": "issuer", "id": "https://login.example.org", "verb": "block"}), 404, "issuer"),
        (requester_target("alice", json!({"issuer": "https://login.example.org", "verb": "block"})), 404, "issuer"),
        (requester_target("alice", json!({"verb": "suspend"})), 400, "only tasks and agents"),
        (requester_target("alice", json!({"verb": "unblock"})), 409, "no admin has blocked"),
        (json!({"kind": "token", "id": token["jti"], "verb": "block"}), 400, "revoke them"),
        (json!({"kind": "token", "id": token["jti"], "verb": "suspend"}), 400, "only tasks and agents"),
        (json!({"kind": "task", "id": token["txn"], "verb": "block"}), 400, "revoke them"),
        (json!({"kind": "task", "id": token["txn"], "verb": "unblock"}), 400, "revoke them"),
        (agent_target("planner", json!({"verb": "enable"})), 400, "`verb` must be one of `revoke`"),
        (agent_target("planner", json!({"verb": true})), 400, "`verb`"),
        (agent_target("planner", json!({"verb": "erase"})), 400, "`verb` must be one of"),
        (agent_target("planner", json!({"disable": true})), 400, "unknown member `disable`"),
        (agent_target("planner", json!({"dry_run": "yes"})), 400, "boolean"),
        (agent_target("planner", json!({"disabled": true})), 400, "unknown member `disabled`"),
        (json!({"id": "planner"}), 400, "kind"),
        (json!({"kind": "registry"}), 400, "kind"),
    ] {
        let (got, answer) = send_revocation(&server, body.clone()).await;
        assert_eq!(got, status, "{body}: {answer}");
        assert!(answer["detail"].as_str().unwrap().contains(text), "{body}: {answer}");
    }
    let reader = server.api_token("audit", "errand:audit").await;
    let body = agent_target("planner", json!({"verb": "block", "reason": "x"}));
    assert_eq!(server.admin_with(&reader, Method::POST, "/revocations", Some(body)).await.0, 403);
    assert_eq!(server.admin_with(&reader, Method::GET, "/blocks", None).await.0, 200);
    let without_reason = agent_target("planner", json!({"verb": "block"}));
    assert_eq!(server.admin(Method::POST, "/revocations", Some(without_reason)).await.0, 400);
    assert!(can_exchange(&server, "alice").await);
    server.stop().await;
}

async fn block_and_revocation_commit_atomically(server: Server) {
    let before = server.admin(Method::GET, "/revocations", None).await.1["items"].as_array().unwrap().len();
    let answer = revoke_acknowledged(&server, agent_target("reader", json!({"verb": "block"}))).await;
    let (_, list) = server.admin(Method::GET, "/revocations", None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), before + 1, "{list}");
    let entry = &list["items"][0];
    assert_eq!((&entry["kind"], &entry["key"], &entry["verb"]), (&json!("agent"), &json!("reader"), &json!("revoke")));
    assert_eq!(
        entry["seq"].as_u64().unwrap() + 1,
        answer["seq"].as_u64().unwrap(),
        "together with the registry change"
    );
    let (_, trail) = server.admin(Method::GET, "/audit?event=revocation&agent=reader", None).await;
    let record = &trail["items"][0]["record"];
    assert_eq!(record["requested"], json!({"kind": "agent", "key": "reader", "verb": "block"}));
    assert_eq!((&record["admin"], &record["outcome"]), (&json!("admin:ops"), &json!("done")));
    // An object that is removed and added again has the name of a blocked party.
    let guest = json!({"id": "guest", "authentication": {"method": "client_secret_basic"}});
    assert_eq!(server.admin(Method::PUT, "/agents/guest", Some(guest.clone())).await.0, 201);
    revoke_acknowledged(&server, agent_target("guest", json!({"verb": "block"}))).await;
    assert_eq!(server.admin(Method::DELETE, "/agents/guest", None).await.0, 204);
    assert_eq!(send_revocation(&server, agent_target("guest", json!({"verb": "block"}))).await.0, 404);
    let (status, put) = server.admin(Method::PUT, "/agents/guest", Some(guest)).await;
    assert_eq!((status.as_u16(), &put["block"]["mode"]), (201, &json!("blocked")), "{put}");
    assert_eq!(server.admin(Method::DELETE, "/agents/guest", None).await.0, 204);
    revoke_acknowledged(&server, agent_target("guest", json!({"verb": "unblock"}))).await;
    server.stop().await;
}

async fn repeated_block_is_idempotent(server: Server) {
    let other = server.replica().await;
    let api = server.api_token("ops", "errand:admin").await;
    let send = async |at: &Server, key: &str, body: Value| {
        let request = at.post("/v1/admin/revocations").bearer_auth(&api).header("idempotency-key", key);
        let (status, body) = crate::server::read_response(request.json(&body).send().await.unwrap()).await;
        (status.as_u16(), crate::server::without_propagation(body))
    };
    let body = |changes| crate::server::with_changes(agent_target("reader", changes), json!({"reason": "once"}));
    let suspend = body(json!({"verb": "suspend"}));
    let first = send(&server, "k", suspend.clone()).await;
    assert_eq!(first.0, 200, "{first:?}");
    assert_eq!(
        send(&other, "k", suspend.clone()).await,
        first,
        "a repeated request gets the same response, although the agent is already suspended"
    );
    assert_eq!(send(&other, "k", body(json!({"verb": "resume"}))).await.0, 422);
    assert_eq!(send(&other, "k2", body(json!({"verb": "resume"}))).await.0, 200);
    assert_eq!(send(&server, "k", suspend).await, first, "the agent is not suspended again");
    let (_, list) = server.admin(Method::GET, "/blocks", None).await;
    assert_eq!(list["items"], json!([]));
    // Concurrent requests with the same key at both replicas get the same answer.
    for round in 0..4 {
        let verb = if round % 2 == 0 { "suspend" } else { "resume" };
        let (key, body) = (format!("round {round}"), body(json!({"verb": verb})));
        let tries = (0..8).map(|n| send(if n % 2 == 0 { &server } else { &other }, &key, body.clone()));
        let answers = futures_util::future::join_all(tries).await;
        assert!(answers.iter().all(|answer| *answer == answers[0] && answer.0 == 200), "{verb}: {answers:?}");
    }
    other.stop().await;
    server.stop().await;
}

/// Exchanges run at both replicas while a requester and an agent are blocked. No token issued
/// before or meanwhile is active.
async fn no_token_survives_concurrent_block(server: Server) {
    let other = server.replica().await;
    for body in [requester_target("alice", json!({"verb": "block"})), agent_target("planner", json!({"verb": "block"}))]
    {
        let user = server.user_token(json!({}));
        let many = (0..24).map(|n| {
            let at = if n % 2 == 0 { &server } else { &other };
            let form = at.exchange_form(&user);
            async move { at.request_token_as("planner", &form).await.1["access_token"].as_str().map(str::to_owned) }
        });
        let shut = async {
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
            revoke_acknowledged(&server, body.clone()).await
        };
        let (issued, _) = tokio::join!(futures_util::future::join_all(many), shut);
        for token in issued.into_iter().flatten() {
            assert!(!server.is_active(&token).await && !other.is_active(&token).await, "{body}");
        }
        assert!(!can_exchange(&other, "alice").await);
        let lifted = crate::server::with_changes(body, json!({"verb": "unblock"}));
        revoke_acknowledged(&server, lifted).await;
    }
    other.stop().await;
    server.stop().await;
}
