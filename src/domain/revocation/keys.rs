//! Keys under which a token can be revoked.

use std::collections::BTreeSet;

use super::{LogPosition, tool_key};
use crate::domain::{
    authority::{Authority, Permission},
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
    /// The [keys](super::tool_key) of the tools in its authority.
    pub tools: BTreeSet<String>,
    /// Whether its authority includes something that is not a tool: the listing of tools.
    pub may_list: bool,
    /// Whether it is based on a break-glass grant.
    pub break_glass: bool,
    /// The log position when it was issued (claim `rev`).
    pub rev: LogPosition,
}

impl RevocationKeys {
    /// Returns the keys of the tools in an authority, and whether it includes anything else.
    #[must_use]
    pub fn of_authority(authority: &Authority) -> (BTreeSet<String>, bool) {
        let key = |permission: &Permission| permission.tool().map(|tool| tool_key(&permission.resource, tool));
        let tools = authority.iter().filter_map(key).collect();
        (tools, authority.iter().any(|permission| permission.tool().is_none()))
    }
}
