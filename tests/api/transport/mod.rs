//! HTTP transport: listeners, admission, malformed requests, injection.

pub(super) mod admission;
pub(super) mod connections;
pub(super) mod documents;
pub(super) mod http_headers;
pub(super) mod injection;
pub(super) mod listener;
pub(super) mod load_shedding;
pub(super) mod malformed_requests;
pub(super) mod metrics;
#[cfg(feature = "otlp")]
pub(super) mod traces;
