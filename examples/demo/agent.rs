//! The agents: OAuth clients of Errand and MCP clients. They start with the URL of an MCP server, a
//! client id and a credential, as any agent would.

use std::{error::Error, sync::Arc};

use errand::{
    adapters::{
        client_assertion,
        system::{OsEntropy, SystemClock},
    },
    domain::secret::Secret,
    ports::{Clock, Entropy},
};
use reqwest::{Client, RequestBuilder, header};
use rmcp::{
    RoleClient, ServiceError,
    model::{CallToolRequestParams, ProtocolVersion},
    service::{ClientLifecycleMode, ClientServiceExt, RunningService},
    transport::{
        StreamableHttpClientTransport,
        streamable_http_client::{AuthRequiredError, StreamableHttpClientTransportConfig},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::output::BoxError;

pub(crate) const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(crate) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client of Errand: an agent or an admin.
pub(crate) struct OAuthClient {
    pub(crate) id: &'static str,
    pub(crate) credential: Credential,
    pub(crate) http: Client,
    pub(crate) entropy: Arc<OsEntropy>,
}

/// Client authentication.
pub(crate) enum Credential {
    /// A private key as a JWK, which signs an assertion for every request (RFC 7523).
    Key(Secret),
    /// A client secret (RFC 6749 §2.3.1).
    Secret(Secret),
}

/// Errand, according to its metadata (RFC 8414).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct AuthorizationServer {
    pub(crate) issuer: String,
    pub(crate) token_endpoint: String,
}

/// Status and body of a response.
pub(crate) struct TokenEndpointResponse {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl TokenEndpointResponse {
    pub(crate) async fn send(request: RequestBuilder) -> Result<Self, BoxError> {
        let response = request.send().await?;
        let status = response.status().as_u16();
        Ok(Self { status, body: response.json().await? })
    }

    pub(crate) fn token(&self) -> Result<String, BoxError> {
        let token = self.body.get("access_token").and_then(Value::as_str);
        token.map(str::to_owned).ok_or_else(|| format!("expected a token, got {} {}", self.status, self.body).into())
    }

    /// Returns a member of the body, or null.
    pub(crate) fn get(&self, name: &str) -> Value {
        self.body.get(name).cloned().unwrap_or_default()
    }
}

impl OAuthClient {
    /// Exchanges a token (RFC 8693).
    pub(crate) async fn exchange(
        &self,
        server: &AuthorizationServer,
        token: &str,
        parameters: &[(&str, &str)],
    ) -> Result<TokenEndpointResponse, BoxError> {
        let base = [("grant_type", EXCHANGE), ("subject_token", token), ("subject_token_type", ACCESS_TOKEN)];
        self.post_form(server, &[&base, parameters].concat()).await
    }

    /// Posts a form to the token endpoint, authenticated as this client.
    pub(crate) async fn post_form(
        &self,
        server: &AuthorizationServer,
        form: &[(&str, &str)],
    ) -> Result<TokenEndpointResponse, BoxError> {
        let request = self.http.post(&server.token_endpoint);
        let request = match &self.credential {
            Credential::Secret(secret) => request.basic_auth(self.id, Some(secret.expose())).form(form),
            Credential::Key(key) => {
                let now = SystemClock::new().now();
                let assertion = client_assertion::sign(key, self.id, &server.issuer, now, self.entropy.new_uuid())?;
                let authentication = [("client_assertion_type", JWT_BEARER), ("client_assertion", assertion.expose())];
                request.form(&[form, &authentication].concat())
            }
        };
        TokenEndpointResponse::send(request).await
    }
}

/// Sends `tools/list` to an MCP server and returns the status and the challenge of the response.
pub(crate) async fn probe(http: &Client, mcp: &str, token: Option<&str>) -> Result<(u16, String), BoxError> {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let request = http.post(mcp).header(header::ACCEPT, "application/json, text/event-stream").json(&body);
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let response = request.send().await?;
    let challenge = response.headers().get(header::WWW_AUTHENTICATE).map(|text| text.to_str()).transpose()?;
    Ok((response.status().as_u16(), challenge.unwrap_or_default().to_owned()))
}

/// An MCP session with one token.
pub(crate) struct Session(RunningService<RoleClient, ()>);

/// Result of a call.
pub(crate) enum Reply {
    /// The tool ran.
    Done(String),
    /// The MCP server refused the call: code and message.
    Refused(String, String),
    /// 401 with its challenge: the token is not active.
    Unauthorized(String),
}

impl Reply {
    /// Returns the outcome in one word.
    pub(crate) fn outcome(&self) -> &str {
        match self {
            Self::Done(_) => "done",
            Self::Refused(code, _) => code,
            Self::Unauthorized(_) => "401",
        }
    }

    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Done(text) | Self::Refused(_, text) | Self::Unauthorized(text) => text,
        }
    }
}

impl Session {
    pub(crate) async fn open(http: &Client, mcp: &str, token: &str) -> Result<Self, BoxError> {
        let config = StreamableHttpClientTransportConfig::with_uri(mcp).auth_header(token);
        let transport = StreamableHttpClientTransport::with_client(http.clone(), config);
        let mode = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
        Ok(Self(().serve_with_lifecycle(transport, mode).await?))
    }

    /// Calls a tool.
    pub(crate) async fn call(&self, tool: &'static str, arguments: Value) -> Result<Reply, BoxError> {
        let arguments = serde_json::from_value(arguments)?;
        match self.0.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await {
            Ok(result) => {
                let texts = result.content.iter().filter_map(|block| Some(block.as_text()?.text.as_str()));
                let text = texts.collect::<String>();
                Ok(if result.is_error == Some(true) {
                    Reply::Refused("failed".to_owned(), text)
                } else {
                    Reply::Done(text)
                })
            }
            Err(ServiceError::McpError(refusal)) => {
                let code = refusal.data.as_ref().and_then(|data| data.get("error")?.as_str());
                Ok(Reply::Refused(code.unwrap_or("refused").to_owned(), refusal.message.into_owned()))
            }
            // rmcp stores the challenge of a 401 in the innermost cause of its error.
            Err(ServiceError::TransportSend(error)) => {
                challenge(&*error.error).map(Reply::Unauthorized).ok_or_else(|| error.into())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn challenge(error: &(dyn Error + 'static)) -> Option<String> {
    let header = |error: &AuthRequiredError| error.www_authenticate_header.clone();
    error.downcast_ref().map(header).or_else(|| error.source().and_then(challenge))
}
