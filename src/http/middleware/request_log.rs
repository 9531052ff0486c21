//! What is seen of every request: its id in and out, a span, one log line, its place in the metrics. And the headers
//! that every answer has.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};
use tracing::Instrument;

use crate::{
    app::RequestContext,
    domain::id::RequestId,
    http::{
        AppState,
        middleware::{guard::run_guarded, metrics::RequestMetric},
    },
};

/// The header that carries a request's id.
pub(in crate::http) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where MCP servers ask about tokens.
const INTROSPECT_PATH: &str = "/oauth2/introspect";

/// Why a request was refused: put into the answer's extensions by whoever refuses, read here.
#[derive(Clone, Debug)]
pub(in crate::http) struct RefusalReason {
    /// The code on the wire.
    pub code: &'static str,
    /// The reason, for the log.
    pub text: String,
}

/// Wraps a request: gives it its [`Cx`], follows it, measures it. It may take so long.
pub(in crate::http) async fn log_request(
    State((app, patience)): State<(AppState, Duration)>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = app.service.clock().monotonic();
    let given = request.headers().get(&X_REQUEST_ID).and_then(|id| id.to_str().ok());
    let id = given.and_then(|id| id.parse::<RequestId>().ok()).or_else(|| app.service.new_request_id());
    let endpoint = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let endpoint = Arc::<str>::from(endpoint);
    let method = request.method().clone();
    let shown = id.as_ref().map(ToString::to_string).unwrap_or_default();
    // The rest of what there is to say of it stands in its last line.
    let span = tracing::info_span!("request", request.id = %shown);
    if let Some(id) = id {
        request.extensions_mut().insert(RequestContext { request_id: id, now: app.service.clock().now() });
    }
    let mut response = run_guarded(patience, request, next).instrument(span.clone()).await;
    let took = app.service.clock().monotonic().saturating_sub(started);
    let status = response.status();
    let reason = response.extensions_mut().remove::<RefusalReason>();
    span.in_scope(|| {
        let (status, duration_us) = (status.as_u16(), took.as_micros());
        if let Some(RefusalReason { code, text }) = &reason {
            tracing::info!(
                http.method = %method,
                http.route = &*endpoint,
                http.status = status,
                duration_us,
                error.code = code,
                reason = text,
                "request refused"
            );
        } else if &*endpoint == INTROSPECT_PATH {
            // There are more of these than of everything else together, and a line costs more than the answer. The metrics
            // count them, and the audit trail has what is to be kept of them.
            tracing::debug!(http.method = %method, http.route = INTROSPECT_PATH, http.status = status, duration_us, "request answered");
        } else {
            tracing::info!(http.method = %method, http.route = &*endpoint, http.status = status, duration_us, "request answered");
        }
    });
    let outcome = reason.map_or("ok", |reason| reason.code);
    app.metrics.record_request(&RequestMetric { endpoint, outcome, status: status.as_u16() }, took);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&shown) {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    response
}
