//! The structure of requests and answers, as the certification scenario of the AuthZEN
//! Authorization API 1.0 tests it: the levels Basic Core, Batch Core and Discovery.
//!
//! A token decides here, so the scenario's fixture is two tokens: alice may read and write
//! `record-1`, bob may read it. [`Fixture`] adds the token of the subject to a request, and turns
//! the scenario's action on a record into a call of a tool. The sub-levels that trust properties
//! of the request are not claimed: such properties decide nothing here.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    evaluation::{EVALUATION, EVALUATIONS, with_change},
    server::{Server, form_with_changes, read_response, secret},
};

on_both_stores!(
    basic_requests_are_answered,
    incomplete_requests_are_rejected,
    request_id_is_echoed,
    batches_are_answered,
    batch_defaults_are_replaced_by_entity,
    batch_semantics_end_batches,
    metadata_names_the_endpoints,
);

/// The subjects of the scenario, with a token each.
struct Fixture {
    alice: String,
    bob: String,
}

impl Fixture {
    async fn new(server: &Server) -> Self {
        let token = async |subject: &str, scope: &str| {
            let user = server.user_token(json!({"sub": subject, "scope": scope}));
            let form = form_with_changes(&server.exchange_form(&user), &[("scope", scope)]);
            server.issue_token("planner", &form).await
        };
        Self { alice: token("alice", "files:read files:write").await, bob: token("bob", "files:read").await }
    }

    fn token(&self, subject: &str) -> &str {
        if subject == "alice" { &self.alice } else { &self.bob }
    }

    fn subject(id: &str) -> Value {
        json!({"type": "user", "id": id})
    }

    /// The scenario's action on the record.
    fn resource(action: &str, id: &str) -> Value {
        let tool = if action == "read" { "read_file" } else { "write_file" };
        json!({"type": "tool", "id": tool, "properties": {"arguments": {"record": id}}})
    }

    fn request(&self, subject: &str, action: &str, record: &str) -> Value {
        json!({
            "subject": Self::subject(subject),
            "action": {"name": "tools/call"},
            "resource": Self::resource(action, record),
            "context": {"token": self.token(subject)},
        })
    }
}

/// Checks the structure of a decision, and returns it.
fn decision(answer: &Value) -> bool {
    assert!(answer["context"].is_object(), "{answer}");
    answer["decision"].as_bool().unwrap_or_else(|| panic!("{answer}"))
}

async fn basic_requests_are_answered(server: Server) {
    let fixture = Fixture::new(&server).await;
    let good = fixture.request("alice", "read", "record-1");
    // An optional member that is null counts as absent.
    let mut with_nulls = good.clone();
    for pointer in ["/subject/properties", "/action/properties", "/context/agent", "/options", "/evaluations"] {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        with_nulls.pointer_mut(parent).unwrap()[name] = Value::Null;
    }
    for (request, expected) in [
        (good.clone(), true),
        (fixture.request("alice", "write", "record-1"), true),
        (fixture.request("bob", "read", "record-1"), true),
        (fixture.request("bob", "write", "record-1"), false),
        // Optional context, additional properties, unknown members.
        (with_change(good.clone(), "/context/time", json!("2025-06-27T18:03-07:00")), true),
        (with_change(good.clone(), "/subject/properties", json!({"department": "Sales", "role": "manager"})), true),
        (with_change(good.clone(), "/action/properties", json!({"method": "GET"})), true),
        (with_change(good.clone(), "/resource/properties/status", json!("active")), true),
        (
            with_change(
                good.clone(),
                "/futureField",
                json!({"nested": true, "numbers": [1e300, -0.0, 9_007_199_254_740_993_u64]}),
            ),
            true,
        ),
        (with_change(good.clone(), "/options", json!({"unknown": "x"})), true),
        (with_nulls, true),
    ] {
        for path in [EVALUATION, EVALUATIONS] {
            let response = server.evaluation_request("files", path, &request).send().await.unwrap();
            let headers = response.headers().clone();
            let (status, answer) = read_response(response).await;
            assert_eq!((status, decision(&answer)), (StatusCode::OK, expected), "{path} {request} {answer}");
            assert_eq!(
                (&headers["content-type"], &headers["cache-control"]),
                (&"application/json".parse().unwrap(), &"no-store".parse().unwrap())
            );
        }
    }
    let request = server.post(EVALUATION).basic_auth("files", Some(secret("files")));
    let request = request.header("content-type", "application/json; charset=utf-8").body(format!(" \n{good}\n "));
    assert!(decision(&read_response(request.send().await.unwrap()).await.1));
    // The same request gets the same decision each time.
    for _ in 0..5 {
        assert!(decision(&server.evaluate(&good).await));
    }
    server.stop().await;
}

async fn incomplete_requests_are_rejected(server: Server) {
    let good = Fixture::new(&server).await.request("alice", "read", "record-1");
    for path in [EVALUATION, EVALUATIONS] {
        for (pointer, value, text) in [
            ("/subject", Value::Null, "missing member `subject`"),
            ("/action", Value::Null, "missing member `action`"),
            ("/resource", Value::Null, "missing member `resource`"),
            ("/context", Value::Null, "missing member `context`"),
            ("/subject/type", Value::Null, "missing member `subject.type`"),
            ("/subject/id", Value::Null, "missing member `subject.id`"),
            ("/action/name", Value::Null, "missing member `action.name`"),
            ("/resource/type", Value::Null, "missing member `resource.type`"),
            ("/resource/id", Value::Null, "missing member `resource.id`"),
            ("/context/token", Value::Null, "missing member `context.token`"),
            ("/subject", json!("alice"), "`subject` must be an object"),
            ("/action", json!([]), "`action` must be an object"),
            ("/resource", json!(1), "`resource` must be an object"),
            ("/context", json!(true), "`context` must be an object"),
            ("/subject/type", json!(1), "`subject.type` must be a string"),
            ("/subject/id", json!(7), "`subject.id` must be a string"),
            ("/action/name", json!(123), "`action.name` must be a string"),
            ("/resource/type", json!({}), "`resource.type` must be a string"),
            ("/resource/id", json!(["x"]), "`resource.id` must be a string"),
            ("/context/token", json!(1), "`context.token` must be a string"),
            ("/context/agent", json!(1), "`context.agent` must be a string"),
            ("/resource/properties", json!("x"), "`resource.properties` must be an object"),
            ("/resource/properties/arguments", json!([1]), "`resource.properties.arguments` must be an object"),
            ("/resource/properties/arguments", json!("{}"), "`resource.properties.arguments` must be an object"),
            (
                "/resource/properties/arguments_digest",
                json!("sha-256:x"),
                "`resource.properties.arguments_digest` is not supported; send all arguments",
            ),
        ] {
            let (status, body) = server.evaluate_as("files", path, &with_change(good.clone(), pointer, value)).await;
            let detail = format!("invalid JSON body: {text}");
            assert_eq!((status.as_u16(), &body["detail"]), (400, &json!(detail)), "{path} {pointer} {body}");
            assert_eq!(body["type"], "urn:errand:problem:malformed");
        }
    }
    server.stop().await;
}

async fn request_id_is_echoed(server: Server) {
    let good = Fixture::new(&server).await.request("alice", "read", "record-1");
    for path in [EVALUATION, EVALUATIONS] {
        let sent = server.evaluation_request("files", path, &good).header("x-request-id", "bfe9eb29-ab87-4ca3");
        assert_eq!(sent.send().await.unwrap().headers()["x-request-id"], "bfe9eb29-ab87-4ca3");
        let absent = server.evaluation_request("files", path, &good).send().await.unwrap();
        assert!(absent.status() == 200 && absent.headers().contains_key("x-request-id"));
    }
    server.stop().await;
}

async fn batches_are_answered(server: Server) {
    let fixture = Fixture::new(&server).await;
    let defaults = |subject: &str| {
        json!({
            "subject": Fixture::subject(subject),
            "action": {"name": "tools/call"},
            "context": {"token": fixture.token(subject)},
        })
    };
    let ask = async |batch: Value| {
        let answers = server.evaluate_batch(&batch).await;
        answers.iter().map(decision).collect::<Vec<_>>()
    };
    let items = |batch: Value, items: Value| with_change(batch, "/evaluations", items);
    // In the order of the request.
    let both = json!([{"resource": Fixture::resource("read", "record-1")}, {"resource": Fixture::resource("write", "record-1")}]);
    assert_eq!(ask(items(defaults("bob"), both.clone())).await, [true, false]);
    assert_eq!(ask(items(defaults("alice"), both)).await, [true, true]);
    // Without defaults.
    let full = json!([fixture.request("alice", "read", "record-1"), fixture.request("bob", "write", "record-1")]);
    assert_eq!(ask(json!({"evaluations": full})).await, [true, false]);
    // The context of an evaluation replaces the default one, except for the token.
    let context = json!([
        {"resource": Fixture::resource("read", "record-1")},
        {"resource": Fixture::resource("read", "record-2"), "context": {"time": "2025-06-27T19:00-07:00", "source": "x"}},
    ]);
    assert_eq!(ask(items(defaults("alice"), context)).await, [true, true]);
    // An incomplete evaluation is an error of its own.
    let incomplete = json!([{"resource": Fixture::resource("read", "record-1")}, {}, "x", {"resource": {"type": "tool"}},
        {"resource": Fixture::resource("read", "record-1"), "subject": "alice"}]);
    let answers = server.evaluate_batch(&items(defaults("alice"), incomplete)).await;
    assert_eq!(answers.iter().map(decision).collect::<Vec<_>>(), [true, false, false, false, false]);
    for (answer, text) in answers[1..].iter().zip([
        "missing member `resource`",
        "an item of `evaluations` must be an object",
        "missing member `resource.id`",
        "`subject` must be an object",
    ]) {
        let error = json!({"status": 400, "message": format!("invalid JSON body: {text}")});
        assert_eq!(*answer, json!({"decision": false, "context": {"error": error}}));
    }
    // Without evaluations, the request is a single one.
    let single = fixture.request("alice", "read", "record-1");
    for batch in [single.clone(), items(single.clone(), json!([]))] {
        let (status, answer) = server.evaluate_as("files", EVALUATIONS, &batch).await;
        assert_eq!((status.as_u16(), decision(&answer)), (200, true));
        assert!(answer.get("evaluations").is_none());
    }
    // At most 64.
    let many = |n: usize| items(single.clone(), Value::Array(vec![json!({}); n]));
    assert_eq!(ask(many(64)).await, [true; 64]);
    for (batch, text) in [
        (many(65), "`evaluations` has more than 64 items; send several requests"),
        (items(single.clone(), json!({})), "`evaluations` must be an array"),
        (items(single.clone(), json!("x")), "`evaluations` must be an array"),
        (with_change(many(2), "/options", json!([])), "`options` must be an object"),
        (with_change(many(2), "/subject", json!("alice")), "`subject` must be an object"),
    ] {
        let (status, body) = server.evaluate_as("files", EVALUATIONS, &batch).await;
        assert_eq!((status.as_u16(), &body["detail"]), (400, &json!(format!("invalid JSON body: {text}"))), "{body}");
    }
    server.stop().await;
}

async fn batch_defaults_are_replaced_by_entity(server: Server) {
    let fixture = Fixture::new(&server).await;
    let batch = json!({
        "subject": {"type": "user"},
        "action": {"name": "tools/call"},
        "resource": {"type": "tool", "id": "write_file", "properties": {"arguments": {"record": "record-1"}}},
        "context": {"token": fixture.alice, "agent": "reader"},
        "evaluations": [
            {"subject": {"id": "alice"}, "context": {"agent": "planner"}},
            {"subject": {"id": "alice"}},
            {"subject": {"id": "bob"}, "context": {"token": fixture.bob}},
            {"subject": {"id": "bob"}, "context": {"token": fixture.bob}, "resource": {"id": "read_file"}},
            // A token that is taken from the default brings the agent of the default.
            {"subject": {"id": "alice"}, "context": {}},
            {"subject": {"id": "alice"}, "context": {"agent": "planner"}, "action": {}},
            {"subject": {}},
        ],
    });
    let answers = server.evaluate_batch(&batch).await;
    let found = answers.iter().map(|answer| {
        let context = &answer["context"];
        (decision(answer), context["at"].as_str().or(context["error"]["message"].as_str()))
    });
    let expected = [
        (true, None),
        (false, Some("context.agent")),
        (false, Some("resource.id")),
        (true, None),
        (false, Some("context.agent")),
        (true, None),
        (false, Some("invalid JSON body: missing member `subject.id`")),
    ];
    assert_eq!(found.collect::<Vec<_>>(), expected);
    server.stop().await;
}

async fn batch_semantics_end_batches(server: Server) {
    let fixture = Fixture::new(&server).await;
    let (yes, no) =
        (json!({"resource": Fixture::resource("read", "r")}), json!({"resource": Fixture::resource("write", "r")}));
    let malformed = json!({"resource": "x"});
    let batch = |semantic: Value, items: &[&Value]| {
        json!({
            "subject": Fixture::subject("bob"),
            "action": {"name": "tools/call"},
            "context": {"token": fixture.bob},
            "evaluations": items,
            "options": {"evaluations_semantic": semantic},
        })
    };
    for (semantic, items, expected) in [
        (Value::Null, [&yes, &no, &yes], &[true, false, true][..]),
        (json!("execute_all"), [&yes, &no, &yes], &[true, false, true]),
        (json!("execute_all"), [&no, &malformed, &yes], &[false, false, true]),
        (json!("deny_on_first_deny"), [&yes, &no, &yes], &[true, false]),
        (json!("deny_on_first_deny"), [&malformed, &no, &yes], &[false]),
        (json!("deny_on_first_deny"), [&yes, &yes, &yes], &[true, true, true]),
        (json!("permit_on_first_permit"), [&no, &yes, &no], &[false, true]),
        (json!("permit_on_first_permit"), [&malformed, &no, &yes], &[false, false, true]),
        (json!("permit_on_first_permit"), [&no, &no, &no], &[false, false, false]),
    ] {
        let answers = server.evaluate_batch(&batch(semantic.clone(), &items)).await;
        assert_eq!(answers.iter().map(decision).collect::<Vec<_>>(), expected, "{semantic}");
    }
    for semantic in [json!("deny"), json!("EXECUTE_ALL"), json!(1)] {
        let (status, body) = server.evaluate_as("files", EVALUATIONS, &batch(semantic, &[&yes])).await;
        assert_eq!(status, 400, "{body}");
        assert!(body["detail"].as_str().unwrap().contains("`options.evaluations_semantic` must be"), "{body}");
    }
    server.stop().await;
}

async fn metadata_names_the_endpoints(server: Server) {
    let response = server.request(Method::GET, "/.well-known/authzen-configuration").send().await.unwrap();
    let headers = response.headers().clone();
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(
        (&headers["cache-control"], &headers["access-control-allow-origin"]),
        (&"public, max-age=300".parse().unwrap(), &"*".parse().unwrap())
    );
    let (status, document) = read_response(response).await;
    let issuer = &server.issuer;
    let expected = json!({
        "policy_decision_point": issuer,
        "access_evaluation_endpoint": format!("{issuer}{EVALUATION}"),
        "access_evaluations_endpoint": format!("{issuer}{EVALUATIONS}"),
    });
    assert_eq!((status.as_u16(), document), (200, expected));
    server.stop().await;
}
