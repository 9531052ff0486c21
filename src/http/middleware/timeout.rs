//! The time limit of a request.

use std::{future::Future, time::Duration};

use axum::response::Response;
use tokio::time::timeout;

use crate::{app::Error, http::error::ErrorFormat, ports::Outage};

/// Awaits the response. Answers 503 if it exceeds the limit.
pub(super) async fn run_with_timeout(
    limit: Duration,
    format: ErrorFormat,
    response: impl Future<Output = Response>,
) -> Response {
    match timeout(limit, response).await {
        Ok(response) => response,
        Err(elapsed) => format.respond(Error::from(Outage::during("respond in time")(elapsed))),
    }
}
