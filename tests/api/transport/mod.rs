//! HTTP transport: listeners, malformed requests, injection.

pub(super) mod injection;
pub(super) mod listener;
pub(super) mod malformed_requests;
