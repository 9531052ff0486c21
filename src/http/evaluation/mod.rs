//! `/access/v1`: decisions about calls (AuthZEN Authorization API 1.0).

mod metadata;
mod request;
mod response;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    response::{IntoResponse, Response},
};
use tokio::{sync::Semaphore, task::spawn_blocking};

pub(in crate::http) use metadata::metadata;

use crate::{
    app::{Error, Evaluation, EvaluationRequest, LongBodyPermit, RequestContext, RequestError, ResourceCaller},
    domain::settings::MAX_BODY_BYTES,
    http::{
        AppState,
        error::problem::Problem,
        evaluation::{
            request::{BatchRequest, parse_batch, parse_single},
            response::{BatchView, EvaluationView},
        },
        extract::auth::EvaluationBody,
    },
    ports::Outage,
};

/// How many long bodies are parsed at a time. One takes up to a tenth of a second, so it is parsed
/// on a thread that serves no request, and most processors are left to the other requests.
static LONG_BODIES: Semaphore = Semaphore::const_new(2);

/// `POST /access/v1/evaluation`
pub(in crate::http) async fn evaluate(
    State(app): State<AppState>,
    EvaluationBody { caller, body, permit, cx }: EvaluationBody,
) -> Result<Response, Problem> {
    let request = parse(body, permit, parse_single).await?;
    evaluate_single(&app, &caller, request, &cx).await
}

/// `POST /access/v1/evaluations`. Without questions in `evaluations`, the request is a single
/// evaluation (§6.1).
pub(in crate::http) async fn evaluate_batch(
    State(app): State<AppState>,
    EvaluationBody { caller, body, permit, cx }: EvaluationBody,
) -> Result<Response, Problem> {
    match parse(body, permit, parse_batch).await? {
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

/// Parses a body; a long one when its turn comes, and without delaying other requests.
async fn parse<T: Send + 'static>(
    body: Bytes,
    permit: Option<LongBodyPermit>,
    parse: fn(&[u8]) -> Result<T, RequestError>,
) -> Result<T, Problem> {
    if body.len() <= MAX_BODY_BYTES {
        return Ok(parse(&body)?);
    }
    let turn = LONG_BODIES.acquire().await.map_err(Outage::during("wait for the parser")).map_err(Error::from)?;
    // The turn ends with the parsing, also if the request was cancelled meanwhile.
    let parsed = spawn_blocking(move || {
        let parsed = parse(&body);
        drop((turn, permit));
        parsed
    });
    Ok(parsed.await.map_err(Outage::during("parse an evaluation")).map_err(Error::from)??)
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
