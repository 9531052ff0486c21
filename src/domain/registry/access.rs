//! Access: one part of an agent's ceiling.

use serde::{Deserialize, Serialize};

use crate::domain::{authority::ToolUse, id::ClientId, scope::ScopeToken};

/// A part of a ceiling: some tools of one resource, optionally limited to certain arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// The client id of the resource.
    pub resource: ClientId,
    /// The scopes; each includes all its tools.
    #[serde(default)]
    pub scopes: Vec<ScopeToken>,
    /// Tools by name, with or without argument constraints.
    #[serde(default)]
    pub tools: Vec<ToolUse>,
}
