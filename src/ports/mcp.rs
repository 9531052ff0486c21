//! The tool listings of MCP servers.

use async_trait::async_trait;
use thiserror::Error;

use crate::domain::{
    id::{ClientId, ToolName},
    registry::{
        client::Resource,
        tool::{ToolDefinition, ToolDefinitionError},
    },
    secret::Secret,
};

/// The tools that an MCP server lists. The content is untrusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolListing {
    /// The tools in the server's order. A name may appear twice.
    pub tools: Vec<ToolDefinition>,
    /// The tools that were left out, in the server's order.
    pub unusable: Vec<UnusableTool>,
}

/// A listed tool that was left out. It does not affect the other tools.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}: {problem}", match name { Some(name) => format!("tool `{name}`"), None => format!("tool number {position}") })]
pub struct UnusableTool {
    /// Its position in the listing, from 1.
    pub position: usize,
    /// Its name, if it is a valid one.
    pub name: Option<ToolName>,
    /// Why it can't be used.
    pub problem: ToolProblem,
}

/// Why a listed tool can't be used. Names the member, never its value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ToolProblem {
    /// The tool is not a JSON object, has a member twice, or is nested too deeply.
    #[error("the tool is not an object of strict JSON (no duplicate members, at most {0} levels)")]
    NotAnObject(usize),
    /// A member is missing.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// A member has another type.
    #[error("`{0}` must be {1}")]
    WrongType(&'static str, &'static str),
    /// A member breaks a rule.
    #[error(transparent)]
    Definition(#[from] ToolDefinitionError),
}

/// A reason why an MCP server's tools could not be listed, and the call of the protocol that
/// failed. No text in it comes from the server, except the address of a redirect.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{problem}", match call { Some(call) => format!("the call `{call}` failed: "), None => String::new() })]
pub struct ToolListingError {
    /// The call. `None`: no request was sent.
    pub call: Option<&'static str>,
    /// What went wrong.
    pub problem: ListingProblem,
}

impl ToolListingError {
    /// Returns whether the server requires a token.
    #[must_use]
    pub fn is_unauthorized(&self) -> bool {
        matches!(self.problem, ListingProblem::Unauthorized(_))
    }
}

/// What went wrong in a call of an MCP server.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ListingProblem {
    /// The network policy does not allow the destination.
    #[error("{0}")]
    DestinationRefused(String),
    /// The server could not be connected to, or did not respond in time.
    #[error("the MCP server did not respond in time, or at all")]
    NoResponse,
    /// The server redirects. Redirects are not followed, because a token is for one URI.
    #[error(
        "the MCP server redirects{} (HTTP status {status}); register the resource with that URI",
        match location { Some(location) => format!(" to {location}"), None => String::new() }
    )]
    Redirect {
        /// The status.
        status: u16,
        /// The destination, if it is a URL. It comes from the server.
        location: Option<String>,
    },
    /// An HTTP status other than success.
    #[error("the MCP server responded with HTTP status {0}")]
    UnexpectedStatus(u16),
    /// The server requires another token.
    #[error(
        "the MCP server does not accept the token (HTTP status {0}); let it accept tokens of Errand, or set `catalogue_token_file`"
    )]
    Unauthorized(u16),
    /// The server answered with an error of the protocol.
    #[error("the MCP server responded with JSON-RPC error {0}")]
    Rpc(i64),
    /// The response exceeds a limit.
    #[error("the MCP server's response exceeds a limit: {0}")]
    LimitExceeded(&'static str),
    /// The response is not MCP.
    #[error("the response is not MCP over streamable HTTP, or the connection broke off")]
    NotMcp,
}

/// MCP servers, reached at the URI of their resource.
#[async_trait]
pub trait McpServers: Send + Sync {
    /// Returns whether the operator configured a token for the server of this resource.
    fn has_token(&self, resource: &ClientId) -> bool;

    /// Lists the server's tools (`tools/list`), all pages of them. A token that the operator
    /// configured for the server takes precedence over `token`.
    async fn list_tools(&self, resource: &Resource, token: Option<Secret>) -> Result<ToolListing, ToolListingError>;
}
