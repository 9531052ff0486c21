//! `POST /oauth2/introspect`: token introspection (RFC 7662), optionally as a signed response (RFC
//! 9701).

use axum::{
    body::Bytes,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    app::{Error, Introspection},
    domain::{
        authority::Authority,
        id::{ClientId, GrantId, Subject, TaskId, TokenId},
        scope::ScopeSet,
        time::Timestamp,
        token::{TaskContext, TaskRef, TaskTokenClaims, actor_chain::ActorChain},
        uri::IssuerUrl,
    },
    http::{AppState, error::oauth::OAuthError, extract::auth::ClientOrBearerForm, negotiation::prefers},
    ports::Outage,
};

/// The media type of a signed response (RFC 9701 §4).
const TOKEN_INTROSPECTION_JWT: &str = "application/token-introspection+jwt";
/// The response for an inactive token, which has no other member (RFC 7662 §2.2).
const INACTIVE_RESPONSE: &[u8] = br#"{"active":false}"#;

/// `POST /oauth2/introspect`. The response is JSON, or a JWT if the client prefers one.
pub(in crate::http) async fn introspect(
    State(app): State<AppState>,
    caller: ClientOrBearerForm,
) -> Result<Response, OAuthError> {
    let ClientOrBearerForm { client, form, cx, headers } = caller;
    let body = match app.service.introspect(&client, form.required("token")?, &cx).await? {
        Introspection::Active(token) => token.encoded(encode_response).map_err(Error::from)?,
        Introspection::Inactive => Bytes::from_static(INACTIVE_RESPONSE),
    };
    if prefers(&headers, TOKEN_INTROSPECTION_JWT) {
        let claims = serde_json::from_slice::<&RawValue>(&body).map_err(Outage::during("read a response"));
        let signed = app.service.sign_introspection(&client, claims.map_err(Error::from)?, &cx)?;
        return Ok(([(header::CONTENT_TYPE, TOKEN_INTROSPECTION_JWT)], signed).into_response());
    }
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// Encodes the response for an active token (RFC 7662 §2.2).
fn encode_response(claims: &TaskTokenClaims) -> Result<Bytes, Outage> {
    // Most responses fit. The result may be cached, so it takes no more memory than it needs.
    let mut text = Vec::with_capacity(2048);
    serde_json::to_writer(&mut text, &IntrospectionResponse::new(claims))
        .map_err(Outage::during("write an introspection response"))?;
    Ok(text.into_boxed_slice().into())
}

/// The response for an active token: the claims of the token.
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
    #[serde(skip_serializing_if = "ScopeSet::is_empty")]
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
