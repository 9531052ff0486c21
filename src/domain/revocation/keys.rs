//! The keys under which a token can be revoked.

use std::collections::BTreeSet;

use super::LogPosition;
use crate::domain::{
    id::{ClientId, GrantId, TaskId, TokenId},
    requester::Requester,
    uri::ResourceUri,
};

/// Every name under which a token can be taken back, and the position of the log that its issuer had applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationKeys {
    /// The token itself.
    pub token: TokenId,
    /// The tokens it was derived from.
    pub lineage: Vec<TokenId>,
    /// Its task; an API token has none.
    pub task: Option<TaskId>,
    /// The recorded grant that it rests on.
    pub grant: Option<GrantId>,
    /// In whose name; an API token is in nobody's.
    pub requester: Option<Requester>,
    /// Every agent in its chain, the client that got it, and the agent that it is to be handed to.
    pub agents: BTreeSet<ClientId>,
    /// Every resource that something may be done at with it; an API token is for none.
    pub resources: BTreeSet<ResourceUri>,
    /// The position of the log when it was issued (claim `rev`).
    pub rev: LogPosition,
}
