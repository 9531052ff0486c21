//! The metadata of the decision endpoints (AuthZEN Authorization API 1.0 §9).

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::http::{AppState, oauth::metadata::cacheable};

#[derive(Serialize)]
struct AuthzenMetadata<'a> {
    policy_decision_point: &'a str,
    access_evaluation_endpoint: String,
    access_evaluations_endpoint: String,
}

/// `GET /.well-known/authzen-configuration`
pub(in crate::http) async fn metadata(State(app): State<AppState>) -> Response {
    let issuer = &app.service.settings().issuer;
    let document = AuthzenMetadata {
        policy_decision_point: issuer.as_str(),
        access_evaluation_endpoint: issuer.join("/access/v1/evaluation"),
        access_evaluations_endpoint: issuer.join("/access/v1/evaluations"),
    };
    (cacheable(300), Json(document)).into_response()
}
