//! Extractors: authentication, forms, JSON bodies, queries, paths.

pub(super) mod auth;
pub(super) mod form;
pub(super) mod json;
pub(super) mod path;
pub(super) mod query;
