//! Load generator: each client has one connection and one request at a time, over HTTP/1.1 with
//! keep-alive. Requests are created in advance and responses are read only as far as needed, so
//! that the load is cheap.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// Requests of one kind.
#[derive(Clone)]
pub struct Requests {
    /// Complete requests in wire format.
    pub all: Arc<Vec<Vec<u8>>>,
    /// Whether each request is valid once only; otherwise they repeat.
    pub once: bool,
    /// Prefix of the body of a successful response.
    pub expected_prefix: &'static str,
}

/// Result of a load run.
#[derive(Default)]
pub struct Outcome {
    /// Sorted latencies in microseconds.
    pub latencies: Vec<f64>,
    /// Response bodies, if requested.
    pub bodies: Vec<String>,
    /// Total duration.
    pub took: Duration,
}

impl Outcome {
    /// Returns requests per second.
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// Returns a percentile of the latencies in microseconds.
    pub fn percentile(&self, percent: usize) -> f64 {
        self.latencies[(self.latencies.len() - 1) * percent / 100]
    }
}

/// Runs clients for a duration, or until the requests are used up.
pub async fn run(address: SocketAddr, requests: &Requests, clients: usize, time: Duration, keep: bool) -> Outcome {
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(Connection::open(address).await.unwrap());
    }
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let mut running = JoinSet::new();
    for connection in connections {
        running.spawn(client(connection, requests.clone(), Arc::clone(&next), start + time, keep));
    }
    let parts = running.join_all().await;
    let took = start.elapsed();
    let mut all = Outcome { took, ..Outcome::default() };
    for (latencies, bodies) in parts {
        all.latencies.extend(latencies);
        all.bodies.extend(bodies);
    }
    assert!(!all.latencies.is_empty(), "every request timed out");
    all.latencies.sort_by(f64::total_cmp);
    all
}

async fn client(
    mut connection: Connection,
    requests: Requests,
    next: Arc<AtomicUsize>,
    end: Instant,
    keep: bool,
) -> (Vec<f64>, Vec<String>) {
    let (mut latencies, mut bodies) = (Vec::new(), Vec::new());
    let mut now = Instant::now();
    while now < end {
        let n = next.fetch_add(1, Ordering::Relaxed);
        let request = if requests.once { requests.all.get(n) } else { Some(&requests.all[n % requests.all.len()]) };
        let Some(request) = request else { break };
        let body = connection.send(request, requests.expected_prefix).await;
        if keep {
            bodies.push(body.to_owned());
        }
        let then = now;
        now = Instant::now();
        latencies.push((now - then).as_secs_f64() * 1e6);
    }
    (latencies, bodies)
}

/// Sends single requests with a pause before each, to measure the latency without load.
pub async fn run_paced(address: SocketAddr, requests: &Requests, pause: Duration) -> Outcome {
    let mut connection = Connection::open(address).await.unwrap();
    let mut outcome = Outcome::default();
    for request in requests.all.iter() {
        tokio::time::sleep(pause).await;
        let start = Instant::now();
        connection.send(request, requests.expected_prefix).await;
        outcome.latencies.push(start.elapsed().as_secs_f64() * 1e6);
    }
    outcome.latencies.sort_by(f64::total_cmp);
    outcome
}

/// Sends a request on a new connection and returns the body, which must begin with `good`.
pub async fn send_once(address: SocketAddr, request: &[u8], good: &str) -> String {
    Connection::open(address).await.unwrap().send(request, good).await.to_owned()
}

/// Returns whether a server listens at this address.
pub async fn is_answering(address: SocketAddr) -> bool {
    let Ok(mut connection) = Connection::open(address).await else { return false };
    connection.exchange(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n").await.is_some()
}

/// A keep-alive connection of HTTP/1.1.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects to a server.
    pub async fn open(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self::new(TcpStream::connect(address).await?))
    }

    /// Uses an open connection.
    pub fn new(stream: TcpStream) -> Self {
        // Without it, a request may only be sent later.
        let _ = stream.set_nodelay(true);
        Self { stream, buffer: Vec::with_capacity(16 * 1024) }
    }

    async fn send(&mut self, request: &[u8], good: &str) -> &str {
        let (status, body) = self.exchange(request).await.expect("the server closed the connection");
        assert!(status == 200 && body.starts_with(good), "unexpected response: {status} {body}");
        body
    }

    /// Sends a request and returns status and body of the response.
    pub async fn exchange(&mut self, request: &[u8]) -> Option<(u16, &str)> {
        self.stream.write_all(request).await.ok()?;
        self.buffer.clear();
        let head = loop {
            self.read_more().await?;
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        let text = std::str::from_utf8(&self.buffer[..head]).ok()?;
        let status = text.get(9..12)?.parse().ok()?;
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let end = head + length.parse::<usize>().ok()?;
        while self.buffer.len() < end {
            self.read_more().await?;
        }
        Some((status, std::str::from_utf8(&self.buffer[head..end]).ok()?))
    }

    async fn read_more(&mut self) -> Option<()> {
        (self.stream.read_buf(&mut self.buffer).await.ok()? > 0).then_some(())
    }
}
