//! Why an exchange is refused: one variant a rule.

use std::fmt;

use thiserror::Error;

use crate::domain::{
    authority::Authority, chain::InvalidChain, id::ToolName, splice::NotThisAgent, task::CannotJoin, tool::NotGood,
};

/// Why an exchange is refused. The texts go to the client: they say what to change, and nothing that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Denial {
    /// A resource asks for something else than a transaction token.
    #[error("a resource can only get a transaction token")]
    OnlyTxnForResource,
    /// The resource or the agent that it is for is shut out.
    #[error("the target is disabled")]
    TargetShutOut,
    /// The resource is called like us or like the trust domain: tokens that are for us alone would be good there.
    #[error("the target has the name of this server or of its trust domain")]
    TargetIsUs,
    /// No edge in the registry from the one agent to the other.
    #[error("the agent may not delegate to that agent")]
    MayNotDelegate,
    /// An edge of the chain lets fewer agents follow.
    #[error("an agent of the chain may delegate, but not so far: the depth of its `may_delegate_to` ends before")]
    TooFar,
    /// A broker acts, and no agent behind it.
    #[error("a broker opens no task: an agent hands over to it with `requested_actor`")]
    BrokerAlone,
    /// Transaction tokens stay transaction tokens.
    #[error("a transaction token can only be replaced by a transaction token")]
    TxnOnlyReplaced,
    /// An API token is in nobody's name.
    #[error("an API token is not a subject token")]
    ApiToken,
    /// Nothing in the user token points at this agent, or something points elsewhere.
    #[error(transparent)]
    Splice(NotThisAgent),
    /// The token of ours is not this client's to present.
    #[error("the subject token is not for this client to present; its holder can hand it over with `requested_actor`")]
    NotThePresenter,
    /// Somebody who takes part in the token is shut out.
    #[error("a party to the subject token is disabled or not registered any more")]
    ShutOut,
    /// Nothing may be done in the requester's name.
    #[error("the requester is disabled here, until an admin lets them in again")]
    RequesterShutOut,
    /// The chain can't grow so.
    #[error(transparent)]
    Chain(InvalidChain),
    /// Derived too often.
    #[error("the token was derived too many times: exchange a user token again")]
    LineageTooLong,
    /// The request names neither scope nor details.
    #[error("name what is needed: `scope`, `authorization_details`, or both")]
    NothingAsked,
    /// The subject token has no scope, and its issuer's scopes are a ceiling.
    #[error("the subject token has no scope, so nothing can be had with it")]
    SubjectWithoutScope,
    /// A scope that is asked for goes beyond what somebody has.
    #[error(transparent)]
    ScopeTooWide(Excess),
    /// A detail that is asked for goes beyond what somebody has.
    #[error(transparent)]
    DetailsTooWide(Excess),
    /// Somebody demands the requester's consent, or nothing but a grant would do, and none covers what is asked for.
    #[error("this needs a grant of the requester to this agent that covers what is asked for")]
    ConsentNeeded,
    /// A tool under a scope that is asked for is not good now. The name of the tool is the catalogue's.
    #[error("`scope` asks for the tool `{0}`: {1}")]
    ScopeNotGood(ToolName, NotGood),
    /// A tool that is asked for is not good now.
    #[error("`authorization_details` asks for the tool `{0}`: {1}")]
    DetailsNotGood(ToolName, NotGood),
    /// What is asked for is all elsewhere.
    #[error("nothing of what is asked for is at the resource that the token is for")]
    NothingForTarget,
    /// The subject token belongs to another task.
    #[error("`task_id` is not the task of the subject token")]
    OtherTask,
    /// The named task can't be joined.
    #[error(transparent)]
    CannotJoin(CannotJoin),
    /// A task is opened without saying what for.
    #[error("`purpose` is needed to open a task: 1 to 500 characters, what the work is for")]
    PurposeMissing,
    /// `task_deadline` goes beyond the limit.
    #[error("`task_deadline` is longer than a task may take here")]
    DeadlineTooLong,
    /// Something that the token may not outlive has come to its end.
    #[error("the subject token or the task ends now")]
    NoTimeLeft,
}

/// What is too much: where in the request, and beyond whose ceiling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess {
    /// The place in the request.
    pub place: String,
    /// Whose ceiling.
    pub holding: Holding,
    /// How much of it the ceilings leave that the client may know: its own, and what its token allows.
    pub allowed: Option<Authority>,
}

impl std::error::Error for Excess {}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: asks for more than {}", self.place, self.holding)?;
        if self.allowed.is_some() {
            f.write_str("; ask by `authorization_details` for no more than `authorization_details_allowed`")?;
        }
        Ok(())
    }
}

/// Whose ceiling a request goes beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Holding {
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
