//! Accepting connections, plain or TLS, within limits. On shutdown, requests in progress are
//! finished.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, http::StatusCode, response::Response};
use hyper::{body::Incoming, rt::Executor, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::http::server::{
    connection::{Connection, End, IncompleteRequest, ResponseStream, Version},
    connection_table::{ConnectionEntry, ConnectionTable},
    limits::{ConnectionCounters, ConnectionLimits},
    received_body::{ReceivedBody, size_of_head},
    refusal_pace::RefusalPace,
    source_address::TrustedProxies,
    tls::Tls,
    tracked_body::TrackedBody,
    transport::{MonitoredHttp, MonitoredSocket, discard_unsent},
};

/// Connections that the kernel completes and the server has not accepted. The kernel lowers it to
/// its own limit (`net.core.somaxconn`).
const LISTEN_BACKLOG: u32 = 4096;
/// Time limit for requests in progress when the server stops.
const CONNECTION_DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Interval of the pings that find HTTP/2 clients that are gone.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(20);
/// Maximum requests in progress on an HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// Bytes that an HTTP/2 client may send before the server reads them: about one request body for a
/// stream, and four for a connection.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 256 << 10;
/// Maximum bytes of the headers of an HTTP/1 request, and of the responses that the server has
/// handed to the transport of a connection or stream.
const MAX_BUFFER_BYTES: usize = 64 << 10;

/// A bound address, with or without TLS.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    tls: Option<Tls>,
    limits: ConnectionLimits,
    counters: Arc<ConnectionCounters>,
}

impl Listener {
    /// Binds the address, with the default limits. Port 0 selects a free port; see
    /// [`local_addr`](Self::local_addr).
    #[expect(clippy::unused_async, reason = "binding needs the runtime")]
    pub async fn bind(address: SocketAddr, tls: Option<Tls>) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // A restarted server takes over an address whose old connections the kernel still waits
        // for.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let tcp = socket.listen(LISTEN_BACKLOG)?;
        Ok(Self { tcp, tls, limits: ConnectionLimits::default(), counters: Arc::default() })
    }

    /// Replaces the limits.
    #[must_use]
    pub fn with_limits(self, limits: ConnectionLimits) -> Self {
        Self { limits, ..self }
    }

    /// Counts the connections there.
    #[must_use]
    pub fn with_counters(self, counters: Arc<ConnectionCounters>) -> Self {
        Self { counters, ..self }
    }

    /// Returns the bound address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Serves until `stop` completes. Then it accepts no new connection and finishes the requests in
/// progress.
pub async fn serve(listener: Listener, router: Router, stop: impl Future<Output = ()> + Send) {
    let Listener { tcp, tls, limits, counters } = listener;
    let table = ConnectionTable::new(limits, counters);
    let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
    let accepting = async {
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = tcp.accept() => accepted,
                () = &mut stop => break,
            };
            match accepted {
                Ok((socket, peer)) => match table.admit(peer.ip()) {
                    Ok(entry) => {
                        let connection = AcceptedConnection { socket, peer, entry, stopping: stopping.clone() };
                        tasks.spawn(connection.serve(tls.clone(), router.clone()));
                    }
                    Err(_refusal) => discard_unsent(&socket),
                },
                Err(error) => {
                    // Most likely the process is out of file descriptors, so other connections must
                    // end first.
                    tracing::warn!(%error, "accepting a connection failed, retrying");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(tcp);
        stopping.cancel();
        tasks.close();
        if timeout(CONNECTION_DRAIN_TIMEOUT, tasks.wait()).await.is_err() {
            tracing::warn!("server stopped with requests in progress");
        }
    };
    tokio::select! {
        () = accepting => {}
        () = table.check_periodically() => {}
    }
}

/// An accepted connection, before its first byte.
struct AcceptedConnection {
    socket: TcpStream,
    peer: SocketAddr,
    entry: ConnectionEntry,
    stopping: CancellationToken,
}

impl AcceptedConnection {
    async fn serve(self, tls: Option<Tls>, router: Router) {
        let Self { socket, peer, entry, stopping } = self;
        // A response is small and complete, so it is sent at once.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "setting TCP_NODELAY failed");
        }
        let connection = &entry.connection;
        let wait = entry.wait(peer.ip());
        if !wait.is_zero() {
            tokio::select! {
                () = sleep(wait) => {}
                _ = connection.ended() => return discard_unsent(&socket),
                () = stopping.cancelled() => return,
            }
        }
        entry.begin(peer.ip());
        let handshake_timeout = entry.headers_timeout();
        let socket = MonitoredSocket::new(socket, Arc::clone(connection));
        let service = ConnectionService {
            router: TowerToHyperService::new(router),
            connection: Arc::clone(connection),
            peer: peer.ip(),
            proxies: entry.proxies().clone(),
            pacing: Arc::new(Pacing { pace: Arc::clone(entry.pace()), stopping: stopping.clone() }),
        };
        match tls {
            None => serve_connection(socket, service, &stopping).await,
            Some(tls) => match timeout(handshake_timeout, tls.acceptor().accept(socket)).await {
                Ok(Ok(stream)) => {
                    connection.handshake_done();
                    serve_connection(stream, service, &stopping).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake timed out"),
            },
        }
    }
}

async fn serve_connection<S>(stream: S, service: ConnectionService, stopping: &CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let state = Arc::clone(&service.connection);
    let mut builder = auto::Builder::new(StreamExecutor(Arc::clone(&state)));
    // The connection table limits the time for headers and between requests. hyper has one limit
    // for both.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(MAX_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(HTTP2_PING_INTERVAL)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(MAX_BUFFER_BYTES);
    let stream = TokioIo::new(MonitoredHttp::new(stream, Arc::clone(&state)));
    let mut connection = pin!(builder.serve_connection(stream, service));
    let mut is_stopping = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                }
                return;
            }
            end = state.ended() => match end {
                End::Graceful => connection.as_mut().graceful_shutdown(),
                End::Abort => return,
            },
            () = stopping.cancelled(), if !is_stopping => {
                is_stopping = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// The address that a request comes from. Every request has it as an extension.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct SourceAddress(pub IpAddr);

/// The router, as the service of one connection.
struct ConnectionService {
    router: TowerToHyperService<Router>,
    connection: Arc<Connection>,
    peer: IpAddr,
    proxies: TrustedProxies,
    pacing: Arc<Pacing>,
}

/// How long refusals are held back, and what ends that.
struct Pacing {
    pace: Arc<RefusalPace>,
    stopping: CancellationToken,
}

impl Pacing {
    async fn hold_back(&self, source: IpAddr, status: StatusCode, connection: &Arc<Connection>, size: usize) {
        if let Some(held) = self.pace.hold_back(source, status) {
            let _memory = IncompleteRequest::new(connection, size);
            // Both ends are the same to the response.
            let _: Option<()> = self.stopping.run_until_cancelled(sleep(held.delay)).await;
        }
    }
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response<TrackedBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let (router, connection) = (self.router.clone(), Arc::clone(&self.connection));
        let in_progress = connection.begin_request();
        let stream = (connection.version() == Version::Http2).then(|| ResponseStream::new(Arc::clone(&connection)));
        if let Some(stream) = &stream {
            connection.set_starting(Arc::clone(stream));
        }
        let source = self.proxies.source(self.peer, request.headers());
        request.extensions_mut().insert(SourceAddress(source));
        let size = size_of_head(&request);
        let incomplete = IncompleteRequest::new(&connection, size);
        // A proxy that reports no source address stands for all of its clients.
        let pacing = (!self.proxies.contains(source)).then(|| Arc::clone(&self.pacing));
        Box::pin(async move {
            connection.wait_for_room().await;
            let request = request.map(|body| ReceivedBody::new(body, incomplete));
            let response = router.call(request).await?;
            if let Some(pacing) = pacing {
                pacing.hold_back(source, response.status(), &connection, size).await;
            }
            Ok(response.map(|body: Body| TrackedBody::new(body, &connection, stream, in_progress)))
        })
    }
}

/// Starts the tasks of HTTP/2 streams, so that a stream can be reset. hyper starts the task of a
/// stream right after it called the service.
#[derive(Clone)]
struct StreamExecutor(Arc<Connection>);

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let started = tokio::spawn(task);
        if let Some(stream) = self.0.take_starting() {
            stream.set_task(started.abort_handle());
        }
    }
}
