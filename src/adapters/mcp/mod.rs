//! Asking MCP servers for their tools, over streamable HTTP. rmcp lives here: it speaks the protocol, and what goes over the
//! wire is bounded by us (`transport.rs`). Of all that a server says, its tools are read and nothing else.

mod transport;

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use rmcp::{
    RoleClient,
    model::{ClientCapabilities, ClientConfig, Implementation, PaginatedRequestParams, ProtocolVersion},
    service::{ClientLifecycleMode, RunningService, serve_client_with_lifecycle},
    transport::streamable_http_client::{StreamableHttpClientTransport, StreamableHttpClientTransportConfig},
};
use tokio::time::timeout;
use url::Url;

use crate::{
    adapters::fetch::{FetchLimits, Fetcher},
    domain::{
        id::ClientId,
        registry::{client::Resource, tool::ToolDefinition},
        secret::Secret,
    },
    ports::{McpServers, ToolListing, ToolListingError},
};
use transport::GuardedTransport;

/// How many tools a server may list.
const MAX_TOOLS: usize = 512;
/// On how many pages.
const MAX_PAGES: usize = 64;
/// How long a server may take to be told goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

type Session = RunningService<RoleClient, ClientConfig>;

/// Asks MCP servers, each with its own token where we were given one.
#[derive(Debug)]
pub struct McpClient {
    fetcher: Arc<Fetcher>,
    limits: FetchLimits,
    tokens: BTreeMap<ClientId, Arc<Secret>>,
}

impl McpClient {
    /// Makes one. The limits are for a whole conversation.
    #[must_use]
    pub fn new(limits: FetchLimits, tokens: impl IntoIterator<Item = (ClientId, Secret)>) -> Self {
        let tokens = tokens.into_iter().map(|(id, token)| (id, Arc::new(token))).collect();
        Self { fetcher: Arc::new(Fetcher::new(limits)), limits, tokens }
    }
}

#[async_trait]
impl McpServers for McpClient {
    async fn list_tools(&self, resource: &Resource) -> Result<ToolListing, ToolListingError> {
        let url = Url::parse(resource.uri.as_str())
            .map_err(|_| ToolListingError::DestinationRefused("its URI is not a URL".to_owned()))?;
        let token = self.tokens.get(&resource.id).cloned();
        let wire = GuardedTransport::new(
            Arc::clone(&self.fetcher),
            url,
            resource.allowed_networks.clone(),
            token,
            self.limits.max_bytes,
        );
        let asked = timeout(self.limits.timeout, fetch_tools(&wire)).await;
        // What went wrong on the wire is known best there.
        match (wire.first_error(), asked) {
            (Some(fault), _) => Err(fault),
            (None, Ok(listed)) => listed,
            (None, Err(_)) => Err(ToolListingError::NoResponse),
        }
    }
}

async fn fetch_tools(wire: &GuardedTransport) -> Result<ToolListing, ToolListingError> {
    let session = match open_session(wire, ClientLifecycleMode::Initialize).await {
        Ok(session) => session,
        // A server may speak the newer protocol only, which has no such handshake.
        Err(ToolListingError::NotMcp) => {
            wire.clear_error();
            let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
            open_session(wire, ClientLifecycleMode::Discover { preferred_versions }).await?
        }
        Err(fault) => return Err(fault),
    };
    let listed = list_all_pages(&session).await;
    // A server that does not let us go is left alone.
    let _: Result<_, tokio::time::error::Elapsed> = timeout(CLOSE_TIMEOUT, session.cancel()).await;
    listed
}

async fn open_session(wire: &GuardedTransport, mode: ClientLifecycleMode) -> Result<Session, ToolListingError> {
    let us = Implementation::new("errand", env!("CARGO_PKG_VERSION"));
    let mut config = StreamableHttpClientTransportConfig::with_uri(wire.uri());
    config.allow_stateless = true;
    config.reinit_on_expired_session = false;
    let transport = StreamableHttpClientTransport::with_client(wire.clone(), config);
    let opened =
        serve_client_with_lifecycle(ClientConfig::new(ClientCapabilities::default(), us), transport, mode).await;
    opened.map_err(|_| wire.first_error().unwrap_or(ToolListingError::NotMcp))
}

async fn list_all_pages(session: &Session) -> Result<ToolListing, ToolListingError> {
    let mut listed = ToolListing::default();
    let mut cursors = HashSet::new();
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let asked = PaginatedRequestParams::default().with_cursor(cursor.take());
        let page = session.list_tools(Some(asked)).await.map_err(|_| ToolListingError::NotMcp)?;
        for tool in &page.tools {
            match ToolDefinition::new(&tool.name, tool.description.as_deref(), &tool.input_schema) {
                Some(definition) => listed.tools.push(definition),
                None => listed.unusable_count += 1,
            }
        }
        if listed.tools.len() + listed.unusable_count > MAX_TOOLS {
            return Err(ToolListingError::LimitExceeded("more than 512 tools"));
        }
        match page.next_cursor {
            None => return Ok(listed),
            Some(next) if cursors.insert(next.clone()) => cursor = Some(next),
            Some(_) => return Err(ToolListingError::LimitExceeded("its pages go round in a circle")),
        }
    }
    Err(ToolListingError::LimitExceeded("more than 64 pages of tools"))
}
