//! Middleware: request log, metrics, timeouts, concurrency limits, panics, headers of all
//! responses.

pub(super) mod load_shedding;
pub(super) mod metrics;
mod panic;
mod request_log;
mod response_headers;
mod timeout;

use std::{sync::Arc, time::Duration};

use axum::{Router, middleware::from_fn_with_state};

use crate::http::{
    AppState, HttpSettings,
    middleware::{load_shedding::LoadShedder, response_headers::ResponseHeaders},
};

/// What wraps every route and fallback of a router: request log and metrics, the time limit, the
/// concurrency limits, panics, the headers of all responses.
#[derive(Clone)]
pub(super) struct Middleware {
    app: AppState,
    shedder: Arc<LoadShedder>,
    headers: ResponseHeaders,
}

impl Middleware {
    pub(super) fn new(app: &AppState, settings: HttpSettings) -> Self {
        let is_https = settings.is_tls || app.service.settings().issuer.as_str().starts_with("https://");
        Self {
            app: app.clone(),
            shedder: Arc::new(LoadShedder::new(settings.limits)),
            headers: ResponseHeaders { is_https },
        }
    }

    /// Wraps the routes. A request takes at most `timeout`.
    pub(super) fn apply(&self, routes: Router<AppState>, timeout: Duration) -> Router<AppState> {
        // One layer for everything, because each layer costs a few allocations per request.
        routes.layer(from_fn_with_state((self.clone(), timeout), request_log::log_request))
    }
}
