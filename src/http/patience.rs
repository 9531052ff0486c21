//! No request takes for ever: after a while the answer is that nothing is known, in the words of the endpoint.

use std::time::Duration;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{
    app::Failure,
    http::{error::OAuthError, problem::Problem},
    ports::Outage,
};

/// Answers in time. What has been handed to the store by then may still happen.
pub(super) async fn in_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let is_oauth = request.uri().path().starts_with("/oauth2/");
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(elapsed) => {
            let failure = Failure::from(Outage::during("answer in time")(elapsed));
            if is_oauth { OAuthError::from(failure).into_response() } else { Problem::from(failure).into_response() }
        }
    }
}
