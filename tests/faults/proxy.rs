//! A replica's way to the database, which can be cut, blocked and swallowed by.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    Open,
    /// What there was is closed, and so is what comes.
    Cut,
    /// Everything is taken and nothing arrives, until it opens: then it arrives late.
    Blocked,
    /// What the replica sends arrives, and it hears nothing.
    InboundDropped,
    /// Everything is taken and nothing arrives, ever, and nobody is told that the connection is gone. What has lost
    /// anything is closed when the line changes again.
    Silent {
        lost: LostDirection,
        /// The first connection that gets through all the same.
        before: u64,
    },
}

/// What a silent line loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostDirection {
    /// What the replica sends.
    Forward,
    /// What the database answers.
    Backward,
    Both,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// One connection: its number, and the line that it is on.
#[derive(Clone)]
struct Connection {
    number: u64,
    link: watch::Receiver<LinkState>,
    swallowed: Arc<AtomicU64>,
}

/// A proxy, as long as this lives.
pub struct Proxy {
    pub address: SocketAddr,
    link: Arc<watch::Sender<LinkState>>,
    connections: Arc<AtomicU64>,
    swallowed: Arc<AtomicU64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl LinkState {
    fn is_holding(self, way: Direction) -> bool {
        match self {
            Self::Blocked => true,
            Self::InboundDropped => way == Direction::Backward,
            Self::Open | Self::Cut | Self::Silent { .. } => false,
        }
    }

    fn is_swallowing(self, way: Direction, connection: u64) -> bool {
        match self {
            Self::Silent { lost, before } => connection < before && lost.includes(way),
            Self::Open | Self::Cut | Self::Blocked | Self::InboundDropped => false,
        }
    }
}

impl LostDirection {
    fn includes(self, way: Direction) -> bool {
        match self {
            Self::Forward => way == Direction::Forward,
            Self::Backward => way == Direction::Backward,
            Self::Both => true,
        }
    }
}

impl Proxy {
    /// In front of whatever is at the address that is watched.
    pub async fn start(upstream: watch::Receiver<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let line = Arc::new(watch::Sender::new(LinkState::Open));
        let (connections, swallowed) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (lines, numbers, lost) = (Arc::clone(&line), Arc::clone(&connections), Arc::clone(&swallowed));
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else { continue };
                let number = numbers.fetch_add(1, Ordering::SeqCst);
                let connection = Connection { number, link: lines.subscribe(), swallowed: Arc::clone(&lost) };
                tokio::spawn(connection.run(near, *upstream.borrow()));
            }
        });
        Self { address, link: line, connections, swallowed, accepting }
    }

    pub fn set(&self, line: LinkState) {
        self.link.send_replace(line);
    }

    /// As with a host that lost its power: nothing gets through any more.
    pub fn silence(&self, lost: LostDirection) {
        self.set(LinkState::Silent { lost, before: u64::MAX });
    }

    /// As with a firewall that forgot what it had let through: what is connected now is silent, and what comes is good.
    pub fn drop_connections(&self, lost: LostDirection) {
        self.set(LinkState::Silent { lost, before: self.connections.load(Ordering::SeqCst) });
    }

    /// How many bytes were taken and never arrived.
    pub fn swallowed(&self) -> u64 {
        self.swallowed.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(LinkState::Cut);
    }
}

impl Connection {
    async fn run(self, mut near: TcpStream, upstream: SocketAddr) {
        if *self.link.borrow() == LinkState::Cut {
            return;
        }
        if self.is_swallowed(Direction::Forward) {
            // Nobody on the other side ever hears of it.
            return self.swallow(&mut near, Direction::Forward, 0).await;
        }
        let Ok(mut far) = TcpStream::connect(upstream).await else { return };
        // Small messages back and forth.
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        // Borrowed halves: the end of one way is no word to the other side.
        let ((near_read, near_write), (far_read, far_write)) = (near.split(), far.split());
        let mut cut = self.link.clone();
        // However one way ends, the connection is over.
        tokio::select! {
            () = self.pump(near_read, far_write, Direction::Forward) => {}
            () = self.pump(far_read, near_write, Direction::Backward) => {}
            _ = cut.wait_for(|line| *line == LinkState::Cut) => {}
        }
        // Where anything is lost, so is the word that it is over.
        let is_silent = |line: &LinkState| {
            line.is_swallowing(Direction::Forward, self.number) || line.is_swallowing(Direction::Backward, self.number)
        };
        let _ = self.link.clone().wait_for(|line| !is_silent(line)).await;
    }

    fn is_swallowed(&self, way: Direction) -> bool {
        self.link.borrow().is_swallowing(way, self.number)
    }

    async fn pump(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, way: Direction) {
        let mut line = self.link.clone();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).await;
            if line.wait_for(|line| !line.is_holding(way)).await.is_err() {
                return;
            }
            if self.is_swallowed(way) {
                return self.swallow(from, way, read.unwrap_or_default()).await;
            }
            let Ok(length @ 1..) = read else { return };
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }

    /// Takes what comes, after `taken` bytes, until the line changes. What is lost does not come back.
    async fn swallow(&self, mut from: impl AsyncRead + Unpin, way: Direction, taken: usize) {
        let count = |length: usize| self.swallowed.fetch_add(length.try_into().unwrap(), Ordering::SeqCst);
        count(taken);
        let mut line = self.link.clone();
        let mut buffer = vec![0; 16 * 1024];
        let drain = async {
            while let Ok(length @ 1..) = from.read(&mut buffer).await {
                count(length);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = drain => {}
            _ = line.wait_for(|line| !line.is_swallowing(way, self.number)) => {}
        }
    }
}
