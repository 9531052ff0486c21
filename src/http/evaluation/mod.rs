//! `/access/v1`: decisions about calls (AuthZEN Authorization API 1.0).

mod metadata;
mod request;
mod response;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};

pub(in crate::http) use metadata::metadata;

use crate::{
    app::{Evaluation, EvaluationRequest, RequestContext, ResourceCaller},
    http::{
        AppState,
        error::problem::Problem,
        evaluation::{
            request::{BatchRequest, parse_batch, parse_single},
            response::{BatchView, EvaluationView},
        },
        extract::auth::EvaluationBody,
    },
};

/// `POST /access/v1/evaluation`
pub(in crate::http) async fn evaluate(
    State(app): State<AppState>,
    EvaluationBody { caller, body, cx }: EvaluationBody,
) -> Result<Response, Problem> {
    evaluate_single(&app, &caller, parse_single(&body)?, &cx).await
}

/// `POST /access/v1/evaluations`. Without questions in `evaluations`, the request is a single
/// evaluation (§6.1).
pub(in crate::http) async fn evaluate_batch(
    State(app): State<AppState>,
    EvaluationBody { caller, body, cx }: EvaluationBody,
) -> Result<Response, Problem> {
    match parse_batch(&body)? {
        BatchRequest::Single(request) => evaluate_single(&app, &caller, request, &cx).await,
        BatchRequest::Batch(requests, semantic) => {
            let answers = app.service.evaluate_batch(&caller, requests, semantic, &cx).await?;
            for answer in &answers {
                let reason = answer.as_ref().map_or("malformed", EvaluationView::reason_label);
                app.metrics.record_evaluation(answer.as_ref().is_ok_and(Evaluation::is_permitted), reason);
            }
            Ok(Json(BatchView::new(&answers)).into_response())
        }
    }
}

async fn evaluate_single(
    app: &AppState,
    caller: &ResourceCaller,
    request: EvaluationRequest,
    cx: &RequestContext,
) -> Result<Response, Problem> {
    let evaluation = app.service.evaluate(caller, &request, cx).await?;
    app.metrics.record_evaluation(evaluation.is_permitted(), EvaluationView::reason_label(&evaluation));
    Ok(Json(EvaluationView::new(&evaluation)).into_response())
}
