//! The input of a decision.

use crate::domain::{
    authority::RequestedPermissions,
    exchange::presenter_binding::AgentMatch,
    grants::Grant,
    id::{ClientId, Purpose, TaskId},
    registry::{
        Registry,
        client::{Agent, Resource},
        issuer::TrustedIssuer,
    },
    scope::ScopeList,
    settings::{TaskLimits, TokenLimits},
    task::Task,
    time::{Lifetime, Timestamp},
    token::{TaskTokenClaims, TokenKind, foreign_claims::UserClaims},
    uri::IssuerUrl,
};

/// Everything that the decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeInput<'a> {
    /// The time of the request.
    pub now: Timestamp,
    /// The issuer identifier of this server.
    pub issuer: &'a IssuerUrl,
    /// The `aud` of transaction tokens.
    pub trust_domain: &'a str,
    /// The registry: issuers, agents, resources, blocks.
    pub registry: &'a Registry,
    /// Limits on lifetime and chain length of tokens.
    pub token_limits: &'a TokenLimits,
    /// Limits on the lifetime of tasks.
    pub task_limits: &'a TaskLimits,
    /// The authenticated client.
    pub presenter: Presenter<'a>,
    /// The subject token.
    pub subject: Evidence<'a>,
    /// Whom the actor token names.
    pub actor_match: AgentMatch,
    /// The recorded grants of the requester to this agent.
    pub grants: &'a [Grant],
    /// The requested token.
    pub requested_token: RequestedToken<'a>,
    /// The requested scopes.
    pub scope: Option<&'a ScopeList>,
    /// The requested details.
    pub details: Option<&'a RequestedPermissions>,
    /// The requested lifetime.
    pub expires_in: Option<Lifetime>,
    /// The requested task.
    pub task: TaskSelector<'a>,
}

/// The client that presents the subject token.
#[derive(Clone, Copy, Debug)]
pub enum Presenter<'a> {
    /// An agent.
    Agent(&'a Agent),
    /// A resource, which may exchange a token that is for it for a transaction token.
    Resource(&'a Resource),
}

impl<'a> Presenter<'a> {
    /// Returns the client id.
    #[must_use]
    pub fn id(self) -> &'a ClientId {
        match self {
            Self::Agent(agent) => &agent.id,
            Self::Resource(resource) => &resource.id,
        }
    }
}

impl Presenter<'_> {
    /// Returns whether the client is disabled or blocked.
    #[must_use]
    pub fn is_disabled(self) -> bool {
        match self {
            Self::Agent(agent) => agent.disabled,
            Self::Resource(resource) => resource.disabled,
        }
    }
}

/// A subject token after all checks on the token itself.
#[derive(Clone, Copy, Debug)]
pub enum Evidence<'a> {
    /// A user token of a trusted issuer.
    User(&'a UserClaims, &'a TrustedIssuer),
    /// A live token of this server.
    Own(&'a TaskTokenClaims, TokenKind),
}

/// The requested kind of token.
#[derive(Clone, Copy, Debug)]
pub enum RequestedToken<'a> {
    /// An access token for a resource.
    Access(&'a Resource),
    /// A token to hand over to the agent, for use at the resource.
    HandOver(&'a Agent, &'a Resource),
    /// A transaction token for the trust domain.
    Txn,
}

impl<'a> RequestedToken<'a> {
    /// Returns the resource that the token is for, or `None` for the trust domain.
    #[must_use]
    pub fn resource(self) -> Option<&'a Resource> {
        match self {
            Self::Access(resource) | Self::HandOver(_, resource) => Some(resource),
            Self::Txn => None,
        }
    }
}

/// The requested task.
#[derive(Clone, Copy, Debug)]
pub enum TaskSelector<'a> {
    /// No `task_id`: the subject token's task, or a new one.
    Unnamed {
        /// The purpose of a new task.
        purpose: Option<&'a Purpose>,
        /// The deadline of a new task.
        deadline: Option<Lifetime>,
    },
    /// The task with this id; `None` if no such task exists.
    Named(TaskId, Option<&'a Task>),
}
