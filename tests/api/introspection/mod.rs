//! Tests of introspection over HTTP.

pub(super) mod introspection;
pub(super) mod token_cache;
