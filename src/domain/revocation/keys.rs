//! Keys under which a token can be revoked.

use std::collections::BTreeSet;

use super::LogPosition;
use crate::domain::{
    id::{ClientId, GrantId, TaskId, TokenId},
    requester::Requester,
    uri::ResourceUri,
};

/// All keys under which a token can be revoked, with the log position that its issuing replica had
/// applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationKeys {
    /// The token itself.
    pub token: TokenId,
    /// The tokens from which it was derived.
    pub lineage: Vec<TokenId>,
    /// The task; `None` for an API token.
    pub task: Option<TaskId>,
    /// The recorded grant on which it is based.
    pub grant: Option<GrantId>,
    /// The requester; `None` for an API token.
    pub requester: Option<Requester>,
    /// The agents in its chain, the client that received it, and the next actor.
    pub agents: BTreeSet<ClientId>,
    /// The resources in its authority; empty for an API token.
    pub resources: BTreeSet<ResourceUri>,
    /// The log position when it was issued (claim `rev`).
    pub rev: LogPosition,
}
