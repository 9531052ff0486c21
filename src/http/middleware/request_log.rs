//! Request log: the request id, a span, one log line and the metrics of each request. Also sets the
//! headers that every response has.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderName, HeaderValue, Version, header},
    middleware::Next,
    response::Response,
};
use tracing::Instrument;

use crate::{
    app::{RequestContext, RequestError},
    domain::id::{ClientId, RequestId},
    http::{
        cors::is_public_document,
        error::{ErrorFormat, outcome::Refusal},
        extract::{admission::AdmissionSlot, caller::CallerSlot},
        middleware::{Middleware, metrics::RequestMetric, timeout::run_with_timeout},
        server::listener::SourceAddress,
    },
};

/// The header with the request id.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The endpoints whose successful requests are logged at debug level.
const QUIET_PATHS: [&str; 3] = ["/oauth2/introspect", "/access/v1/evaluation", "/access/v1/evaluations"];

/// Logs the end of a request. Introspections and evaluations have a level of their own.
macro_rules! log_end {
    ($level:ident, $request:expr, $text:literal $(, $name:literal = $value:expr)*) => {
        tracing::$level!(
            http.method = %$request.method,
            http.route = &*$request.endpoint,
            http.status = $request.status,
            duration_us = $request.duration_us,
            source.address = $request.source.as_ref().map(tracing::field::display),
            client.id = $request.caller.client().map(ClientId::as_str),
            $($name = $value,)*
            $text
        )
    };
}

/// What the log line of a request states.
struct FinishedRequest {
    method: axum::http::Method,
    endpoint: Arc<str>,
    status: u16,
    duration_us: u64,
    source: Option<std::net::IpAddr>,
    caller: CallerSlot,
}

/// Gives a request its [`RequestContext`], runs it within the time limit, logs and measures it.
pub(super) async fn log_request(
    State((middleware, timeout)): State<(Middleware, Duration)>,
    mut request: Request,
    next: Next,
) -> Response {
    let Middleware { app, shedder, headers } = middleware;
    let started = app.service.clock().monotonic();
    let sent_id = request.headers().get(&X_REQUEST_ID).and_then(|id| id.to_str().ok());
    let id = sent_id.and_then(|id| id.parse::<RequestId>().ok()).or_else(|| app.service.new_request_id());
    let endpoint = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let endpoint = Arc::<str>::from(endpoint);
    let method = request.method().clone();
    let is_public = is_public_document(request.uri().path());
    let source = request.extensions().get::<SourceAddress>().map(|source| source.0);
    let id_text = id.as_ref().map(ToString::to_string).unwrap_or_default();
    // The span has the id only; the log line at the end has the rest.
    let span = tracing::info_span!("request", request.id = %id_text);
    if let Some(request_id) = id {
        let now = app.service.clock().now();
        request.extensions_mut().insert(RequestContext { request_id, now, source });
    }
    // The span for the exported traces. It exists only if traces are exported.
    let trace = tracing::trace_span!(
        target: "errand::trace",
        "request",
        otel.name = %format_args!("{method} {endpoint}"),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        http.request.method = %method,
        http.route = &*endpoint,
        http.response.status_code = tracing::field::Empty,
        error.type = tracing::field::Empty,
        request.id = %id_text,
    );
    if let Some(adopt) = app.adopt_trace {
        adopt(&trace, request.headers());
    }
    let admission = AdmissionSlot::default();
    request.extensions_mut().insert(admission.clone());
    let caller = CallerSlot::default();
    request.extensions_mut().insert(caller.clone());
    let format = ErrorFormat::for_uri(request.uri());
    let handled = async {
        match check_host(&request) {
            Ok(()) => shedder.run(&endpoint, format, &app.metrics, request, next).await,
            Err(error) => format.respond(error.into()),
        }
    };
    let handled = run_with_timeout(timeout, format, handled).instrument(trace.clone());
    let mut response = handled.instrument(span.clone()).await;
    let duration = app.service.clock().monotonic().saturating_sub(started);
    let status = response.status().as_u16();
    let refusal = response.extensions_mut().remove::<Refusal>();
    trace.record("http.response.status_code", status);
    if let Some(refusal) = &refusal {
        trace.record("error.type", refusal.code);
    }
    if response.status().is_server_error() {
        trace.record("otel.status_code", "ERROR");
    }
    drop(trace);
    // A 128-bit number would be logged as a string.
    let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let finished = FinishedRequest { method, endpoint, status, duration_us, source, caller };
    span.in_scope(|| {
        if let Some(Refusal { code, reason }) = &refusal {
            log_end!(info, finished, "request refused", "error.code" = code, "reason" = reason);
        } else if QUIET_PATHS.contains(&&*finished.endpoint) {
            // Introspections and evaluations outnumber all other requests, and a log line costs
            // more than the answer. The metrics count them, and the audit trail records them as
            // configured.
            log_end!(debug, finished, "request completed");
        } else {
            log_end!(info, finished, "request completed");
        }
    });
    if let Some(Refusal { code, .. }) = refusal {
        app.metrics.record_rejection(finished.caller.client().map(ClientId::as_str), code);
    }
    let outcome = refusal.map_or("ok", |refusal| refusal.code);
    app.metrics.record_request(&RequestMetric { endpoint: finished.endpoint, outcome, status }, duration);
    admission.finish(response.headers_mut());
    if let Ok(id) = HeaderValue::from_str(&id_text) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    headers.apply(is_public, response.headers_mut());
    response
}

/// Refuses a request that names two hosts (RFC 9112 §3.2, RFC 9113 §8.3.1): a proxy could have read
/// the other one.
fn check_host(request: &Request) -> Result<(), RequestError> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, duplicate) = (hosts.next(), hosts.next());
    if duplicate.is_some() {
        return Err(RequestError::InvalidParameter("host", "sent more than once"));
    }
    let authority = request.uri().authority().filter(|_| request.version() == Version::HTTP_2);
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            Err(RequestError::InvalidParameter("host", "differs from `:authority`"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    #[test]
    fn request_with_two_hosts_is_refused() {
        for (version, uri, hosts, is_accepted) in [
            (Version::HTTP_11, "/", &["a.example"][..], true),
            (Version::HTTP_11, "/", &[], true),
            (Version::HTTP_11, "/", &["a.example", "b.example"], false),
            (Version::HTTP_11, "/", &["a.example", "a.example"], false),
            // RFC 9112 §3.2.2: the host of an absolute target replaces the header.
            (Version::HTTP_11, "http://a.example/", &["b.example"], true),
            (Version::HTTP_2, "http://a.example/", &[], true),
            (Version::HTTP_2, "http://a.example/", &["A.example"], true),
            (Version::HTTP_2, "http://a.example/", &["b.example"], false),
            (Version::HTTP_2, "http://a.example/", &["a.example", "b.example"], false),
        ] {
            let mut request = Request::builder().version(version).uri(uri);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            let request = request.body(Body::empty()).unwrap();
            assert_eq!(check_host(&request).is_ok(), is_accepted, "{version:?} {uri} {hosts:?}");
        }
    }
}
