//! A real MCP server (rmcp, streamable HTTP) whose tools change while it runs.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool},
    service::RequestContext,
    transport::{
        StreamableHttpServerConfig, StreamableHttpService, streamable_http_server::session::local::LocalSessionManager,
    },
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The variant of the transport.
#[derive(Clone, Copy)]
pub enum ServerBehavior {
    /// Sessions, and responses as server-sent events.
    Sessions,
    /// No sessions, and responses as JSON.
    Stateless,
}

/// An MCP server. Clones share its state.
#[derive(Clone)]
pub struct McpServerFixture {
    pub uri: String,
    tools: Arc<Mutex<Vec<Value>>>,
    /// The bearer token that the server requires, if any.
    token: Arc<Mutex<Option<String>>>,
}

impl McpServerFixture {
    pub async fn start(behavior: ServerBehavior) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}/mcp", listener.local_addr().unwrap());
        let shop = Self { uri, tools: Arc::default(), token: Arc::default() };
        let config = match behavior {
            ServerBehavior::Sessions => StreamableHttpServerConfig::default(),
            ServerBehavior::Stateless => {
                StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true)
            }
        };
        let handler = shop.clone();
        let mcp =
            StreamableHttpService::new(move || Ok(handler.clone()), LocalSessionManager::default().into(), config);
        let wanted = Arc::clone(&shop.token);
        let guard = move |request: Request, next: Next| {
            let wanted = wanted.lock().unwrap().as_ref().map(|token| format!("Bearer {token}"));
            let given = request.headers().get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
            async move {
                if wanted == given {
                    next.run(request).await
                } else {
                    StatusCode::UNAUTHORIZED.into_response() as Response
                }
            }
        };
        let router = Router::new().nest_service("/mcp", mcp).layer(middleware::from_fn(guard));
        tokio::spawn(async move { axum::serve(listener, router).await });
        shop
    }

    /// Replaces the tools of the server: names with their descriptions.
    pub fn set_tools(&self, tools: &[(&str, &str)]) {
        let schema = json!({"type": "object", "properties": {"path": {"type": "string"}}});
        let tool = |(name, text): &(&str, &str)| json!({"name": name, "description": text, "inputSchema": schema});
        *self.tools.lock().unwrap() = tools.iter().map(tool).collect();
    }

    pub fn require_token(&self, token: &str) {
        *self.token.lock().unwrap() = Some(token.to_owned());
    }
}

/// Number of tools on a page of the list.
const PAGE_SIZE: usize = 2;

impl ServerHandler for McpServerFixture {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let from = request.and_then(|page| page.cursor).map_or(0, |cursor| cursor.parse::<usize>().unwrap());
        let tools = self.tools.lock().unwrap().clone();
        let page =
            tools.iter().skip(from).take(PAGE_SIZE).map(|tool| serde_json::from_value::<Tool>(tool.clone()).unwrap());
        let mut listed = ListToolsResult::with_all_items(page.collect());
        listed.next_cursor = (from + PAGE_SIZE < tools.len()).then(|| (from + PAGE_SIZE).to_string());
        Ok(listed)
    }
}
