//! Middleware: request log, metrics, timeouts, panics.

pub(super) mod metrics;
mod panic;
mod request_log;
mod timeout;

use std::time::Duration;

use axum::{Router, middleware::from_fn_with_state};

use crate::http::AppState;

/// Wraps every route and fallback of the router: request log and metrics, the time limit, panics.
pub(super) fn apply(routes: Router<AppState>, app: &AppState, timeout: Duration) -> Router<AppState> {
    // One layer for everything, because each layer costs a few allocations per request.
    routes.layer(from_fn_with_state((app.clone(), timeout), request_log::log_request))
}
