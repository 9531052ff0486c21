//! Reasons to deny an exchange: one variant for each rule.

use std::fmt;

use thiserror::Error;

use super::presenter_binding::BindingError;
use crate::domain::{
    authority::Authority, id::ToolName, registry::tool::ToolUnavailable, task::JoinError,
    token::actor_chain::ActorChainError,
};

/// Why an exchange is denied. The client gets the text: it says what to change, and never
/// contains a value that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denial {
    /// A resource requests a token other than a transaction token.
    #[error("a resource may only request a transaction token")]
    ResourceLimitedToTxnToken,
    /// The target resource or the requested actor is disabled or blocked.
    #[error("the target is disabled")]
    TargetBlocked,
    /// The resource has the name of this server or of the trust domain, so that it would accept
    /// tokens that are for this server alone.
    #[error("the target must not be this server or its trust domain")]
    TargetIsIssuer,
    /// The registry has no edge from one agent to the other.
    #[error("the agent may not delegate to that agent")]
    DelegationNotAllowed,
    /// An edge along the chain allows fewer agents to follow.
    #[error("delegation depth exceeded: an agent in the chain has a lower `may_delegate_to` depth")]
    DelegationDepthExceeded,
    /// A broker acts without an agent behind it.
    #[error("a broker can't open a task; an agent hands one over to it with `requested_actor`")]
    BrokerWithoutPrincipal,
    /// A transaction token would become a token of another kind.
    #[error("a transaction token can only be exchanged for another transaction token")]
    TxnTokenNotConvertible,
    /// An API token acts for no requester.
    #[error("an API token can't be the subject token; present a user token or a task token")]
    ApiTokenNotExchangeable,
    /// Nothing in the user token names this agent, or something names another party.
    #[error(transparent)]
    PresenterNotBound(BindingError),
    /// Another client may present this token of Errand.
    #[error("the subject token belongs to another client; its holder can hand it over with `requested_actor`")]
    PresenterMismatch,
    /// A party to the token is blocked or no longer registered.
    #[error("a party to the subject token is disabled or no longer registered")]
    PartyBlocked,
    /// An admin blocked the requester.
    #[error("the requester is blocked, until an admin unblocks them")]
    RequesterBlocked,
    /// The chain of agents can't be extended.
    #[error(transparent)]
    Chain(ActorChainError),
    /// The lineage is at its maximum length.
    #[error("the token was derived too many times; exchange a user token again")]
    LineageTooLong,
    /// The request has neither scope nor details.
    #[error("no authority requested; send `scope`, `authorization_details` or both")]
    NoAuthorityRequested,
    /// The user token has no scope, and its issuer's scopes are a ceiling.
    #[error("the subject token has no scope, so it allows nothing; have one issued with a scope")]
    SubjectScopeMissing,
    /// A requested scope exceeds a ceiling.
    #[error(transparent)]
    ScopeExceedsCeiling(CeilingExceeded),
    /// A requested detail exceeds a ceiling.
    #[error(transparent)]
    DetailsExceedCeiling(CeilingExceeded),
    /// Consent is required, or only a grant could name the agent, and no live grant covers the
    /// request.
    #[error("no recorded grant from the requester to this agent covers the request; ask the requester for consent")]
    ConsentRequired,
    /// A tool under a requested scope is not available. The catalogue has the name of the tool.
    #[error("`scope` requests the tool `{0}`: {1}")]
    ScopeToolUnavailable(ToolName, ToolUnavailable),
    /// A tool requested by name is not available.
    #[error("`authorization_details` requests the tool `{0}`: {1}")]
    DetailsToolUnavailable(ToolName, ToolUnavailable),
    /// All requested tools belong to other resources.
    #[error("none of the requested tools belong to the target resource")]
    NoAuthorityAtTarget,
    /// The subject token belongs to another task.
    #[error("`task_id` is not the task of the subject token")]
    TaskMismatch,
    /// The named task can't be joined.
    #[error(transparent)]
    TaskNotJoinable(JoinError),
    /// A new task has no purpose.
    #[error("`purpose` is required to open a task; describe the work in 1 to 500 characters")]
    PurposeRequired,
    /// `task_deadline` exceeds the limit.
    #[error("`task_deadline` exceeds the maximum lifetime of a task")]
    DeadlineTooLong,
    /// The token would not outlive this moment.
    #[error("the subject token or task has already expired")]
    AlreadyExpired,
}

/// A part of the request that exceeds a ceiling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CeilingExceeded {
    /// The location in the request.
    pub location: String,
    /// The owner of the ceiling.
    pub owner: CeilingOwner,
    /// The part that remains within all ceilings that the client may know: its own, and that of the
    /// token that it presents.
    pub allowed: Option<Authority>,
}

impl std::error::Error for CeilingExceeded {}

impl fmt::Display for CeilingExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: exceeds what {}", self.location, self.owner)?;
        if self.allowed.is_some() {
            f.write_str("; request at most `authorization_details_allowed` with `authorization_details`")?;
        }
        Ok(())
    }
}

/// The owner of a ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CeilingOwner {
    /// The catalogue of the resources.
    #[error("the resource offers")]
    Catalogue,
    /// The presenting agent.
    #[error("the agent may have")]
    Agent,
    /// The agent that the token is handed over to.
    #[error("the requested actor may have")]
    NextAgent,
    /// An edge along the chain of agents.
    #[error("may be delegated along the chain of agents")]
    Edge,
    /// The requester.
    #[error("the requester may have")]
    Requester,
    /// The requester, whose token lacks a claim that the provider keeps elsewhere.
    #[error(
        "the requester may have according to the token; the provider left groups out of it because there are too many (`_claim_names`), so have it send app roles, or only the groups assigned to the application"
    )]
    RequesterClaimElsewhere,
    /// The subject token.
    #[error("the subject token allows")]
    Parent,
    /// The task.
    #[error("was approved for the task")]
    Task,
}
