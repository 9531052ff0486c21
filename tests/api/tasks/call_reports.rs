//! Call reports and the trail of a task: intent, privilege, calls, outcome and end in one list,
//! over HTTP and on the command line.

use reqwest::Method;
use serde_json::{Value, json};

use crate::server::{NOTES, Server, decode_claims, form_with_changes, read_response, with_changes};

on_both_stores!(call_report_is_idempotent, only_token_audience_may_report_calls, task_trail_describes_events_in_order);

fn digest() -> String {
    format!("sha-256:{}", "A".repeat(43))
}

/// Returns a valid report about a call with this token.
fn report(token: &str) -> Value {
    json!({
        "id": "call-1", "jti": decode_claims(token)["jti"], "tool": "read_file", "arguments": digest(), "outcome": "succeeded",
        "data": [{"class": "personal", "count": 3}],
    })
}

fn task_of(token: &str) -> String {
    decode_claims(token)["txn"].as_str().unwrap().to_owned()
}

async fn report_call(server: &Server, client: &str, task: &str, report: &Value) -> (u16, Value) {
    let token = server.api_token(client, "errand:tasks").await;
    let request = server.post(&format!("/v1/tasks/{task}/calls")).bearer_auth(token).json(report);
    let (status, body) = read_response(request.send().await.unwrap()).await;
    (status.as_u16(), body)
}

async fn list_calls(server: &Server, task: &str) -> Vec<Value> {
    let (status, body) = server.admin(Method::GET, &format!("/tasks/{task}/trail"), None).await;
    assert_eq!(status, 200, "{body}");
    body["steps"].as_array().unwrap().iter().filter(|step| step["kind"] == "call").cloned().collect()
}

async fn call_report_is_idempotent(server: Server) {
    let token = server.task_token().await;
    let task = task_of(&token);
    let good = report(&token);
    let (status, first) = report_call(&server, "files", &task, &good).await;
    assert_eq!((status, &first["named_by_token"]), (201, &json!(true)), "{first}");
    let replica = server.replica().await;
    assert_eq!(report_call(&server, "files", &task, &good).await, (200, first.clone()));
    assert_eq!(report_call(&replica, "files", &task, &good).await, (200, first));
    // The same call with other content, and another call.
    let (status, body) =
        report_call(&replica, "files", &task, &with_changes(good.clone(), json!({"outcome": "failed"}))).await;
    assert_eq!(status, 422, "{body}");
    // The same calls are reported at two replicas concurrently.
    let racers = (0..8).map(|n| {
        let at = if n % 2 == 0 { &server } else { &replica };
        let report = with_changes(good.clone(), json!({"id": format!("raced-{}", n / 4)}));
        let task = &task;
        async move { report_call(at, "files", task, &report).await.0 }
    });
    let mut answers = futures_util::future::join_all(racers).await;
    answers.sort_unstable();
    assert_eq!(answers, [200, 200, 200, 200, 200, 200, 201, 201]);
    let recorded = list_calls(&server, &task).await;
    assert_eq!(recorded.len(), 3);
    // Records of two replicas may have the same second, so a call is found by its id.
    let named =
        |calls: Vec<Value>, id: &str| calls.into_iter().find(|step| step["record"]["requested"]["call"] == id).unwrap();
    let record = &named(recorded, "call-1")["record"];
    assert_eq!(
        record["authority_hash"],
        decode_claims(&token)["task"]["authority_hash"],
        "what the intent was: {record}"
    );
    assert_eq!((&record["client"], &record["agents"][0]), (&json!("files"), &json!("planner")), "{record}");
    assert_eq!((&record["requested"]["arguments"], &record["requested"]["data"]), (&good["arguments"], &good["data"]));
    // Calls are accepted after the task's end. A tool that the token does not name is accepted and
    // marked.
    server.revoke(json!({"kind": "task", "id": task, "reason": "enough"})).await;
    let outside = with_changes(good, json!({"id": "late", "tool": "delete_file", "outcome": "refused", "data": null}));
    let (status, body) = report_call(&server, "files", &task, &outside).await;
    assert_eq!((status, &body["named_by_token"]), (201, &json!(false)), "{body}");
    let call = named(list_calls(&server, &task).await, "late");
    assert_eq!(
        call["text"],
        "planner called delete_file at files (the token does not name this tool): refused (reported after the token was revoked)"
    );
    // The tree of the task has the calls of each token.
    let (_, tree) = server.admin(Method::GET, &format!("/tasks/{task}"), None).await;
    let shown = tree["tokens"][0]["calls"].as_array().unwrap();
    let mut shown = shown.iter().map(|call| [&call["call"], &call["tool"], &call["outcome"], &call["token_standing"]]);
    assert!(shown.any(|call| call == ["call-1", "read_file", "succeeded", "live"]), "{tree}");
    assert!(shown.any(|call| call == ["late", "delete_file", "refused", "revoked"]), "{tree}");
    assert_eq!(tree["tokens"][0]["calls"].as_array().unwrap().len(), 4);
    replica.stop().await;
    server.stop().await;
}

async fn only_token_audience_may_report_calls(server: Server) {
    let token = server.task_token().await;
    let task = task_of(&token);
    let good = report(&token);
    let other = task_of(&server.task_token().await);
    let handed = server.issue_token("planner", &server.delegation_form(&token, "reader")).await;
    let with = |changes: Value| with_changes(good.clone(), changes);
    for (name, client, task, report, want) in [
        ("the wrong resource", "notes", &task, good.clone(), 404),
        ("the wrong task", "files", &other, good.clone(), 404),
        ("a delegation token", "files", &task, with(json!({"jti": decode_claims(&handed)["jti"]})), 404),
        ("an unknown token", "files", &task, with(json!({"jti": task})), 404),
        ("its agent", "planner", &task, good.clone(), 403),
        ("another agent", "stranger", &task, good.clone(), 403),
        ("no digest", "files", &task, with(json!({"arguments": null})), 400),
        ("the arguments themselves", "files", &task, with(json!({"arguments": {"path": "/secret-of-mine"}})), 400),
        ("half a digest", "files", &task, with(json!({"arguments": "sha-256:secret-of-mine"})), 400),
        ("another outcome", "files", &task, with(json!({"outcome": "secret-of-mine"})), 400),
        (
            "a class twice",
            "files",
            &task,
            with(json!({"data": [{"class": "a", "count": 1}, {"class": "a", "count": 1}]})),
            400,
        ),
        ("less than nothing", "files", &task, with(json!({"data": [{"class": "a", "count": -1}]})), 400),
        (
            "more than can be counted",
            "files",
            &task,
            with(json!({"data": [{"class": "a", "count": 1_u64 << 53}]})),
            400,
        ),
        ("a member of its own", "files", &task, with(json!({"result": "secret-of-mine"})), 400),
    ] {
        let (status, body) = report_call(&server, client, task, &report).await;
        assert_eq!(status, want, "{name}: {body}");
        assert!(!body.to_string().contains("secret-of-mine"), "{name}: {body}");
    }
    assert!(list_calls(&server, &task).await.is_empty());
    let scope = server.api_token("files", "errand:introspect").await;
    let request = server.post(&format!("/v1/tasks/{task}/calls")).bearer_auth(scope).json(&good);
    assert_eq!(request.send().await.unwrap().status(), 403);
    let (status, _) = server
        .admin(Method::GET, &format!("/tasks/{}/trail", decode_claims(&token)["jti"].as_str().unwrap()), None)
        .await;
    assert_eq!(status, 404);
    server.stop().await;
}

async fn task_trail_describes_events_in_order(server: Server) {
    let token = server.task_token().await;
    let task = task_of(&token);
    assert!(server.is_active(&token).await);
    report_call(&server, "files", &task, &report(&token)).await;
    let handed = server.issue_token("planner", &server.delegation_form(&token, "reader")).await;
    let part = server.issue_token("reader", &server.exchange_form(&handed)).await;
    let elsewhere = form_with_changes(&server.exchange_form(&part), &[("resource", NOTES), ("scope", "notes:read")]);
    assert_eq!(server.request_token_as("reader", &elsewhere).await.0, 400);
    let admin = async |act: &str, body: Value| {
        assert_eq!(server.admin(Method::POST, &format!("/tasks/{task}/{act}"), Some(body)).await.0, 200);
    };
    admin("suspend", json!({"reason": "looked into"})).await;
    assert!(!server.is_active(&part).await);
    admin("resume", json!({})).await;
    report_call(&server, "files", &task, &with_changes(report(&part), json!({"outcome": "failed", "data": []}))).await;
    let api = server.api_token("planner", "errand:tasks").await;
    let complete = server.post(&format!("/v1/tasks/{task}/complete")).bearer_auth(api);
    let body = json!({"outcome": "the report is in the folder"});
    assert_eq!(complete.json(&body).send().await.unwrap().status(), 200);
    server.application.service.shutdown().await;

    let (_, trail) = server.admin(Method::GET, &format!("/tasks/{task}/trail"), None).await;
    assert_eq!((&trail["task"]["state"], &trail["more"]), (&json!("completed"), &json!(false)), "{trail}");
    let steps = trail["steps"].as_array().unwrap();
    let listed = steps.iter().map(|step| (step["kind"].as_str().unwrap(), step["text"].as_str().unwrap()));
    let listed = listed.collect::<Vec<_>>();
    let files = crate::server::FILES;
    let got = |who: &str| format!("{who} got a token for list_files, read_file at {files} on behalf of alice");
    let sent = format!(
        "alice delegated \"the quarterly report\" to planner: planner got a token for list_files, read_file at {files}"
    );
    let reader = got("reader");
    let refused = listed[5].1.to_owned();
    assert!(refused.starts_with("reader was refused a token: "), "{refused}");
    let want = [
        ("intent", &*sent),
        ("introspection", "files introspected a token of planner: active"),
        ("call", "planner called read_file at files: succeeded; accessed 3 personal records"),
        ("exchange", "planner delegated list_files, read_file to reader"),
        ("exchange", &*reader),
        ("exchange", &*refused),
        ("state", "admin:ops suspended the task: looked into"),
        ("introspection", "files introspected a token of reader: inactive"),
        ("state", "admin:ops resumed the task"),
        ("call", "reader called read_file at files: failed"),
        ("state", "planner completed the task; all its tokens ended; outcome: the report is in the folder"),
    ];
    assert_eq!(listed, want);
    assert!(steps.iter().all(|step| step["record"]["task"] == json!(task)));

    // The command line prints the same. An edited record is marked, without its content.
    let trail_of = || {
        let config = server.config_file();
        let errand = std::process::Command::new(env!("CARGO_BIN_EXE_errand"))
            .args(["task", "trail", &task, "--config"])
            .arg(config)
            .output()
            .unwrap();
        assert!(errand.status.success(), "{errand:?}");
        String::from_utf8(errand.stdout).unwrap()
    };
    let text = trail_of();
    let lines = text.lines().collect::<Vec<_>>();
    assert_eq!(lines[0], format!("task {task}: \"the quarterly report\""));
    assert!(lines[1].starts_with("requester alice (https://login.example.com), agent planner, deadline "), "{text}");
    assert_eq!(lines.last(), Some(&"task completed"));
    for (line, (_, sentence)) in lines[2..].iter().zip(want) {
        assert_eq!(line.split_once("  ").unwrap().1, sentence);
    }
    assert_eq!(lines.len(), want.len() + 3);
    server.store.tamper("UPDATE audit SET personal = replace(personal, 'personal', 'harmless')").await;
    let text = trail_of();
    assert!(text.contains("was edited: its original content is not known") && !text.contains("harmless"), "{text}");
    server.stop().await;
}
