//! The listener: TCP, TLS, connection limits.

pub(super) mod listener;
pub(super) mod preface_timeout;
