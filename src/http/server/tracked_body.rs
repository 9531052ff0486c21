//! Response bodies whose unread bytes are counted until the client has read them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{Error, body::Body};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::http::server::connection::{Connection, RequestInProgress, ResponseStream, Unread, Version};

/// The part of a response that the transport receives at once. Each must be read within the
/// progress timeout, so this is also the least that a client must read in that time.
const PART_BYTES: usize = 16 << 10;

/// A response body. The request is in progress until it is dropped.
#[derive(Debug)]
pub(super) struct TrackedBody {
    body: Body,
    tracking: Option<Tracking>,
    _request: RequestInProgress,
}

#[derive(Debug)]
struct Tracking {
    stream: Arc<ResponseStream>,
    /// The bytes that the body still has, as far as its length is known.
    expected: Unread,
    /// Bytes that the body produced and the transport has not taken.
    rest: Bytes,
}

/// Bytes that count as unread until they are dropped, wherever the transport keeps them.
struct CountedBytes {
    bytes: Bytes,
    _unread: Unread,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl TrackedBody {
    /// Wraps the body of a response. `stream` is the HTTP/2 stream.
    ///
    /// A small response of HTTP/1 needs no count: a connection has one at a time, and the transport
    /// limits how long it takes.
    pub(super) fn new(
        body: Body,
        connection: &Arc<Connection>,
        stream: Option<Arc<ResponseStream>>,
        request: RequestInProgress,
    ) -> Self {
        let length = HttpBody::size_hint(&body).exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let is_small = connection.version() != Version::Http2 && length.is_some_and(|length| length <= PART_BYTES);
        let tracking = (!is_small && length != Some(0)).then(|| {
            let stream = stream.unwrap_or_else(|| ResponseStream::new(Arc::clone(connection)));
            stream.transport_polled();
            connection.add_stream(Arc::clone(&stream));
            Tracking {
                expected: Unread::new(Arc::clone(&stream), length.unwrap_or_default()),
                stream,
                rest: Bytes::new(),
            }
        });
        Self { body, tracking, _request: request }
    }
}

impl Tracking {
    /// Counts bytes that the body produced. Those that were expected are counted already.
    fn count(&mut self, bytes: Bytes) -> Bytes {
        let length = bytes.len();
        let unread = if self.expected.bytes() >= length {
            self.expected.take(length)
        } else {
            Unread::new(Arc::clone(&self.stream), length)
        };
        Bytes::from_owner(CountedBytes { bytes, _unread: unread })
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        let Some(tracking) = &mut this.tracking else { return Pin::new(&mut this.body).poll_frame(cx) };
        tracking.stream.transport_polled();
        if tracking.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => tracking.rest = tracking.count(data),
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = tracking.rest.len();
        let part =
            if length > PART_BYTES { tracking.rest.split_to(PART_BYTES) } else { std::mem::take(&mut tracking.rest) };
        if length > PART_BYTES || !this.body.is_end_stream() {
            tracking.stream.part_taken();
        }
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.tracking.as_ref().is_none_or(|tracking| tracking.rest.is_empty()) && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.tracking.as_ref().map_or(0, |tracking| tracking.rest.len());
        let rest = u64::try_from(rest).unwrap_or(u64::MAX);
        let inner = HttpBody::size_hint(&self.body);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        // The transport asks for no more.
        if let Some(tracking) = &self.tracking {
            tracking.stream.transport_polled();
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::http::server::connection::{ListenerLoad, MemoryLimits};

    fn connection(version: Version) -> (Arc<ListenerLoad>, Arc<Connection>) {
        let load = Arc::new(ListenerLoad::new(MemoryLimits { unread: 1 << 30, incomplete: 1 << 30 }));
        let connection = Arc::new(Connection::new(Arc::clone(&load), 1 << 30));
        connection.set_version(version);
        (load, connection)
    }

    #[tokio::test]
    async fn large_body_is_split_and_counted_until_its_last_part_is_gone() {
        let (load, connection) = connection(Version::Http2);
        let data = (0..100_000_u32).flat_map(u32::to_be_bytes).collect::<Vec<_>>();
        let mut body = TrackedBody::new(Body::from(data.clone()), &connection, None, connection.begin_request());
        assert_eq!(load.unread(), data.len());
        assert_eq!(HttpBody::size_hint(&body).exact(), Some(400_000));
        let mut parts = Vec::new();
        while let Some(frame) = body.frame().await {
            parts.push(frame.unwrap().into_data().unwrap());
            assert_eq!(load.unread(), data.len(), "a part keeps the whole in memory");
        }
        assert!(body.is_end_stream());
        assert!(parts.iter().all(|part| part.len() <= PART_BYTES));
        assert_eq!(parts.concat(), data);
        drop(body);
        let last = parts.pop();
        drop(parts);
        assert_eq!(load.unread(), data.len());
        drop(last);
        assert_eq!((load.unread(), connection.unread()), (0, 0));
    }

    #[tokio::test]
    async fn unread_body_is_released_when_dropped() {
        let (load, connection) = connection(Version::Http2);
        drop(TrackedBody::new(Body::from("x".repeat(50_000)), &connection, None, connection.begin_request()));
        assert_eq!(load.unread(), 0);
    }

    #[tokio::test]
    async fn small_body_of_http1_is_passed_through() {
        let (load, connection) = connection(Version::Http1);
        let body = TrackedBody::new(Body::from("x".repeat(PART_BYTES)), &connection, None, connection.begin_request());
        assert_eq!(load.unread(), 0);
        assert_eq!(body.collect().await.unwrap().to_bytes().len(), PART_BYTES);
        let body = TrackedBody::new(Body::from("xx".repeat(PART_BYTES)), &connection, None, connection.begin_request());
        assert_eq!(load.unread(), 2 * PART_BYTES);
        drop(body);
    }

    #[tokio::test]
    async fn body_of_unknown_length_is_counted_as_it_is_produced() {
        let (load, connection) = connection(Version::Http1);
        let parts = futures_util::stream::iter([Ok::<_, std::io::Error>("ab"), Ok("cde")]);
        let body = Body::from_stream(parts);
        let mut body = TrackedBody::new(body, &connection, None, connection.begin_request());
        assert_eq!(load.unread(), 0);
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((load.unread(), &first[..]), (2, &b"ab"[..]));
        let second = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(load.unread(), 5);
        drop(first);
        assert_eq!(load.unread(), 3);
        assert!(body.frame().await.is_none());
        drop((second, body));
        assert_eq!(load.unread(), 0);
    }
}
