//! Revocation requests of admins: the action, the target and the receipt.

use serde::Deserialize;

use crate::{
    app::{LogicError, RequestError},
    domain::{
        id::{ClientId, Reason, TaskId, TokenId},
        registry::BlockAction,
        replication::Propagation,
        revocation::{LogPosition, Target},
        task::{Requester, TaskAction},
        time::Timestamp,
        uri::{IssuerUrl, ResourceUri},
    },
};

/// What an admin does to a token, a task or a party.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminAction {
    /// Ends everything that exists.
    #[default]
    Revoke,
    /// Suspends the tokens of a task or an agent.
    Suspend,
    /// Lifts a suspension: the same tokens work again.
    Resume,
    /// Ends everything that exists, and issues nothing more.
    Block,
    /// Lifts a block: new tokens are issued again.
    Unblock,
}

impl AdminAction {
    /// Returns the word of the API and of audit records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Revoke => "revoke",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Block => "block",
            Self::Unblock => "unblock",
        }
    }
}

impl TryFrom<AdminAction> for TaskAction {
    type Error = RequestError;

    fn try_from(action: AdminAction) -> Result<Self, RequestError> {
        match action {
            AdminAction::Revoke => Ok(Self::Revoke),
            AdminAction::Suspend => Ok(Self::Suspend),
            AdminAction::Resume => Ok(Self::Resume),
            AdminAction::Block | AdminAction::Unblock => {
                Err(RequestError::InvalidParameter("verb", "tasks can't be blocked or unblocked; revoke them"))
            }
        }
    }
}

impl TryFrom<AdminAction> for BlockAction {
    type Error = RequestError;

    fn try_from(action: AdminAction) -> Result<Self, RequestError> {
        match action {
            AdminAction::Suspend => Ok(Self::Suspend),
            AdminAction::Resume => Ok(Self::Resume),
            AdminAction::Block => Ok(Self::Block),
            AdminAction::Unblock => Ok(Self::Unblock),
            AdminAction::Revoke => Err(RequestError::InvalidParameter("verb", "`revoke` does not change a block")),
        }
    }
}

/// A request to revoke, suspend, resume, block or unblock one target.
#[derive(Debug)]
pub struct Revocation {
    /// The target.
    pub target: RevocationTarget,
    /// The action.
    pub action: AdminAction,
    /// The admin's reason.
    pub reason: Reason,
    /// The caller's `Idempotency-Key`: a repeated request gets the same response.
    pub idempotency_key: Option<String>,
}

/// The target of a revocation.
#[derive(Clone, Debug)]
pub enum RevocationTarget {
    /// One token and everything derived from it.
    Token(TokenId),
    /// One task and all its tokens.
    Task(TaskId),
    /// Everything issued so far on behalf of a requester.
    Requester(Requester),
    /// Everything issued so far with an agent in its chain.
    Agent(ClientId),
    /// All agents: suspended and resumed only.
    AllAgents,
    /// Everything issued so far for a registered resource.
    Resource(ClientId),
    /// Everything issued so far for the resource at this URI, registered or not.
    ResourceAt(ResourceUri),
    /// Everything issued so far for users of an identity provider.
    Issuer(IssuerUrl),
}

impl RevocationTarget {
    /// Returns kind and key as requested, for fingerprints and audit records.
    pub(super) fn kind_and_key(&self) -> (&'static str, String) {
        match self {
            Self::Token(id) => ("token", id.to_string()),
            Self::Task(id) => ("task", id.to_string()),
            Self::Requester(requester) => ("requester", format!("{} {}", requester.issuer, requester.subject)),
            Self::Agent(id) => ("agent", id.to_string()),
            Self::AllAgents => ("agents", String::new()),
            Self::Resource(id) => ("resource", id.to_string()),
            Self::ResourceAt(uri) => ("resource", uri.to_string()),
            Self::Issuer(url) => ("issuer", url.to_string()),
        }
    }
}

/// A durable revocation.
#[derive(Debug, PartialEq, Eq)]
pub struct RevocationReceipt {
    /// The position of its last log entry.
    pub seq: LogPosition,
    /// The target, by kind and key.
    pub target: Target,
    /// When it was carried out.
    pub at: Timestamp,
    /// How far it is propagated.
    pub propagation: Propagation,
}

impl RevocationReceipt {
    /// A revocation always has a log entry, so its propagation is known.
    pub(super) fn new(target: Target, at: Timestamp, propagation: Option<Propagation>) -> Result<Self, LogicError> {
        let propagation = propagation.ok_or(LogicError::MissingLogPosition)?;
        Ok(Self { seq: propagation.seq, target, at, propagation })
    }
}
