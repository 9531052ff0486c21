//! Panics of a handler.

use std::panic::AssertUnwindSafe;

use axum::{extract::Request, middleware::Next, response::Response};
use futures_util::FutureExt;

use crate::http::error::ErrorFormat;

/// Runs the handler. Answers 500 if it panics; the panic hook has logged the cause.
pub(super) async fn run_catching_panics(format: ErrorFormat, request: Request, next: Next) -> Response {
    // A handler shares state only behind locks that stay usable after a panic, so the assertion
    // holds.
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_panic) => format.internal_error(),
    }
}
