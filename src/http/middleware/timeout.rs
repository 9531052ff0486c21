//! The time limit of a request.

use std::time::Duration;

use axum::{extract::Request, middleware::Next, response::Response};
use tokio::time::timeout;

use crate::{
    app::Error,
    http::{error::ErrorFormat, middleware::panic::run_catching_panics},
    ports::Outage,
};

/// Runs the handler. Answers 503 if it exceeds the limit, and 500 if it panics.
pub(super) async fn run_with_timeout(limit: Duration, request: Request, next: Next) -> Response {
    let format = ErrorFormat::for_uri(request.uri());
    match timeout(limit, run_catching_panics(format, request, next)).await {
        Ok(response) => response,
        Err(elapsed) => format.respond(Error::from(Outage::during("respond in time")(elapsed))),
    }
}
