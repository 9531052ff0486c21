//! Audit record: what happened, who did it, and the outcome.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{
    id::{ClientId, RequestId, TaskId, TokenId},
    registry::client::Effect,
    requester::Requester,
    time::Timestamp,
};

/// The event that a record describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Event {
    /// A token was issued or refused.
    #[serde(rename = "token.issue")]
    TokenIssue,
    /// A client failed to authenticate or lacked permission for the endpoint.
    #[serde(rename = "client.authenticate")]
    ClientAuthenticate,
    /// A token was introspected.
    #[serde(rename = "token.introspect")]
    TokenIntrospect,
    /// A resource evaluated whether a call is permitted.
    #[serde(rename = "call.evaluate")]
    CallEvaluate,
    /// A token, task or party was revoked, suspended, resumed, blocked or unblocked.
    #[serde(rename = "revocation")]
    Revocation,
    /// An object of the registry was created, changed or removed.
    #[serde(rename = "registry.change")]
    RegistryChange,
    /// The tools of a resource were fetched from its server, or their definitions were accepted.
    #[serde(rename = "catalogue.change")]
    CatalogueChange,
    /// A client secret was issued.
    #[serde(rename = "secret.change")]
    SecretChange,
    /// A grant was recorded or withdrawn.
    #[serde(rename = "grant.change")]
    GrantChange,
    /// A break-glass grant was created.
    #[serde(rename = "break_glass.create")]
    BreakGlassCreate,
    /// A token was issued on the basis of a break-glass grant.
    #[serde(rename = "break_glass.use")]
    BreakGlassUse,
    /// Records of the audit trail were pruned.
    #[serde(rename = "audit.prune")]
    AuditPrune,
    /// The removal of what is stored about a person started or was completed. The record does not
    /// name the person.
    #[serde(rename = "person.forget")]
    PersonForget,
    /// An admin approved what another admin requests.
    #[serde(rename = "admin.approve")]
    AdminApprove,
    /// The use of a break-glass grant was reviewed.
    #[serde(rename = "break_glass.review")]
    BreakGlassReview,
    /// The state of a task changed, or the change was refused.
    #[serde(rename = "task.transition")]
    TaskTransition,
    /// A resource reported a tool call.
    #[serde(rename = "tool.call")]
    ToolCall,
    /// A signing key was created.
    #[serde(rename = "key.rotate")]
    KeyRotate,
    /// A signing key was removed, which invalidates every token that it signed.
    #[serde(rename = "key.revoke")]
    KeyRevoke,
    /// The stored keys were sealed under another key-encryption key.
    #[serde(rename = "key.rekey")]
    KeyRekey,
    /// A checkpoint of the audit trail was signed.
    #[serde(rename = "audit.checkpoint")]
    AuditCheckpoint,
    /// The keys of an identity provider were read anew, or one of them was withdrawn or restored.
    #[serde(rename = "issuer_keys.refresh")]
    IssuerKeysRefresh,
}

/// The outcome of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The request succeeded.
    Done,
    /// The request was refused.
    Refused,
    /// The attempt failed.
    Failed,
    /// The introspection response was "active".
    Active,
    /// The introspection response was "inactive".
    Inactive,
}

/// Which introspections are recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntrospectionAuditMode {
    /// All introspections.
    All,
    /// The first active and the first inactive response for a token, and a sample of further
    /// inactive ones.
    #[default]
    Changes,
    /// None.
    Off,
}

impl IntrospectionAuditMode {
    /// Returns the wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Changes => "changes",
            Self::Off => "off",
        }
    }
}

/// Which permitted calls are recorded. Denied ones always are: the first of each task and reason,
/// and a sample of further ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvaluationAuditMode {
    /// All permitted calls and lists.
    All,
    /// The permitted calls of tools that write or destroy.
    #[default]
    Changes,
    /// None, except with a break-glass token.
    Off,
}

impl EvaluationAuditMode {
    /// Returns the wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Changes => "changes",
            Self::Off => "off",
        }
    }

    /// Returns whether a permitted call with this effect is recorded.
    #[must_use]
    pub fn includes(self, effect: Effect) -> bool {
        match self {
            Self::All => true,
            Self::Changes => effect != Effect::Read,
            Self::Off => false,
        }
    }
}

/// An audit record: the parties, the task, what was requested and granted, and the reason. It never
/// contains a token, only its `jti`.
///
/// The fields are in canonical order (RFC 8785), so that serialization needs no sorting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The admin that called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<String>,
    /// The agents, the current one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
    /// The second person, who approved what the admin requested: `admin:ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// The time of the event.
    pub at: Timestamp,
    /// The hash of the authority that was approved for the task. It identifies the approved intent
    /// independently of any description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_hash: Option<String>,
    /// The initiator if neither a client nor an admin: `requester:ISSUER SUBJECT`, `grant:ID`,
    /// `removal`, `revocation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The client that called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ClientId>,
    /// The event.
    pub event: Event,
    /// The grant: what the response allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<Value>,
    /// The outcome.
    pub outcome: Outcome,
    /// The purpose of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purpose: Option<String>,
    /// The reason for the refusal, or the reason that the caller gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// The request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<Value>,
    /// The requester.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<Requester>,
    /// The resource, or another subject of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// The address that the request came from: the peer, or what a trusted proxy reported. It is
    /// personal data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenId>,
}

impl Record {
    /// Returns a record with the mandatory fields only.
    #[must_use]
    pub fn new(at: Timestamp, event: Event, outcome: Outcome) -> Self {
        Self {
            at,
            approved_by: None,
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
            source: None,
        }
    }
}

/// Returns an [`Event`] or an [`Outcome`] as it appears in the text of a record.
#[must_use]
pub fn wire_name<T: Serialize>(of: T) -> String {
    let word = serde_json::to_value(of).ok();
    word.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Canonical field order makes canonicalization free.
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
            source: name(),
            task: Some(TaskId::new(uuid::Uuid::nil())),
            token: Some(TokenId::new(uuid::Uuid::nil())),
            ..Record::new(Timestamp::EPOCH, Event::TokenIssue, Outcome::Done)
        };
        let plain = serde_json::to_string(&record).unwrap();
        assert_eq!(plain.matches(':').count(), 22, "every member is present: {plain}");
        assert_eq!(plain, serde_json_canonicalizer::to_string(&record).unwrap());
    }
}
