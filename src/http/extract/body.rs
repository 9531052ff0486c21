//! Request bodies. A body is read completely before the request counts as one in progress, so that
//! slow clients take no share of the concurrency limits.
//!
//! A body that may be longer than [`MAX_BODY_BYTES`] is the exception: the rest of it is read after
//! the caller is authenticated, so that strangers take no more memory than elsewhere.

use axum::{
    body::{Body, HttpBody},
    extract::Request,
};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::{app::RequestError, domain::settings::MAX_BODY_BYTES};

/// The most bytes that are read and discarded of a body that is refused.
const MAX_DISCARDED_BYTES: usize = 4 * 1024 * 1024;

/// A body that was read before the handler began.
#[derive(Clone, Debug)]
struct BufferedBody(Result<Option<Bytes>, RequestError>);

/// Reads the body of a request, for [`read_body`].
pub(in crate::http) async fn buffer_body(mut request: Request) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    let body = std::mem::replace(request.body_mut(), Body::empty());
    let body = BufferedBody(read(body, MAX_BODY_BYTES).await);
    request.extensions_mut().insert(body);
    request
}

/// Reads the body of a request like [`buffer_body`]. Of a body that is longer than
/// [`MAX_BODY_BYTES`], it reads the start only, and [`read_body`] reads the rest.
pub(in crate::http) async fn buffer_body_start(mut request: Request) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    let mut body = std::mem::replace(request.body_mut(), Body::empty());
    let mut start = BytesMut::new();
    while start.len() <= MAX_BODY_BYTES {
        match body.frame().await {
            // Trailers are not used.
            Some(Ok(frame)) => start.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(_)) => {
                request.extensions_mut().insert(BufferedBody(Err(incomplete())));
                return request;
            }
            None => {
                request.extensions_mut().insert(BufferedBody(Ok(Some(start.freeze()))));
                return request;
            }
        }
    }
    let start = stream::iter([Ok(start.freeze())]);
    *request.body_mut() = Body::from_stream(start.chain(body.into_data_stream()));
    request
}

/// Returns the body of a request. Returns `None` if it exceeds the size limit.
pub(in crate::http) async fn read_body(mut request: Request) -> Result<Option<Bytes>, RequestError> {
    match request.extensions_mut().remove::<BufferedBody>() {
        Some(BufferedBody(body)) => body,
        None => read(request.into_body(), MAX_BODY_BYTES).await,
    }
}

/// The body of a request that may be longer than [`MAX_BODY_BYTES`].
pub(in crate::http) enum LongBody {
    /// The body as it was read before the handler began; `None` if it exceeds the size limit.
    Buffered(Result<Option<Bytes>, RequestError>),
    /// A body that is not read yet, or is longer than [`MAX_BODY_BYTES`] and read in part.
    Unread(Body),
}

impl LongBody {
    /// Takes the body of a request.
    pub(in crate::http) fn of(mut request: Request) -> Self {
        match request.extensions_mut().remove::<BufferedBody>() {
            Some(BufferedBody(body)) => Self::Buffered(body),
            None => Self::Unread(request.into_body()),
        }
    }
}

/// Reads a body of at most `limit` bytes. Returns `None` if it is longer.
pub(in crate::http) async fn read(mut body: Body, limit: usize) -> Result<Option<Bytes>, RequestError> {
    match Limited::new(&mut body, limit).collect().await {
        Ok(read) => Ok(Some(read.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => {
            discard(body).await;
            Ok(None)
        }
        Err(_) => Err(incomplete()),
    }
}

/// Reads the rest of a body that is refused, up to [`MAX_DISCARDED_BYTES`], and keeps nothing of
/// it.
///
/// The connection of a request whose body is not read to its end is reset. A client that still
/// writes would then see the reset in place of the response.
pub(in crate::http) async fn discard(body: Body) {
    let mut rest = Limited::new(body, MAX_DISCARDED_BYTES);
    while let Some(Ok(_)) = rest.frame().await {}
}

fn incomplete() -> RequestError {
    RequestError::InvalidParameter("body", "incomplete, or its framing is not valid")
}
