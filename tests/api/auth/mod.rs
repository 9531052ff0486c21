//! Tests of client authentication over HTTP.

pub(super) mod client_authentication;
