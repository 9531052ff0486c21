//! The result of a positive decision.

use super::Basis;
use crate::domain::{
    authority::Authority,
    id::{ClientId, GrantId, Purpose, TaskId, TokenId},
    jose::jwk::SigningAlgorithm,
    scope::ScopeSet,
    task::Requester,
    time::Timestamp,
    token::{NextActor, TaskContext, TokenKind, actor_chain::ActorChain, foreign_claims::AuthenticationContext},
};

/// The token to issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPlan {
    /// The kind of token.
    pub kind: TokenKind,
    /// The `aud` claim.
    pub audience: String,
    /// The signing algorithm; `None` for the configured one.
    pub algorithm: Option<SigningAlgorithm>,
    /// The requester that the token acts for.
    pub requester: Requester,
    /// The acting agents.
    pub chain: ActorChain,
    /// The client that the token is issued to.
    pub client: ClientId,
    /// The task of the token.
    pub task: PlannedTask,
    /// The tokens that the token is derived from, oldest first.
    pub lineage: Vec<TokenId>,
    /// The authority of the token.
    pub authority: Authority,
    /// The scopes that the authority covers.
    pub scope: ScopeSet,
    /// The expiry.
    pub expires: Timestamp,
    /// How the requester authenticated.
    pub auth_context: AuthenticationContext,
    /// The workload that requested a transaction token.
    pub req_wl: Option<ClientId>,
    /// The agent that a hand-over token is for.
    pub may_act: Option<NextActor>,
    /// The grant that the token depends on.
    pub grant: Option<GrantId>,
    /// Whether that grant is a break-glass grant.
    pub break_glass: bool,
    /// Why the presenter may use the subject token, for the audit record.
    pub basis: Basis,
}

/// The task of a planned token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedTask {
    /// A new task.
    Open {
        /// The purpose of the task.
        purpose: Purpose,
        /// The authority approved for the task.
        authority: Authority,
        /// The deadline of the task.
        deadline: Timestamp,
    },
    /// An existing task.
    Existing {
        /// The id of the task.
        id: TaskId,
        /// The hash of the authority approved for the task.
        authority_hash: String,
        /// The `tctx` of the parent token, unchanged; for a joined task, its purpose.
        context: TaskContext,
    },
}
