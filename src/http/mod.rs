//! The HTTP layer: syntax, authentication and status codes. A handler takes an extractor that
//! proves the permission, makes one call of a use case, and returns its response.

mod admin;
mod conditional;
mod cors;
mod error;
mod evaluation;
mod extract;
mod fallback;
mod health;
mod issuer_path;
mod middleware;
mod negotiation;
mod oauth;
mod openapi;
mod prometheus_text;
mod revocation_feed;
mod routes;
mod self_service;
mod server;
mod status_lists;
mod views;

use std::{pin::Pin, sync::Arc, time::Duration};

use axum::{Router, http::HeaderMap, response::Response};
use tracing::Span;

pub use extract::form::Form;
pub use middleware::load_shedding::RequestLimits;
pub use middleware::metrics::Metrics;
pub use routes::{Route, routes};
pub use server::limits::{ConnectionCounters, ConnectionLimits, ConnectionRefusal, EndReason};
pub use server::listener::{Listener, serve};
pub use server::source_address::{ForwardedHeader, TrustedProxies};
pub use server::tls::{Tls, TlsError};

use crate::{
    app::{LONG_POLL_TIMEOUT, Service},
    http::{error::problem::Problem, issuer_path::serve_below_issuer, middleware::Middleware},
    ports::ProcessUsage,
};

/// The state that handlers share.
#[derive(Clone, Debug)]
pub struct AppState {
    /// The use cases.
    pub service: Service,
    /// The metrics of this server.
    pub metrics: Arc<Metrics>,
    /// Reads what this process uses, for its metrics.
    pub process_usage: Option<fn() -> Option<ProcessUsage>>,
    /// Makes the span of the caller, which the headers name, the parent of the span of a request.
    pub adopt_trace: Option<fn(&Span, &HeaderMap)>,
}

impl AppState {
    /// Creates the state of a server for this service.
    #[must_use]
    pub fn new(service: Service) -> Self {
        let metrics = Arc::new(Metrics::new(service.clone()));
        Self { service, metrics, process_usage: None, adopt_trace: None }
    }

    /// Continues the traces of callers.
    #[must_use]
    pub fn with_trace_context(self, adopt: fn(&Span, &HeaderMap)) -> Self {
        Self { adopt_trace: Some(adopt), ..self }
    }

    /// Adds the metrics of this process.
    #[must_use]
    pub fn with_process_usage(self, read: fn() -> Option<ProcessUsage>) -> Self {
        Self { process_usage: Some(read), ..self }
    }
}

/// The time and concurrency limits of requests, and the placement of the operations routes.
#[derive(Clone, Copy, Debug)]
pub struct HttpSettings {
    /// Time limit of a request. Afterwards the response is 503.
    pub request_timeout: Duration,
    /// Whether the public listener also serves `/healthz`, `/readyz` and `/metrics`. It does not if
    /// the operations listener serves them.
    pub serves_operations: bool,
    /// The largest number of requests in progress.
    pub limits: RequestLimits,
    /// Whether the listener terminates TLS.
    pub is_tls: bool,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(10),
            serves_operations: true,
            limits: RequestLimits::default(),
            is_tls: false,
        }
    }
}

/// The response of a handler whose closure holds an argument of its route.
type HandlerFuture = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;

/// Returns the router of the public listener.
pub fn router(app: AppState, settings: HttpSettings) -> Router {
    let operations = if settings.serves_operations { routes::operations() } else { Router::new() };
    let routes = routes::oauth().merge(routes::evaluation()).merge(routes::admin()).merge(routes::self_service());
    let routes = routes.merge(routes::public());
    let routes = with_fallbacks(routes.merge(operations)).fallback(fallback::not_found);
    // A long poll waits on top of the time that its answer takes.
    let feed_timeout = settings.request_timeout.saturating_add(LONG_POLL_TIMEOUT);
    let middleware = Middleware::new(&app, settings);
    let router = middleware
        .apply(routes, settings.request_timeout)
        .merge(middleware.apply(with_fallbacks(routes::feed()), feed_timeout));
    let issuer = app.service.settings().issuer.clone();
    serve_below_issuer(router.with_state(app), &issuer)
}

/// Returns the router of the operations listener.
pub fn operations_router(app: AppState, settings: HttpSettings) -> Router {
    let routes = with_fallbacks(routes::operations()).fallback(fallback::not_found);
    Middleware::new(&app, settings).apply(routes, settings.request_timeout).with_state(app)
}

fn with_fallbacks(routes: Router<AppState>) -> Router<AppState> {
    routes.method_not_allowed_fallback(fallback::method_not_allowed)
}
