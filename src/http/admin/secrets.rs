//! `/v1/admin/clients/{id}/secret`: client secrets.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::{
    app::ConflictError,
    domain::id::ClientId,
    http::{
        AppState,
        error::problem::Problem,
        extract::{auth::AdminOperator, idempotency_key::IdempotencyKey, path::PathId},
        views::SecretView,
    },
};

/// `POST /v1/admin/clients/{id}/secret`
pub(in crate::http) async fn create(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    PathId(id): PathId,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Response, Problem> {
    let id = id.parse::<ClientId>().map_err(|_| ConflictError::NotFound("client"))?;
    let created = app.service.create_secret(&admin, &id, key, &cx).await?;
    let view = SecretView { client_id: &created.client, client_secret: created.secret.expose() };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}
