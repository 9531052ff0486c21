//! The HTTP server: TCP, TLS, connection limits.

pub(super) mod listener;
mod preface_timeout;
pub(super) mod tls;
