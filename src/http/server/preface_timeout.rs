//! The first bytes of a connection tell HTTP/2 from HTTP/1 (RFC 9113 §3.4). hyper waits for them as long as it takes, and
//! its own limits begin only then: so who sends none is cut off here.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A stream that must say in time which HTTP it speaks.
pub(in crate::http) struct PrefacedStream<S> {
    stream: S,
    /// Until it is told: how much of the preface has come, and when it is too late for the rest.
    pending: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> PrefacedStream<S> {
    pub(in crate::http) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, pending: Some((0, Box::pin(sleep(patience)))) }
    }
}

/// How much of the preface has come; `None` when it is whole, or something else is.
fn match_preface(before: usize, bytes: &[u8]) -> Option<usize> {
    let rest = HTTP2_PREFACE.get(before..).unwrap_or_default();
    (bytes.len() < rest.len() && rest.starts_with(bytes)).then_some(before + bytes.len())
}

impl<S: AsyncRead + Unpin> AsyncRead for PrefacedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let Some((seen, deadline)) = &mut self.pending else { return read };
        if read.is_pending() {
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        match match_preface(*seen, buffer.filled().get(before..).unwrap_or_default()) {
            Some(more) => *seen = more,
            None => self.pending = None,
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PrefacedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http2_preface_is_detected() {
        assert_eq!(match_preface(0, b""), Some(0));
        assert_eq!(match_preface(0, b"P"), Some(1));
        assert_eq!(match_preface(1, b"RI * HTTP/2.0\r\n"), Some(16));
        assert_eq!(match_preface(1, b"OST / HTTP/1.1\r\n"), None);
        assert_eq!(match_preface(0, b"GET"), None);
        assert_eq!(match_preface(23, b"\n"), None);
        assert_eq!(match_preface(0, HTTP2_PREFACE), None);
    }
}
