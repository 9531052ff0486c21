//! What is answered when no handler does: no such path, no such method there, too late, a panic. In the voice of the
//! place: an OAuth error on OAuth endpoints, a problem document everywhere else.

use std::{panic::AssertUnwindSafe, time::Duration};

use axum::{
    extract::Request,
    http::{StatusCode, Uri},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt;
use tokio::time::timeout;

use crate::{
    app::{ConflictError, Error, LONG_POLL_TIMEOUT, RequestError},
    http::{
        error::{oauth::OAuthError, problem::Problem},
        revocation_feed,
    },
    ports::Outage,
};

/// Whose errors a path speaks in.
#[derive(Clone, Copy)]
enum ErrorFormat {
    OAuth,
    Api,
}

impl ErrorFormat {
    fn for_uri(uri: &Uri) -> Self {
        let is_oauth = |folder| uri.path().strip_prefix(folder).is_some_and(|rest: &str| rest.starts_with('/'));
        if is_oauth("/oauth2") || is_oauth("/.well-known") { Self::OAuth } else { Self::Api }
    }

    fn respond(self, failure: impl Into<Error>) -> Response {
        match self {
            Self::OAuth => OAuthError::from(failure.into()).into_response(),
            Self::Api => Problem::from(failure.into()).into_response(),
        }
    }

    fn internal_error(self) -> Response {
        match self {
            Self::OAuth => OAuthError::internal_error().into_response(),
            Self::Api => Problem::internal_error().into_response(),
        }
    }
}

/// Lets a request take so long, and answers for a handler that panicked.
pub(in crate::http) async fn run_guarded(patience: Duration, request: Request, next: Next) -> Response {
    let voice = ErrorFormat::for_uri(request.uri());
    // Who is told what is new may wait for that.
    let patience = if request.uri().path() == revocation_feed::FEED_PATH {
        patience.saturating_add(LONG_POLL_TIMEOUT)
    } else {
        patience
    };
    // What a handler shares with others is behind locks that take over after a panic, so going on is sound.
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    match timeout(patience, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => voice.internal_error(),
        Err(late) => voice.respond(Outage::during("answer in time")(late)),
    }
}

/// No such path.
pub(in crate::http) async fn not_found(uri: Uri) -> Response {
    let failure = Error::from(ConflictError::NotFound("path"));
    match ErrorFormat::for_uri(&uri) {
        ErrorFormat::OAuth => OAuthError::from(failure).with_status(StatusCode::NOT_FOUND).into_response(),
        ErrorFormat::Api => Problem::from(failure).into_response(),
    }
}

/// The path is there, the method is not. The router says in `Allow` which are.
pub(in crate::http) async fn method_not_allowed(uri: Uri) -> Response {
    let bad = RequestError::InvalidParameter("method", "is not served at this path");
    match ErrorFormat::for_uri(&uri) {
        ErrorFormat::OAuth => OAuthError::from(bad).with_status(StatusCode::METHOD_NOT_ALLOWED).into_response(),
        ErrorFormat::Api => Problem::method_not_allowed(bad).into_response(),
    }
}
