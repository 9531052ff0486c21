//! What a decision comes to, when it is a yes.

use crate::domain::{
    authority::Authority,
    id::{ClientId, GrantId, Purpose, TaskId, TokenId},
    jose::jwk::SigningAlgorithm,
    scope::ScopeSet,
    task::Requester,
    time::Timestamp,
    token::{NextActor, TaskContext, TokenKind, actor_chain::ActorChain, foreign_claims::AuthenticationContext},
};

/// What is to be issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPlan {
    /// The kind of token.
    pub kind: TokenKind,
    /// Its `aud`.
    pub audience: String,
    /// What to sign it with; the configured algorithm when absent.
    pub algorithm: Option<SigningAlgorithm>,
    /// In whose name.
    pub requester: Requester,
    /// Who acts.
    pub chain: ActorChain,
    /// The client that gets it.
    pub client: ClientId,
    /// The task it belongs to.
    pub task: PlannedTask,
    /// The tokens it is derived from, oldest first.
    pub lineage: Vec<TokenId>,
    /// What may be done with it.
    pub authority: Authority,
    /// The scopes that this covers.
    pub scope: ScopeSet,
    /// When it ends.
    pub expires: Timestamp,
    /// How the requester signed in.
    pub auth_context: AuthenticationContext,
    /// The workload that asked for a transaction token.
    pub req_wl: Option<ClientId>,
    /// The agent that a hand-over token is for.
    pub may_act: Option<NextActor>,
    /// The grant that it rests on.
    pub grant: Option<GrantId>,
    /// Whether that grant is for an emergency.
    pub break_glass: bool,
    /// By what right: for the audit trail.
    pub basis: &'static str,
}

/// The task of a planned token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlannedTask {
    /// A new one.
    Open {
        /// What it is for.
        purpose: Purpose,
        /// What is approved for it.
        authority: Authority,
        /// When it ends by itself.
        deadline: Timestamp,
    },
    /// One that is there.
    Existing {
        /// Which.
        id: TaskId,
        /// The hash of what was approved for it.
        authority_hash: String,
        /// What the parent token says it is for, to be said again unchanged; for a joined task its purpose.
        context: TaskContext,
    },
}
