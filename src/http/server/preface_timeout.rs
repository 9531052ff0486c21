//! A time limit for the first bytes of a connection, which distinguish HTTP/2 from HTTP/1 (RFC 9113
//! §3.4). hyper waits for them without a limit, and its own limits begin only afterwards.

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

/// A stream that fails if its first bytes do not arrive in time.
pub(in crate::http) struct PrefacedStream<S> {
    stream: S,
    /// Until the HTTP version is known: the number of preface bytes received, and the deadline for
    /// the rest.
    pending: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> PrefacedStream<S> {
    pub(in crate::http) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, pending: Some((0, Box::pin(sleep(limit)))) }
    }
}

/// Returns the number of preface bytes received, or `None` if the preface is complete or the bytes
/// differ from it.
fn match_preface(received: usize, bytes: &[u8]) -> Option<usize> {
    let rest = HTTP2_PREFACE.get(received..).unwrap_or_default();
    (bytes.len() < rest.len() && rest.starts_with(bytes)).then_some(received + bytes.len())
}

impl<S: AsyncRead + Unpin> AsyncRead for PrefacedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let Some((received, deadline)) = &mut self.pending else { return read };
        if read.is_pending() {
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        match match_preface(*received, buffer.filled().get(start..).unwrap_or_default()) {
            Some(total) => *received = total,
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
