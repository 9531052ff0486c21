//! A hostile client: a separate process that attacks servers until it is killed.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{body::Bytes, http::Request};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::sleep,
};

use crate::load::Connection;

/// Argument that starts this program as the hostile client.
pub const COMMAND: &str = "attack";
/// The address from which it connects: another peer than the victim.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Pause before a connection that was closed is opened again.
const RECONNECT_INTERVAL: Duration = Duration::from_millis(20);
/// Streams of one HTTP/2 connection: fewer than a server usually accepts.
const STREAMS: usize = 120;
/// The part of a request body that arrives, and a header of the same request.
const BODY_PART: &[u8] = &[b'x'; 60 << 10];
const LARGE_HEADER: usize = 8 << 10;

/// What a hostile client does with each of its connections.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Behavior {
    /// Sends the requests one after the other, whatever the answers are.
    Flood,
    /// Sends requests over HTTP/1.1 and reads no response.
    Unread,
    /// Opens streams of HTTP/2 with a window of zero bytes.
    ZeroWindow,
    /// Keeps a connection of HTTP/2 open, answers pings and requests nothing.
    Idle,
    /// Sends the headers of a request byte by byte.
    SlowHeaders,
    /// Opens streams of HTTP/2 with large headers and most of a body, whose end never arrives.
    SlowBodies,
    /// Opens all connections at once and closes them, again and again.
    Reconnect,
}

/// The task of a hostile process.
#[derive(Serialize, Deserialize)]
pub struct Attack {
    pub behavior: Behavior,
    /// Connections to each target.
    pub connections: usize,
    pub targets: Vec<SocketAddr>,
    /// Complete requests of HTTP/1.1, or a path for HTTP/2.
    pub requests: Vec<String>,
}

/// The number of answers by status, and of connections that were opened, refused or closed.
pub type Counts = BTreeMap<String, u64>;

/// Attacks until the process is killed. The argument is the file with the [`Attack`]; the counts
/// are written beside it.
pub fn run(words: &[String]) {
    let file = Path::new(&words[0]);
    let attack = serde_json::from_slice::<Attack>(&fs::read(file).unwrap()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (attack, counts) = (Arc::new(attack), Arc::<Mutex<Counts>>::default());
        for n in 0..attack.connections * attack.targets.len() {
            tokio::spawn(attack_forever(Arc::clone(&attack), n, Arc::clone(&counts)));
        }
        loop {
            sleep(Duration::from_millis(200)).await;
            let text = serde_json::to_string(&*counts.lock()).unwrap();
            let next = file.with_extension("next");
            fs::write(&next, text).unwrap();
            fs::rename(next, file.with_extension("counts")).unwrap();
        }
    });
}

async fn attack_forever(attack: Arc<Attack>, n: usize, counts: Arc<Mutex<Counts>>) {
    let target = attack.targets[n % attack.targets.len()];
    let count = |what: &str| *counts.lock().entry(what.to_owned()).or_default() += 1;
    loop {
        match connect(target).await {
            Err(error) => count(&format!("not connected: {}", error.kind())),
            Ok(stream) => {
                count("connected");
                match attack.behavior {
                    Behavior::Flood => flood(&attack, n, stream, &count).await,
                    Behavior::Unread => leave_unread(&attack, stream).await,
                    Behavior::ZeroWindow => leave_streams_unread(&attack.requests[0], stream).await,
                    Behavior::Idle => stay_idle(stream).await,
                    Behavior::SlowHeaders => send_headers_slowly(stream).await,
                    Behavior::SlowBodies => send_bodies_slowly(&attack.requests[0], stream).await,
                    Behavior::Reconnect => {
                        // Without this, the kernel would keep the port for a minute.
                        let _ = stream.set_zero_linger();
                        drop(stream);
                        tokio::task::yield_now().await;
                        continue;
                    }
                }
                count("closed by the server");
            }
        }
        sleep(RECONNECT_INTERVAL).await;
    }
}

async fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((SOURCE, 0)))?;
    socket.connect(target).await
}

async fn flood(attack: &Attack, n: usize, stream: TcpStream, count: &impl Fn(&str)) {
    let mut connection = Connection::new(stream);
    for request in attack.requests.iter().cycle().skip(n % attack.requests.len()) {
        let Some((status, _)) = connection.exchange(request.as_bytes()).await else { return };
        count(&status.to_string());
    }
}

async fn leave_unread(attack: &Attack, mut stream: TcpStream) {
    for request in attack.requests.iter().cycle() {
        // Ends when the server closes the connection; waits while its buffers are full.
        if stream.write_all(request.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn leave_streams_unread(path: &str, stream: TcpStream) {
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(0);
    let Ok((requests, connection)) = builder.handshake::<_, Bytes>(stream).await else { return };
    let driving = tokio::spawn(connection);
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let Ok(mut ready) = requests.clone().ready().await else { break };
        let request = Request::get(format!("http://errand.example.com{path}")).body(()).unwrap();
        let Ok((response, _)) = ready.send_request(request, true) else { break };
        open.push(tokio::spawn(async move {
            // The body stays unread as long as the stream lives.
            if let Ok(mut response) = response.await {
                let _ = response.body_mut().data().await;
            }
        }));
    }
    let _ = driving.await;
    drop(requests);
}

async fn stay_idle(stream: TcpStream) {
    let Ok((requests, connection)) = h2::client::handshake(stream).await else { return };
    // Ends when the server closes the connection. The connection lives as long as its sender.
    let _ = connection.await;
    drop::<h2::client::SendRequest<Bytes>>(requests);
}

async fn send_bodies_slowly(path: &str, stream: TcpStream) {
    let Ok((requests, connection)) = h2::client::handshake(stream).await else { return };
    let driving = tokio::spawn(connection);
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let Ok(mut ready) = requests.clone().ready().await else { break };
        let request = Request::post(format!("http://errand.example.com{path}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .header("x-large", "x".repeat(LARGE_HEADER))
            .body(())
            .unwrap();
        let Ok((response, mut body)) = ready.send_request(request, false) else { break };
        let _ = body.send_data(Bytes::from_static(BODY_PART), false);
        open.push((response, body));
    }
    let _ = driving.await;
    drop((requests, open));
}

async fn send_headers_slowly(mut stream: TcpStream) {
    for byte in b"GET /oauth2/jwks HTTP/1.1\r\nx-slow: ".iter().chain(std::iter::repeat(&b'x')) {
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
        // Returns at once if the server closed the connection.
        let mut answer = [0; 512];
        let reading = tokio::time::timeout(Duration::from_millis(500), stream.read(&mut answer));
        if reading.await.is_ok() {
            return;
        }
    }
}
