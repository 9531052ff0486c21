//! Records, metrics and limits of decisions.

use errand::domain::{audit::EvaluationAuditMode, settings::RateLimit, time::Lifetime};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    evaluation::{EVALUATION, EVALUATIONS, call, with_change},
    server::{Server, decode_claims, form_with_changes, wait_until},
};

on_both_stores!(
    permitted_calls_are_recorded_as_configured,
    denied_calls_are_sampled,
    decisions_are_counted,
    resource_over_its_rate_is_throttled,
);

impl Server {
    async fn evaluation_records(&self) -> Vec<Value> {
        self.audit_records("&event=call.evaluate").await
    }

    /// Issues a token of the planner for reading and writing.
    async fn write_token(&self) -> String {
        let form = self.exchange_form(&self.user_token(json!({})));
        self.issue_token("planner", &form_with_changes(&form, &[("scope", "files:read files:write")])).await
    }
}

async fn permitted_calls_are_recorded_as_configured(server: Server) {
    let token = server.write_token().await;
    let claims = decode_claims(&token);
    let (read, write) = (call(&token, "read_file", json!({})), call(&token, "write_file", json!({"text": "secret"})));
    // By default, a call that changes something is recorded, each time.
    let first = server.evaluate(&write).await;
    for question in [&read, &write, &read] {
        assert!(server.is_permitted(question).await);
    }
    wait_until("both are recorded", async || server.evaluation_records().await.len() == 2).await;
    let record = server.evaluation_records().await.pop().unwrap();
    assert_eq!(
        record["requested"],
        json!({"action": "tools/call", "evaluation": first["context"]["evaluation_id"], "tool": "write_file"})
    );
    for (member, value) in [
        ("outcome", json!("done")),
        ("client", json!("files")),
        ("agents", json!(["planner"])),
        ("task", claims["txn"].clone()),
        ("token", claims["jti"].clone()),
        ("authority_hash", claims["task"]["authority_hash"].clone()),
        ("reason", Value::Null),
    ] {
        assert_eq!(record[member], value, "{member} {record}");
    }
    assert!(!record.to_string().contains("secret"), "{record}");
    for (mode, recorded) in
        [(EvaluationAuditMode::All, 2), (EvaluationAuditMode::Changes, 1), (EvaluationAuditMode::Off, 0)]
    {
        let replica = server.replica_with(|config| config.audit.evaluations = mode).await;
        let before = server.evaluation_records().await.len();
        for question in [&read, &write] {
            assert!(replica.is_permitted(question).await);
        }
        replica.stop().await;
        assert_eq!(server.evaluation_records().await.len(), before + recorded, "{mode:?}");
    }
    // The trail of the task has the decisions.
    let (_, trail) =
        server.admin(Method::GET, &format!("/tasks/{}/trail", claims["txn"].as_str().unwrap()), None).await;
    let text = trail.to_string();
    assert!(
        text.contains("\"decision\"") && text.contains("planner asked for write_file at files: permitted"),
        "{text}"
    );
    server.stop().await;
}

async fn denied_calls_are_sampled(server: Server) {
    let (token, other) = (server.write_token().await, server.write_token().await);
    let denied = |token: &str| call(token, "delete_file", json!({}));
    for _ in 0..3 {
        for _ in 0..10 {
            assert!(!server.is_permitted(&denied(&token)).await);
        }
    }
    // The first of a task is recorded, then 20 of a kind in a minute.
    wait_until("a sample is recorded", async || server.evaluation_records().await.len() == 21).await;
    // The first of another task and of another reason are recorded all the same.
    assert!(!server.is_permitted(&denied(&other)).await);
    let mismatch = with_change(denied(&token), "/resource/properties/arguments/n", json!(1));
    let number = call(&token, "read_file", json!({"n": 9_007_199_254_740_993_u64}));
    for question in [&mismatch, &number] {
        assert!(!server.is_permitted(question).await);
    }
    wait_until("the first ones are recorded", async || server.evaluation_records().await.len() == 23).await;
    let records = server.evaluation_records().await;
    let tasks = records.iter().filter(|record| record["task"] == decode_claims(&other)["txn"]).count();
    assert_eq!(tasks, 1);
    let record = records.iter().find(|record| record["reason"] == "constraint").unwrap();
    assert_eq!((&record["outcome"], &record["requested"]["at"]), (&json!("refused"), &json!("arguments.n")));
    // A revoked token: the task is named in the record, not in the answer.
    let claims = decode_claims(&token);
    server.revoke(json!({"kind": "token", "id": claims["jti"], "reason": "a test"})).await;
    let answer = server.evaluate(&denied(&token)).await;
    assert_eq!((&answer["context"]["reason"], &answer["context"]["txn"]), (&json!("inactive"), &Value::Null));
    let find = async || server.evaluation_records().await.into_iter().find(|record| record["reason"] == "inactive");
    wait_until("the attempt is recorded", async || find().await.is_some()).await;
    assert_eq!(find().await.unwrap()["task"], claims["txn"]);
    // Texts that are no token of this server are counted.
    for n in 0..30 {
        assert!(!server.is_permitted(&denied(&format!("text-{n}"))).await);
    }
    let later =
        errand::app::RequestContext { now: server.cx().now.saturating_add(Lifetime::minutes(2)), ..server.cx() };
    server.application.service.collect_garbage(&later).await.unwrap();
    let count = async || {
        let records = server.evaluation_records().await;
        let of = |reason: &str| {
            let record =
                records.iter().find(|record| record["reason"] == reason && record["requested"]["count"].is_number());
            record.and_then(|record| record["requested"]["count"].as_u64())
        };
        (of("not a token of this server"), of("not_permitted"))
    };
    wait_until("the rest is counted", async || count().await == (Some(30), Some(10))).await;
    server.stop().await;
}

async fn decisions_are_counted(server: Server) {
    let token = server.task_token().await;
    let good = call(&token, "read_file", json!({}));
    let denied = call(&token, "write_file", json!({}));
    assert!(server.is_permitted(&good).await && !server.is_permitted(&denied).await);
    server.evaluate_batch(&json!({"evaluations": [good, {}, call("x", "read_file", json!({}))]})).await;
    let metrics = server.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    for line in [
        "errand_evaluations_total{decision=\"true\",reason=\"none\"} 2",
        "errand_evaluations_total{decision=\"false\",reason=\"not_permitted\"} 1",
        "errand_evaluations_total{decision=\"false\",reason=\"malformed\"} 1",
        "errand_evaluations_total{decision=\"false\",reason=\"inactive\"} 1",
    ] {
        assert!(metrics.lines().any(|other| other == line), "{line}\n{metrics}");
    }
    server.stop().await;
}

async fn resource_over_its_rate_is_throttled(server: Server) {
    let small = server.replica_with(|config| config.admission.evaluation = RateLimit::new(1, 1, 64)).await;
    let asked = call(&server.task_token().await, "read_file", json!({}));
    let mut refused = None;
    for _ in 0..20 {
        let response = small.evaluation_request("files", EVALUATION, &asked).send().await.unwrap();
        if response.status() == 429 {
            refused = Some(response);
            break;
        }
        assert_eq!(response.headers()["ratelimit-policy"], "\"evaluation\";q=1;w=1");
    }
    let refused = refused.expect("one of the requests is over the rate");
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(refused.json::<Value>().await.unwrap()["type"], "urn:errand:problem:too_many_requests");
    // Introspection has a limit of its own, and so has another replica.
    assert!(small.is_active(asked["context"]["token"].as_str().unwrap()).await);
    assert_eq!(server.evaluate_as("files", EVALUATIONS, &asked).await.0, 200);
    small.stop().await;
    server.stop().await;
}
