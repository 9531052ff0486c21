//! An MCP client that lists the tools of servers over streamable HTTP. Wraps rmcp, which implements
//! the protocol; the transport (`transport.rs`) enforces the limits. Only the tools are read from a
//! server's messages.

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
    adapters::fetch::{DestinationRules, FetchLimits, FetchOptions, Fetcher},
    domain::{
        id::ClientId,
        registry::{client::Resource, tool::ToolDefinition},
        secret::Secret,
    },
    ports::{McpServers, ToolListing, ToolListingError},
};
use transport::GuardedTransport;

/// The maximum number of tools of a server.
const MAX_TOOLS: usize = 512;
/// The maximum number of pages.
const MAX_PAGES: usize = 64;
/// The time limit for closing a session.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

type Session = RunningService<RoleClient, ClientConfig>;

/// A client of MCP servers, with a token for each server that requires one.
#[derive(Debug)]
pub struct McpClient {
    fetcher: Arc<Fetcher>,
    limits: FetchLimits,
    tokens: BTreeMap<ClientId, Arc<Secret>>,
}

impl McpClient {
    /// Creates a client. The limits apply to a whole session.
    #[must_use]
    pub fn new(options: impl Into<FetchOptions>, tokens: impl IntoIterator<Item = (ClientId, Secret)>) -> Self {
        let tokens = tokens.into_iter().map(|(id, token)| (id, Arc::new(token))).collect();
        let options = options.into();
        let limits = options.limits;
        Self { fetcher: Arc::new(Fetcher::new(options)), limits, tokens }
    }
}

#[async_trait]
impl McpServers for McpClient {
    async fn list_tools(&self, resource: &Resource) -> Result<ToolListing, ToolListingError> {
        let url = Url::parse(resource.uri.as_str())
            .map_err(|_| ToolListingError::DestinationRefused("the URI of the resource is not a URL".to_owned()))?;
        let token = self.tokens.get(&resource.id).cloned();
        let wire = GuardedTransport::new(
            Arc::clone(&self.fetcher),
            url,
            DestinationRules {
                networks: resource.allowed_networks.clone(),
                allow_http: resource.allow_http,
                ca_pem: None,
            },
            token,
            self.limits.max_bytes,
        );
        let listing = timeout(self.limits.timeout, fetch_tools(&wire)).await;
        // The transport knows the cause of a failure best.
        match (wire.first_error(), listing) {
            (Some(error), _) => Err(error),
            (None, Ok(listing)) => listing,
            (None, Err(_)) => Err(ToolListingError::NoResponse),
        }
    }
}

async fn fetch_tools(wire: &GuardedTransport) -> Result<ToolListing, ToolListingError> {
    let session = match open_session(wire, ClientLifecycleMode::Initialize).await {
        Ok(session) => session,
        // The server may support only the newer protocol, which has no such handshake.
        Err(ToolListingError::NotMcp) => {
            wire.clear_error();
            let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
            open_session(wire, ClientLifecycleMode::Discover { preferred_versions }).await?
        }
        Err(error) => return Err(error),
    };
    let listing = list_all_pages(&session).await;
    // A server that does not close the session in time is ignored.
    let _: Result<_, tokio::time::error::Elapsed> = timeout(CLOSE_TIMEOUT, session.cancel()).await;
    listing
}

async fn open_session(wire: &GuardedTransport, mode: ClientLifecycleMode) -> Result<Session, ToolListingError> {
    let implementation = Implementation::new("errand", env!("CARGO_PKG_VERSION"));
    let mut config = StreamableHttpClientTransportConfig::with_uri(wire.uri());
    config.allow_stateless = true;
    config.reinit_on_expired_session = false;
    let transport = StreamableHttpClientTransport::with_client(wire.clone(), config);
    let session =
        serve_client_with_lifecycle(ClientConfig::new(ClientCapabilities::default(), implementation), transport, mode)
            .await;
    session.map_err(|_| wire.first_error().unwrap_or(ToolListingError::NotMcp))
}

async fn list_all_pages(session: &Session) -> Result<ToolListing, ToolListingError> {
    let mut listing = ToolListing::default();
    let mut cursors = HashSet::new();
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let params = PaginatedRequestParams::default().with_cursor(cursor.take());
        let page = session.list_tools(Some(params)).await.map_err(|_| ToolListingError::NotMcp)?;
        for tool in &page.tools {
            match ToolDefinition::new(&tool.name, tool.description.as_deref(), &tool.input_schema) {
                Some(definition) => listing.tools.push(definition),
                None => listing.unusable_count += 1,
            }
        }
        if listing.tools.len() + listing.unusable_count > MAX_TOOLS {
            return Err(ToolListingError::LimitExceeded("more than 512 tools"));
        }
        match page.next_cursor {
            None => return Ok(listing),
            Some(next) if cursors.insert(next.clone()) => cursor = Some(next),
            Some(_) => return Err(ToolListingError::LimitExceeded("the pages form a cycle")),
        }
    }
    Err(ToolListingError::LimitExceeded("more than 64 pages of tools"))
}
