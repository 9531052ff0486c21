//! Limits of connections: clients that send slowly, do not read, or keep connections for nothing.
//!
//! The server is a small router, so that a response can be as large or as slow as a test needs.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::{get, post},
};
use errand::http::{ConnectionCounters, ConnectionLimits, Listener, TrustedProxies, serve};
use h2::client::SendRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use crate::server::wait_until;

const LARGE: usize = 2 << 20;
/// Longer than any test takes.
const NEVER: Duration = Duration::from_hours(1);
/// Short enough to wait for.
const SOON: Duration = Duration::from_millis(60);

struct TestServer {
    address: SocketAddr,
    counters: Arc<ConnectionCounters>,
    /// Requests for `/large` that the handler has begun.
    large_requests: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Limits that no test reaches by accident.
fn lenient() -> ConnectionLimits {
    ConnectionLimits { keep_alive: NEVER, headers: NEVER, progress: NEVER, ..ConnectionLimits::default() }
}

impl TestServer {
    async fn start(limits: ConnectionLimits) -> Self {
        let large_requests = Arc::<AtomicUsize>::default();
        let begun = Arc::clone(&large_requests);
        let large = move || {
            begun.fetch_add(1, Ordering::Relaxed);
            async { vec![b'x'; LARGE] }
        };
        let router = Router::new()
            .route("/small", get(|| async { "small" }))
            .route("/large", get(large))
            .route("/body", post(|body: Bytes| async move { body.len().to_string() }))
            .route(
                "/silent",
                get(|| async { Body::from_stream(futures_util::stream::pending::<Result<Bytes, h2::Error>>()) }),
            );
        let counters = Arc::<ConnectionCounters>::default();
        let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0)), None).await.unwrap();
        let listener = listener.with_limits(limits).with_counters(Arc::clone(&counters));
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, router, std::future::pending()));
        Self { address, counters, large_requests, serving }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect_from(&self, source: [u8; 4]) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((source, 0))).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    /// Opens an HTTP/2 connection whose streams have this window.
    async fn connect_http2(&self, window: u32) -> Http2Client {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(32 << 20);
        let (requests, mut connection) = builder.handshake::<_, Bytes>(self.connect().await).await.unwrap();
        let pings = connection.ping_pong().unwrap();
        let ended = tokio::spawn(async move {
            let _ = connection.await;
        });
        Http2Client { requests, pings: Some(pings), ended }
    }

    fn ended(&self, reason: &str) -> u64 {
        self.counters.ended().into_iter().find(|(name, _)| *name == reason).unwrap().1
    }

    async fn wait_for_ended(&self, reason: &str, count: u64) {
        wait_until(reason, || async { self.ended(reason) >= count }).await;
    }
}

struct Http2Client {
    requests: SendRequest<Bytes>,
    pings: Option<h2::PingPong>,
    ended: JoinHandle<()>,
}

impl Http2Client {
    async fn get(&self, path: &str) -> Result<axum::http::Response<h2::RecvStream>, h2::Error> {
        let request = axum::http::Request::get(format!("http://x{path}")).body(()).unwrap();
        let mut requests = self.requests.clone().ready().await?;
        let (response, _) = requests.send_request(request, true)?;
        response.await
    }

    async fn get_text(&self, path: &str) -> Result<String, h2::Error> {
        let mut body = self.get(path).await?.into_body();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            text.extend_from_slice(&data);
        }
        Ok(String::from_utf8(text).unwrap())
    }
}

async fn send(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
}

/// Sends a request for `/small` and reads its response.
async fn get_small(stream: &mut TcpStream) -> bool {
    if stream.write_all(b"GET /small HTTP/1.1\r\nhost: x\r\n\r\n").await.is_err() {
        return false;
    }
    let mut text = Vec::new();
    while !text.ends_with(b"small") {
        let mut bytes = [0; 256];
        match timeout(Duration::from_mins(1), stream.read(&mut bytes)).await.unwrap() {
            Ok(n) if n > 0 => text.extend_from_slice(&bytes[..n]),
            _ => return false,
        }
    }
    true
}

/// Waits until the server closes the connection.
async fn wait_for_close(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // A reset closes the connection as well.
    let _ = timeout(Duration::from_mins(1), stream.read_to_end(&mut rest)).await.expect("the connection ends");
}

#[tokio::test]
async fn http1_client_that_does_not_read_is_disconnected() {
    let server = TestServer::start(ConnectionLimits { progress: SOON, ..lenient() }).await;
    let mut silent = server.connect().await;
    send(&mut silent, "/silent").await;
    let mut reading = server.connect().await;
    assert!(get_small(&mut reading).await);
    let mut stalled = Vec::new();
    for _ in 0..10 {
        let mut stream = server.connect().await;
        // More than the kernel's buffers on both sides take.
        for _ in 0..8 {
            send(&mut stream, "/large").await;
        }
        stalled.push(stream);
    }
    server.wait_for_ended("progress", 10).await;
    wait_until("closed", || async { server.counters.open() == 2 && server.counters.unread_bytes() == 0 }).await;
    assert!(get_small(&mut reading).await, "a client that reads stays connected");
    assert_eq!(server.ended("progress"), 10, "a response that the server has not produced is no stall");
    drop((silent, stalled));
}

#[tokio::test]
async fn http2_stream_that_is_not_read_is_reset_and_its_connection_goes_on() {
    let server =
        TestServer::start(ConnectionLimits { progress: SOON, unread_per_connection: LARGE * 10, ..lenient() }).await;
    for window in [0, 1, 20_000] {
        let before = server.counters.reset_streams();
        let client = server.connect_http2(window).await;
        let mut silent = client.get("/silent").await.unwrap().into_body();
        let mut unread = Vec::new();
        for _ in 0..4 {
            unread.push(client.get("/large").await.unwrap().into_body());
        }
        wait_until("reset", || async { server.counters.reset_streams() == before + 4 }).await;
        wait_until("released", || async { server.counters.unread_bytes() == 0 }).await;
        for mut body in unread {
            let mut end = body.data().await;
            while let Some(Ok(_)) = end {
                end = body.data().await;
            }
            assert!(matches!(end, Some(Err(_))), "{window}: the client sees the reset");
        }
        assert!(client.get("/silent").await.is_ok(), "{window}: the connection goes on");
        assert!(timeout(Duration::ZERO, silent.data()).await.is_err(), "{window}: a silent response is no stall");
        assert_eq!(server.ended("progress"), 0);
    }
}

#[tokio::test]
async fn http2_requests_wait_while_too_much_is_unread() {
    let server = TestServer::start(ConnectionLimits { unread_per_connection: LARGE, ..lenient() }).await;
    let client = server.connect_http2(65_535).await;
    let mut first = client.get("/large").await.unwrap().into_body();
    let (second, third) = (client.get_text("/large"), client.get_text("/small"));
    let mut others = std::pin::pin!(async { tokio::join!(second, third) });
    assert!(timeout(SOON, &mut others).await.is_err());
    assert_eq!(server.large_requests.load(Ordering::Relaxed), 1, "the second request waits");
    let other = server.connect_http2(65_535).await;
    assert_eq!(other.get_text("/small").await.unwrap(), "small", "another connection does not wait");
    let mut length = 0;
    while let Some(data) = first.data().await {
        let data = data.unwrap();
        length += data.len();
        first.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(length, LARGE);
    let (second, third) = others.await;
    assert_eq!((second.unwrap().len(), third.unwrap().as_str()), (LARGE, "small"));
}

#[tokio::test]
async fn memory_of_unread_responses_is_bounded() {
    let limits = ConnectionLimits { unread_per_connection: 100 * LARGE, unread_total: 10 * LARGE, ..lenient() };
    let server = TestServer::start(limits).await;
    let victim = server.connect_http2(65_535).await;
    assert_eq!(victim.get_text("/small").await.unwrap(), "small");
    let mut hostile = Vec::new();
    for _ in 0..8 {
        let client = server.connect_http2(0).await;
        let responses = (0..10).map(|_| client.get("/large"));
        let _ = futures_util::future::join_all(responses).await;
        hostile.push(client);
    }
    server.wait_for_ended("unread", 1).await;
    wait_until("memory", || async { server.counters.unread_bytes() <= 10 * LARGE as u64 }).await;
    assert_eq!(victim.get_text("/large").await.unwrap().len(), LARGE, "a client that reads is served");
    drop(hostile);
}

#[tokio::test]
async fn memory_of_incomplete_requests_is_bounded() {
    let server = TestServer::start(ConnectionLimits { incomplete_total: 1 << 20, ..lenient() }).await;
    let victim = server.connect_http2(65_535).await;
    let mut other = server.connect().await;
    assert!(get_small(&mut other).await);
    // Most of a body on HTTP/2, large headers of requests whose body does not begin, and slow
    // headers of HTTP/1.
    let body = Bytes::from(vec![b'x'; 60 << 10]);
    for (clients_of_http2, header, body, slow) in [(4, 0, Some(&body), 0), (4, 8 << 10, None, 0), (0, 0, None, 40)] {
        let before = server.ended("incomplete");
        let (mut streams, mut clients, mut connections) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..clients_of_http2 {
            let client = server.connect_http2(65_535).await;
            for _ in 0..60 {
                let Ok(mut requests) = client.requests.clone().ready().await else { break };
                let request = axum::http::Request::post("http://x/body").header("x-large", "x".repeat(header));
                let Ok((response, mut stream)) = requests.send_request(request.body(()).unwrap(), false) else { break };
                if let Some(body) = body {
                    let _ = stream.send_data(body.clone(), false);
                }
                streams.push((response, stream));
            }
            clients.push(client);
        }
        for _ in 0..slow {
            let mut stream = server.connect().await;
            let _ = stream.write_all(format!("GET /small HTTP/1.1\r\nx: {}", "x".repeat(40 << 10)).as_bytes()).await;
            connections.push(stream);
        }
        server.wait_for_ended("incomplete", before + 1).await;
        assert_eq!(victim.get_text("/small").await.unwrap(), "small");
        assert!(get_small(&mut other).await);
        drop((streams, clients, connections));
    }
    wait_until("memory", || async { server.counters.incomplete_bytes() == 0 }).await;
}

#[tokio::test]
async fn refusals_beyond_the_burst_are_held_back() {
    let server = TestServer::start(ConnectionLimits { refusals_per_second: 10, ..lenient() }).await;
    let started = tokio::time::Instant::now();
    // The pace is that of the address, whatever the number of its connections.
    let clients = (0..6).map(|_| async {
        let mut stream = server.connect().await;
        for _ in 0..4 {
            send(&mut stream, "/unknown").await;
            let mut text = Vec::new();
            while !text.ends_with(b"\r\n\r\n") {
                text.push(stream.read_u8().await.unwrap());
            }
            assert!(text.starts_with(b"HTTP/1.1 404"));
        }
    });
    futures_util::future::join_all(clients).await;
    // 10 at once, and 14 at 10 per second.
    assert!(started.elapsed() >= Duration::from_millis(1300));
    assert!(get_small(&mut server.connect().await).await);
}

#[tokio::test]
async fn slow_headers_end_a_connection_that_idleness_does_not() {
    let server = TestServer::start(ConnectionLimits { headers: SOON, ..lenient() }).await;
    let mut idle = server.connect().await;
    assert!(get_small(&mut idle).await);
    // Nothing, the start of the first headers, the start of later headers.
    let (mut silent, mut first, mut later) = (server.connect().await, server.connect().await, server.connect().await);
    first.write_all(b"GET /small HTTP/1.1\r\nhost").await.unwrap();
    assert!(get_small(&mut later).await);
    later.write_all(b"GET /sm").await.unwrap();
    for stream in [&mut silent, &mut first, &mut later] {
        wait_for_close(stream).await;
    }
    assert_eq!((server.ended("headers"), server.ended("idle")), (3, 0));
    assert!(get_small(&mut idle).await, "an idle connection is kept");
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let server = TestServer::start(ConnectionLimits { keep_alive: SOON, ..lenient() }).await;
    let mut http1 = server.connect().await;
    assert!(get_small(&mut http1).await);
    wait_for_close(&mut http1).await;
    let mut client = server.connect_http2(65_535).await;
    assert_eq!(client.get_text("/small").await.unwrap(), "small");
    // Pings that the server answers do not keep the connection open.
    let mut pings = client.pings.take().unwrap();
    let pinging = tokio::spawn(async move { while pings.ping(h2::Ping::opaque()).await.is_ok() {} });
    timeout(Duration::from_mins(1), client.ended).await.expect("the connection ends").unwrap();
    pinging.await.unwrap();
    assert_eq!(server.ended("idle"), 2);
    // A request in progress keeps its connection open.
    let mut busy = server.connect().await;
    send(&mut busy, "/silent").await;
    let mut idle = server.connect().await;
    assert!(get_small(&mut idle).await);
    wait_for_close(&mut idle).await;
    wait_until("only the busy connection is open", async || server.counters.open() == 1).await;
}

#[tokio::test]
async fn connections_are_limited_in_all_and_by_peer() {
    let proxy: IpAddr = [127, 0, 0, 9].into();
    let proxies = TrustedProxies { networks: [proxy.into()].into(), ..TrustedProxies::default() };
    let limits = ConnectionLimits { total: 6, per_peer: 2, proxies, ..lenient() };
    let server = TestServer::start(limits).await;
    let mut open = vec![server.connect().await, server.connect().await];
    for stream in &mut open {
        assert!(get_small(stream).await);
    }
    assert!(!get_small(&mut server.connect().await).await, "the third connection of a peer is refused");
    for source in [[127, 0, 0, 2], [127, 0, 0, 9], [127, 0, 0, 9], [127, 0, 0, 9]] {
        let mut stream = server.connect_from(source).await;
        assert!(get_small(&mut stream).await, "{source:?}");
        open.push(stream);
    }
    for source in [[127, 0, 0, 3], [127, 0, 0, 9]] {
        assert!(!get_small(&mut server.connect_from(source).await).await, "{source:?}");
    }
    assert_eq!(server.counters.refused(), [("total", 2), ("per_peer", 1)]);
    open.clear();
    wait_until("closed", || async { server.counters.open() == 0 }).await;
    assert!(get_small(&mut server.connect().await).await);
}
