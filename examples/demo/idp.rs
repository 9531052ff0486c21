//! The identity provider of alice: metadata, keys, and user tokens (RFC 9068) for the app that she
//! signs in to. A real provider would show a page and ask for a passkey.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use errand::{
    adapters::system::{OsEntropy, SystemClock},
    ports::{Clock, Entropy},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{key::Key, output::BoxError};

/// The only user.
pub(crate) const USER: &str = "alice";
/// The only app: the client id of the planner at this provider.
pub(crate) const APP: &str = "planner-app";

struct Provider {
    url: String,
    key: Key,
    entropy: OsEntropy,
    clock: SystemClock,
}

/// Starts the provider on a free port. Returns its URL, which is its issuer identifier.
pub(crate) async fn start() -> Result<String, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let provider = Provider {
        url: url.clone(),
        key: Key::generate("login-1")?,
        entropy: OsEntropy::new()?,
        clock: SystemClock::new(),
    };
    let router = Router::new()
        .route("/.well-known/openid-configuration", get(metadata))
        .route("/keys", get(keys))
        .route("/login", post(login))
        .with_state(Arc::new(provider));
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(url)
}

/// Returns the metadata (OpenID Connect Discovery §3) that Errand needs.
async fn metadata(State(provider): State<Arc<Provider>>) -> Json<Value> {
    let Provider { url, .. } = &*provider;
    Json(json!({"issuer": url, "jwks_uri": format!("{url}/keys"), "id_token_signing_alg_values_supported": ["ES256"]}))
}

async fn keys(State(provider): State<Arc<Provider>>) -> Response {
    provider
        .key
        .public()
        .map_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response(), |keys| Json(keys).into_response())
}

/// A sign-in: user, app, and the scope that the user allows it at a server.
#[derive(Deserialize)]
struct Login {
    username: String,
    client_id: String,
    resource: String,
    scope: String,
}

async fn login(State(provider): State<Arc<Provider>>, Json(login): Json<Login>) -> Response {
    if login.username != USER || login.client_id != APP {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let now = provider.clock.now().unix();
    let claims = json!({
        "iss": provider.url,
        "aud": login.resource,
        "sub": login.username,
        "client_id": login.client_id,
        "scope": login.scope,
        "iat": now,
        "exp": now + 600,
        "jti": provider.entropy.new_uuid(),
        "auth_time": now,
        "acr": "phr",
        "amr": ["hwk", "user"],
    });
    match provider.key.sign("at+jwt", &claims) {
        Ok(token) => Json(json!({"access_token": token, "token_type": "Bearer", "expires_in": 600})).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
