//! An MCP client that lists the tools of servers over streamable HTTP. Wraps rmcp, which implements
//! the protocol; the transport (`transport.rs`) enforces the limits. Only the tools are read from a
//! server's messages.

mod listing;
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
    service::{ClientLifecycleMode, RunningService, ServiceError, serve_client_with_lifecycle},
    transport::streamable_http_client::{StreamableHttpClientTransport, StreamableHttpClientTransportConfig},
};
use tokio::time::timeout;
use url::Url;

use crate::{
    adapters::fetch::{DestinationRules, FetchLimits, FetchOptions, Fetcher},
    domain::{id::ClientId, registry::client::Resource, secret::Secret},
    ports::{ListingProblem, McpServers, ToolListing, ToolListingError, UnusableTool},
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
    fn has_token(&self, resource: &ClientId) -> bool {
        self.tokens.contains_key(resource)
    }

    async fn list_tools(&self, resource: &Resource, token: Option<Secret>) -> Result<ToolListing, ToolListingError> {
        let no_url = || ListingProblem::DestinationRefused("the URI of the resource is not a URL".to_owned());
        let url = Url::parse(resource.uri.as_str()).map_err(|_| ToolListingError { call: None, problem: no_url() })?;
        let token = self.tokens.get(&resource.id).cloned().or(token.map(Arc::new));
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
            (None, Err(_)) => Err(wire.error(ListingProblem::NoResponse)),
        }
    }
}

async fn fetch_tools(wire: &GuardedTransport) -> Result<ToolListing, ToolListingError> {
    let session = match open_session(wire, ClientLifecycleMode::Initialize).await {
        Ok(session) => session,
        // The server may support only the newer protocol, which has no such handshake.
        Err(ToolListingError { problem: ListingProblem::NotMcp, .. }) => {
            wire.clear_error();
            let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
            open_session(wire, ClientLifecycleMode::Discover { preferred_versions }).await?
        }
        Err(error) => return Err(error),
    };
    let listing = list_all_pages(wire, &session).await;
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
    session.map_err(|_| wire.first_error().unwrap_or_else(|| wire.error(ListingProblem::NotMcp)))
}

async fn list_all_pages(wire: &GuardedTransport, session: &Session) -> Result<ToolListing, ToolListingError> {
    let mut listing = ToolListing::default();
    let mut cursors = HashSet::new();
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let params = PaginatedRequestParams::default().with_cursor(cursor.take());
        let page = session.list_tools(Some(params)).await.map_err(|error| match error {
            ServiceError::McpError(error) => wire.error(ListingProblem::Rpc(error.code.0.into())),
            _ => wire.error(ListingProblem::NotMcp),
        })?;
        let (tools, before) = (wire.take_page(), listing.tools.len() + listing.unusable.len());
        listing.tools.extend(tools.usable);
        let in_listing = |tool: UnusableTool| UnusableTool { position: before + tool.position, ..tool };
        listing.unusable.extend(tools.unusable.into_iter().map(in_listing));
        if listing.tools.len() + listing.unusable.len() > MAX_TOOLS {
            return Err(wire.error(ListingProblem::LimitExceeded("more than 512 tools")));
        }
        match page.next_cursor {
            None => return Ok(listing),
            Some(next) if cursors.insert(next.clone()) => cursor = Some(next),
            Some(_) => return Err(wire.error(ListingProblem::LimitExceeded("the pages form a cycle"))),
        }
    }
    Err(wire.error(ListingProblem::LimitExceeded("more than 64 pages of tools")))
}
