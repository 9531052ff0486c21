//! What a decision is made of.

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
    /// When.
    pub now: Timestamp,
    /// Us.
    pub issuer: &'a IssuerUrl,
    /// The `aud` of transaction tokens.
    pub trust_domain: &'a str,
    /// Whom and what we know.
    pub registry: &'a Registry,
    /// Lives and depths of tokens.
    pub token_limits: &'a TokenLimits,
    /// Lives of tasks.
    pub task_limits: &'a TaskLimits,
    /// The authenticated client.
    pub presenter: Presenter<'a>,
    /// What it presents.
    pub subject: Evidence<'a>,
    /// What its actor token, if it has one, says.
    pub actor_match: AgentMatch,
    /// The grants of the requester to this agent that are on record.
    pub grants: &'a [Grant],
    /// What it wants.
    pub requested_token: RequestedToken<'a>,
    /// The scopes it asks for.
    pub scope: Option<&'a ScopeList>,
    /// The details it asks for.
    pub details: Option<&'a RequestedPermissions>,
    /// The life it asks for.
    pub expires_in: Option<Lifetime>,
    /// The task it asks for.
    pub task: TaskSelector<'a>,
}

/// Who presents a token.
#[derive(Clone, Copy, Debug)]
pub enum Presenter<'a> {
    /// An agent.
    Agent(&'a Agent),
    /// A resource: it may turn a token that was meant for it into a transaction token.
    Resource(&'a Resource),
}

impl<'a> Presenter<'a> {
    /// Its client id.
    #[must_use]
    pub fn id(self) -> &'a ClientId {
        match self {
            Self::Agent(agent) => &agent.id,
            Self::Resource(resource) => &resource.id,
        }
    }
}

impl Presenter<'_> {
    /// Whether it is shut out.
    #[must_use]
    pub fn is_disabled(self) -> bool {
        match self {
            Self::Agent(agent) => agent.disabled,
            Self::Resource(resource) => resource.disabled,
        }
    }
}

/// A presented token after every check on it.
#[derive(Clone, Copy, Debug)]
pub enum Evidence<'a> {
    /// A user token of a trusted issuer.
    User(&'a UserClaims, &'a TrustedIssuer),
    /// A token of ours, live.
    Own(&'a TaskTokenClaims, TokenKind),
}

/// What kind of token is wanted.
#[derive(Clone, Copy, Debug)]
pub enum RequestedToken<'a> {
    /// For one resource.
    Access(&'a Resource),
    /// To be handed to that agent, for use at one resource.
    HandOver(&'a Agent, &'a Resource),
    /// For the trust domain.
    Txn,
}

impl<'a> RequestedToken<'a> {
    /// The one resource that it is for in the end; none for the trust domain.
    #[must_use]
    pub fn resource(self) -> Option<&'a Resource> {
        match self {
            Self::Access(resource) | Self::HandOver(_, resource) => Some(resource),
            Self::Txn => None,
        }
    }
}

/// Which task is wanted.
#[derive(Clone, Copy, Debug)]
pub enum TaskSelector<'a> {
    /// None is named: the subject token's own, or a new one.
    Unnamed {
        /// What a new one is for.
        purpose: Option<&'a Purpose>,
        /// How long a new one may take.
        deadline: Option<Lifetime>,
    },
    /// This one. `None` when there is no task with this id.
    Named(TaskId, Option<&'a Task>),
}
