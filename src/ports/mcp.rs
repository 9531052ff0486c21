//! Asking MCP servers what tools they have.

use async_trait::async_trait;
use thiserror::Error;

use crate::domain::registry::{client::Resource, tool::ToolDefinition};

/// What an MCP server says of its tools. Strangers wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolListing {
    /// The tools, in its order. A name may stand in it twice.
    pub tools: Vec<ToolDefinition>,
    /// How many more it listed that can't be used: a name that no tool may have, a description or a schema that is too large.
    pub unusable_count: usize,
}

/// Why an MCP server's tools could not be had. Nothing in it is the server's own words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ToolListingError {
    /// Errand does not go there.
    #[error("{0}")]
    DestinationRefused(String),
    /// No connection, or no answer in time.
    #[error("the MCP server did not answer in time, or not at all")]
    NoResponse,
    /// An HTTP status that no MCP server answers a good request with; redirects are not followed.
    #[error("the MCP server answered with the HTTP status {0}")]
    UnexpectedStatus(u16),
    /// It wants to know who asks.
    #[error("the MCP server wants a token to be asked with (HTTP status {0}): give one with `catalogue_token_file`")]
    Unauthorized(u16),
    /// More than is read.
    #[error("the MCP server says too much: {0}")]
    LimitExceeded(&'static str),
    /// Something else answered.
    #[error("what answers there is no MCP server over streamable HTTP, or it broke off")]
    NotMcp,
}

/// The MCP servers, asked at the URI of their resource.
#[async_trait]
pub trait McpServers: Send + Sync {
    /// Asks for `tools/list`, all pages of it.
    async fn list_tools(&self, resource: &Resource) -> Result<ToolListing, ToolListingError>;
}
