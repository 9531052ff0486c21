//! Accepting connections: plain or TLS, with a limit on how long a client may take for the handshake and its headers,
//! until told to stop; then what is under way is finished.

use std::{fmt, future::Future, io, net::SocketAddr, path::PathBuf, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::http::server::preface_timeout::PrefacedStream;

/// How long a client may take for a handshake, and for the headers of a request.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long requests that are under way get when the server stops.
const CONNECTION_DRAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// A certificate with its key that can't be used.
#[derive(Debug, Error)]
#[error("{file}: {reason}")]
pub struct TlsError {
    /// The file.
    pub file: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
}

/// TLS by rustls, 1.2 and 1.3.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}

impl Tls {
    /// Reads a certificate chain and its key, both PEM.
    pub fn load(certificates: &PathBuf, key: &PathBuf) -> Result<Self, TlsError> {
        let fault = |file: &PathBuf, reason: String| TlsError { file: file.display().to_string(), reason };
        let chain = CertificateDer::pem_file_iter(certificates)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|e| fault(certificates, format!("no PEM certificate chain: {e}")))?;
        if chain.is_empty() {
            return Err(fault(certificates, "no certificate in PEM: name a file with the server's own first".into()));
        }
        let private = PrivateKeyDer::from_pem_file(key).map_err(|e| fault(key, format!("no PEM private key: {e}")))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| fault(certificates, e.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|e| fault(key, format!("it is not the key of the certificate, or not usable: {e}")))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

/// A bound address, with or without TLS.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    tls: Option<Tls>,
}

impl Listener {
    /// Binds. Port 0 takes a free one; see [`address`](Self::address).
    pub async fn bind(address: SocketAddr, tls: Option<Tls>) -> io::Result<Self> {
        Ok(Self { tcp: TcpListener::bind(address).await?, tls })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Serves until `stop` is done; then takes no new connection and finishes what is under way.
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
                // Out of file descriptors, most likely: others have to end before we can go on.
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    if timeout(CONNECTION_DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests were still under way when the server stopped");
    }
}

fn spawn_connection(stream: TcpStream, tls: Option<Tls>, router: Router, graceful: &GracefulShutdown) {
    // An answer is small and complete: sending it at once is what everybody waits for.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "can't set TCP_NODELAY");
    }
    let watcher = graceful.watcher();
    tokio::spawn(async move {
        match tls {
            None => serve_connection(stream, router, watcher).await,
            Some(Tls(acceptor)) => match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => serve_connection(stream, router, watcher).await,
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake took too long"),
            },
        }
    });
}

async fn serve_connection<S>(stream: S, router: Router, watcher: hyper_util::server::graceful::Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_TIMEOUT);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(20)).max_concurrent_streams(128);
    let stream = TokioIo::new(PrefacedStream::new(stream, HANDSHAKE_TIMEOUT));
    let connection = builder.serve_connection(stream, TowerToHyperService::new(router)).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error = %error, "connection ended");
    }
}
