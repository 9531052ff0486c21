//! The byte streams of a connection, which report to its state: when the socket takes no more
//! bytes, when bytes arrive, and which HTTP version the first bytes announce.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::http::server::connection::{Connection, Version};

const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A socket that reports whether it takes the bytes that are written.
pub(super) struct MonitoredSocket {
    socket: TcpStream,
    connection: Arc<Connection>,
}

impl MonitoredSocket {
    pub(super) fn new(socket: TcpStream, connection: Arc<Connection>) -> Self {
        Self { socket, connection }
    }

    fn report(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Pending => self.connection.write_blocked(),
            Poll::Ready(_) => self.connection.write_progressed(),
        }
        written
    }
}

impl Drop for MonitoredSocket {
    fn drop(&mut self) {
        // The kernel would keep what an aborted client does not read, for minutes.
        if self.connection.is_aborted() {
            discard_unsent(&self.socket);
        }
    }
}

/// Makes the kernel reset the connection and discard what it has not sent, when the socket closes.
pub(super) fn discard_unsent(socket: &TcpStream) {
    if let Err(error) = socket.set_zero_linger() {
        tracing::debug!(%error, "setting SO_LINGER failed");
    }
}

impl AsyncRead for MonitoredSocket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for MonitoredSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.report(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, parts);
        self.report(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// A stream of HTTP, plain or decrypted, that reports the HTTP version and that bytes arrived.
pub(super) struct MonitoredHttp<S> {
    stream: S,
    connection: Arc<Connection>,
    /// Until the version is known: the number of bytes of the preface that arrived (RFC 9113 §3.4).
    preface: Option<usize>,
}

impl<S> MonitoredHttp<S> {
    pub(super) fn new(stream: S, connection: Arc<Connection>) -> Self {
        Self { stream, connection, preface: Some(0) }
    }

    fn bytes_arrived(&mut self, bytes: &[u8]) {
        if let Some(received) = self.preface {
            let (preface, version) = match_preface(received, bytes);
            self.preface = preface;
            self.connection.set_version(version);
        }
        self.connection.bytes_arrived(bytes.len());
    }
}

/// Returns the number of preface bytes that arrived while the version is unknown, and the version.
fn match_preface(received: usize, bytes: &[u8]) -> (Option<usize>, Version) {
    let rest = HTTP2_PREFACE.get(received..).unwrap_or_default();
    if bytes.starts_with(rest) {
        (None, Version::Http2)
    } else if rest.starts_with(bytes) {
        (Some(received + bytes.len()), Version::Unknown)
    } else {
        (None, Version::Http1)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MonitoredHttp<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let bytes = buffer.filled().get(start..).unwrap_or_default();
        if !bytes.is_empty() {
            self.bytes_arrived(bytes);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MonitoredHttp<S> {
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
    fn first_bytes_announce_the_version() {
        for (received, bytes, expected) in [
            (0, &b""[..], (Some(0), Version::Unknown)),
            (0, b"P", (Some(1), Version::Unknown)),
            (1, b"RI * HTTP/2.0\r\n", (Some(16), Version::Unknown)),
            (1, b"OST / HTTP/1.1\r\n", (None, Version::Http1)),
            (0, b"GET", (None, Version::Http1)),
            (23, b"\n", (None, Version::Http2)),
            (23, b"\nabc", (None, Version::Http2)),
            (23, b"x", (None, Version::Http1)),
            (0, HTTP2_PREFACE, (None, Version::Http2)),
        ] {
            assert_eq!(match_preface(received, bytes), expected, "{received} {bytes:?}");
        }
    }
}
