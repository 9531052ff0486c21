//! `POST /oauth2/token`: the token endpoint (RFC 6749 §3.2, RFC 8693).

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    app::{ApiToken, ExchangedToken},
    domain::{authority::Authority, id::TaskId, scope::ScopeSet, token::TokenKind},
    http::{AppState, error::oauth::OAuthError, extract::auth::ClientForm, oauth::token_request::TokenRequest},
};

/// `POST /oauth2/token`
pub(in crate::http) async fn token(
    State(app): State<AppState>,
    ClientForm { client, request, cx }: ClientForm<TokenRequest>,
) -> Result<Response, OAuthError> {
    match request {
        TokenRequest::Exchange(request) => {
            let issued = app.service.exchange(client, *request, &cx).await?;
            Ok(Json(TokenResponse::from(&issued)).into_response())
        }
        TokenRequest::ClientCredentials(scope) => {
            let issued = app.service.issue_client_credentials_token(client, scope, &cx).await?;
            Ok(Json(ApiTokenResponse::from(&issued)).into_response())
        }
    }
}

/// The response to a token exchange (RFC 8693 §2.2.1), with `authorization_details` and `txn`.
#[derive(Serialize)]
struct TokenResponse<'a> {
    access_token: &'a str,
    issued_token_type: &'static str,
    token_type: &'static str,
    expires_in: u32,
    /// Left out if the token covers no scope completely: an empty scope is not valid (RFC 6749
    /// §3.3).
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a ScopeSet>,
    authorization_details: &'a Authority,
    txn: TaskId,
}

impl<'a> From<&'a ExchangedToken> for TokenResponse<'a> {
    fn from(issued: &'a ExchangedToken) -> Self {
        let (issued_token_type, token_type) = match issued.kind {
            TokenKind::Access | TokenKind::Api => ("urn:ietf:params:oauth:token-type:access_token", "Bearer"),
            // `N_A`: these tokens are not used as bearer tokens (RFC 8693 §2.2.1).
            TokenKind::HandOver => ("urn:ietf:params:oauth:token-type:access_token", "N_A"),
            TokenKind::Txn => ("urn:ietf:params:oauth:token-type:txn_token", "N_A"),
        };
        Self {
            access_token: issued.token.expose(),
            issued_token_type,
            token_type,
            expires_in: issued.expires_in.as_seconds(),
            scope: Some(&issued.scope).filter(|scope| !scope.is_empty()),
            authorization_details: &issued.authority,
            txn: issued.task,
        }
    }
}

/// The response to a client credentials grant (RFC 6749 §4.4.3).
#[derive(Serialize)]
struct ApiTokenResponse<'a> {
    access_token: &'a str,
    token_type: &'static str,
    expires_in: u32,
    scope: &'a ScopeSet,
}

impl<'a> From<&'a ApiToken> for ApiTokenResponse<'a> {
    fn from(issued: &'a ApiToken) -> Self {
        Self {
            access_token: issued.token.expose(),
            token_type: "Bearer",
            expires_in: issued.expires_in.as_seconds(),
            scope: &issued.scope,
        }
    }
}
