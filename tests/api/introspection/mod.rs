//! Tests of introspection over HTTP.

pub(super) mod responses;
pub(super) mod token_cache;
