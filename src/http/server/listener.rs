//! Accepting connections, plain or TLS. A client has a time limit for the handshake and its
//! headers. On shutdown, requests in progress are finished.

use std::{future::Future, io, net::SocketAddr, pin::pin, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::http::server::{preface_timeout::PrefacedStream, tls::Tls};

/// Time limit of a client for the handshake, and for the headers of a request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for requests in progress when the server stops.
const CONNECTION_DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// A bound address, with or without TLS.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    tls: Option<Tls>,
}

impl Listener {
    /// Binds the address. Port 0 selects a free port; see [`local_addr`](Self::local_addr).
    pub async fn bind(address: SocketAddr, tls: Option<Tls>) -> io::Result<Self> {
        Ok(Self { tcp: TcpListener::bind(address).await?, tls })
    }

    /// Returns the bound address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Serves until `stop` completes. Then it accepts no new connection and finishes the requests in
/// progress.
pub async fn serve(listener: Listener, router: Router, stop: impl Future<Output = ()> + Send) {
    let graceful = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.tcp.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, _)) => spawn_connection(stream, listener.tls.clone(), router.clone(), &graceful),
            Err(error) => {
                // Most likely the process is out of file descriptors, so other connections must end
                // first.
                tracing::warn!(%error, "accepting a connection failed, retrying");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    if timeout(CONNECTION_DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("server stopped with requests in progress");
    }
}

fn spawn_connection(stream: TcpStream, tls: Option<Tls>, router: Router, graceful: &GracefulShutdown) {
    // A response is small and complete, so it is sent at once.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "setting TCP_NODELAY failed");
    }
    let watcher = graceful.watcher();
    tokio::spawn(async move {
        match tls {
            None => serve_connection(stream, router, watcher).await,
            Some(tls) => match timeout(HANDSHAKE_TIMEOUT, tls.acceptor().accept(stream)).await {
                Ok(Ok(stream)) => serve_connection(stream, router, watcher).await,
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake timed out"),
            },
        }
    });
}

async fn serve_connection<S>(stream: S, router: Router, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(20)).max_concurrent_streams(128);
    let stream = TokioIo::new(PrefacedStream::new(stream, HANDSHAKE_TIMEOUT));
    let connection = builder.serve_connection(stream, TowerToHyperService::new(router)).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "connection ended");
    }
}
