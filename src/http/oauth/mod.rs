//! The OAuth endpoints: token (RFC 6749 §3.2, RFC 8693), introspect (RFC 7662, RFC 9701), revoke (RFC 7009).

pub(super) mod metadata;
pub(super) mod token_request;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    app::{ApiToken, Error, ExchangeRequest, ExchangedToken, Introspection, RequestError},
    domain::{
        audit::Event,
        authority::Authority,
        id::{ClientId, GrantId, Subject, TaskId, TokenId},
        scope::ScopeSet,
        secret::Secret,
        time::Timestamp,
        token::{TaskContext, TaskRef, TaskTokenClaims, TokenKind, actor_chain::ActorChain},
        uri::IssuerUrl,
    },
    http::{
        AppState,
        error::oauth::OAuthError,
        extract::{
            auth::{ClientForm, ClientOrBearerForm, ClientRequest},
            form::Form,
        },
        negotiation::accepts,
    },
    ports::Outage,
};

/// RFC 9701 §4
const TOKEN_INTROSPECTION_JWT: &str = "application/token-introspection+jwt";

/// `POST /oauth2/token`
pub(super) async fn token(
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

/// A token request (RFC 6749 §3.2), by its grant type.
pub(super) enum TokenRequest {
    Exchange(Box<ExchangeRequest>),
    ClientCredentials(Option<ScopeSet>),
}

impl ClientRequest for TokenRequest {
    const EVENT: Event = Event::TokenIssue;

    fn parse(form: &Form) -> Result<Self, RequestError> {
        match form.required("grant_type")? {
            "urn:ietf:params:oauth:grant-type:token-exchange" => {
                Ok(Self::Exchange(Box::new(token_request::parse(form)?)))
            }
            "client_credentials" => Ok(Self::ClientCredentials(form.get("scope").map(str::parse).transpose()?)),
            _ => Err(RequestError::UnsupportedGrantType),
        }
    }
}

/// `POST /oauth2/introspect`: JSON, or a signed response if the client accepts one.
pub(super) async fn introspect(
    State(app): State<AppState>,
    caller: ClientOrBearerForm,
) -> Result<Response, OAuthError> {
    let ClientOrBearerForm { client, form, cx, headers } = caller;
    let response = match app.service.introspect(&client, form.required("token")?, &cx)? {
        Introspection::Active(token) => token.encoded(encode_response).map_err(Error::from)?,
        Introspection::Inactive => Bytes::from_static(INACTIVE_RESPONSE),
    };
    if accepts(&headers, TOKEN_INTROSPECTION_JWT) {
        let body = serde_json::from_slice::<&RawValue>(&response).map_err(Outage::during("read a response"));
        let signed = app.service.sign_introspection(&client, body.map_err(Error::from)?, &cx)?;
        return Ok(([(header::CONTENT_TYPE, TOKEN_INTROSPECTION_JWT)], signed).into_response());
    }
    Ok(([(header::CONTENT_TYPE, "application/json")], response).into_response())
}

/// RFC 7662 §2.2: the response for an inactive token has `active` as its only member.
const INACTIVE_RESPONSE: &[u8] = br#"{"active":false}"#;

/// Encodes the response for an active token (RFC 7662 §2.2).
fn encode_response(claims: &TaskTokenClaims) -> Result<Bytes, Outage> {
    // Most responses fit. The result may be cached, so it takes no more memory than it needs.
    let mut text = Vec::with_capacity(2048);
    serde_json::to_writer(&mut text, &IntrospectionResponse::new(claims))
        .map_err(Outage::during("write an introspection response"))?;
    Ok(text.into_boxed_slice().into())
}

/// `POST /oauth2/revoke`
pub(super) async fn revoke(
    State(app): State<AppState>,
    ClientForm { client, request, cx }: ClientForm<RevocationRequest>,
) -> Result<StatusCode, OAuthError> {
    let client = client.redeem(&app.service, &cx).await?;
    if let Some(spread) = app.service.revoke_token(&client, request.token.expose(), &cx).await? {
        app.metrics.record_propagation(&spread);
    }
    Ok(StatusCode::OK)
}

/// A revocation request (RFC 7009 §2.1).
pub(super) struct RevocationRequest {
    token: Secret,
}

impl ClientRequest for RevocationRequest {
    const EVENT: Event = Event::Revocation;

    fn parse(form: &Form) -> Result<Self, RequestError> {
        Ok(Self { token: Secret::new(form.required("token")?.to_owned()) })
    }
}

/// RFC 8693 §2.2.1, with what the contract adds.
#[derive(Serialize)]
struct TokenResponse<'a> {
    access_token: &'a str,
    issued_token_type: &'static str,
    token_type: &'static str,
    expires_in: u32,
    scope: &'a ScopeSet,
    authorization_details: &'a Authority,
    txn: TaskId,
}

impl<'a> From<&'a ExchangedToken> for TokenResponse<'a> {
    fn from(issued: &'a ExchangedToken) -> Self {
        let (issued_token_type, token_type) = match issued.kind {
            TokenKind::Access | TokenKind::Api => ("urn:ietf:params:oauth:token-type:access_token", "Bearer"),
            // No bearer of these is served anywhere, which is what N_A says (RFC 8693 §2.2.1).
            TokenKind::HandOver => ("urn:ietf:params:oauth:token-type:access_token", "N_A"),
            TokenKind::Txn => ("urn:ietf:params:oauth:token-type:txn_token", "N_A"),
        };
        Self {
            access_token: issued.token.expose(),
            issued_token_type,
            token_type,
            expires_in: issued.expires_in.as_seconds(),
            scope: &issued.scope,
            authorization_details: &issued.authority,
            txn: issued.task,
        }
    }
}

/// RFC 6749 §4.4.3
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

/// What an active token says, as it stands in the token.
#[derive(Serialize)]
struct IntrospectionResponse<'a> {
    active: bool,
    token_type: &'static str,
    iss: &'a IssuerUrl,
    aud: &'a str,
    sub: &'a Subject,
    sub_iss: &'a IssuerUrl,
    client_id: &'a ClientId,
    iat: Timestamp,
    exp: Timestamp,
    jti: TokenId,
    txn: TaskId,
    scope: &'a ScopeSet,
    authorization_details: &'a Authority,
    act: &'a ActorChain,
    task: &'a TaskRef,
    tctx: &'a TaskContext,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant: Option<GrantId>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    break_glass: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    acr: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amr: Option<&'a [String]>,
}

impl<'a> IntrospectionResponse<'a> {
    fn new(claims: &'a TaskTokenClaims) -> Self {
        Self {
            active: true,
            token_type: "Bearer",
            iss: &claims.iss,
            aud: &claims.aud,
            sub: &claims.sub,
            sub_iss: &claims.sub_iss,
            client_id: &claims.client_id,
            iat: claims.iat,
            exp: claims.exp,
            jti: claims.jti,
            txn: claims.txn,
            scope: &claims.scope,
            authorization_details: &claims.authorization_details,
            act: &claims.act,
            task: &claims.task,
            tctx: &claims.tctx,
            grant: claims.grant,
            break_glass: claims.break_glass,
            auth_time: claims.auth_time,
            acr: claims.acr.as_deref(),
            amr: claims.amr.as_deref(),
        }
    }
}
