//! Requests of the steps. Each compares the responses with the expected ones.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    agent::{AuthorizationServer, Session, TokenEndpointResponse, probe},
    fixtures::{FIGURES, FIGURES_TEXT, FORECAST, Fixtures},
    idp,
    output::{BoxError, Step},
};

pub(crate) const PURPOSE: &str = "Sum up the figures of this year";

pub(crate) async fn find_errand(fixtures: &Fixtures, step: &mut Step) -> Result<AuthorizationServer, BoxError> {
    let (status, challenge) = probe(&fixtures.http, &fixtures.mcp, None).await?;
    step.show("response", format!("{status} {challenge}"));
    step.expect("the status", 401, status);
    let metadata_url = challenge.split('"').skip_while(|part| !part.ends_with("resource_metadata=")).nth(1);
    let document = TokenEndpointResponse::send(
        fixtures.http.get(metadata_url.ok_or("the challenge does not contain `resource_metadata`")?),
    )
    .await?;
    let servers = document.get("authorization_servers");
    step.show("token issuers", servers.clone());
    step.expect("the resource of the document", fixtures.mcp.as_str(), document.get("resource"));
    // A malicious MCP server could name any authorization server.
    step.expect("the authorization server", json!([fixtures.errand.url]), servers);
    let metadata = TokenEndpointResponse::send(
        fixtures.http.get(format!("{}/.well-known/oauth-authorization-server", fixtures.errand.url)),
    )
    .await?;
    let errand = serde_json::from_value::<AuthorizationServer>(metadata.body)?;
    step.show("token endpoint", errand.token_endpoint.as_str());
    step.expect("Errand's issuer", fixtures.errand.url.as_str(), errand.issuer.as_str());
    Ok(errand)
}

pub(crate) async fn sign_in(fixtures: &Fixtures, step: &mut Step) -> Result<String, BoxError> {
    let allowed = "files:read files:write files:delete";
    let login =
        json!({"username": idp::USER, "client_id": idp::APP, "resource": fixtures.errand.url, "scope": allowed});
    let response =
        TokenEndpointResponse::send(fixtures.http.post(format!("{}/login", fixtures.provider)).json(&login)).await?;
    let token = response.token()?;
    let claims = decode_claims(&token)?;
    step.expect("the issuer", fixtures.provider.as_str(), value_at(&claims, "/iss"));
    step.expect("the user", idp::USER, value_at(&claims, "/sub"));
    step.expect("the app", idp::APP, value_at(&claims, "/client_id"));
    step.show("user token", claims);
    Ok(token)
}

pub(crate) async fn expect_unauthorized(fixtures: &Fixtures, step: &mut Step, token: &str) -> Result<(), BoxError> {
    let (status, challenge) = probe(&fixtures.http, &fixtures.mcp, Some(token)).await?;
    step.show("response", format!("{status} {challenge}"));
    step.expect("the status", 401, status);
    Ok(())
}

pub(crate) async fn expect_splicing_refused(
    fixtures: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    user_token: &str,
) -> Result<(), BoxError> {
    let parameters = [("resource", fixtures.mcp.as_str()), ("scope", "files:read"), ("purpose", PURPOSE)];
    let response = fixtures.reader.exchange(errand, user_token, &parameters).await?;
    expect_refusal(step, &response, "actor_unauthorized");
    Ok(())
}

pub(crate) async fn expect_excess_refused(
    fixtures: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    user_token: &str,
) -> Result<(), BoxError> {
    let parameters =
        [("resource", fixtures.mcp.as_str()), ("authorization_details", &detail("delete_file")), ("purpose", PURPOSE)];
    let response = fixtures.planner.exchange(errand, user_token, &parameters).await?;
    expect_refusal(step, &response, "invalid_authorization_details");
    Ok(())
}

/// A task token, its task and its expiry.
pub(crate) struct TaskToken {
    pub(crate) token: String,
    pub(crate) task: String,
    expires: i64,
}

pub(crate) async fn exchange(
    fixtures: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    user_token: &str,
    purpose: &str,
) -> Result<TaskToken, BoxError> {
    let files = read_details(&fixtures.mcp, &[FIGURES, FORECAST]);
    let parameters = [("resource", fixtures.mcp.as_str()), ("authorization_details", &files), ("purpose", purpose)];
    let response = fixtures.planner.exchange(errand, user_token, &parameters).await?;
    let token = response.token()?;
    let claims = decode_claims(&token)?;
    step.expect("the issuer", errand.issuer.as_str(), value_at(&claims, "/iss"));
    step.expect("the requester", idp::USER, value_at(&claims, "/sub"));
    step.expect("the issuer of the requester", fixtures.provider.as_str(), value_at(&claims, "/sub_iss"));
    step.expect("the agent", "planner", value_at(&claims, "/act/sub"));
    step.expect("the audience", fixtures.mcp.as_str(), value_at(&claims, "/aud"));
    step.expect("the tools", vec!["read_file"], tools(&claims));
    step.expect("the files", json!({"one_of": [FIGURES, FORECAST]}), value_at(&claims, NAMES));
    step.expect("the purpose", purpose, value_at(&claims, "/tctx/purpose"));
    let expires = number(&claims, "exp");
    let lifetime = expires - number(&claims, "iat");
    step.expect("a lifetime of at most five minutes", true, (1..=300).contains(&lifetime));
    let task = text(&claims, "txn").to_owned();
    step.show("task token", claims);
    Ok(TaskToken { token, task, expires })
}

pub(crate) async fn read_figures(fixtures: &Fixtures, step: &mut Step, token: &str) -> Result<Session, BoxError> {
    let session = Session::open(&fixtures.http, &fixtures.mcp, token).await?;
    let reply = session.call("read_file", json!({"name": FIGURES})).await?;
    step.show(FIGURES, reply.text());
    step.expect("the call", "done", reply.outcome());
    step.expect("the text", FIGURES_TEXT, reply.text());
    Ok(session)
}

pub(crate) async fn expect_tool_refused(
    fixtures: &Fixtures,
    step: &mut Step,
    session: &Session,
    tool: &'static str,
    arguments: Value,
) -> Result<(), BoxError> {
    let reply = session.call(tool, arguments).await?;
    step.show("response", format!("{}: {}", reply.outcome(), reply.text()));
    step.expect("the call", "insufficient_scope", reply.outcome());
    let text = fixtures.figures();
    step.show("file content", text.as_str());
    step.expect("the file content", FIGURES_TEXT, text);
    Ok(())
}

pub(crate) async fn delegate(
    fixtures: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    planner_token: &TaskToken,
) -> Result<String, BoxError> {
    let files = read_details(&fixtures.mcp, &[FIGURES]);
    let parameters = [("requested_actor", "reader"), ("authorization_details", files.as_str()), ("expires_in", "60")];
    let response = fixtures.planner.exchange(errand, &planner_token.token, &parameters).await?;
    let token = response.token()?;
    let claims = decode_claims(&token)?;
    step.expect("the token type", "N_A", response.get("token_type"));
    step.expect("the agent that may use it", "reader", value_at(&claims, "/may_act/sub"));
    step.expect("the audience", errand.issuer.as_str(), value_at(&claims, "/aud"));
    step.show("hand-over token", claims);
    let (status, _) = probe(&fixtures.http, &fixtures.mcp, Some(&token)).await?;
    step.show("MCP server", status);
    step.expect("the status at the MCP server", 401, status);
    Ok(token)
}

pub(crate) async fn accept_delegation(
    fixtures: &Fixtures,
    step: &mut Step,
    errand: &AuthorizationServer,
    planner_token: &TaskToken,
    hand_over: &str,
) -> Result<TaskToken, BoxError> {
    let response = fixtures
        .reader
        .exchange(errand, hand_over, &reader_request(fixtures, &read_details(&fixtures.mcp, &[FIGURES])))
        .await?;
    let token = response.token()?;
    let claims = decode_claims(&token)?;
    step.expect("the requester", idp::USER, value_at(&claims, "/sub"));
    step.expect("the agent", "reader", value_at(&claims, "/act/sub"));
    step.expect("the delegating agent", "planner", value_at(&claims, "/act/act/sub"));
    step.expect("the task", planner_token.task.as_str(), value_at(&claims, "/txn"));
    step.expect("the tools", vec!["read_file"], tools(&claims));
    step.expect("the file", json!({"equals": FIGURES}), value_at(&claims, NAMES));
    let expires = number(&claims, "exp");
    step.expect("expires no later than the planner's token", true, expires <= planner_token.expires);
    step.show("task token", claims);
    Ok(TaskToken { token, task: planner_token.task.clone(), expires })
}

/// JSON pointer to the constraint on file names.
const NAMES: &str = "/authorization_details/0/constraints/name";

pub(crate) fn reader_request<'a>(fixtures: &'a Fixtures, files: &'a str) -> [(&'static str, &'a str); 2] {
    [("resource", &fixtures.mcp), ("authorization_details", files)]
}

/// Returns `authorization_details` (RFC 9396) for one tool.
fn detail(tool: &str) -> String {
    json!([{"type": "mcp_tool", "actions": ["tools/call"], "identifier": tool}]).to_string()
}

/// Returns `authorization_details` for reading these files only.
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

pub(crate) fn expect_refusal(step: &mut Step, response: &TokenEndpointResponse, error: &str) {
    step.show("response", format!("{} {}", response.status, text(&response.body, "error")));
    step.show("description", response.get("error_description"));
    step.expect("the status", 400, response.status);
    step.expect("the error", error, response.get("error"));
}

/// Decodes the claims of a token without verifying it: the agent only wants to know what it got.
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

/// Returns the tools in a token or in its audit record.
pub(crate) fn tools(json: &Value) -> Vec<&str> {
    list(json, "authorization_details").map(|detail| text(detail, "identifier")).collect()
}
