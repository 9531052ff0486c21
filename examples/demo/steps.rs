//! The steps of the story. Each does something over the wire and holds what comes back to what should come back.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    agent::{AuthorizationServer, Session, TokenEndpointResponse, probe},
    fixtures::{FIGURES, FIGURES_TEXT, FORECAST, Fixtures},
    idp,
    output::{BoxError, Step},
};

pub(crate) const PURPOSE: &str = "Sum up the figures of this year";

pub(crate) async fn find_errand(cast: &Fixtures, step: &mut Step) -> Result<AuthorizationServer, BoxError> {
    let (status, challenge) = probe(&cast.http, &cast.mcp, None).await?;
    step.show("answer", format!("{status} {challenge}"));
    step.expect("the status", 401, status);
    let at = challenge.split('"').skip_while(|part| !part.ends_with("resource_metadata=")).nth(1);
    let document = TokenEndpointResponse::send(cast.http.get(at.ok_or("the challenge names no document")?)).await?;
    let servers = document.text("authorization_servers");
    step.show("get tokens at", servers.clone());
    step.expect("the MCP server that the document is about", cast.mcp.as_str(), document.text("resource"));
    // An MCP server could name anybody.
    step.expect("who gives tokens", json!([cast.errand.url]), servers);
    let metadata = TokenEndpointResponse::send(
        cast.http.get(format!("{}/.well-known/oauth-authorization-server", cast.errand.url)),
    )
    .await?;
    let errand = serde_json::from_value::<AuthorizationServer>(metadata.body)?;
    step.show("token endpoint", errand.token_endpoint.as_str());
    step.expect("Errand's issuer", cast.errand.url.as_str(), errand.issuer.as_str());
    Ok(errand)
}

pub(crate) async fn sign_in(cast: &Fixtures, step: &mut Step) -> Result<String, BoxError> {
    let allowed = "files:read files:write files:delete";
    let login = json!({"username": idp::USER, "client_id": idp::APP, "resource": cast.errand.url, "scope": allowed});
    let answer = TokenEndpointResponse::send(cast.http.post(format!("{}/login", cast.provider)).json(&login)).await?;
    let token = answer.token()?;
    let claims = decode_claims(&token)?;
    step.expect("who vouches for her", cast.provider.as_str(), value_at(&claims, "/iss"));
    step.expect("whom the token stands for", idp::USER, value_at(&claims, "/sub"));
    step.expect("the app that it was made for", idp::APP, value_at(&claims, "/client_id"));
    step.show("user token", claims);
    Ok(token)
}

pub(crate) async fn expect_unauthorized(cast: &Fixtures, step: &mut Step, token: &str) -> Result<(), BoxError> {
    let (status, challenge) = probe(&cast.http, &cast.mcp, Some(token)).await?;
    step.show("answer", format!("{status} {challenge}"));
    step.expect("the status", 401, status);
    Ok(())
}

pub(crate) async fn expect_splicing_refused(
    cast: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    alices: &str,
) -> Result<(), BoxError> {
    let wanted = [("resource", cast.mcp.as_str()), ("scope", "files:read"), ("purpose", PURPOSE)];
    let answer = cast.reader.exchange(errand, alices, &wanted).await?;
    expect_refusal(step, &answer, "actor_unauthorized");
    Ok(())
}

pub(crate) async fn expect_excess_refused(
    cast: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    alices: &str,
) -> Result<(), BoxError> {
    let wanted =
        [("resource", cast.mcp.as_str()), ("authorization_details", &detail("delete_file")), ("purpose", PURPOSE)];
    let answer = cast.planner.exchange(errand, alices, &wanted).await?;
    expect_refusal(step, &answer, "invalid_authorization_details");
    Ok(())
}

/// A task token, and what the story needs to know of it.
pub(crate) struct TaskToken {
    pub(crate) token: String,
    pub(crate) task: String,
    expires: i64,
}

pub(crate) async fn exchange(
    cast: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    alices: &str,
    purpose: &str,
) -> Result<TaskToken, BoxError> {
    let files = read_details(&cast.mcp, &[FIGURES, FORECAST]);
    let wanted = [("resource", cast.mcp.as_str()), ("authorization_details", &files), ("purpose", purpose)];
    let answer = cast.planner.exchange(errand, alices, &wanted).await?;
    let token = answer.token()?;
    let claims = decode_claims(&token)?;
    step.expect("who issued it", errand.issuer.as_str(), value_at(&claims, "/iss"));
    step.expect("on whose behalf", idp::USER, value_at(&claims, "/sub"));
    step.expect("whose word that is", cast.provider.as_str(), value_at(&claims, "/sub_iss"));
    step.expect("who acts", "planner", value_at(&claims, "/act/sub"));
    step.expect("where it is good", cast.mcp.as_str(), value_at(&claims, "/aud"));
    step.expect("which tools", vec!["read_file"], tools(&claims));
    step.expect("which files", json!({"one_of": [FIGURES, FORECAST]}), value_at(&claims, NAMES));
    step.expect("what for", purpose, value_at(&claims, "/tctx/purpose"));
    let expires = number(&claims, "exp");
    let life = expires - number(&claims, "iat");
    step.expect("a life of at most five minutes", true, (1..=300).contains(&life));
    let task = text(&claims, "txn").to_owned();
    step.show("task token", claims);
    Ok(TaskToken { token, task, expires })
}

pub(crate) async fn read_figures(cast: &Fixtures, step: &mut Step, token: &str) -> Result<Session, BoxError> {
    let session = Session::open(&cast.http, &cast.mcp, token).await?;
    let reply = session.call("read_file", json!({"name": FIGURES})).await?;
    step.show(FIGURES, reply.text());
    step.expect("the call", "done", reply.outcome());
    step.expect("the text", FIGURES_TEXT, reply.text());
    Ok(session)
}

pub(crate) async fn expect_tool_refused(
    cast: &Fixtures,
    step: &mut Step,
    session: &Session,
    tool: &'static str,
    with: Value,
) -> Result<(), BoxError> {
    let reply = session.call(tool, with).await?;
    step.show("answer", format!("{}: {}", reply.outcome(), reply.text()));
    step.expect("the call", "insufficient_scope", reply.outcome());
    let text = cast.figures();
    step.show("the file now", text.as_str());
    step.expect("the file", FIGURES_TEXT, text);
    Ok(())
}

pub(crate) async fn delegate(
    cast: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    planners: &TaskToken,
) -> Result<String, BoxError> {
    let files = read_details(&cast.mcp, &[FIGURES]);
    let part = [("requested_actor", "reader"), ("authorization_details", files.as_str()), ("expires_in", "60")];
    let answer = cast.planner.exchange(errand, &planners.token, &part).await?;
    let token = answer.token()?;
    let claims = decode_claims(&token)?;
    step.expect("no bearer token", "N_A", answer.text("token_type"));
    step.expect("whom it is for", "reader", value_at(&claims, "/may_act/sub"));
    step.expect("where it is good", errand.issuer.as_str(), value_at(&claims, "/aud"));
    step.show("hand-over token", claims);
    let (status, _) = probe(&cast.http, &cast.mcp, Some(&token)).await?;
    step.show("MCP server", status);
    step.expect("the MCP server's answer to it", 401, status);
    Ok(token)
}

pub(crate) async fn accept_delegation(
    cast: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    planners: &TaskToken,
    handed: &str,
) -> Result<TaskToken, BoxError> {
    let answer =
        cast.reader.exchange(errand, handed, &reader_request(cast, &read_details(&cast.mcp, &[FIGURES]))).await?;
    let token = answer.token()?;
    let claims = decode_claims(&token)?;
    step.expect("on whose behalf", idp::USER, value_at(&claims, "/sub"));
    step.expect("who acts", "reader", value_at(&claims, "/act/sub"));
    step.expect("who sent it", "planner", value_at(&claims, "/act/act/sub"));
    step.expect("which task", planners.task.as_str(), value_at(&claims, "/txn"));
    step.expect("which tools", vec!["read_file"], tools(&claims));
    step.expect("which file", json!({"equals": FIGURES}), value_at(&claims, NAMES));
    let expires = number(&claims, "exp");
    step.expect("it ends no later than the planner's", true, expires <= planners.expires);
    step.show("task token", claims);
    Ok(TaskToken { token, task: planners.task.clone(), expires })
}

// ---- what they share -----------------------------------------------------------------------------------------------

/// Where the file names stand that a token for reading is held to.
const NAMES: &str = "/authorization_details/0/constraints/name";

pub(crate) fn reader_request<'a>(cast: &'a Fixtures, files: &'a str) -> [(&'static str, &'a str); 2] {
    [("resource", &cast.mcp), ("authorization_details", files)]
}

/// One tool, as RFC 9396 has it.
fn detail(tool: &str) -> String {
    json!([{"type": "mcp_tool", "actions": ["tools/call"], "identifier": tool}]).to_string()
}

/// One tool of an MCP server, for these files only.
pub(crate) fn read_details(mcp: &str, files: &[&str]) -> String {
    json!([{
        "type": "mcp_tool",
        "locations": [mcp],
        "actions": ["tools/call"],
        "identifier": "read_file",
        "constraints": {"name": {"one_of": files}},
    }])
    .to_string()
}

pub(crate) fn expect_refusal(step: &mut Step, answer: &TokenEndpointResponse, error: &str) {
    step.show("answer", format!("{} {}", answer.status, text(&answer.body, "error")));
    step.show("which says", answer.text("error_description"));
    step.expect("the status", 400, answer.status);
    step.expect("the error", error, answer.text("error"));
}

/// The claims of a token. An agent may look, to know what it has; what it says counts for those who verify it.
fn decode_claims(token: &str) -> Result<Value, BoxError> {
    let payload = token.split('.').nth(1).ok_or("not a JWT")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}

fn value_at(json: &Value, pointer: &str) -> Value {
    json.pointer(pointer).cloned().unwrap_or_default()
}

pub(crate) fn text<'a>(json: &'a Value, name: &str) -> &'a str {
    json.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn number(json: &Value, name: &str) -> i64 {
    json.get(name).and_then(Value::as_i64).unwrap_or_default()
}

pub(crate) fn list<'a>(json: &'a Value, name: &str) -> std::slice::Iter<'a, Value> {
    json.get(name).and_then(Value::as_array).map(|list| list.iter()).unwrap_or_default()
}

/// The tools in a token or in the record of one.
pub(crate) fn tools(json: &Value) -> Vec<&str> {
    list(json, "authorization_details").map(|detail| text(detail, "identifier")).collect()
}
