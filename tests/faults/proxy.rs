//! A replica's way to the database, which can be cut and blocked.

use std::{net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Open,
    /// What there was is closed, and so is what comes.
    Cut,
    /// Everything is taken and nothing arrives, until it opens: then it arrives late.
    Blocked,
    /// What the replica sends arrives, and it hears nothing.
    Deaf,
}

/// A proxy, as long as this lives.
pub struct Proxy {
    pub address: SocketAddr,
    line: Arc<watch::Sender<Line>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// In front of whatever is at the address that is watched.
    pub async fn start(upstream: watch::Receiver<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let line = Arc::new(watch::Sender::new(Line::Open));
        let lines = Arc::clone(&line);
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else { continue };
                let (line, upstream) = (lines.subscribe(), *upstream.borrow());
                tokio::spawn(connect(near, upstream, line));
            }
        });
        Self { address, line, accepting }
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Line::Cut);
    }
}

async fn connect(near: TcpStream, upstream: SocketAddr, line: watch::Receiver<Line>) {
    if *line.borrow() == Line::Cut {
        return;
    }
    let Ok(far) = TcpStream::connect(upstream).await else { return };
    // Small messages back and forth.
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let mut cut = line.clone();
    let there = pump(near_read, far_write, line.clone(), |line| line == Line::Blocked);
    let back = pump(far_read, near_write, line, |line| matches!(line, Line::Blocked | Line::Deaf));
    // However one way ends, the connection is over.
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = cut.wait_for(|line| *line == Line::Cut) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut line: watch::Receiver<Line>,
    is_held: fn(Line) -> bool,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        if line.wait_for(|line| !is_held(*line)).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
