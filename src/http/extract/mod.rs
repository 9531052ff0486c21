//! Extractors: authentication, forms, JSON bodies, queries, paths, request headers.

pub(super) mod admission;
pub(super) mod auth;
pub(super) mod body;
pub(super) mod caller;
pub(super) mod form;
pub(super) mod idempotency_key;
pub(super) mod json;
pub(super) mod path;
pub(super) mod prefer_wait;
pub(super) mod query;
