//! Auth over HTTP.

pub(super) mod client_authentication;
