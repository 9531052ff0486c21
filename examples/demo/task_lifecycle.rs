//! Requests of the steps on the lifecycle of a task: suspension, completion, revocation, audit
//! trail.

use serde_json::{Value, json};

use crate::{
    agent::{AuthorizationServer, OAuthClient, Session, TokenEndpointResponse},
    fixtures::{FIGURES, FIGURES_TEXT, Fixtures},
    output::{BoxError, Step},
    steps::{expect_refusal, list, read_details, reader_request, text, tools},
};

/// Reason of the suspension.
const QUESTION: &str = "waiting for Alice to choose the quarters";
const OUTCOME: &str = "the sum of four quarters is 533";

/// Suspends, resumes or completes the task, as the planner.
pub(crate) async fn transition_task(
    fixtures: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    task: &str,
    action: &str,
) -> Result<(), BoxError> {
    let api = api_token(&fixtures.planner, errand, "errand:tasks").await?;
    let (body, state) = match action {
        "suspend" => (json!({"reason": QUESTION}), "suspended"),
        "complete" => (json!({"outcome": OUTCOME}), "completed"),
        _ => (json!({}), "active"),
    };
    let url = format!("{}/v1/tasks/{task}/{action}", errand.issuer);
    let response = TokenEndpointResponse::send(fixtures.http.post(url).bearer_auth(&api).json(&body)).await?;
    step.show("request", body);
    step.show("task state", response.get("state"));
    step.expect("the status", 200, response.status);
    step.expect("the state", state, response.get("state"));
    Ok(())
}

/// Calls the tool in both existing sessions.
pub(crate) async fn expect_both_sessions(
    step: &mut Step,
    sessions: &[Session; 2],
    outcome: &str,
) -> Result<(), BoxError> {
    for (agent, session) in ["the planner", "the reader"].into_iter().zip(sessions) {
        let reply = session.call("read_file", json!({"name": FIGURES})).await?;
        step.show(agent, format!("{} {}", reply.outcome(), reply.text()));
        step.expect(agent, outcome, reply.outcome());
    }
    Ok(())
}

pub(crate) async fn revoke(
    fixtures: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    task: &str,
) -> Result<String, BoxError> {
    let api = api_token(&fixtures.ops, errand, "errand:admin errand:audit").await?;
    let revocation = json!({"kind": "task", "id": task, "reason": "Alice called: these are the wrong figures"});
    let url = format!("{}/v1/admin/revocations", errand.issuer);
    let response = TokenEndpointResponse::send(fixtures.http.post(url).bearer_auth(&api).json(&revocation)).await?;
    step.show("request", revocation);
    step.show("response", response.body.clone());
    step.expect("the status", 200, response.status);
    step.expect("the revoked task", task, response.get("key"));
    Ok(api)
}

pub(crate) async fn expect_session_ended(
    fixtures: &Fixtures,
    step: &mut Step,
    session: &Session,
) -> Result<(), BoxError> {
    let reply = session.call("read_file", json!({"name": FIGURES})).await?;
    step.show("response", format!("{} {}", reply.outcome(), reply.text()));
    step.expect("the call", "401", reply.outcome());
    step.expect("the challenge names the error", true, reply.text().contains("error=\"invalid_token\""));
    step.expect("the file content", FIGURES_TEXT, fixtures.figures());
    Ok(())
}

pub(crate) async fn expect_exchange_refused(
    fixtures: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    hand_over: &str,
) -> Result<(), BoxError> {
    let response = fixtures
        .reader
        .exchange(errand, hand_over, &reader_request(fixtures, &read_details(&fixtures.mcp, &[FIGURES])))
        .await?;
    expect_refusal(step, &response, "invalid_request");
    Ok(())
}

pub(crate) async fn show_audit(fixtures: &Fixtures, step: &mut Step, api: &str, task: &str) -> Result<(), BoxError> {
    let url = format!("{}/v1/admin/audit?task={task}", fixtures.errand.url);
    let response = TokenEndpointResponse::send(fixtures.http.get(url).bearer_auth(api)).await?;
    step.expect("the status", 200, response.status);
    let items = list(&response.body, "items");
    // The list starts with the newest record.
    let records = items.rev().filter_map(|item| item.pointer("/record")).collect::<Vec<_>>();
    step.show("records", records.iter().map(|record| describe_record(record)).collect::<Vec<_>>());
    for (what, event, outcome, count) in [
        ("issued tokens: the planner's, the hand-over token, the reader's", "token.issue", "done", 3),
        ("active tokens at the MCP server", "token.introspect", "active", 2),
        (
            "inactive tokens at the MCP server: the hand-over token, and both after the revocation",
            "token.introspect",
            "inactive",
            3,
        ),
        ("refused exchanges: the reader's after the revocation", "token.issue", "refused", 1),
        ("revocations", "revocation", "done", 1),
    ] {
        let found = records
            .iter()
            .filter(|record| text(record, "event") == event && text(record, "outcome") == outcome)
            .count();
        step.expect(what, count, found);
    }
    Ok(())
}

pub(crate) async fn show_trail(fixtures: &Fixtures, step: &mut Step, api: &str, task: &str) -> Result<(), BoxError> {
    let url = format!("{}/v1/admin/tasks/{task}/trail", fixtures.errand.url);
    let response = TokenEndpointResponse::send(fixtures.http.get(url).bearer_auth(api)).await?;
    step.expect("the status", 200, response.status);
    step.show("trail", list(&response.body, "steps").map(|step| text(step, "text")).collect::<Vec<_>>());
    let outcome = |step: &Value| step.pointer("/record/requested/outcome").cloned().unwrap_or_default();
    for (what, kind, expected_outcome, count) in [
        ("intents, with the granted authority", "intent", Value::Null, 1),
        ("derived tokens: the hand-over token, the reader's", "exchange", Value::Null, 2),
        ("successful calls: two by each agent", "call", json!("succeeded"), 4),
        ("refused calls: two by the planner, one by the reader", "call", json!("refused"), 3),
        ("transitions: suspended, resumed, completed", "state", Value::Null, 3),
    ] {
        let found = list(&response.body, "steps")
            .filter(|step| text(step, "kind") == kind && outcome(step) == expected_outcome);
        step.expect(what, count, found.count());
    }
    Ok(())
}

/// Gets a token for Errand's own API.
async fn api_token(client: &OAuthClient, errand: &AuthorizationServer, scope: &str) -> Result<String, BoxError> {
    let grant = [("grant_type", "client_credentials"), ("scope", scope)];
    client.post_form(errand, &grant).await?.token()
}

/// Formats an audit record on one line: event, outcome, client, actor chain and tools.
fn describe_record(record: &Value) -> String {
    let client = [text(record, "client"), text(record, "admin")].concat();
    let agents = list(record, "agents").filter_map(Value::as_str).collect::<Vec<_>>().join(" < ");
    let tools = record.get("granted").map(tools).unwrap_or_default().join(" ");
    let reason = text(record, "reason");
    let reason = if reason.is_empty() { String::new() } else { format!("({reason})") };
    let (event, outcome) = (text(record, "event"), text(record, "outcome"));
    let line = format!("{event:<17}{outcome:<9}by {client:<10} act: {agents:<17} {tools}{reason}");
    line.trim_end().to_owned()
}
