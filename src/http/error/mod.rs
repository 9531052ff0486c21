//! Error responses: OAuth errors and problem details (RFC 9457).

mod code;
pub(super) mod oauth;
pub(super) mod outcome;
pub(super) mod problem;

use axum::{
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
};

use crate::{
    app::{ConflictError, Error, RequestError},
    http::error::{oauth::OAuthError, problem::Problem},
};

/// The format of error responses: OAuth errors on OAuth endpoints, problem documents on all other
/// paths.
#[derive(Clone, Copy)]
pub(super) enum ErrorFormat {
    OAuth,
    Problem,
}

impl ErrorFormat {
    pub(super) fn for_uri(uri: &Uri) -> Self {
        let is_under = |folder| uri.path().strip_prefix(folder).is_some_and(|rest: &str| rest.starts_with('/'));
        if is_under("/oauth2") || is_under("/.well-known") { Self::OAuth } else { Self::Problem }
    }

    pub(super) fn respond(self, error: Error) -> Response {
        match self {
            Self::OAuth => OAuthError::from(error).into_response(),
            Self::Problem => Problem::from(error).into_response(),
        }
    }

    pub(super) fn not_found(self) -> Response {
        let error = Error::from(ConflictError::NotFound("path"));
        match self {
            Self::OAuth => OAuthError::from(error).with_status(StatusCode::NOT_FOUND).into_response(),
            Self::Problem => Problem::from(error).into_response(),
        }
    }

    pub(super) fn method_not_allowed(self) -> Response {
        let error = RequestError::InvalidParameter("method", "not supported at this path");
        match self {
            Self::OAuth => OAuthError::from(error).with_status(StatusCode::METHOD_NOT_ALLOWED).into_response(),
            Self::Problem => Problem::method_not_allowed(error).into_response(),
        }
    }

    /// Returns the response to a request above a concurrency limit.
    pub(super) fn overloaded(self) -> Response {
        match self {
            Self::OAuth => OAuthError::overloaded().into_response(),
            Self::Problem => Problem::overloaded().into_response(),
        }
    }

    pub(super) fn internal_error(self) -> Response {
        match self {
            Self::OAuth => OAuthError::internal_error().into_response(),
            Self::Problem => Problem::internal_error().into_response(),
        }
    }
}
