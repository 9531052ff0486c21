//! A row that was changed outside the program is an outage for the requests that need it, and for
//! no others.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::server::{IDP, Server, decode_claims, form, form_with_changes, read_response, wait_until};

on_both_stores!(
    changed_task_stops_its_own_requests,
    changed_row_does_not_stop_maintenance,
    changed_token_does_not_stop_dry_runs,
    changed_row_does_not_stop_its_revocation,
);

/// Exchanges a new user token of this subject.
async fn exchange(server: &Server, task: Option<&str>) -> (StatusCode, serde_json::Value) {
    let form = server.exchange_form(&server.user_token(json!({"client_id": "reader-client"})));
    let form = match task {
        Some(task) => form_with_changes(&form, &[("purpose", ""), ("task_id", task)]),
        None => form,
    };
    server.post_as("reader", "/oauth2/token", &form).await
}

async fn changed_task_stops_its_own_requests(server: Server) {
    let (status, first) = exchange(&server, None).await;
    assert_eq!(status, 200, "{first}");
    let (status, second) = exchange(&server, None).await;
    assert_eq!(status, 200, "{second}");
    let task_of = |answer: &serde_json::Value| {
        decode_claims(answer["access_token"].as_str().unwrap())["txn"].as_str().unwrap().to_owned()
    };
    let (one, two) = (task_of(&first), task_of(&second));
    server.store.tamper(&format!("UPDATE tasks SET deadline = deadline + 100000 WHERE id = '{one}'")).await;
    let (status, body) = exchange(&server, Some(&one)).await;
    assert_eq!(status, 503, "{body}");
    let (status, body) = server.admin(Method::GET, &format!("/tasks/{one}"), None).await;
    assert_eq!(status, 503, "{body}");
    // No other request is affected.
    let (status, body) = exchange(&server, Some(&two)).await;
    assert_eq!(status, 200, "{body}");
    let (status, body) = exchange(&server, None).await;
    assert_eq!(status, 200, "{body}");
    let ready = server.request(Method::GET, "/readyz").send().await.unwrap();
    assert_eq!(read_response(ready).await.0, 200);
    let metrics = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let count = metrics.lines().find_map(|line| line.strip_prefix("errand_store_tampering_total "));
    assert!(count.is_some_and(|count| count.parse::<u64>().unwrap() > 0), "{count:?}");
    assert!(server.is_active(second["access_token"].as_str().unwrap()).await);
    server.store.tamper(&format!("UPDATE tasks SET deadline = deadline - 100000 WHERE id = '{one}'")).await;
    let (status, body) = exchange(&server, Some(&one)).await;
    assert_eq!(status, 200, "{body}");
    server.stop().await;
}

/// To end a token, a task or a requester needs no trust in the rows about it.
async fn changed_row_does_not_stop_its_revocation(server: Server) {
    let revoke = async |what: serde_json::Value| {
        let (status, body) = server.admin(Method::POST, "/revocations", Some(what.clone())).await;
        assert_eq!(status, 200, "{what}: {body}");
    };
    let columns = [("tokens", "agents"), ("tokens", "evidence"), ("tokens", "session"), ("tasks", "purpose")];
    for (table, column) in columns {
        let text = if column == "agents" { "'[]'" } else { "'changed'" };
        for kind in ["token", "task", "requester"] {
            let token = server.task_token().await;
            assert!(server.is_active(&token).await);
            let claims = decode_claims(&token);
            let (jti, txn) = (claims["jti"].as_str().unwrap(), claims["txn"].as_str().unwrap());
            let id = if table == "tokens" { jti } else { txn };
            let change = format!("UPDATE {table} SET {column} = {text} WHERE id = '{id}'");
            assert_eq!(server.store.tamper(&change).await, 1);
            revoke(match kind {
                "token" => json!({"kind": kind, "id": jti, "reason": "in a test"}),
                "task" => json!({"kind": kind, "id": txn, "reason": "in a test"}),
                _ => json!({"kind": kind, "issuer": IDP, "subject": "alice", "reason": "in a test"}),
            })
            .await;
            let (status, body) = server.post_as("files", "/oauth2/introspect", &form(&[("token", &token)])).await;
            assert_eq!((status.as_u16(), &body["active"]), (200, &json!(false)), "{table}.{column} {kind}");
        }
    }
    let unknown = json!({"kind": "token", "id": "018f0000-0000-7000-8000-000000000000", "reason": "in a test"});
    assert_eq!(server.admin(Method::POST, "/revocations", Some(unknown)).await.0, 404);
    server.stop().await;
}

/// Tasks past their deadline end although the row of another was changed.
async fn changed_row_does_not_stop_maintenance(server: Server) {
    for _ in 0..3 {
        server.task_token().await;
    }
    server.rewrite_tasks("UPDATE tasks SET deadline = 1").await;
    let first = "(SELECT min(CAST(id AS text)) FROM tasks)";
    server.store.tamper(&format!("UPDATE tasks SET purpose = 'x' WHERE CAST(id AS text) = {first}")).await;
    let cx = errand::app::RequestContext::internal("gc".parse().unwrap(), server.application.service.clock().now());
    server.application.service.collect_garbage(&cx).await.unwrap();
    let expired = async || {
        let (status, page) = server.admin(Method::GET, "/tasks?limit=100&state=expired", None).await;
        assert_eq!(status, 200, "{page}");
        page["items"].as_array().unwrap().len()
    };
    wait_until("the others have ended", || async { expired().await == 2 }).await;
    server.stop().await;
}

/// A dry run, which a revocation of many parties needs, says that it did not evaluate every token.
async fn changed_token_does_not_stop_dry_runs(server: Server) {
    server.task_token().await;
    server.store.tamper("UPDATE tokens SET expires = expires + 1 WHERE task IS NOT NULL").await;
    let dry_run = json!({"kind": "agent", "id": "planner", "reason": "in a test", "dry_run": true});
    let (status, body) = server.admin(Method::POST, "/revocations", Some(dry_run.clone())).await;
    assert_eq!((status.as_u16(), &body["complete"]), (200, &json!(false)), "{body}");
    server.store.tamper("UPDATE tokens SET expires = expires - 1 WHERE task IS NOT NULL").await;
    let (status, body) = server.admin(Method::POST, "/revocations", Some(dry_run)).await;
    assert_eq!((status.as_u16(), &body["complete"], &body["tokens"]), (200, &json!(true), &json!(1)), "{body}");
    server.stop().await;
}
