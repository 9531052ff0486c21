//! The MCP server: three tools on the files of a directory. `guard.rs` protects them in two places:
//! the router is wrapped by [`ResourceGuard::protect`], and every call passes
//! [`VerifiedToken::check`]. Every call is reported to Errand.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::Router;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    handler::server::{tool::ToolCallContext, wrapper::Parameters},
    model::{CallToolRequestParams, CallToolResponse},
    schemars::{self, JsonSchema},
    service::RequestContext,
    tool, tool_handler, tool_router,
    transport::{
        StreamableHttpServerConfig, StreamableHttpService, streamable_http_server::session::local::LocalSessionManager,
    },
};
use serde::Deserialize;
use tokio::{fs, net::TcpListener};

use crate::{
    guard::{ResourceGuard, VerifiedToken},
    report::CallOutcome,
};

/// Serves the files in `folder`, protected by `guard`.
pub(crate) fn start(listener: TcpListener, guard: ResourceGuard, folder: Arc<Path>) {
    // Without sessions, each request has its own token and its own introspection.
    let config = StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true);
    let guard = Arc::new(guard);
    let files = Files { folder, guard: Arc::clone(&guard) };
    let files = move || Ok(files.clone());
    let mcp = StreamableHttpService::new(files, LocalSessionManager::default().into(), config);
    let router = guard.protect(Router::new().nest_service("/mcp", mcp));
    tokio::spawn(async move { axum::serve(listener, router).await });
}

#[derive(Clone)]
struct Files {
    folder: Arc<Path>,
    guard: Arc<ResourceGuard>,
}

/// Data class of the files, for the trail.
const DATA_CLASS: &str = "internal";

#[derive(Deserialize, JsonSchema)]
struct FileName {
    /// Name of the file.
    name: String,
}

#[derive(Deserialize, JsonSchema)]
struct FileContent {
    /// Name of the file.
    name: String,
    /// New text of the file.
    text: String,
}

#[tool_router]
impl Files {
    #[tool(description = "Read a file", annotations(read_only_hint = true))]
    async fn read_file(&self, Parameters(FileName { name }): Parameters<FileName>) -> Result<String, String> {
        fs::read_to_string(self.path(&name)?).await.map_err(error_text)
    }

    #[tool(description = "Write a file", annotations(destructive_hint = false))]
    async fn write_file(
        &self,
        Parameters(FileContent { name, text }): Parameters<FileContent>,
    ) -> Result<String, String> {
        fs::write(self.path(&name)?, text).await.map_err(error_text)?;
        Ok(format!("wrote {name}"))
    }

    #[tool(description = "Delete a file for good", annotations(destructive_hint = true))]
    async fn delete_file(&self, Parameters(FileName { name }): Parameters<FileName>) -> Result<String, String> {
        fs::remove_file(self.path(&name)?).await.map_err(error_text)?;
        Ok(format!("deleted {name}"))
    }

    /// Returns the path of a file, which must be a bare name and therefore in the folder.
    fn path(&self, name: &str) -> Result<PathBuf, String> {
        let is_bare = Path::new(name).file_name().is_some_and(|bare| bare == name);
        if is_bare { Ok(self.folder.join(name)) } else { Err("not a valid file name".to_owned()) }
    }
}

#[tool_handler(name = "files", version = "1.0.0")]
impl ServerHandler for Files {
    /// Checks and reports the calls of all tools, so that no tool can forget to.
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let token = VerifiedToken::from_request(&context)?.clone();
        let (tool, arguments) = (request.name.clone(), request.arguments.clone().unwrap_or_default());
        tracing::info!(%tool, user = token.sub, agent = token.client_id, task = token.txn, "call");
        let result = match token.check(&tool, &arguments) {
            Ok(()) => Self::tool_router().call(ToolCallContext::new(self, request, context)).await,
            Err(refusal) => Err(refusal),
        };
        let outcome = match &result {
            Ok(CallToolResponse::Complete(result)) if result.is_error != Some(true) => {
                CallOutcome::Succeeded(DATA_CLASS, 1)
            }
            Ok(_) => CallOutcome::Failed,
            Err(_) => CallOutcome::Refused,
        };
        if let Err(error) = self.guard.report(&token, &tool, &arguments, &outcome).await {
            // The call cannot be undone, so log that its report is missing.
            tracing::error!(%error, task = token.txn, %tool, "could not report a call");
        }
        result
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
fn error_text(error: io::Error) -> String {
    error.kind().to_string()
}
