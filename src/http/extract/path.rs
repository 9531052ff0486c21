//! The one variable part that a path of ours has.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

/// The name of a thing in the path, percent-decoded. What is no UTF-8 is nobody's name, and so not found like any other
/// name that nobody has; first it is asked who wants to know.
#[derive(Debug)]
pub(in crate::http) struct PathId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let id = Path::<String>::from_request_parts(parts, state).await;
        Ok(Self(id.map_or_else(|_| char::REPLACEMENT_CHARACTER.to_string(), |Path(id)| id)))
    }
}
