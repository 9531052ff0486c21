//! Public documents: the authorization server metadata (RFC 8414) and the signing keys (RFC 7517).

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    app::RequestContext,
    domain::{
        jose::jwk::{JwsAlgorithm, SigningAlgorithm},
        keys::JWKS_MAX_AGE_SECONDS,
    },
    http::{AppState, error::oauth::OAuthError},
};

/// Authorization server metadata (RFC 8414 §2). Members with an empty list are omitted (§3.2).
#[derive(Serialize)]
struct Metadata<'a> {
    issuer: &'a str,
    /// Errand does not issue authorization codes. Some clients and libraries require this member,
    /// so it names an endpoint that explains that.
    authorization_endpoint: String,
    response_types_supported: [&'static str; 1],
    token_endpoint: String,
    introspection_endpoint: String,
    revocation_endpoint: String,
    jwks_uri: String,
    grant_types_supported: [&'static str; 2],
    token_endpoint_auth_methods_supported: &'a [&'static str],
    token_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    introspection_endpoint_auth_methods_supported: Vec<&'static str>,
    introspection_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    revocation_endpoint_auth_methods_supported: &'a [&'static str],
    revocation_endpoint_auth_signing_alg_values_supported: Vec<&'static str>,
    introspection_signing_alg_values_supported: Vec<&'static str>,
    authorization_details_types_supported: [&'static str; 1],
    status_list_aggregation_endpoint: String,
    service_documentation: String,
}

/// `GET /.well-known/oauth-authorization-server`
pub(in crate::http) async fn metadata(
    State(app): State<AppState>,
    Extension(cx): Extension<RequestContext>,
) -> Response {
    let settings = app.service.settings();
    let issuer = &settings.issuer;
    // A client that authenticates in the body is an exception, so the method is named only where
    // there is one.
    let all_methods = ["private_key_jwt", "client_secret_basic", "client_secret_post"];
    let has_post = app.service.has_client_secret_post(&cx).await;
    let methods = if has_post { &all_methods[..] } else { all_methods.split_last().map_or(&[][..], |(_, rest)| rest) };
    let algorithms = || JwsAlgorithm::ALL.into_iter().map(JwsAlgorithm::as_str).collect::<Vec<_>>();
    let signing = app.service.signing_algorithms(&cx).into_iter().map(SigningAlgorithm::as_str).collect();
    let document = Metadata {
        issuer: issuer.as_str(),
        authorization_endpoint: issuer.join("/oauth2/authorize"),
        response_types_supported: ["none"],
        token_endpoint: issuer.join("/oauth2/token"),
        introspection_endpoint: issuer.join("/oauth2/introspect"),
        revocation_endpoint: issuer.join("/oauth2/revoke"),
        jwks_uri: issuer.join("/oauth2/jwks"),
        grant_types_supported: ["urn:ietf:params:oauth:grant-type:token-exchange", "client_credentials"],
        token_endpoint_auth_methods_supported: methods,
        token_endpoint_auth_signing_alg_values_supported: algorithms(),
        introspection_endpoint_auth_methods_supported: methods.iter().copied().chain(["bearer"]).collect(),
        introspection_endpoint_auth_signing_alg_values_supported: algorithms(),
        revocation_endpoint_auth_methods_supported: methods,
        revocation_endpoint_auth_signing_alg_values_supported: algorithms(),
        introspection_signing_alg_values_supported: signing,
        authorization_details_types_supported: ["mcp_tool"],
        status_list_aggregation_endpoint: issuer.join("/status-lists"),
        service_documentation: issuer.join("/docs"),
    };
    (cacheable(300), Json(document)).into_response()
}

/// `GET /oauth2/jwks`. A client caches it no longer than a key is published before it signs.
pub(in crate::http) async fn jwks(
    State(app): State<AppState>,
    Extension(cx): Extension<RequestContext>,
) -> Result<Response, OAuthError> {
    let keys = app.service.jwks(&cx).await?;
    Ok((cacheable(JWKS_MAX_AGE_SECONDS), [(header::CONTENT_TYPE, "application/jwk-set+json")], Json(Value::from(keys)))
        .into_response())
}

/// `GET /oauth2/authorize`, which is not supported.
pub(in crate::http) async fn authorize() -> impl IntoResponse {
    let text = "Errand does not issue authorization codes. Sign in at your identity provider, and exchange its token \
                at /oauth2/token.\n";
    (StatusCode::BAD_REQUEST, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text)
}

/// Returns the header of a public document: cacheable for some seconds.
pub(in crate::http) fn cacheable(seconds: u32) -> [(HeaderName, String); 1] {
    [(header::CACHE_CONTROL, format!("public, max-age={seconds}"))]
}
