//! Why an exchange is refused: one variant a rule.

use std::fmt;

use thiserror::Error;

use crate::domain::{
    authority::Authority, exchange::presenter_binding::BindingError, id::ToolName, registry::tool::ToolUnavailable,
    task::JoinError, token::actor_chain::ActorChainError,
};

/// Why an exchange is refused. The texts go to the client: they say what to change, and nothing that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denial {
    /// A resource asks for something else than a transaction token.
    #[error("a resource can only get a transaction token")]
    ResourceLimitedToTxnToken,
    /// The resource or the agent that it is for is shut out.
    #[error("the target is disabled")]
    TargetBlocked,
    /// The resource is called like us or like the trust domain: tokens that are for us alone would be good there.
    #[error("the target has the name of this server or of its trust domain")]
    TargetIsIssuer,
    /// No edge in the registry from the one agent to the other.
    #[error("the agent may not delegate to that agent")]
    DelegationNotAllowed,
    /// An edge of the chain lets fewer agents follow.
    #[error("an agent of the chain may delegate, but not so far: the depth of its `may_delegate_to` ends before")]
    DelegationDepthExceeded,
    /// A broker acts, and no agent behind it.
    #[error("a broker opens no task: an agent hands over to it with `requested_actor`")]
    BrokerWithoutPrincipal,
    /// Transaction tokens stay transaction tokens.
    #[error("a transaction token can only be replaced by a transaction token")]
    TxnTokenNotConvertible,
    /// An API token is in nobody's name.
    #[error("an API token is not a subject token")]
    ApiTokenNotExchangeable,
    /// Nothing in the user token points at this agent, or something points elsewhere.
    #[error(transparent)]
    PresenterNotBound(BindingError),
    /// The token of ours is not this client's to present.
    #[error("the subject token is not for this client to present; its holder can hand it over with `requested_actor`")]
    PresenterMismatch,
    /// Somebody who takes part in the token is shut out.
    #[error("a party to the subject token is disabled or not registered any more")]
    PartyBlocked,
    /// Nothing may be done in the requester's name.
    #[error("the requester is disabled here, until an admin lets them in again")]
    RequesterBlocked,
    /// The chain can't grow so.
    #[error(transparent)]
    Chain(ActorChainError),
    /// Derived too often.
    #[error("the token was derived too many times: exchange a user token again")]
    LineageTooLong,
    /// The request names neither scope nor details.
    #[error("name what is needed: `scope`, `authorization_details`, or both")]
    NoAuthorityRequested,
    /// The subject token has no scope, and its issuer's scopes are a ceiling.
    #[error("the subject token has no scope, so nothing can be had with it")]
    SubjectScopeMissing,
    /// A scope that is asked for goes beyond what somebody has.
    #[error(transparent)]
    ScopeExceedsCeiling(CeilingExceeded),
    /// A detail that is asked for goes beyond what somebody has.
    #[error(transparent)]
    DetailsExceedCeiling(CeilingExceeded),
    /// Somebody demands the requester's consent, or nothing but a grant would do, and none covers what is asked for.
    #[error("this needs a grant of the requester to this agent that covers what is asked for")]
    ConsentRequired,
    /// A tool under a scope that is asked for is not good now. The name of the tool is the catalogue's.
    #[error("`scope` asks for the tool `{0}`: {1}")]
    ScopeToolUnavailable(ToolName, ToolUnavailable),
    /// A tool that is asked for is not good now.
    #[error("`authorization_details` asks for the tool `{0}`: {1}")]
    DetailsToolUnavailable(ToolName, ToolUnavailable),
    /// What is asked for is all elsewhere.
    #[error("nothing of what is asked for is at the resource that the token is for")]
    NoAuthorityAtTarget,
    /// The subject token belongs to another task.
    #[error("`task_id` is not the task of the subject token")]
    TaskMismatch,
    /// The named task can't be joined.
    #[error(transparent)]
    TaskNotJoinable(JoinError),
    /// A task is opened without saying what for.
    #[error("`purpose` is needed to open a task: 1 to 500 characters, what the work is for")]
    PurposeRequired,
    /// `task_deadline` goes beyond the limit.
    #[error("`task_deadline` is longer than a task may take here")]
    DeadlineTooLong,
    /// Something that the token may not outlive has come to its end.
    #[error("the subject token or the task ends now")]
    AlreadyExpired,
}

/// What is too much: where in the request, and beyond whose ceiling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CeilingExceeded {
    /// The place in the request.
    pub location: String,
    /// Whose ceiling.
    pub owner: CeilingOwner,
    /// How much of it the ceilings leave that the client may know: its own, and what its token allows.
    pub allowed: Option<Authority>,
}

impl std::error::Error for CeilingExceeded {}

impl fmt::Display for CeilingExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: asks for more than {}", self.location, self.owner)?;
        if self.allowed.is_some() {
            f.write_str("; ask by `authorization_details` for no more than `authorization_details_allowed`")?;
        }
        Ok(())
    }
}

/// Whose ceiling a request goes beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CeilingOwner {
    /// No resource offers it.
    #[error("the resource offers")]
    Catalogue,
    /// The agent may never have it.
    #[error("the agent may have")]
    Agent,
    /// The agent that it is handed over to may never have it.
    #[error("the agent that it is for may have")]
    NextAgent,
    /// It may not go from one agent of the chain to the next.
    #[error("may be delegated along the chain of agents")]
    Edge,
    /// The requester has not got it.
    #[error("the requester may have")]
    Requester,
    /// The parent token has not got it.
    #[error("the subject token allows")]
    Parent,
    /// It was not approved for the task.
    #[error("was approved for the task")]
    Task,
}
