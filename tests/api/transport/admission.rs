//! Limits of each caller, quotas, and the lanes of the write queue: what one caller sends delays
//! no other caller.

use errand::domain::settings::RateLimit;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::server::{
    Form, Server, decode_claims, form, form_with_changes, read_response, secret, wait_until, with_assertion,
};

on_both_stores!(
    client_over_its_rate_is_throttled_alone,
    client_with_too_many_requests_in_progress_is_throttled_alone,
    throttled_request_leaves_assertion_unused,
    replayed_assertion_does_not_count_against_its_client,
    every_family_has_limits,
    open_tasks_of_an_agent_are_limited,
    open_tasks_of_a_requester_are_limited,
    live_tokens_of_a_task_are_limited,
    full_queue_of_clients_rejects_no_admin,
    refused_admin_request_is_recorded_or_fails,
);

const GRANT: [(&str, &str); 1] = [("grant_type", "client_credentials")];

fn grant() -> Form {
    form(&GRANT)
}

fn limit(per_second: u32, burst: u32, in_flight: u32) -> RateLimit {
    RateLimit::new(per_second, burst, in_flight)
}

/// Sends a request in the background.
fn send(request: reqwest::RequestBuilder) -> JoinHandle<(u16, Value)> {
    tokio::spawn(async move {
        let (status, body) = read_response(request.send().await.unwrap()).await;
        (status.as_u16(), body)
    })
}

async fn client_over_its_rate_is_throttled_alone(server: Server) {
    let small = server.replica_with(|config| config.admission.exchange = limit(1, 2, 64)).await;
    let post = |client: &str| {
        small.post("/oauth2/token").basic_auth(client.to_owned(), Some(secret(client))).form(&grant()).send()
    };
    let first = post("reader").await.unwrap();
    assert_eq!((first.status(), &first.headers()["ratelimit"]), (StatusCode::OK, &"\"exchange\";r=1".parse().unwrap()));
    assert_eq!(first.headers()["ratelimit-policy"], "\"exchange\";q=2;w=2");
    // The rate allows one more each second, so at most a few succeed before one is refused.
    let mut refused = post("reader").await.unwrap();
    for _ in 0..20 {
        if refused.status() == StatusCode::TOO_MANY_REQUESTS {
            break;
        }
        refused = post("reader").await.unwrap();
    }
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let headers = refused.headers().clone();
    assert_eq!(
        (&headers["retry-after"], &headers["ratelimit"]),
        (&"1".parse().unwrap(), &"\"exchange\";r=0;t=1".parse().unwrap())
    );
    let body = read_response(refused).await.1;
    assert_eq!(body["error"], "too_many_requests");
    let text = "too many requests per second: the limit is 1 ([limits] exchange); retry after 1 s";
    assert_eq!(body["error_description"], text);
    // Other clients, other families and other replicas are not affected.
    assert_eq!(post("writer").await.unwrap().status(), StatusCode::OK);
    assert_eq!(small.admin(Method::GET, "/keys", None).await.0, 200);
    assert_eq!(server.post_as("reader", "/oauth2/token", &grant()).await.0, 200);
    small.stop().await;
    server.stop().await;
}

async fn client_with_too_many_requests_in_progress_is_throttled_alone(server: Server) {
    let small = server.replica_with(|config| config.admission.exchange = limit(1_000, 1_000, 2)).await;
    let post = |client: &str| {
        send(small.post("/oauth2/token").basic_auth(client.to_owned(), Some(secret(client))).form(&grant()))
    };
    let lock = small.store.lock_writes().await;
    let sent = [post("reader"), post("reader"), post("reader"), post("reader")];
    wait_until("all but two are refused", async || sent.iter().filter(|one| one.is_finished()).count() == 2).await;
    let other = post("writer");
    drop(lock);
    assert_eq!(other.await.unwrap().0, 200);
    let mut refused = 0;
    for one in sent {
        let (status, body) = one.await.unwrap();
        if status == 429 {
            refused += 1;
            let text = "too many requests in progress: the limit is 2 ([limits] exchange); retry after 1 s";
            assert_eq!((&body["error"], &body["error_description"]), (&json!("too_many_requests"), &json!(text)));
        } else {
            assert_eq!(status, 200, "{body}");
        }
    }
    assert_eq!(refused, 2);
    assert_eq!(post("reader").await.unwrap().0, 200, "requests that have ended do not count");
    small.stop().await;
    server.stop().await;
}

async fn throttled_request_leaves_assertion_unused(server: Server) {
    let small = server.replica_with(|config| config.admission.exchange = limit(1, 1, 64)).await;
    let mut assertion = server.assertion(json!({}));
    let mut is_throttled = false;
    for _ in 0..20 {
        let (status, _) = small.post_with_assertion("/oauth2/token", &grant(), &assertion).await;
        if status == StatusCode::TOO_MANY_REQUESTS {
            is_throttled = true;
            break;
        }
        assert_eq!(status, 200);
        assertion = server.assertion(json!({}));
    }
    assert!(is_throttled);
    let request = server.post("/oauth2/token").form(&with_assertion(&grant(), &assertion));
    assert_eq!(read_response(request.send().await.unwrap()).await.0, 200);
    small.stop().await;
    server.stop().await;
}

/// A replayer of a captured assertion must not use up the rate of its client.
async fn replayed_assertion_does_not_count_against_its_client(server: Server) {
    let small = server.replica_with(|config| config.admission.exchange = limit(1, 4, 64)).await;
    let captured = server.assertion(json!({}));
    assert_eq!(small.post_with_assertion("/oauth2/token", &grant(), &captured).await.0, 200);
    for _ in 0..30 {
        let (status, body) = small.post_with_assertion("/oauth2/token", &grant(), &captured).await;
        assert_eq!((status.as_u16(), &body["error"]), (401, &json!("invalid_client")), "{body}");
    }
    let (status, body) = small.post_with_assertion("/oauth2/token", &grant(), &server.assertion(json!({}))).await;
    assert_eq!(status, 200, "{body}");
    small.stop().await;
    server.stop().await;
}

/// Each family of requests has a limit, and its responses name the policy.
async fn every_family_has_limits(server: Server) {
    let token = server.task_token().await;
    let (tasks, admin) =
        (server.api_token("planner", "errand:tasks").await, server.api_token("ops", "errand:admin").await);
    let feed = server.api_token("files", "errand:revocations").await;
    let small = server
        .replica_with(|config| {
            let one = limit(1, 1, 64);
            config.admission.exchange = one;
            config.admission.introspection = one;
            config.admission.evaluation = one;
            config.admission.tasks = one;
            config.admission.admin = one;
            config.admission.feed = one;
        })
        .await;
    let introspection = form(&[("token", &token)]);
    let basic = |path: &str, client: &str, form: &Form| {
        small.post(path).basic_auth(client.to_owned(), Some(secret(client))).form(form)
    };
    let requests: [(&str, &dyn Fn() -> reqwest::RequestBuilder); 7] = [
        ("exchange", &|| basic("/oauth2/token", "reader", &grant())),
        ("exchange", &|| basic("/oauth2/revoke", "writer", &form(&[("token", "x")]))),
        ("introspection", &|| basic("/oauth2/introspect", "files", &introspection)),
        ("evaluation", &|| {
            let request = small.post("/access/v1/evaluation").basic_auth("files", Some(secret("files")));
            request.json(&json!({
                "subject": {"type": "identity", "id": "alice"},
                "action": {"name": "tools/call"},
                "resource": {"type": "tool", "id": "read_file"},
                "context": {"token": token},
            }))
        }),
        ("tasks", &|| small.request(Method::GET, "/v1/tasks").bearer_auth(&tasks)),
        ("admin", &|| small.request(Method::GET, "/v1/admin/tasks").bearer_auth(&admin)),
        ("feed", &|| small.request(Method::GET, "/revocations").bearer_auth(&feed)),
    ];
    for (family, request) in requests {
        let mut statuses = Vec::new();
        for _ in 0..20 {
            let response = request().send().await.unwrap();
            statuses.push(response.status().as_u16());
            assert_eq!(response.headers()["ratelimit-policy"], format!("\"{family}\";q=1;w=1"));
            if response.status() == StatusCode::TOO_MANY_REQUESTS {
                break;
            }
        }
        assert_eq!((statuses[0], statuses.last()), (200, Some(&429)), "{family}: {statuses:?}");
    }
    small.stop().await;
    server.stop().await;
}

/// Exchanges the token of a requester as the planner.
async fn exchange(server: &Server, subject: &str, changes: &[(&str, &str)]) -> (u16, Value) {
    let form = server.exchange_form(&server.user_token(json!({"sub": subject})));
    let (status, body) = server.post_as_planner("/oauth2/token", &form_with_changes(&form, changes)).await;
    (status.as_u16(), body)
}

async fn open_tasks_of_an_agent_are_limited(server: Server) {
    let small = server.replica_with(|config| config.quotas.open_tasks_per_agent = 2).await;
    let (_, first) = exchange(&small, "alice", &[]).await;
    assert_eq!(exchange(&small, "bob", &[]).await.0, 200);
    let response = small
        .post("/oauth2/token")
        .form(&with_assertion(
            &small.exchange_form(&small.user_token(json!({"sub": "carol"}))),
            &small.assertion(json!({})),
        ))
        .send()
        .await
        .unwrap();
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (429, &"30".parse().unwrap()));
    let body = read_response(response).await.1;
    let text = "the agent has 2 open tasks, which is the quota ([quotas] open_tasks_per_agent); \
                complete tasks that are done, and retry";
    assert_eq!((&body["error"], &body["error_description"]), (&json!("quota_exceeded"), &json!(text)));
    // A task that is open can go on.
    let task = decode_claims(first["access_token"].as_str().unwrap())["txn"].as_str().unwrap().to_owned();
    let (status, body) = exchange(&small, "alice", &[("purpose", ""), ("task_id", &task)]).await;
    assert_eq!(status, 200, "{body}");
    // A task that ends makes room, wherever it ends.
    let (status, _) =
        server.admin(Method::POST, &format!("/tasks/{task}/complete"), Some(json!({"reason": "done"}))).await;
    assert_eq!(status, 200);
    assert_eq!(exchange(&small, "carol", &[]).await.0, 200);
    assert_eq!(exchange(&small, "carol", &[]).await.0, 429);
    small.stop().await;
    server.stop().await;
}

async fn open_tasks_of_a_requester_are_limited(server: Server) {
    let small = server.replica_with(|config| config.quotas.open_tasks_per_requester = 2).await;
    for _ in 0..2 {
        assert_eq!(exchange(&small, "alice", &[]).await.0, 200);
    }
    let (status, body) = exchange(&small, "alice", &[]).await;
    let text = "the requester has 2 open tasks, which is the quota ([quotas] open_tasks_per_requester); \
                complete tasks that are done, and retry";
    assert_eq!((status, &body["error_description"]), (429, &json!(text)));
    assert_eq!(exchange(&small, "bob", &[]).await.0, 200);
    small.stop().await;
    server.stop().await;
}

async fn live_tokens_of_a_task_are_limited(server: Server) {
    let small = server.replica_with(|config| config.quotas.live_tokens_per_task = 2).await;
    let (_, body) = exchange(&small, "alice", &[]).await;
    let task = decode_claims(body["access_token"].as_str().unwrap())["txn"].as_str().unwrap().to_owned();
    let join = [("purpose", ""), ("task_id", task.as_str())];
    assert_eq!(exchange(&small, "alice", &join).await.0, 200);
    let (status, body) = exchange(&small, "alice", &join).await;
    let text = "the task has 2 tokens that have not expired, which is the quota ([quotas] live_tokens_per_task); \
                use the tokens that the task has, and retry when some have expired";
    assert_eq!((status, &body["error_description"]), (429, &json!(text)));
    assert_eq!(exchange(&small, "alice", &[]).await.0, 200, "another task");
    small.stop().await;
    server.stop().await;
}

/// The queue of clients is full, so that their requests are rejected. Revocations are accepted, and
/// are committed before what waited longer.
async fn full_queue_of_clients_rejects_no_admin(server: Server) {
    let token = server.task_token().await;
    let small = server.replica_with(|config| config.requests.write_queue = 4).await;
    let admin = server.api_token("ops", "errand:admin").await;
    let lock = small.store.lock_writes().await;
    let post = || send(small.post("/oauth2/token").basic_auth("reader", Some(secret("reader"))).form(&grant()));
    let clients = (0..40).map(|_| post()).collect::<Vec<_>>();
    wait_until("the queue is full", async || clients.iter().filter(|one| one.is_finished()).count() >= 24).await;
    let revoke = |kind: &str, id: &Value| {
        let body = json!({"kind": kind, "id": id, "reason": "test"});
        send(small.request(Method::POST, "/v1/admin/revocations").bearer_auth(&admin).json(&body))
    };
    let revocations = [
        revoke("token", &decode_claims(&token)["jti"]),
        revoke("task", &decode_claims(&token)["txn"]),
        revoke("agent", &json!("stranger")),
    ];
    wait_until("they wait", async || small.application.service.write_queue_depth() >= 7).await;
    assert!(revocations.iter().all(|one| !one.is_finished()), "none is rejected");
    drop(lock);
    for one in revocations {
        let (status, body) = one.await.unwrap();
        assert_eq!(status, 200, "{body}");
    }
    assert!(!server.is_active(&token).await);
    for one in clients {
        let status = one.await.unwrap().0;
        assert!(status == 200 || status == 503, "{status}");
    }
    small.stop().await;
    server.stop().await;
}

/// The record of a refused request of an admin is durable before the response. Without it, the
/// request fails.
async fn refused_admin_request_is_recorded_or_fails(server: Server) {
    let small = server.replica_with(|_| {}).await;
    let admin = server.api_token("ops", "errand:admin").await;
    let refused = |id: &str| {
        let body = json!({"kind": "task", "id": "01970000-0000-7000-8000-00000000abcd", "reason": "test"});
        let request = small.request(Method::POST, "/v1/admin/revocations").bearer_auth(&admin).json(&body);
        send(request.header("x-request-id", id.to_owned()))
    };
    let lock = small.store.lock_writes().await;
    let waiting = refused("refused-while-locked");
    assert_eq!(waiting.await.unwrap().0, 503);
    drop(lock);
    assert_eq!(refused("refused").await.unwrap().0, 404);
    let (_, trail) = server.admin(Method::GET, "/audit?request_id=refused", None).await;
    assert_eq!(trail["items"].as_array().unwrap().len(), 1, "recorded before the response: {trail}");
    small.stop().await;
    server.stop().await;
}
