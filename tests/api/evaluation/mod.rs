//! Tests of the decision endpoints (AuthZEN) over HTTP.

use reqwest::{RequestBuilder, StatusCode};
use serde_json::{Map, Value, json};

use crate::server::{FILES, NOTES, Server, form_with_changes, read_response, secret};

mod agreement;
mod bad_input;
mod conformance;
mod decisions;
mod records;

pub const EVALUATION: &str = "/access/v1/evaluation";
const EVALUATIONS: &str = "/access/v1/evaluations";

/// Returns the question whether the planner may call a tool for alice.
pub fn call(token: &str, tool: &str, arguments: Value) -> Value {
    json!({
        "subject": {"type": "identity", "id": "alice"},
        "action": {"name": "tools/call"},
        "resource": {"type": "tool", "id": tool, "properties": {"arguments": arguments}},
        "context": {"token": token, "agent": "planner"},
    })
}

/// Returns the question whether the planner may list something for alice.
pub fn list(token: &str, action: &str, server: &str) -> Value {
    json!({
        "subject": {"type": "identity", "id": "alice"},
        "action": {"name": action},
        "resource": {"type": "mcp_server", "id": server},
        "context": {"token": token, "agent": "planner"},
    })
}

/// Returns the value with a changed member, which is named by a JSON pointer. `null` removes it.
fn with_change(mut value: Value, pointer: &str, new: Value) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let members: &mut Map<String, Value> = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    if new.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), new);
    }
    value
}

impl Server {
    /// Builds a request of a resource to a decision endpoint.
    fn evaluation_request(&self, resource: &str, path: &str, body: &Value) -> RequestBuilder {
        self.post(path).basic_auth(resource.to_owned(), Some(secret(resource))).json(body)
    }

    /// Asks as a resource.
    pub async fn evaluate_as(&self, resource: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        read_response(self.evaluation_request(resource, path, body).send().await.unwrap()).await
    }

    /// Asks as `files` and returns the decision.
    pub async fn evaluate(&self, body: &Value) -> Value {
        let (status, answer) = self.evaluate_as("files", EVALUATION, body).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Asks as `files` and returns whether the call is permitted, by the reason.
    pub async fn is_permitted(&self, body: &Value) -> bool {
        let answer = self.evaluate(body).await;
        let decision = answer["decision"].as_bool().unwrap();
        assert_eq!(answer["context"]["reason"].is_null(), decision, "{answer}");
        decision
    }

    /// Asks a batch as `files`.
    async fn evaluate_batch(&self, body: &Value) -> Vec<Value> {
        let (status, answer) = self.evaluate_as("files", EVALUATIONS, body).await;
        assert_eq!(status, 200, "{answer}");
        answer["evaluations"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
    }

    /// Issues a task token of the planner with these details.
    async fn token_with_details(&self, details: &Value) -> String {
        let form = self.exchange_form(&self.user_token(json!({})));
        let text = details.to_string();
        let changes = [("scope", ""), ("authorization_details", text.as_str())];
        self.issue_token("planner", &form_with_changes(&form, &changes)).await
    }

    /// Issues a task token of the planner for `notes`.
    async fn notes_token(&self) -> String {
        let user = self.user_token(json!({"scope": "notes:read"}));
        let form = form_with_changes(&self.exchange_form(&user), &[("resource", NOTES), ("scope", "notes:read")]);
        self.issue_token("planner", &form).await
    }
}

/// Returns the detail of a tool of `files` with constraints.
fn detail(tool: &str, constraints: Value) -> Value {
    json!({"type": "mcp_tool", "locations": [FILES], "actions": ["tools/call"], "identifier": tool,
        "constraints": constraints})
}
