//! Protects an MCP server with Errand. Copy this file; it needs axum, errand, reqwest, rmcp, serde, `serde_json`, tracing and
//! url.
//!
//! [`Guard::protect`] asks Errand about the token of every request (RFC 7662), so what was revoked is refused from the next
//! request on. [`Permit::check`] holds a call to the tools that the token names, and to what it says of their arguments. And
//! nobody is left without a way in: a 401 says where to read who gives tokens (RFC 9728).

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

/// This MCP server, as Errand knows it: `[[resources]]` in its configuration.
#[derive(Clone)]
pub(crate) struct ResourceGuard {
    pub(crate) http: reqwest::Client,
    /// Errand's issuer URL.
    pub(crate) errand: String,
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
    /// The canonical URL of this MCP server: the `aud` of the tokens that are good here.
    pub(crate) resource: Url,
    pub(crate) scopes: &'static [&'static str],
}

/// What Errand says of a live token: in whose name, by which agent, for which task, and which tools.
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

/// Strictly: a constraint that isn't understood would limit nothing.
fn authority<'de, D: Deserializer<'de>>(details: D) -> Result<Authority, D::Error> {
    let text = Value::deserialize(details)?.to_string();
    parse_details(&text, None).map_err(de::Error::custom)
}

#[derive(Deserialize)]
struct IntrospectionResult {
    active: bool,
}

/// How long Errand may take to answer.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

impl ResourceGuard {
    /// Lets requests to `router` pass with a live token only, and tells everybody where to get one.
    pub(crate) fn protect(self: &Arc<Self>, router: Router) -> Router {
        let (path, document) = (self.metadata_url().path().to_owned(), self.metadata());
        router.layer(middleware::from_fn_with_state(Arc::clone(self), guard)).route(&path, get(async || Json(document)))
    }

    /// The permit of a token; none, if it isn't good here and now. An answer that can't be had or read is neither.
    async fn introspect(&self, token: &str) -> Result<Option<VerifiedToken>, Box<dyn Error + Send + Sync>> {
        let question = self.http.post(format!("{}/oauth2/introspect", self.errand)).form(&[("token", token)]);
        let question = question.basic_auth(&self.client_id, Some(&self.client_secret)).timeout(REQUEST_TIMEOUT);
        let answer = question.send().await?.error_for_status()?.json::<Value>().await?;
        if !IntrospectionResult::deserialize(&answer)?.active {
            return Ok(None);
        }
        let permit = VerifiedToken::deserialize(&answer)?;
        Ok((Url::parse(&permit.aud)? == self.resource).then_some(permit))
    }

    /// RFC 9728 §3.1: the well-known part goes between host and path.
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

    /// RFC 6750 §3: who sent no token is told of no error.
    fn challenge(&self, error: &str) -> Response {
        let challenge = format!("Bearer {error}resource_metadata=\"{}\"", self.metadata_url());
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    }
}

/// Every request, one question.
async fn guard(State(guard): State<Arc<ResourceGuard>>, mut request: Request, next: Next) -> Response {
    let Some(token) = bearer(request.headers()) else { return guard.challenge("") };
    match guard.introspect(token).await {
        Ok(Some(permit)) => {
            // The token ends here: a tool that calls others must not be able to pass it on.
            request.headers_mut().remove(header::AUTHORIZATION);
            request.extensions_mut().insert(Arc::new(permit));
            next.run(request).await
        }
        Ok(None) => guard.challenge("error=\"invalid_token\", "),
        Err(fault) => {
            // "I don't know" is neither yes nor no.
            tracing::warn!(error = %fault, "Errand can't be asked");
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")]).into_response()
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

impl VerifiedToken {
    /// The permit of the request that a tool call came with.
    pub(crate) fn from_request(call: &RequestContext<RoleServer>) -> Result<&Self, ErrorData> {
        let parts = call.extensions.get::<Parts>();
        let permit = parts.and_then(|parts| parts.extensions.get::<Arc<Self>>());
        permit.map(AsRef::as_ref).ok_or_else(|| ErrorData::internal_error("this server is not guarded", None))
    }

    /// Whether the token is for this call: it names the tool, and the arguments are within what it says of them.
    pub(crate) fn check(&self, tool: &str, arguments: &JsonObject) -> Result<(), ErrorData> {
        let (Ok(resource), Ok(name)) = (self.aud.parse::<ResourceUri>(), tool.parse::<ToolName>()) else {
            return Err(refusal_error(format!("this token is not for a tool of this name: {tool:?}"), tool));
        };
        let is_named = self.authority.iter().any(|permission| permission.tool() == Some(&name));
        let arguments = arguments.iter().map(|(name, value)| Ok((name.clone(), Arg::try_from(value.clone())?)));
        // An argument that can't be compared without loss is within nothing.
        let arguments = arguments.collect::<Result<BTreeMap<_, _>, StrictJsonError>>();
        match arguments {
            Ok(arguments) if self.authority.allows(&resource, &name, &arguments) => Ok(()),
            _ if is_named => {
                Err(refusal_error(format!("this token is for `{tool}`, but not with these arguments"), tool))
            }
            _ => Err(refusal_error(format!("this token is not for the tool `{tool}`: exchange for one that is"), tool)),
        }
    }
}

fn refusal_error(text: String, tool: &str) -> ErrorData {
    ErrorData::new(ErrorCode::INVALID_REQUEST, text, Some(json!({"error": "insufficient_scope", "tool": tool})))
}
