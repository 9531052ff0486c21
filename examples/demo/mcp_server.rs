//! The MCP server: three tools on the files of a folder. What protects them is `guard.rs`, and two places here: the router
//! goes through [`Guard::protect`], and every call through [`Permit::check`]. What each call did is told to Errand.

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

/// Serves the files in `folder`, guarded.
pub(crate) fn start(listener: TcpListener, guard: ResourceGuard, folder: Arc<Path>) {
    // Without sessions each request stands for itself: its own token, its own question to Errand.
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

/// What is in the files, for the trail.
const DATA_CLASS: &str = "internal";

#[derive(Deserialize, JsonSchema)]
struct FileName {
    /// The file's name.
    name: String,
}

#[derive(Deserialize, JsonSchema)]
struct FileContent {
    /// The file's name.
    name: String,
    /// Its new text.
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
        Ok(format!("{name} is written"))
    }

    #[tool(description = "Delete a file for good", annotations(destructive_hint = true))]
    async fn delete_file(&self, Parameters(FileName { name }): Parameters<FileName>) -> Result<String, String> {
        fs::remove_file(self.path(&name)?).await.map_err(error_text)?;
        Ok(format!("{name} is gone"))
    }

    /// A bare name: nothing outside the folder has one.
    fn path(&self, name: &str) -> Result<PathBuf, String> {
        let is_bare = Path::new(name).file_name().is_some_and(|bare| bare == name);
        if is_bare { Ok(self.folder.join(name)) } else { Err("not the name of a file here".to_owned()) }
    }
}

#[tool_handler(name = "files", version = "1.0.0")]
impl ServerHandler for Files {
    /// Every tool goes through here, so no tool can forget to ask, or to tell.
    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let permit = VerifiedToken::from_request(&context)?.clone();
        let (tool, arguments) = (request.name.clone(), request.arguments.clone().unwrap_or_default());
        tracing::info!(%tool, user = permit.sub, agent = permit.client_id, task = permit.txn, "call");
        let result = match permit.check(&tool, &arguments) {
            Ok(()) => Self::tool_router().call(ToolCallContext::new(self, request, context)).await,
            Err(refusal) => Err(refusal),
        };
        let did = match &result {
            Ok(CallToolResponse::Complete(result)) if result.is_error != Some(true) => {
                CallOutcome::Succeeded(DATA_CLASS, 1)
            }
            Ok(_) => CallOutcome::Failed,
            Err(_) => CallOutcome::Refused,
        };
        if let Err(fault) = self.guard.report(&permit, &tool, &arguments, &did).await {
            // What was done was done; that it was not told must not be lost as well.
            tracing::error!(error = %fault, task = permit.txn, %tool, "a call was not reported");
        }
        result
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it goes into map_err")]
fn error_text(fault: io::Error) -> String {
    fault.kind().to_string()
}
