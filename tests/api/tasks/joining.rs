//! Tasks: opened with a purpose, joined by the same requester and agent, ended permanently.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{IDP, Server, decode_claims, form_with_changes, read_response};

on_both_stores!(
    task_is_joined_by_same_parties_only,
    foreign_task_is_not_revealed,
    ended_task_cannot_be_joined,
    task_record_keeps_its_attributes,
    agent_lists_its_own_tasks,
);

impl Server {
    /// Joins a task, as an agent with a user token.
    async fn join_task(&self, agent: &str, task: &str, user: Value, changes: &[(&str, &str)]) -> (u16, Value) {
        let form = self.exchange_form(&self.user_token(user));
        let form = form_with_changes(&form, &[&[("task_id", task), ("purpose", "")], changes].concat());
        let (status, body) = self.request_token_as(agent, &form).await;
        (status.as_u16(), body)
    }
}

async fn task_is_joined_by_same_parties_only(server: Server) {
    let form =
        form_with_changes(&server.exchange_form(&server.user_token(json!({}))), &[("scope", "files:read files:write")]);
    let first = decode_claims(&server.issue_token("planner", &form).await);
    let task = first["txn"].as_str().unwrap();
    let (status, body) = server.join_task("planner", task, json!({}), &[]).await;
    assert_eq!(status, 200, "{body}");
    let joined = decode_claims(body["access_token"].as_str().unwrap());
    assert_eq!((&joined["txn"], &joined["task"]), (&first["txn"], &first["task"]));
    assert_eq!(joined["tctx"]["purpose"], "the quarterly report", "joining does not change the purpose");
    assert_eq!(body["txn"], first["txn"]);
    let (status, body) = server.join_task("planner", task, json!({}), &[("purpose", "another purpose")]).await;
    let purpose = body["access_token"].as_str().map(|token| decode_claims(token)["tctx"]["purpose"].clone());
    assert!(status == 400 || purpose == Some(json!("the quarterly report")), "{status} {body}");

    for (name, agent, user) in [
        ("another requester", "planner", json!({"sub": "mallory"})),
        ("another agent", "reader", json!({"client_id": "reader-client"})),
        ("both", "reader", json!({"client_id": "reader-client", "sub": "mallory"})),
    ] {
        let (status, body) = server.join_task(agent, task, user, &[]).await;
        assert_eq!((status, &body["error"]), (400, &json!("invalid_request")), "{name} {body}");
        let (_, unknown) = server.join_task(agent, "01970000-0000-7000-8000-00000000abcd", json!({}), &[]).await;
        assert!(agent != "planner" || unknown == body, "{name}: a task of others looks like none: {unknown} {body}");
    }
    // At most the authority that was approved when the task was opened.
    let narrow = decode_claims(&server.task_token().await);
    let wide = [("scope", "files:read files:write")];
    let (status, body) = server.join_task("planner", narrow["txn"].as_str().unwrap(), json!({}), &wide).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_scope")), "{body}");
    let (status, body) = server.join_task("planner", task, json!({"scope": "files:read"}), &wide).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_scope")), "this time the user allows less: {body}");
    server.stop().await;
}

/// Every MCP server and every sub-agent sees the id of its task. Elsewhere the id gives the same
/// answer as an unknown id.
async fn foreign_task_is_not_revealed(server: Server) {
    let at_files = |rules: Value| {
        let mut detail = json!({"type": "mcp_tool", "actions": ["tools/call"], "identifier": "read_file"});
        detail.as_object_mut().unwrap().extend(rules.as_object().unwrap().clone());
        json!([detail]).to_string()
    };
    let secret = "/hr/layoffs.md";
    let narrow = at_files(json!({"constraints": {"path": {"equals": secret}}}));
    let form = server.exchange_form(&server.user_token(json!({})));
    let first = server
        .issue_token("planner", &form_with_changes(&form, &[("scope", ""), ("authorization_details", &narrow)]))
        .await;
    let (first, none) = (decode_claims(&first), "01970000-0000-7000-8000-00000000abcd");
    let task = first["txn"].as_str().unwrap();
    let (every_call, guess) = (at_files(json!({})), at_files(json!({"constraints": {"path": {"prefix": "/hr"}}})));
    for (name, agent, user) in [
        ("another requester", "planner", json!({"sub": "bob"})),
        ("another agent", "reader", json!({"client_id": "reader-client"})),
        ("both", "reader", json!({"client_id": "reader-client", "sub": "bob"})),
        ("a token that points elsewhere", "reader", json!({})),
    ] {
        for asked in [
            [("scope", "files:read"), ("authorization_details", "")],
            [("scope", "files:write"), ("authorization_details", "")],
            [("scope", ""), ("authorization_details", &every_call)],
            [("scope", ""), ("authorization_details", &guess)],
            [("scope", ""), ("authorization_details", &narrow)],
            [("scope", ""), ("authorization_details", "")],
        ] {
            let theirs = server.join_task(agent, task, user.clone(), &asked).await;
            assert_eq!(theirs.0, 400, "{name} {asked:?} {}", theirs.1);
            assert_eq!(theirs, server.join_task(agent, none, user.clone(), &asked).await, "{name} {asked:?}");
        }
    }
    server.stop().await;
}

async fn ended_task_cannot_be_joined(server: Server) {
    let token = server.task_token().await;
    let task = decode_claims(&token)["txn"].as_str().unwrap().to_owned();
    server.revoke(json!({"kind": "task", "id": task, "reason": "enough"})).await;
    let (status, body) = server.join_task("planner", &task, json!({}), &[]).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_request")), "{body}");
    assert!(!server.is_active(&token).await);
    let (_, view) = server.admin(Method::GET, &format!("/tasks/{task}"), None).await;
    assert_eq!(view["state"], "revoked");

    let short = form_with_changes(&server.exchange_form(&server.user_token(json!({}))), &[("task_deadline", "1")]);
    let over = decode_claims(&server.issue_token("planner", &short).await);
    let ended = || async { server.join_task("planner", over["txn"].as_str().unwrap(), json!({}), &[]).await.0 == 400 };
    crate::server::wait_until("the deadline has come", ended).await;
    server.stop().await;
}

async fn task_record_keeps_its_attributes(server: Server) {
    let claims = decode_claims(&server.task_token().await);
    let task = claims["txn"].as_str().unwrap();
    let (status, view) = server.admin(Method::GET, &format!("/tasks/{task}"), None).await;
    assert_eq!(status, 200, "{view}");
    assert_eq!(view["requester"], json!({"issuer": IDP, "subject": "alice"}));
    assert_eq!((&view["root_agent"], &view["purpose"]), (&json!("planner"), &json!("the quarterly report")));
    assert_eq!((&view["state"], &view["authority_hash"]), (&json!("active"), &claims["task"]["authority_hash"]));
    assert_eq!(view["authorization_details"], claims["authorization_details"]);
    for (query, found) in [
        ("", true),
        ("?state=active", true),
        ("?state=revoked", false),
        ("?agent=planner", true),
        ("?agent=reader", false),
        ("?issuer=https://login.example.com&subject=alice", true),
        ("?issuer=https://login.example.com&subject=mallory", false),
    ] {
        let (_, list) = server.admin(Method::GET, &format!("/tasks{query}"), None).await;
        let ids = list["items"].as_array().unwrap().iter().map(|task| task["id"].clone()).collect::<Vec<_>>();
        assert_eq!(ids.contains(&json!(task)), found, "{query} {list}");
    }
    let (_, list) = server.admin(Method::GET, &format!("/tokens?task={task}&alive=true"), None).await;
    assert_eq!(list["items"][0]["jti"], claims["jti"], "{list}");
    let (status, _) = server.admin(Method::GET, "/tasks/01970000-0000-7000-8000-00000000abcd", None).await;
    assert_eq!(status, 404);
    server.stop().await;
}

/// A restarted agent finds the tasks that it opened, and no others.
async fn agent_lists_its_own_tasks(server: Server) {
    let tokens = [server.task_token().await, server.task_token().await];
    let (first, second) = (decode_claims(&tokens[0])["txn"].clone(), decode_claims(&tokens[1])["txn"].clone());
    let _part = server.issue_token("planner", &server.delegation_form(&tokens[0], "reader")).await;
    server.revoke(json!({"kind": "task", "id": first, "reason": "enough"})).await;
    let list = async |client: &str, query: &str| {
        let api = server.api_token(client, "errand:tasks").await;
        let request = server.request(Method::GET, &format!("/v1/tasks{query}")).bearer_auth(api);
        let (status, body) = read_response(request.send().await.unwrap()).await;
        let ids = body["items"].as_array().map(|items| items.iter().map(|task| task["id"].clone()).collect::<Vec<_>>());
        (status.as_u16(), ids.unwrap_or_default())
    };
    let (status, mine) = list("planner", "").await;
    assert_eq!((status, mine.len()), (200, 2));
    assert!(mine.contains(&first) && mine.contains(&second), "{mine:?}");
    assert_eq!(list("planner", "?state=active&agent=planner").await, (200, vec![second]));
    assert_eq!(list("planner", "?agent=reader").await.0, 400);
    assert_eq!(list("reader", "").await, (200, Vec::new()), "the reader opened no task");
    assert_eq!(list("files", "").await.0, 403, "no agent");
}
