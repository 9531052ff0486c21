//! `POST /oauth2/revoke`: token revocation by a client (RFC 7009).

use axum::{extract::State, http::StatusCode};

use crate::{
    domain::{audit::Event, secret::Secret},
    http::{
        AppState,
        error::oauth::OAuthError,
        extract::{auth::ClientForm, form::Form},
    },
};

/// `POST /oauth2/revoke`
pub(in crate::http) async fn revoke(State(app): State<AppState>, form: ClientForm) -> Result<StatusCode, OAuthError> {
    let parse = |form: &Form| form.required("token").map(|token| Secret::new(token.to_owned()));
    let (client, token, cx) = form.parse(&app, Event::Revocation, parse).await?;
    let client = client.redeem(&app.service, &cx).await?;
    if let Some(propagation) = app.service.revoke_token(&client, token.expose(), &cx).await? {
        app.metrics.record_propagation(&propagation);
    }
    Ok(StatusCode::OK)
}
