//! Middleware: request log, metrics, timeouts, panics.

pub(super) mod guard;
pub(super) mod metrics;
pub(super) mod request_log;
