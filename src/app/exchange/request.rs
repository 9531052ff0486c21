//! The parameters of a token exchange request, parsed.

use serde_json::{Map, Value, json};

use crate::domain::{
    authority::AuthorizationDetails,
    id::{ClientId, Purpose, TaskId},
    scope::ScopeList,
    secret::Secret,
    time::Lifetime,
};

/// A token exchange request whose syntax is valid.
#[derive(Debug)]
pub struct ExchangeRequest {
    /// `subject_token`
    pub subject_token: Secret,
    /// `subject_token_type`
    pub subject_token_type: PresentedTokenType,
    /// `actor_token` with its type
    pub actor: Option<(Secret, PresentedTokenType)>,
    /// `resource`, as sent
    pub resource: Option<String>,
    /// `audience`, as sent
    pub audience: Option<String>,
    /// `scope`
    pub scope: Option<ScopeList>,
    /// `authorization_details`
    pub authorization_details: Option<AuthorizationDetails>,
    /// `requested_token_type`
    pub requested_token_type: RequestedTokenType,
    /// `requested_actor`: the agent that a hand-over token is for
    pub requested_actor: Option<ClientId>,
    /// `task_id`
    pub task_id: Option<TaskId>,
    /// `purpose`
    pub purpose: Option<Purpose>,
    /// `task_deadline` (seconds)
    pub task_deadline: Option<Lifetime>,
    /// `expires_in` (seconds)
    pub expires_in: Option<Lifetime>,
    /// `request_details`
    pub request_details: Option<Map<String, Value>>,
    /// `request_context`
    pub request_context: Option<Map<String, Value>>,
}

/// The declared type of a presented token (RFC 8693 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresentedTokenType {
    /// `urn:ietf:params:oauth:token-type:access_token`
    AccessToken,
    /// `urn:ietf:params:oauth:token-type:id_token`
    IdToken,
    /// `urn:ietf:params:oauth:token-type:jwt`
    Jwt,
    /// `urn:ietf:params:oauth:token-type:txn_token`
    TxnToken,
}

/// The requested token type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestedTokenType {
    /// `urn:ietf:params:oauth:token-type:access_token`
    #[default]
    AccessToken,
    /// `urn:ietf:params:oauth:token-type:txn_token`
    TxnToken,
}

impl ExchangeRequest {
    /// Returns the parameters that an audit record may repeat: parsed values as sent, never a
    /// token.
    pub(in crate::app) fn audit_details(&self) -> Value {
        let mut details = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                details.insert(name.to_owned(), value);
            }
        };
        // In the canonical order of the record.
        put("authorization_details", self.authorization_details.as_ref().map(AuthorizationDetails::to_value));
        put("expires_in", self.expires_in.map(|lifetime| json!(lifetime)));
        put("requested_actor", self.requested_actor.as_ref().map(|id| json!(id)));
        if self.requested_token_type == RequestedTokenType::TxnToken {
            put("requested_token_type", Some(json!("txn_token")));
        }
        put("scope", self.scope.as_ref().map(|scope| json!(scope.to_set())));
        put("task_deadline", self.task_deadline.map(|lifetime| json!(lifetime)));
        put("task_id", self.task_id.map(|id| json!(id)));
        Value::Object(details)
    }
}
