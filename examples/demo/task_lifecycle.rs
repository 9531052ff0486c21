//! The steps of a task's life: pause, end, and what is on record of it.

use serde_json::{Value, json};

use crate::{
    agent::{AuthorizationServer, OAuthClient, Session, TokenEndpointResponse},
    fixtures::{FIGURES, FIGURES_TEXT, Fixtures},
    output::{BoxError, Step},
    steps::{expect_refusal, list, read_details, reader_request, text, tools},
};

/// What Alice is waited for in the middle of the work.
const QUESTION: &str = "Alice is asked which quarters she means";
const OUTCOME: &str = "533 in four quarters";

/// The planner brings its task to another state.
pub(crate) async fn transition_task(
    cast: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    task: &str,
    act: &str,
) -> Result<(), BoxError> {
    let api = api_token(&cast.planner, errand, "errand:tasks").await?;
    let (said, state) = match act {
        "suspend" => (json!({"reason": QUESTION}), "suspended"),
        "complete" => (json!({"outcome": OUTCOME}), "completed"),
        _ => (json!({}), "active"),
    };
    let url = format!("{}/v1/tasks/{task}/{act}", errand.issuer);
    let answer = TokenEndpointResponse::send(cast.http.post(url).bearer_auth(&api).json(&said)).await?;
    step.show("the planner says", said);
    step.show("the task now", answer.text("state"));
    step.expect("the status", 200, answer.status);
    step.expect("the state", state, answer.text("state"));
    Ok(())
}

/// Both agents have the very tokens that they had.
pub(crate) async fn expect_both_sessions(
    step: &mut Step,
    sessions: &[Session; 2],
    outcome: &str,
) -> Result<(), BoxError> {
    for (who, session) in ["the planner", "the reader"].into_iter().zip(sessions) {
        let reply = session.call("read_file", json!({"name": FIGURES})).await?;
        step.show(who, format!("{} {}", reply.outcome(), reply.text()));
        step.expect(who, outcome, reply.outcome());
    }
    Ok(())
}

pub(crate) async fn revoke(
    cast: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    task: &str,
) -> Result<String, BoxError> {
    let api = api_token(&cast.ops, errand, "errand:admin errand:audit").await?;
    let order = json!({"kind": "task", "id": task, "reason": "Alice called: the figures are the wrong ones"});
    let url = format!("{}/v1/admin/revocations", errand.issuer);
    let answer = TokenEndpointResponse::send(cast.http.post(url).bearer_auth(&api).json(&order)).await?;
    step.show("order", order);
    step.show("answer", answer.body.clone());
    step.expect("the status", 200, answer.status);
    step.expect("what was ended", task, answer.text("key"));
    Ok(api)
}

pub(crate) async fn expect_session_ended(cast: &Fixtures, step: &mut Step, session: &Session) -> Result<(), BoxError> {
    let reply = session.call("read_file", json!({"name": FIGURES})).await?;
    step.show("answer", format!("{} {}", reply.outcome(), reply.text()));
    step.expect("the call", "401", reply.outcome());
    step.expect("the challenge says why", true, reply.text().contains("error=\"invalid_token\""));
    step.expect("the file", FIGURES_TEXT, cast.figures());
    Ok(())
}

pub(crate) async fn expect_exchange_refused(
    cast: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    handed: &str,
) -> Result<(), BoxError> {
    let answer =
        cast.reader.exchange(errand, handed, &reader_request(cast, &read_details(&cast.mcp, &[FIGURES]))).await?;
    expect_refusal(step, &answer, "invalid_request");
    Ok(())
}

pub(crate) async fn show_audit(cast: &Fixtures, step: &mut Step, api: &str, task: &str) -> Result<(), BoxError> {
    let url = format!("{}/v1/admin/audit?task={task}", cast.errand.url);
    let answer = TokenEndpointResponse::send(cast.http.get(url).bearer_auth(api)).await?;
    step.expect("the status", 200, answer.status);
    let items = list(&answer.body, "items");
    // The list begins with the newest.
    let records = items.rev().filter_map(|item| item.pointer("/chained/record")).collect::<Vec<_>>();
    step.show("records", records.iter().map(|record| describe_record(record)).collect::<Vec<_>>());
    for (what, event, outcome, times) in [
        ("tokens issued: the planner's, the hand-over, the reader's", "token.issue", "done", 3),
        ("tokens let in by the MCP server", "token.introspect", "active", 2),
        ("tokens turned away: the hand-over, and both after the end", "token.introspect", "inactive", 3),
        ("tokens refused: the reader's after the end", "token.issue", "refused", 1),
        ("the end", "revocation", "done", 1),
    ] {
        let found = records
            .iter()
            .filter(|record| text(record, "event") == event && text(record, "outcome") == outcome)
            .count();
        step.expect(what, times, found);
    }
    Ok(())
}

pub(crate) async fn show_trail(cast: &Fixtures, step: &mut Step, api: &str, task: &str) -> Result<(), BoxError> {
    let url = format!("{}/v1/admin/tasks/{task}/trail", cast.errand.url);
    let answer = TokenEndpointResponse::send(cast.http.get(url).bearer_auth(api)).await?;
    step.expect("the status", 200, answer.status);
    step.show("the trail", list(&answer.body, "steps").map(|step| text(step, "text")).collect::<Vec<_>>());
    let outcome = |step: &Value| step.pointer("/record/asked/outcome").cloned().unwrap_or_default();
    for (what, kind, came_of_it, times) in [
        ("the intent, with what was granted", "intent", Value::Null, 1),
        ("tokens that came of it: the hand-over, the reader's", "exchange", Value::Null, 2),
        ("calls that were made: two by each agent", "call", json!("succeeded"), 4),
        ("calls that were refused: two by the planner, one by the reader", "call", json!("refused"), 3),
        ("states: suspended, resumed, completed", "state", Value::Null, 3),
    ] {
        let found =
            list(&answer.body, "steps").filter(|step| text(step, "kind") == kind && outcome(step) == came_of_it);
        step.expect(what, times, found.count());
    }
    Ok(())
}

/// A token for Errand's own API.
async fn api_token(party: &OAuthClient, errand: &AuthorizationServer, scope: &str) -> Result<String, BoxError> {
    let grant = [("grant_type", "client_credentials"), ("scope", scope)];
    party.post_form(errand, &grant).await?.token()
}

/// A record of the trail on one line: what, by whom, what came of it.
fn describe_record(record: &Value) -> String {
    let who = [text(record, "client"), text(record, "admin")].concat();
    let agents = list(record, "agents").filter_map(Value::as_str).collect::<Vec<_>>().join(" < ");
    let tools = record.get("granted").map(tools).unwrap_or_default().join(" ");
    let reason = text(record, "reason");
    let reason = if reason.is_empty() { String::new() } else { format!("({reason})") };
    let (event, outcome) = (text(record, "event"), text(record, "outcome"));
    let line = format!("{event:<17}{outcome:<9}by {who:<10} act: {agents:<17} {tools}{reason}");
    line.trim_end().to_owned()
}
