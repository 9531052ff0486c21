//! The audit record.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{
    id::{ClientId, RequestId, TaskId, TokenId},
    requester::Requester,
    time::Timestamp,
};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// A token was issued, or refused.
    #[serde(rename = "token.issue")]
    TokenIssue,
    /// A client did not prove who it is, or that it may call what it called.
    #[serde(rename = "client.authenticate")]
    ClientAuthenticate,
    /// A token was introspected.
    #[serde(rename = "token.introspect")]
    TokenIntrospect,
    /// Something was taken back.
    #[serde(rename = "revocation")]
    Revocation,
    /// An object of the registry was put or removed.
    #[serde(rename = "registry.change")]
    RegistryChange,
    /// The server of a resource was asked for its tools, or what it says of them was accepted.
    #[serde(rename = "catalogue.change")]
    CatalogueChange,
    /// A client got a new secret.
    #[serde(rename = "secret.change")]
    SecretChange,
    /// A grant was recorded or withdrawn.
    #[serde(rename = "grant.change")]
    GrantChange,
    /// A grant for an emergency was made.
    #[serde(rename = "break_glass.create")]
    BreakGlassCreate,
    /// A token was issued that rests on a grant for an emergency.
    #[serde(rename = "break_glass.use")]
    BreakGlassUse,
    /// Somebody signed off what was done with a grant for an emergency.
    #[serde(rename = "break_glass.review")]
    BreakGlassReview,
    /// The state of a task changed, or did not.
    #[serde(rename = "task.transition")]
    TaskTransition,
    /// A resource reported what a call did.
    #[serde(rename = "tool.call")]
    ToolCall,
    /// A signing key was made.
    #[serde(rename = "key.rotate")]
    KeyRotate,
    /// A signing key was removed: with it, everything that it signed.
    #[serde(rename = "key.revoke")]
    KeyRevoke,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done.
    Done,
    /// Refused.
    Refused,
    /// Tried, and not done.
    Failed,
    /// The answer was "active".
    Active,
    /// The answer was "inactive".
    Inactive,
}

/// Which introspections go into the trail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntrospectionAuditMode {
    /// Every one.
    All,
    /// The first active answer for a token and resource, and every inactive one.
    #[default]
    Changes,
    /// None.
    Off,
}

impl IntrospectionAuditMode {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Changes => "changes",
            Self::Off => "off",
        }
    }
}

/// One record: who, in whose name, for which task, what was asked, what was granted, why. Never a token, only its `jti`.
/// The members stand in their canonical order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The admin that called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// The agents, the current one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
    /// What was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<Value>,
    /// When.
    pub at: Timestamp,
    /// The hash of the authority that was approved for the task: what the intent was, whatever is said about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_hash: Option<String>,
    /// Who did it, if neither a client nor an admin: `requester:ISSUER SUBJECT`, `grant:ID`, `removal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The client that called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientId>,
    /// What.
    pub event: Event,
    /// What was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Value>,
    /// How it ended.
    pub outcome: Outcome,
    /// What the task is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// Why it was refused, or why somebody did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The request it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// In whose name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<Requester>,
    /// The resource, or what else it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
}

impl Record {
    /// A record with nothing but what every record has.
    #[must_use]
    pub fn new(at: Timestamp, event: Event, outcome: Outcome) -> Self {
        Self {
            at,
            event,
            outcome,
            requester: None,
            agents: Vec::new(),
            client: None,
            admin: None,
            by: None,
            task: None,
            purpose: None,
            authority_hash: None,
            token: None,
            resource: None,
            requested: None,
            granted: None,
            reason: None,
            request_id: None,
        }
    }
}

/// An [`Event`] or an [`Outcome`] as a record's text has it.
#[must_use]
pub fn wire_name<T: Serialize>(of: T) -> String {
    let word = serde_json::to_value(of).ok();
    word.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So it costs nothing to put it in order.
    #[test]
    fn record_serialization_is_canonical() {
        let name = || Some("x".to_owned());
        let record = Record {
            admin: name(),
            agents: vec!["reader".into()],
            requested: Some(serde_json::json!({"a": 1})),
            authority_hash: name(),
            by: name(),
            client: "reader".parse().ok(),
            granted: Some(serde_json::json!(["b"])),
            purpose: name(),
            reason: name(),
            request_id: "r".parse().ok(),
            requester: Some(Requester {
                issuer: "https://login.example.com".parse().unwrap(),
                subject: "u".parse().unwrap(),
            }),
            resource: name(),
            task: Some(TaskId::new(uuid::Uuid::nil())),
            token: Some(TokenId::new(uuid::Uuid::nil())),
            ..Record::new(Timestamp::EPOCH, Event::TokenIssue, Outcome::Done)
        };
        let plain = serde_json::to_string(&record).unwrap();
        assert_eq!(plain.matches(':').count(), 21, "every member is there: {plain}");
        assert_eq!(plain, serde_json_canonicalizer::to_string(&record).unwrap());
    }
}
