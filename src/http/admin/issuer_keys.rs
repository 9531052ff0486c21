//! `/v1/admin/issuers/{id}/keys`: the keys of an identity provider.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};

use crate::{
    app::{Actor, IssuerKeysChange, IssuerKeysReceipt},
    domain::id::Reason,
    http::{
        AppState,
        error::problem::Problem,
        extract::{auth::AdminOperator, idempotency_key::IdempotencyKey, json::JsonBody, path::PathId},
        views::PropagationView,
    },
};

/// The body of `POST /v1/admin/issuers/{id}/keys/refresh`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct RefreshBody {
    reason: Reason,
    #[serde(default)]
    withdraw: Vec<String>,
    #[serde(default)]
    restore: Vec<String>,
}

/// The result of a refresh.
#[derive(Debug, Serialize)]
pub(in crate::http) struct IssuerKeysView {
    issuer: String,
    withdrawn: Vec<String>,
    #[serde(flatten)]
    propagation: Option<PropagationView>,
}

impl From<IssuerKeysReceipt> for IssuerKeysView {
    fn from(receipt: IssuerKeysReceipt) -> Self {
        Self {
            issuer: receipt.issuer.to_string(),
            withdrawn: receipt.withdrawn,
            propagation: receipt.propagation.as_ref().map(PropagationView::from),
        }
    }
}

/// `POST /v1/admin/issuers/{id}/keys/refresh`
pub(in crate::http) async fn refresh(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    PathId(issuer): PathId,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(body): JsonBody<RefreshBody>,
) -> Result<Json<IssuerKeysView>, Problem> {
    let RefreshBody { reason, withdraw, restore } = body;
    let change = IssuerKeysChange { withdraw, restore };
    let actor = Actor::Admin(&admin);
    let receipt = app.service.refresh_issuer_keys(actor, &issuer, &change, &reason, key, &cx).await?;
    Ok(Json(receipt.into()))
}
