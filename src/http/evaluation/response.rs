//! Answers to evaluation requests (AuthZEN Authorization API 1.0 §5.2, §6.2).

use axum::http::StatusCode;
use serde::Serialize;

use crate::{
    app::{Evaluation, RequestError},
    domain::{
        evaluation::Permitted,
        id::{EvaluationId, TaskId, TokenId, ToolName},
    },
};

/// A decision.
#[derive(Serialize)]
pub(super) struct EvaluationView<'a> {
    decision: bool,
    context: Context<'a>,
}

/// What a decision is about, and why it is no.
#[derive(Serialize)]
#[serde(untagged)]
enum Context<'a> {
    Decided(Box<DecidedContext<'a>>),
    /// The evaluation of a batch is malformed.
    Malformed {
        error: EvaluationErrorView,
    },
}

#[derive(Serialize)]
struct DecidedContext<'a> {
    evaluation_id: EvaluationId,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    txn: Option<TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<TokenId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tools: Option<&'a [ToolName]>,
}

#[derive(Serialize)]
struct EvaluationErrorView {
    status: u16,
    message: String,
}

impl<'a> EvaluationView<'a> {
    pub(super) fn new(evaluation: &'a Evaluation) -> Self {
        let denied = evaluation.decision.as_ref().err();
        let tools = match &evaluation.decision {
            Ok(Permitted::ListTools(tools)) => tools.as_deref(),
            Ok(Permitted::Call(_) | Permitted::ListResources) | Err(_) => None,
        };
        let (txn, jti) = evaluation.token.unzip();
        let context = DecidedContext {
            evaluation_id: evaluation.id,
            reason: denied.map(|denied| denied.reason.as_str()),
            at: denied.and_then(|denied| denied.at.as_deref()),
            message: denied.map(|denied| denied.message),
            txn,
            jti,
            tools,
        };
        Self { decision: evaluation.is_permitted(), context: Context::Decided(Box::new(context)) }
    }

    fn malformed(error: &RequestError) -> Self {
        let error = EvaluationErrorView { status: StatusCode::BAD_REQUEST.as_u16(), message: error.to_string() };
        Self { decision: false, context: Context::Malformed { error } }
    }

    /// Returns the reason of a decision for the metrics.
    pub(super) fn reason_label(evaluation: &Evaluation) -> &'static str {
        evaluation.decision.as_ref().err().map_or("none", |denied| denied.reason.as_str())
    }
}

/// The decisions of a batch.
#[derive(Serialize)]
pub(super) struct BatchView<'a> {
    evaluations: Vec<EvaluationView<'a>>,
}

impl<'a> BatchView<'a> {
    pub(super) fn new(answers: &'a [Result<Evaluation, RequestError>]) -> Self {
        let view = |answer: &'a Result<Evaluation, RequestError>| match answer {
            Ok(evaluation) => EvaluationView::new(evaluation),
            Err(error) => EvaluationView::malformed(error),
        };
        Self { evaluations: answers.iter().map(view).collect() }
    }
}
