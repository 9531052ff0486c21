//! The variable part of a path. Each path of the API has at most one.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, Path},
    http::request::Parts,
};

/// The percent-decoded id in the path. An id that is not valid UTF-8 becomes a string that cannot
/// exist. The caller is thus authenticated first, and then receives 404 as for any other unknown
/// id.
#[derive(Debug)]
pub(in crate::http) struct PathId(pub String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let id = Path::<String>::from_request_parts(parts, state).await;
        Ok(Self(id.map_or_else(|_| char::REPLACEMENT_CHARACTER.to_string(), |Path(id)| id)))
    }
}
