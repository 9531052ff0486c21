//! Errors on the wire: OAuth errors and problem details (RFC 9457).

pub(super) mod oauth;
pub(super) mod problem;
