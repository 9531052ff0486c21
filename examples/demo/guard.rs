//! Protection of an MCP server with Errand. Copy this file; it needs axum, errand, reqwest, rmcp,
//! serde, `serde_json`, tracing and url.
//!
//! [`ResourceGuard::protect`] introspects the token of every request (RFC 7662), so that a revoked
//! token is refused at the next request. [`VerifiedToken::check`] limits a call to the tools and
//! arguments that the token allows. A 401 refers to the metadata that names Errand (RFC 9728).

use std::{collections::BTreeMap, error::Error, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use errand::domain::{
    authority::{Arg, Authority, parse_details},
    encoding::strict_json::StrictJsonError,
    id::ToolName,
    uri::ResourceUri,
};
use rmcp::{
    ErrorData, RoleServer,
    model::{ErrorCode, JsonObject},
    service::RequestContext,
};
use serde::{Deserialize, Deserializer, de};
use serde_json::{Value, json};
use url::Url;

/// This MCP server as it is registered at Errand (`[[resources]]`).
#[derive(Clone)]
pub(crate) struct ResourceGuard {
    pub(crate) http: reqwest::Client,
    /// Errand's issuer URL.
    pub(crate) errand: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    /// Canonical URL of this MCP server: the `aud` of tokens that are valid here.
    pub(crate) resource: Url,
    pub(crate) scopes: &'static [&'static str],
}

/// An active token: requester (`sub`), agent (`client_id`), task (`txn`) and allowed tools.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct VerifiedToken {
    aud: String,
    pub(crate) sub: String,
    pub(crate) client_id: String,
    pub(crate) txn: String,
    pub(crate) jti: String,
    #[serde(rename = "authorization_details", deserialize_with = "authority")]
    authority: Authority,
}

/// Parses the authority strictly, because a constraint that is ignored would not limit anything.
fn authority<'de, D: Deserializer<'de>>(details: D) -> Result<Authority, D::Error> {
    let text = Value::deserialize(details)?.to_string();
    parse_details(&text, None).map_err(de::Error::custom)
}

#[derive(Deserialize)]
struct IntrospectionResult {
    active: bool,
}

/// Timeout of requests to Errand.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

impl ResourceGuard {
    /// Requires an active token for every request to `router`, and serves the metadata that names
    /// Errand.
    pub(crate) fn protect(self: &Arc<Self>, router: Router) -> Router {
        let (path, document) = (self.metadata_url().path().to_owned(), self.metadata());
        router.layer(middleware::from_fn_with_state(Arc::clone(self), guard)).route(&path, get(async || Json(document)))
    }

    /// Introspects a token. Returns nothing if it is not active here, and an error if Errand cannot
    /// be reached or its response cannot be read.
    async fn introspect(&self, token: &str) -> Result<Option<VerifiedToken>, Box<dyn Error + Send + Sync>> {
        let request = self.http.post(format!("{}/oauth2/introspect", self.errand)).form(&[("token", token)]);
        let request = request.basic_auth(&self.client_id, Some(&self.client_secret)).timeout(REQUEST_TIMEOUT);
        let response = request.send().await?.error_for_status()?.json::<Value>().await?;
        if !IntrospectionResult::deserialize(&response)?.active {
            return Ok(None);
        }
        let verified = VerifiedToken::deserialize(&response)?;
        Ok((Url::parse(&verified.aud)? == self.resource).then_some(verified))
    }

    /// Returns the metadata URL. The well-known part is between host and path (RFC 9728 §3.1).
    fn metadata_url(&self) -> Url {
        let mut url = self.resource.clone();
        url.set_path(&format!("/.well-known/oauth-protected-resource{}", self.resource.path().trim_end_matches('/')));
        url
    }

    fn metadata(&self) -> Value {
        json!({
            "resource": self.resource,
            "authorization_servers": [self.errand],
            "scopes_supported": self.scopes,
            "authorization_details_types_supported": ["mcp_tool"],
            "bearer_methods_supported": ["header"],
        })
    }

    /// Returns a 401. `error` is empty for a request without a token (RFC 6750 §3).
    fn challenge(&self, error: &str) -> Response {
        let challenge = format!("Bearer {error}resource_metadata=\"{}\"", self.metadata_url());
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    }
}

/// Middleware: one introspection per request.
async fn guard(State(guard): State<Arc<ResourceGuard>>, mut request: Request, next: Next) -> Response {
    let Some(token) = bearer(request.headers()) else { return guard.challenge("") };
    match guard.introspect(token).await {
        Ok(Some(token)) => {
            // Remove the token, so that a tool cannot pass it on to another server.
            request.headers_mut().remove(header::AUTHORIZATION);
            request.extensions_mut().insert(Arc::new(token));
            next.run(request).await
        }
        Ok(None) => guard.challenge("error=\"invalid_token\", "),
        Err(error) => {
            // An unknown status is neither active nor inactive.
            tracing::warn!(%error, "introspection failed");
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")]).into_response()
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

impl VerifiedToken {
    /// Returns the token of the request that carried a tool call.
    pub(crate) fn from_request(call: &RequestContext<RoleServer>) -> Result<&Self, ErrorData> {
        let parts = call.extensions.get::<Parts>();
        let token = parts.and_then(|parts| parts.extensions.get::<Arc<Self>>());
        token.map(AsRef::as_ref).ok_or_else(|| ErrorData::internal_error("this server is not guarded", None))
    }

    /// Checks that the token allows a call of this tool with these arguments.
    pub(crate) fn check(&self, tool: &str, arguments: &JsonObject) -> Result<(), ErrorData> {
        let (Ok(resource), Ok(name)) = (self.aud.parse::<ResourceUri>(), tool.parse::<ToolName>()) else {
            return Err(refusal_error(format!("the tool name {tool:?} is not valid"), tool));
        };
        let is_named = self.authority.iter().any(|permission| permission.tool() == Some(&name));
        let arguments = arguments.iter().map(|(name, value)| Ok((name.clone(), Arg::try_from(value.clone())?)));
        // An argument that cannot be compared without loss satisfies no constraint.
        let arguments = arguments.collect::<Result<BTreeMap<_, _>, StrictJsonError>>();
        match arguments {
            Ok(arguments) if self.authority.allows(&resource, &name, &arguments) => Ok(()),
            _ if is_named => {
                Err(refusal_error(format!("the token allows `{tool}`, but not with these arguments"), tool))
            }
            _ => Err(refusal_error(
                format!("the token does not allow `{tool}`; exchange a token for one that does"),
                tool,
            )),
        }
    }
}

fn refusal_error(text: String, tool: &str) -> ErrorData {
    ErrorData::new(ErrorCode::INVALID_REQUEST, text, Some(json!({"error": "insufficient_scope", "tool": tool})))
}
