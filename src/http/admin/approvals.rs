//! `/v1/admin/approvals`: acts of admins that need a second person.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    domain::time::Timestamp,
    http::{
        AppState,
        error::problem::Problem,
        extract::{auth::AdminOperator, json::JsonBody},
    },
};

/// The body of `POST /v1/admin/approvals`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct ApprovalBody {
    request: String,
    #[serde(default)]
    dry_run: bool,
}

/// The act, and the approval.
#[derive(Serialize)]
pub(in crate::http) struct ApprovalView {
    act: Value,
    by: String,
    expires: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<String>,
}

/// `POST /v1/admin/approvals`
pub(in crate::http) async fn approve(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    JsonBody(body): JsonBody<ApprovalBody>,
) -> Result<Json<ApprovalView>, Problem> {
    let receipt = app.service.approve_act(&admin, &body.request, body.dry_run, &cx).await?;
    let by = format!("admin:{}", receipt.request.by);
    let (act, expires) = (receipt.request.act, receipt.request.expires);
    Ok(Json(ApprovalView { act, by, expires, approval: receipt.approval }))
}
