//! Request bodies that count as incomplete until they have arrived.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::http::Request;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::http::server::connection::IncompleteRequest;

/// What the server holds for a request beside what the client sent: its task, and on HTTP/2 the
/// state of its stream.
const REQUEST_BYTES: usize = 4 << 10;

/// The body of a request. What has arrived of it is counted while the rest is missing: then it
/// depends on the client how long the server holds it.
#[derive(Debug)]
pub(super) struct ReceivedBody<B> {
    body: B,
    incomplete: Option<IncompleteRequest>,
}

impl<B: HttpBody> ReceivedBody<B> {
    pub(super) fn new(body: B, incomplete: IncompleteRequest) -> Self {
        let incomplete = (!body.is_end_stream()).then_some(incomplete);
        Self { body, incomplete }
    }
}

impl<B> HttpBody for ReceivedBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        match (&frame, &mut this.incomplete) {
            (Some(Ok(frame)), Some(incomplete)) if !this.body.is_end_stream() => {
                incomplete.add(frame.data_ref().map_or(0, Bytes::len));
            }
            _ => this.incomplete = None,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Returns about how many bytes the server holds for a request without its body.
pub(super) fn size_of_head<B>(request: &Request<B>) -> usize {
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    REQUEST_BYTES + target + headers
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::mpsc;

    use super::*;
    use crate::http::server::connection::{Connection, ListenerLoad, MemoryLimits};

    fn connection() -> Arc<Connection> {
        let limits = MemoryLimits { unread: 1 << 30, incomplete: 1 << 30 };
        Arc::new(Connection::new(Arc::new(ListenerLoad::new(limits)), 1 << 30))
    }

    #[tokio::test]
    async fn body_counts_until_it_is_complete() {
        let connection = connection();
        let (sender, parts) = mpsc::channel::<Result<Frame<Bytes>, axum::Error>>(4);
        let parts = futures_util::stream::unfold(parts, async |mut parts| Some((parts.recv().await?, parts)));
        let incomplete = IncompleteRequest::new(&connection, 10);
        let mut body = ReceivedBody::new(StreamBody::new(Box::pin(parts)), incomplete);
        assert_eq!(connection.incomplete(), 10, "its headers");
        let mut received = Vec::new();
        for size in [100, 1000] {
            sender.send(Ok(Frame::data(Bytes::from(vec![b'x'; size])))).await.unwrap();
            received.push(body.frame().await.unwrap().unwrap());
        }
        assert_eq!(connection.incomplete(), 1110);
        drop(sender);
        assert!(body.frame().await.is_none());
        assert_eq!(connection.incomplete(), 0);
    }

    #[tokio::test]
    async fn body_does_not_count_when_it_is_complete_failed_or_dropped() {
        let connection = connection();
        let new = || IncompleteRequest::new(&connection, 10);
        let empty = ReceivedBody::new(Body::empty(), new());
        assert_eq!(connection.incomplete(), 0);
        let mut whole = ReceivedBody::new(Body::from("whole"), new());
        assert_eq!(connection.incomplete(), 10);
        assert!(whole.frame().await.unwrap().is_ok());
        assert_eq!(connection.incomplete(), 0, "the last frame");
        let failing = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("gone"))]);
        let mut failing = ReceivedBody::new(Body::from_stream(failing), new());
        assert_eq!(connection.incomplete(), 10);
        assert!(failing.frame().await.unwrap().is_err());
        assert_eq!(connection.incomplete(), 0);
        let dropped = ReceivedBody::new(Body::from("dropped"), new());
        assert_eq!(connection.incomplete(), 10);
        drop((empty, whole, failing, dropped));
        assert_eq!(connection.incomplete(), 0);
    }
}
