//! The agents, as any agent would be: OAuth to Errand, MCP to the server. Nothing here knows more than an MCP server's
//! URL, a client id and a credential.

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

/// How it proves who it is.
pub(crate) enum Credential {
    /// A private key, as a JWK: it signs an assertion for every request (RFC 7523).
    Key(Secret),
    /// A secret (RFC 6749 §2.3.1).
    Secret(Secret),
}

/// Errand, as its metadata has it (RFC 8414).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct AuthorizationServer {
    pub(crate) issuer: String,
    pub(crate) token_endpoint: String,
}

/// Status and body of an answer.
pub(crate) struct TokenEndpointResponse {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl TokenEndpointResponse {
    pub(crate) async fn send(request: RequestBuilder) -> Result<Self, BoxError> {
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        Ok(Self { status, body: answer.json().await? })
    }

    pub(crate) fn token(&self) -> Result<String, BoxError> {
        let token = self.body.get("access_token").and_then(Value::as_str);
        token.map(str::to_owned).ok_or_else(|| format!("no token came, but {} {}", self.status, self.body).into())
    }

    /// A member that is a text; null, if there is none.
    pub(crate) fn text(&self, name: &str) -> Value {
        self.body.get(name).cloned().unwrap_or_default()
    }
}

impl OAuthClient {
    /// Exchanges a token for another one (RFC 8693).
    pub(crate) async fn exchange(
        &self,
        at: &AuthorizationServer,
        token: &str,
        parameters: &[(&str, &str)],
    ) -> Result<TokenEndpointResponse, BoxError> {
        let start = [("grant_type", EXCHANGE), ("subject_token", token), ("subject_token_type", ACCESS_TOKEN)];
        self.post_form(at, &[&start, parameters].concat()).await
    }

    /// Posts a form to the token endpoint, authenticated.
    pub(crate) async fn post_form(
        &self,
        at: &AuthorizationServer,
        form: &[(&str, &str)],
    ) -> Result<TokenEndpointResponse, BoxError> {
        let request = self.http.post(&at.token_endpoint);
        let request = match &self.credential {
            Credential::Secret(secret) => request.basic_auth(self.id, Some(secret.expose())).form(form),
            Credential::Key(key) => {
                let now = SystemClock::new().now();
                let assertion = client_assertion::sign(key, self.id, &at.issuer, now, self.entropy.new_uuid())?;
                let proof = [("client_assertion_type", JWT_BEARER), ("client_assertion", assertion.expose())];
                request.form(&[form, &proof].concat())
            }
        };
        TokenEndpointResponse::send(request).await
    }
}

/// Knocks at an MCP server's door: status and challenge.
pub(crate) async fn probe(http: &Client, mcp: &str, token: Option<&str>) -> Result<(u16, String), BoxError> {
    let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let request = http.post(mcp).header(header::ACCEPT, "application/json, text/event-stream").json(&hello);
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let answer = request.send().await?;
    let challenge = answer.headers().get(header::WWW_AUTHENTICATE).map(|text| text.to_str()).transpose()?;
    Ok((answer.status().as_u16(), challenge.unwrap_or_default().to_owned()))
}

/// A connection to an MCP server with one token.
pub(crate) struct Session(RunningService<RoleClient, ()>);

/// What came of a call.
pub(crate) enum Reply {
    /// The tool ran.
    Done(String),
    /// The MCP server refused the call: the code and what it said.
    Refused(String, String),
    /// The token is no good (any more): 401, and the challenge.
    Unauthorized(String),
}

impl Reply {
    /// In a word.
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
            // rmcp keeps the challenge of a 401 at the bottom of its error.
            Err(ServiceError::TransportSend(fault)) => {
                challenge(&*fault.error).map(Reply::Unauthorized).ok_or_else(|| fault.into())
            }
            Err(fault) => Err(fault.into()),
        }
    }
}

fn challenge(fault: &(dyn Error + 'static)) -> Option<String> {
    let challenge = |error: &AuthRequiredError| error.www_authenticate_header.clone();
    fault.downcast_ref().map(challenge).or_else(|| fault.source().and_then(self::challenge))
}
