//! Request log: the request id, a span, one log line and the metrics of each request. Also sets the
//! headers that every response has.

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
        error::outcome::Refusal,
        extract::admission::AdmissionSlot,
        middleware::{metrics::RequestMetric, timeout::run_with_timeout},
    },
};

/// The header with the request id.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The path of the introspection endpoint, whose requests are logged at debug level.
const INTROSPECT_PATH: &str = "/oauth2/introspect";

/// Gives a request its [`RequestContext`], runs it within the time limit, logs and measures it.
pub(super) async fn log_request(
    State((app, limit)): State<(AppState, Duration)>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = app.service.clock().monotonic();
    let sent_id = request.headers().get(&X_REQUEST_ID).and_then(|id| id.to_str().ok());
    let id = sent_id.and_then(|id| id.parse::<RequestId>().ok()).or_else(|| app.service.new_request_id());
    let endpoint = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let endpoint = Arc::<str>::from(endpoint);
    let method = request.method().clone();
    let id_text = id.as_ref().map(ToString::to_string).unwrap_or_default();
    // The span has the id only; the log line at the end has the rest.
    let span = tracing::info_span!("request", request.id = %id_text);
    if let Some(id) = id {
        request.extensions_mut().insert(RequestContext { request_id: id, now: app.service.clock().now() });
    }
    let admission = AdmissionSlot::default();
    request.extensions_mut().insert(admission.clone());
    let mut response = run_with_timeout(limit, request, next).instrument(span.clone()).await;
    let duration = app.service.clock().monotonic().saturating_sub(started);
    let status = response.status().as_u16();
    let refusal = response.extensions_mut().remove::<Refusal>();
    span.in_scope(|| {
        let duration_us = duration.as_micros();
        if let Some(Refusal { code, reason }) = &refusal {
            tracing::info!(
                http.method = %method,
                http.route = &*endpoint,
                http.status = status,
                duration_us,
                error.code = code,
                reason,
                "request refused"
            );
        } else if &*endpoint == INTROSPECT_PATH {
            // Introspections outnumber all other requests, and a log line costs more than the
            // answer. The metrics count them, and the audit trail records them as configured.
            tracing::debug!(
                http.method = %method,
                http.route = INTROSPECT_PATH,
                http.status = status,
                duration_us,
                "request completed"
            );
        } else {
            tracing::info!(
                http.method = %method,
                http.route = &*endpoint,
                http.status = status,
                duration_us,
                "request completed"
            );
        }
    });
    let outcome = refusal.map_or("ok", |refusal| refusal.code);
    app.metrics.record_request(&RequestMetric { endpoint, outcome, status }, duration);
    let headers = response.headers_mut();
    admission.finish(headers);
    if let Ok(id) = HeaderValue::from_str(&id_text) {
        headers.insert(X_REQUEST_ID, id);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.entry(header::X_CONTENT_TYPE_OPTIONS).or_insert(HeaderValue::from_static("nosniff"));
    response
}
