//! `/v1/tasks/{id}/calls`: reports of tool calls by a resource.

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};

use crate::{
    domain::task::call_report::CallReport,
    http::{
        AppState,
        admin::tasks::parse_task_id,
        error::problem::Problem,
        extract::{auth::TaskClient, json::JsonBody, path::PathId},
        views::CallReceiptView,
    },
};

/// `POST /v1/tasks/{id}/calls`
pub(in crate::http) async fn report(
    State(app): State<AppState>,
    TaskClient(caller, cx): TaskClient,
    id: PathId,
    JsonBody(report): JsonBody<CallReport>,
) -> Result<Response, Problem> {
    let receipt = app.service.report_call(&caller, parse_task_id(&id)?, &report, &cx).await?;
    let status = if receipt.is_repeated { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(CallReceiptView::new(&report, &receipt))).into_response())
}
