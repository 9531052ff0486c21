//! `/v1/admin/keys`: the signing keys.

use axum::{Json, extract::State};
use serde::Deserialize;

use crate::{
    app::ConflictError,
    domain::{
        id::{KeyId, Reason},
        jose::jwk::SigningAlgorithm,
        keys::RotationReason,
    },
    http::{
        AppState,
        error::problem::Problem,
        extract::{
            auth::{AdminOperator, AdminReader},
            idempotency_key::IdempotencyKey,
            json::JsonBody,
            path::PathId,
        },
        views::{CreatedKeyView, KeyView, ListView},
    },
};

/// `GET /v1/admin/keys`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    AdminReader(_, cx): AdminReader,
) -> Result<Json<ListView<KeyView>>, Problem> {
    let keys = app.service.list_keys(&cx).await?;
    Ok(Json(ListView::complete(keys.into_iter().map(KeyView::from).collect())))
}

/// `POST /v1/admin/keys/rotate`
pub(in crate::http) async fn rotate(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    IdempotencyKey(key): IdempotencyKey,
) -> Result<Json<ListView<CreatedKeyView>>, Problem> {
    let created = app.service.rotate_keys_idempotently(&admin.identity(), RotationReason::Requested, key, &cx).await?;
    Ok(list_created(created))
}

/// The body of `POST /v1/admin/keys/{kid}/revoke`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct KeyRevocationBody {
    reason: Reason,
}

/// `POST /v1/admin/keys/{kid}/revoke`
pub(in crate::http) async fn revoke(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    PathId(kid): PathId,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(body): JsonBody<KeyRevocationBody>,
) -> Result<Json<ListView<CreatedKeyView>>, Problem> {
    let kid = kid.parse::<KeyId>().map_err(|_| ConflictError::NotFound("key"))?;
    let created = app.service.revoke_key(&admin.identity(), &kid, &body.reason, key, &cx).await?;
    Ok(list_created(created))
}

fn list_created(keys: Vec<(SigningAlgorithm, KeyId)>) -> Json<ListView<CreatedKeyView>> {
    let views = keys.into_iter().map(|(algorithm, kid)| CreatedKeyView { algorithm, kid });
    Json(ListView::complete(views.collect()))
}
