//! A part of a ceiling.

use serde::{Deserialize, Serialize};

use crate::domain::{authority::ToolUse, id::ClientId, scope::ScopeToken};

/// A part of a ceiling: some tools of one resource, or some calls of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// The client id of the resource.
    pub resource: ClientId,
    /// All tools under these scopes.
    #[serde(default)]
    pub scopes: Vec<ScopeToken>,
    /// These tools by name, each with rules for its arguments or without.
    #[serde(default)]
    pub tools: Vec<ToolUse>,
}
