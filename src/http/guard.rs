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
    app::{BadRequest, Conflict, Failure, MAX_WAIT},
    http::{error::OAuthError, feed, problem::Problem},
    ports::Outage,
};

/// Whose errors a path speaks in.
#[derive(Clone, Copy)]
enum Voice {
    OAuth,
    Api,
}

impl Voice {
    fn of(uri: &Uri) -> Self {
        let is_oauth = |folder| uri.path().strip_prefix(folder).is_some_and(|rest: &str| rest.starts_with('/'));
        if is_oauth("/oauth2") || is_oauth("/.well-known") { Self::OAuth } else { Self::Api }
    }

    fn say(self, failure: impl Into<Failure>) -> Response {
        match self {
            Self::OAuth => OAuthError::from(failure.into()).into_response(),
            Self::Api => Problem::from(failure.into()).into_response(),
        }
    }

    fn own_fault(self) -> Response {
        match self {
            Self::OAuth => OAuthError::own_fault().into_response(),
            Self::Api => Problem::own_fault().into_response(),
        }
    }
}

/// Lets a request take so long, and answers for a handler that panicked.
pub(super) async fn guard(patience: Duration, request: Request, next: Next) -> Response {
    let voice = Voice::of(request.uri());
    // Who is told what is new may wait for that.
    let patience = if request.uri().path() == feed::PATH { patience.saturating_add(MAX_WAIT) } else { patience };
    // What a handler shares with others is behind locks that take over after a panic, so going on is sound.
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind();
    match timeout(patience, answer).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => voice.own_fault(),
        Err(late) => voice.say(Outage::during("answer in time")(late)),
    }
}

/// No such path.
pub(super) async fn not_found(uri: Uri) -> Response {
    let failure = Failure::from(Conflict::NotFound("path"));
    match Voice::of(&uri) {
        Voice::OAuth => OAuthError::from(failure).with_status(StatusCode::NOT_FOUND).into_response(),
        Voice::Api => Problem::from(failure).into_response(),
    }
}

/// The path is there, the method is not. The router says in `Allow` which are.
pub(super) async fn method_not_allowed(uri: Uri) -> Response {
    let bad = BadRequest::Invalid("method", "is not served at this path");
    match Voice::of(&uri) {
        Voice::OAuth => OAuthError::from(bad).with_status(StatusCode::METHOD_NOT_ALLOWED).into_response(),
        Voice::Api => Problem::method_not_allowed(bad).into_response(),
    }
}
