//! The tool listings of MCP servers.

use async_trait::async_trait;
use thiserror::Error;

use crate::domain::registry::{client::Resource, tool::ToolDefinition};

/// The tools that an MCP server lists. The content is untrusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolListing {
    /// The tools in the server's order. A name may appear twice.
    pub tools: Vec<ToolDefinition>,
    /// The number of further tools that were left out: the name is not allowed, or the description
    /// or schema is too large.
    pub unusable_count: usize,
}

/// A reason why an MCP server's tools could not be listed. No text in it comes from the server.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ToolListingError {
    /// The network policy does not allow the destination.
    #[error("{0}")]
    DestinationRefused(String),
    /// The server could not be connected to, or did not respond in time.
    #[error("the MCP server did not respond in time, or at all")]
    NoResponse,
    /// An HTTP status other than success. Redirects are not followed.
    #[error("the MCP server responded with HTTP status {0}")]
    UnexpectedStatus(u16),
    /// The server requires authentication.
    #[error("the MCP server requires a token (HTTP status {0}); set `catalogue_token_file`")]
    Unauthorized(u16),
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
    /// Lists the server's tools (`tools/list`), all pages of them.
    async fn list_tools(&self, resource: &Resource) -> Result<ToolListing, ToolListingError>;
}
