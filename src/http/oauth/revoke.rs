//! `POST /oauth2/revoke`: token revocation by a client (RFC 7009).

use axum::{extract::State, http::StatusCode};

use crate::{
    app::RequestError,
    domain::{audit::Event, secret::Secret},
    http::{
        AppState,
        error::oauth::OAuthError,
        extract::{
            auth::{ClientForm, ClientRequest},
            form::Form,
        },
    },
};

/// `POST /oauth2/revoke`
pub(in crate::http) async fn revoke(
    State(app): State<AppState>,
    ClientForm { client, request, cx }: ClientForm<TokenRevocationRequest>,
) -> Result<StatusCode, OAuthError> {
    let client = client.redeem(&app.service, &cx).await?;
    if let Some(propagation) = app.service.revoke_token(&client, request.token.expose(), &cx).await? {
        app.metrics.record_propagation(&propagation);
    }
    Ok(StatusCode::OK)
}

/// A revocation request (RFC 7009 §2.1).
pub(in crate::http) struct TokenRevocationRequest {
    token: Secret,
}

impl ClientRequest for TokenRevocationRequest {
    const EVENT: Event = Event::Revocation;

    fn parse(form: &Form) -> Result<Self, RequestError> {
        Ok(Self { token: Secret::new(form.required("token")?.to_owned()) })
    }
}
