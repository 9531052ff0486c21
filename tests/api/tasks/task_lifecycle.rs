//! The lifecycle of a task over HTTP: suspended, resumed and ended, by authorized parties only.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::server::{NOTES, Server, decode_claims, form_with_changes, read_response, without_propagation};

on_both_stores!(
    resumed_task_reactivates_its_tokens,
    completion_ends_tokens_of_both_agents,
    illegal_transition_is_rejected_with_state,
    transitions_require_the_right_party,
    admin_takes_over_suspension,
    revocation_ends_the_task,
    task_expires_once_at_deadline,
    concurrent_ends_produce_one_transition,
    repeated_transition_is_idempotent,
    task_is_listed_with_its_tokens,
);

/// Sends a request to the task API, as a client with its API token.
async fn send(server: &Server, client: &str, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let token = server.api_token(client, "errand:tasks").await;
    let request = server.request(method, &format!("/v1/tasks{path}")).bearer_auth(token);
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    let (status, body) = read_response(request.send().await.unwrap()).await;
    (status.as_u16(), body)
}

async fn transition(server: &Server, client: &str, task: &str, act: &str, body: Value) -> (u16, Value) {
    send(server, client, Method::POST, &format!("/{task}/{act}"), Some(body)).await
}

async fn admin_transition(server: &Server, task: &str, act: &str, body: Value) -> (u16, Value) {
    let (status, body) = server.admin(Method::POST, &format!("/tasks/{task}/{act}"), Some(body)).await;
    (status.as_u16(), body)
}

fn reason_body() -> Value {
    json!({"reason": "the test says so"})
}

fn task_of(token: &str) -> String {
    decode_claims(token)["txn"].as_str().unwrap().to_owned()
}

/// Returns a token of `reader` for a part of the authority of `planner`'s token.
async fn derive_token(server: &Server, token: &str) -> String {
    let handed = server.issue_token("planner", &server.delegation_form(token, "reader")).await;
    server.issue_token("reader", &server.exchange_form(&handed)).await
}

async fn audit_records(server: &Server, task: &str, event: &str) -> Vec<Value> {
    let (status, body) = server.admin(Method::GET, &format!("/audit?task={task}"), None).await;
    assert_eq!(status, 200, "{body}");
    let records = body["items"].as_array().unwrap().iter().map(|item| item["record"].clone());
    records.filter(|record| record["event"] == event).collect()
}

async fn resumed_task_reactivates_its_tokens(server: Server) {
    let user = server.user_token(json!({}));
    let token = server.issue_token("planner", &server.exchange_form(&user)).await;
    let part = derive_token(&server, &token).await;
    let task = task_of(&token);
    let join = form_with_changes(&server.exchange_form(&user), &[("purpose", ""), ("task_id", &task)]);
    let replica = server.replica().await;
    for round in 0..2 {
        assert!(server.is_active(&token).await && replica.is_active(&part).await, "round {round}");
        let (status, body) = transition(&server, "planner", &task, "suspend", json!({"reason": "lunch"})).await;
        assert_eq!((status, &body["state"]), (200, &json!("suspended")), "{body}");
        assert_eq!(
            (&body["last_transition"]["by"], &body["last_transition"]["reason"]),
            (&json!("client:planner"), &json!("lunch"))
        );
        for at in [&server, &replica] {
            for held in [&token, &part] {
                assert_eq!(at.introspect(held).await, json!({"active": false}));
            }
            let derived = at.request_token_as("planner", &at.delegation_form(&token, "reader")).await;
            let joined = at.request_token_as("planner", &join).await;
            for (status, body) in [derived, joined] {
                assert_eq!((status, &body["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")), "{body}");
                assert!(body["error_description"].as_str().unwrap().contains("suspended"), "{body}");
            }
        }
        let (status, body) = transition(&replica, "planner", &task, "resume", json!({})).await;
        assert_eq!((status, &body["state"]), (200, &json!("active")), "{body}");
        for at in [&server, &replica] {
            assert!(at.is_active(&token).await && at.is_active(&part).await);
        }
    }
    // A token that was revoked during the suspension is not resumed with the task.
    transition(&server, "planner", &task, "suspend", reason_body()).await;
    server.revoke(json!({"kind": "token", "id": decode_claims(&part)["jti"], "reason": "lost"})).await;
    transition(&server, "planner", &task, "resume", json!({})).await;
    assert!(server.is_active(&token).await && !server.is_active(&part).await);
    server.issue_token("planner", &join).await;
    assert_eq!(audit_records(&server, &task, "task.transition").await.len(), 6);
    replica.stop().await;
    server.stop().await;
}

async fn completion_ends_tokens_of_both_agents(server: Server) {
    for (end, state, body) in [
        ("complete", "completed", json!({"outcome": "the report is in the folder"})),
        ("fail", "failed", json!({"reason": "the folder is gone", "outcome": "nothing was written"})),
    ] {
        let user = server.user_token(json!({}));
        let token = server.issue_token("planner", &server.exchange_form(&user)).await;
        let part = derive_token(&server, &token).await;
        let task = task_of(&token);
        let (status, answer) = transition(&server, "planner", &task, end, body.clone()).await;
        assert_eq!((status, &answer["state"]), (200, &json!(state)), "{answer}");
        assert_eq!(answer["last_transition"]["outcome"], body["outcome"]);
        for dead in [&token, &part] {
            assert_eq!(server.introspect(dead).await, json!({"active": false}));
        }
        let join = form_with_changes(&server.exchange_form(&user), &[("purpose", ""), ("task_id", &task)]);
        let (status, refused) = server.request_token_as("planner", &join).await;
        assert_eq!(status, 400);
        assert!(refused["error_description"].as_str().unwrap().contains("has ended"), "{refused}");
        let records = audit_records(&server, &task, "task.transition").await;
        let [record] = &records[..] else { panic!("{records:?}") };
        assert_eq!((&record["outcome"], &record["client"]), (&json!("done"), &json!("planner")));
        assert_eq!(record["granted"], json!({"state": state, "outcome": body["outcome"]}));
        let (_, log) = server.admin(Method::GET, "/revocations?limit=1", None).await;
        let entry = &log["items"][0];
        assert_eq!(
            (&entry["key"], &entry["verb"], &entry["by"]),
            (&json!(task), &json!("revoke"), &json!("client:planner"))
        );
    }
    server.stop().await;
}

async fn illegal_transition_is_rejected_with_state(server: Server) {
    let token = server.task_token().await;
    let task = task_of(&token);
    let refused = async |act: &str, state: &str| {
        let (status, body) = admin_transition(&server, &task, act, reason_body()).await;
        assert_eq!((status, &body["state"]), (409, &json!(state)), "{act}: {body}");
        assert!(body["detail"].as_str().unwrap().starts_with(&format!("the task is {state} and can't be")), "{body}");
    };
    refused("resume", "active").await;
    assert_eq!(admin_transition(&server, &task, "suspend", reason_body()).await.0, 200);
    refused("suspend", "suspended").await;
    assert_eq!(admin_transition(&server, &task, "complete", json!({})).await.0, 200);
    for act in ["suspend", "resume", "complete", "fail"] {
        refused(act, "completed").await;
    }
    assert_eq!(
        audit_records(&server, &task, "task.transition").await.iter().filter(|r| r["outcome"] == "refused").count(),
        6
    );
    // Required and forbidden members.
    let other = task_of(&server.task_token().await);
    for (act, body, status) in [
        ("suspend", json!({}), 400),
        ("fail", json!({"outcome": "x"}), 400),
        ("suspend", json!({"reason": "x", "outcome": "x"}), 400),
        ("suspend", json!({"reason": ""}), 400),
        ("suspend", json!({"reason": "x".repeat(501)}), 400),
        ("complete", json!({"outcome": "a\u{0}b"}), 400),
        ("complete", json!({"result": "x"}), 400),
        ("complete", json!([]), 400),
    ] {
        let (got, answer) = admin_transition(&server, &other, act, body.clone()).await;
        assert_eq!(got, status, "{act} {body}: {answer}");
    }
    for unknown in ["x", "01970000-0000-7000-8000-00000000abcd"] {
        assert_eq!(admin_transition(&server, unknown, "suspend", reason_body()).await.0, 404);
        assert_eq!(transition(&server, "planner", unknown, "suspend", reason_body()).await.0, 404);
    }
    let (_, body) = send(&server, "planner", Method::GET, &format!("/{other}"), None).await;
    assert_eq!((&body["state"], &body["last_transition"]), (&json!("active"), &Value::Null), "{body}");
    server.stop().await;
}

async fn transitions_require_the_right_party(server: Server) {
    let token = server.task_token().await;
    let task = task_of(&token);
    let path = format!("/{task}");
    // Before `reader` takes part, it gets `not_found`. Afterwards it can read the task and nothing
    // else.
    assert_eq!(send(&server, "reader", Method::GET, &path, None).await.0, 404);
    assert_eq!(transition(&server, "reader", &task, "fail", reason_body()).await.0, 404);
    let part = derive_token(&server, &token).await;
    let (status, body) = send(&server, "reader", Method::GET, &path, None).await;
    assert_eq!((status, &body["purpose"]), (200, &json!("the quarterly report")), "{body}");
    for action in ["suspend", "resume", "complete", "fail"] {
        assert_eq!(transition(&server, "reader", &task, action, reason_body()).await.0, 403, "{action}");
        assert_eq!(transition(&server, "stranger", &task, action, reason_body()).await.0, 404, "{action}");
        assert_eq!(transition(&server, "files", &task, action, reason_body()).await.0, 403, "{action}");
    }
    assert_eq!(send(&server, "stranger", Method::GET, &path, None).await.0, 404);
    assert_eq!(send(&server, "files", Method::GET, &path, None).await.0, 403);
    // Neither a task token nor another API token gives access. An agent's token gives no access to
    // admin endpoints.
    let with = async |bearer: &str, path: &str| {
        let request = server.request(Method::GET, path).bearer_auth(bearer);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(with(&token, &format!("/v1/tasks/{task}")).await, 401);
    let admin = server.api_token("ops", "errand:admin").await;
    assert_eq!(with(&admin, &format!("/v1/tasks/{task}")).await, 403);
    let agent = server.api_token("planner", "errand:tasks").await;
    assert_eq!(with(&agent, &format!("/v1/admin/tasks/{task}")).await, 403);
    let auditor = server.api_token("audit", "errand:audit").await;
    let read_only =
        server.admin_with(&auditor, Method::POST, &format!("/tasks/{task}/fail"), Some(reason_body())).await;
    assert_eq!(read_only.0, 403);
    assert!(server.is_active(&token).await && server.is_active(&part).await, "refused requests change nothing");
    // An agent can't resume what an admin suspended.
    assert_eq!(admin_transition(&server, &task, "suspend", reason_body()).await.0, 200);
    let (status, body) = transition(&server, "planner", &task, "resume", json!({})).await;
    assert_eq!((status, &body["state"]), (409, &json!("suspended")), "{body}");
    assert!(!server.is_active(&token).await);
    assert_eq!(admin_transition(&server, &task, "resume", json!({})).await.0, 200);
    assert!(server.is_active(&token).await);
    server.stop().await;
}

async fn admin_takes_over_suspension(server: Server) {
    let token = server.task_token().await;
    let task = task_of(&token);
    assert_eq!(transition(&server, "planner", &task, "suspend", reason_body()).await.0, 200);
    assert_eq!(admin_transition(&server, &task, "suspend", json!({"reason": "looked into"})).await.0, 200);
    assert_eq!(transition(&server, "planner", &task, "resume", json!({})).await.0, 409);
    assert!(!server.is_active(&token).await);
    assert_eq!(admin_transition(&server, &task, "resume", json!({})).await.0, 200);
    assert!(server.is_active(&token).await);
    server.stop().await;
}

async fn revocation_ends_the_task(server: Server) {
    let state = async |task: &str| {
        let (_, body) = server.admin(Method::GET, &format!("/tasks/{task}"), None).await;
        body["state"].as_str().unwrap().to_owned()
    };
    let token = server.task_token().await;
    let task = task_of(&token);
    assert_eq!(admin_transition(&server, &task, "suspend", reason_body()).await.0, 200);
    let first = server.revoke(json!({"kind": "task", "id": task, "reason": "enough"})).await;
    assert_eq!(state(&task).await, "revoked");
    assert!(!server.is_active(&token).await);
    // Revoking a task that has ended is never refused, and the task keeps its state.
    let again = server.revoke(json!({"kind": "task", "id": task, "reason": "enough"})).await;
    assert!(again["seq"].as_u64() > first["seq"].as_u64(), "{first} {again}");
    let done = task_of(&server.task_token().await);
    assert_eq!(transition(&server, "planner", &done, "complete", json!({})).await.0, 200);
    server.revoke(json!({"kind": "task", "id": done, "reason": "to be sure"})).await;
    assert_eq!((state(&task).await, state(&done).await), ("revoked".to_owned(), "completed".to_owned()));
    assert_eq!(admin_transition(&server, &task, "resume", json!({})).await.0, 409);
    server.stop().await;
}

async fn task_expires_once_at_deadline(server: Server) {
    let form = form_with_changes(&server.exchange_form(&server.user_token(json!({}))), &[("task_deadline", "1")]);
    let mut tasks = Vec::new();
    for _ in 0..5 {
        tasks.push(task_of(&server.issue_token("planner", &form).await));
    }
    let held = &tasks[0];
    // On a slow machine the deadline may have passed; then the request is refused.
    let (status, _) = admin_transition(&server, held, "suspend", reason_body()).await;
    assert!([200, 409].contains(&status));
    let replica = server.replica().await;
    let (_, before) = server.admin(Method::GET, "/revocations?limit=1", None).await;
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    // The task is expired for every reader, before any maintenance ran.
    let (status, body) = admin_transition(&server, &tasks[1], "complete", json!({})).await;
    assert_eq!((status, &body["state"]), (409, &json!("expired")), "{body}");
    let sweeps = (0..6).map(|n| {
        let application = if n % 2 == 0 { &server.application } else { &replica.application };
        async move { application.service.collect_garbage(&application.system_context().unwrap()).await.unwrap() }
    });
    futures_util::future::join_all(sweeps).await;
    for task in &tasks {
        let (_, body) = server.admin(Method::GET, &format!("/tasks/{task}"), None).await;
        assert_eq!((&body["state"], &body["last_transition"]["by"]), (&json!("expired"), &json!("deadline")), "{body}");
        let expired = audit_records(&server, task, "task.transition").await;
        let expired = expired.iter().filter(|record| record["granted"]["state"] == "expired");
        assert_eq!(expired.filter(|record| record["outcome"] == "done").count(), 1, "each task is ended once");
    }
    let (_, after) = server.admin(Method::GET, "/revocations?limit=1", None).await;
    assert_eq!(before["items"], after["items"], "no token outlives its task, so there is nothing to end");
    let (_, listed) = server.admin(Method::GET, "/tasks?state=expired", None).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), tasks.len());
    replica.stop().await;
    server.stop().await;
}

/// A repeated request with the same key: one transition, one answer, at every replica.
async fn repeated_transition_is_idempotent(server: Server) {
    let other = server.replica().await;
    let token = server.task_token().await;
    let (task, second) = (task_of(&token), task_of(&server.task_token().await));
    let (ops, planner) =
        (server.api_token("ops", "errand:admin").await, server.api_token("planner", "errand:tasks").await);
    let send = async |at: &Server, who: &str, task: &str, act: &str, key: &str, body: Value| {
        let (folder, api) = if who == "ops" { ("/v1/admin/tasks", &ops) } else { ("/v1/tasks", &planner) };
        let request = at.post(&format!("{folder}/{task}/{act}")).bearer_auth(api).header("idempotency-key", key);
        let (status, body) = read_response(request.json(&body).send().await.unwrap()).await;
        (status.as_u16(), without_propagation(body))
    };
    for who in ["planner", "ops"] {
        let key = "turn-1";
        let suspended = send(&server, who, &task, "suspend", key, reason_body()).await;
        assert_eq!((suspended.0, &suspended.1["state"]), (200, &json!("suspended")), "{suspended:?}");
        assert_eq!(send(&other, who, &task, "suspend", key, reason_body()).await, suspended, "{who}");
        let resumed = send(&other, who, &task, "resume", "turn-2", json!({})).await;
        assert_eq!((resumed.0, &resumed.1["state"]), (200, &json!("active")), "{resumed:?}");
        // A late repetition does not suspend the task again.
        assert_eq!(send(&server, who, &task, "suspend", key, reason_body()).await, suspended, "{who}");
        assert!(server.is_active(&token).await);
        for (task, act, body) in [
            (&task, "suspend", json!({"reason": "another"})),
            (&task, "fail", reason_body()),
            (&task, "resume", reason_body()),
            (&second, "suspend", reason_body()),
        ] {
            let (status, answer) = send(&other, who, task, act, key, body).await;
            assert_eq!(
                (status, &answer["type"]),
                (422, &json!("urn:errand:problem:idempotency_key_reused")),
                "{who} {act}"
            );
        }
        let (status, _) = send(&server, who, &task, "suspend", "", reason_body()).await;
        assert_eq!(status, 400, "an empty key is not valid");
    }
    // Concurrently, at both replicas.
    let tries = (0..8).map(|n| {
        let at = if n % 2 == 0 { &server } else { &other };
        send(at, "planner", &task, "complete", "the-end", json!({"outcome": "done"}))
    });
    let answers = futures_util::future::join_all(tries).await;
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.0 == 200), "{answers:?}");
    assert_eq!(
        (&answers[0].1["state"], &answers[0].1["last_transition"]["outcome"]),
        (&json!("completed"), &json!("done"))
    );
    let turns = audit_records(&server, &task, "task.transition").await;
    assert_eq!(turns.len(), 5, "{turns:?}");
    other.stop().await;
    server.stop().await;
}

async fn concurrent_ends_produce_one_transition(server: Server) {
    let replica = server.replica().await;
    for _ in 0..3 {
        let token = server.task_token().await;
        let task = task_of(&token);
        let ends = [("complete", json!({})), ("fail", reason_body()), ("complete", json!({})), ("fail", reason_body())];
        let racers = ends.into_iter().enumerate().map(|(n, (end, body))| {
            let at = if n < 2 { &server } else { &replica };
            let task = &task;
            async move {
                if n % 2 == 0 {
                    admin_transition(at, task, end, body).await
                } else {
                    transition(at, "planner", task, end, body).await
                }
            }
        });
        let answers = futures_util::future::join_all(racers).await;
        let won = answers.iter().filter(|(status, _)| *status == 200).collect::<Vec<_>>();
        assert_eq!(won.len(), 1, "{answers:?}");
        let end = &won[0].1["state"];
        assert!(answers.iter().all(|(status, body)| *status == 200 || (*status == 409 && body["state"] == *end)));
        let done = audit_records(&server, &task, "task.transition").await;
        assert_eq!(done.iter().filter(|record| record["outcome"] == "done").count(), 1);
        assert!(!server.is_active(&token).await && !replica.is_active(&token).await);
    }
    replica.stop().await;
    server.stop().await;
}

async fn task_is_listed_with_its_tokens(server: Server) {
    let token = server.task_token().await;
    let task = task_of(&token);
    let part = derive_token(&server, &token).await;
    let bob = server.user_token(json!({"sub": "bob"}));
    let other = task_of(&server.issue_token("planner", &server.exchange_form(&bob)).await);
    let listed = async |query: &str| {
        let (status, body) = server.admin(Method::GET, &format!("/tasks?{query}"), None).await;
        assert_eq!(status, 200, "{body}");
        body["items"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    admin_transition(&server, &other, "suspend", reason_body()).await;
    assert_eq!(listed("state=active").await, [task.as_str()]);
    assert_eq!(listed("state=suspended").await, [other.as_str()]);
    assert_eq!(listed("agent=planner").await.len(), 2);
    assert_eq!(listed("agent=reader").await.len(), 0);
    assert_eq!(listed("issuer=https://login.example.com&subject=bob").await, [other.as_str()]);
    assert_eq!(listed(&format!("resource={}", crate::server::FILES)).await.len(), 2);
    assert_eq!(listed(&format!("resource={NOTES}")).await.len(), 0);
    assert_eq!(listed("from=2000-01-01T00:00:00Z").await.len(), 2);
    assert_eq!(listed("until=2000-01-01T00:00:00Z").await.len(), 0);
    for bad in ["state=x", "resource=x", "from=x", "age=1"] {
        assert_eq!(server.admin(Method::GET, &format!("/tasks?{bad}"), None).await.0, 400, "{bad}");
    }

    let tree = async || server.admin(Method::GET, &format!("/tasks/{task}"), None).await.1;
    let shown = tree().await;
    let [root] = &shown["tokens"].as_array().unwrap()[..] else { panic!("{shown}") };
    let (handed, leaf) = (&root["derived"][0], &root["derived"][0]["derived"][0]);
    assert_eq!((&root["jti"], &leaf["jti"]), (&decode_claims(&token)["jti"], &decode_claims(&part)["jti"]), "{shown}");
    assert_eq!((&handed["kind"], &leaf["client"]), (&json!("hand_over"), &json!("reader")));
    assert_eq!(leaf["authorization_details"], decode_claims(&part)["authorization_details"]);
    assert_eq!([root, handed, leaf].map(|node| node["standing"].as_str().unwrap()), ["live"; 3]);
    server.revoke(json!({"kind": "token", "id": leaf["jti"], "reason": "x"})).await;
    admin_transition(&server, &task, "suspend", reason_body()).await;
    let shown = tree().await;
    let root = &shown["tokens"][0];
    let standings = [root, &root["derived"][0], &root["derived"][0]["derived"][0]];
    assert_eq!(standings.map(|node| node["standing"].as_str().unwrap()), ["suspended", "suspended", "revoked"]);
    server.stop().await;
}
