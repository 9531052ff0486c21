//! HTTP transport: listeners, admission, malformed requests, injection.

pub(super) mod admission;
pub(super) mod injection;
pub(super) mod listener;
pub(super) mod malformed_requests;
