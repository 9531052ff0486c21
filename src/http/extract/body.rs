//! Request bodies. A body is read completely before the request counts as one in progress, so that
//! slow clients take no share of the concurrency limits.

use std::error::Error as StdError;

use axum::{
    body::{Body, HttpBody, to_bytes},
    extract::Request,
};
use bytes::Bytes;
use http_body_util::LengthLimitError;

use crate::{app::RequestError, domain::settings::MAX_BODY_BYTES};

/// A body that was read before the handler began.
#[derive(Clone, Debug)]
struct BufferedBody(Result<Option<Bytes>, RequestError>);

/// Reads the body of a request, for [`read_body`].
pub(in crate::http) async fn buffer_body(mut request: Request) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    let body = std::mem::replace(request.body_mut(), Body::empty());
    let body = BufferedBody(read(body).await);
    request.extensions_mut().insert(body);
    request
}

/// Returns the body of a request. Returns `None` if it exceeds the size limit.
pub(in crate::http) async fn read_body(mut request: Request) -> Result<Option<Bytes>, RequestError> {
    match request.extensions_mut().remove::<BufferedBody>() {
        Some(BufferedBody(body)) => body,
        None => read(request.into_body()).await,
    }
}

async fn read(body: Body) -> Result<Option<Bytes>, RequestError> {
    match to_bytes(body, MAX_BODY_BYTES).await {
        Ok(body) => Ok(Some(body)),
        Err(error) if error.source().is_some_and(<dyn StdError>::is::<LengthLimitError>) => Ok(None),
        Err(_) => Err(RequestError::InvalidParameter("body", "incomplete, or its framing is not valid")),
    }
}
