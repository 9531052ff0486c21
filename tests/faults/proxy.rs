//! A proxy between a replica and the database, whose connections can be cut, blocked and made
//! half-open.

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

/// The state of the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Bytes are forwarded in both directions.
    Open,
    /// Existing connections are closed, and so are new ones.
    Cut,
    /// Bytes are accepted and held in both directions. They arrive late, once the link opens.
    Blocked,
    /// Bytes from the replica arrive; bytes to the replica are held.
    InboundDropped,
    /// Half-open: bytes are accepted and lost, and neither side sees an end of the connection. A
    /// connection that has lost bytes is closed when the state changes again.
    Silent {
        lost: LostDirection,
        /// The number of the first connection that is not affected.
        before: u64,
    },
}

/// The direction in which a half-open link loses bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostDirection {
    /// From the replica to the database.
    Forward,
    /// From the database to the replica.
    Backward,
    /// Both directions.
    Both,
}

/// The direction of a byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward,
}

/// One connection: its number and the state of its link.
#[derive(Clone)]
struct Connection {
    number: u64,
    link: watch::Receiver<LinkState>,
    swallowed: Arc<AtomicU64>,
}

/// A running proxy, which stops on drop.
pub struct Proxy {
    pub address: SocketAddr,
    link: Arc<watch::Sender<LinkState>>,
    connections: Arc<AtomicU64>,
    swallowed: Arc<AtomicU64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl LinkState {
    fn is_holding(self, direction: Direction) -> bool {
        match self {
            Self::Blocked => true,
            Self::InboundDropped => direction == Direction::Backward,
            Self::Open | Self::Cut | Self::Silent { .. } => false,
        }
    }

    fn is_swallowing(self, direction: Direction, connection: u64) -> bool {
        match self {
            Self::Silent { lost, before } => connection < before && lost.includes(direction),
            Self::Open | Self::Cut | Self::Blocked | Self::InboundDropped => false,
        }
    }
}

impl LostDirection {
    fn includes(self, direction: Direction) -> bool {
        match self {
            Self::Forward => direction == Direction::Forward,
            Self::Backward => direction == Direction::Backward,
            Self::Both => true,
        }
    }
}

impl Proxy {
    /// Starts a proxy in front of the current address of the upstream.
    pub async fn start(upstream: watch::Receiver<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let link = Arc::new(watch::Sender::new(LinkState::Open));
        let (connections, swallowed) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (states, numbers, lost_bytes) = (Arc::clone(&link), Arc::clone(&connections), Arc::clone(&swallowed));
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((downstream, _)) = listener.accept().await else { continue };
                let number = numbers.fetch_add(1, Ordering::SeqCst);
                let connection = Connection { number, link: states.subscribe(), swallowed: Arc::clone(&lost_bytes) };
                tokio::spawn(connection.run(downstream, *upstream.borrow()));
            }
        });
        Self { address, link, connections, swallowed, accepting }
    }

    /// Sets the state of the link.
    pub fn set(&self, state: LinkState) {
        self.link.send_replace(state);
    }

    /// Makes all connections half-open, new ones included, as when a host loses its power.
    pub fn silence(&self, lost: LostDirection) {
        self.set(LinkState::Silent { lost, before: u64::MAX });
    }

    /// Makes the existing connections half-open, as when a firewall loses its connection table. New
    /// connections work.
    pub fn drop_connections(&self, lost: LostDirection) {
        self.set(LinkState::Silent { lost, before: self.connections.load(Ordering::SeqCst) });
    }

    /// Returns the number of bytes that were accepted and lost.
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
    async fn run(self, mut downstream: TcpStream, upstream: SocketAddr) {
        if *self.link.borrow() == LinkState::Cut {
            return;
        }
        if self.is_swallowed(Direction::Forward) {
            // The upstream never sees the connection.
            return self.swallow(&mut downstream, Direction::Forward, 0).await;
        }
        let Ok(mut server) = TcpStream::connect(upstream).await else { return };
        // The protocol exchanges small messages.
        let _ = (downstream.set_nodelay(true), server.set_nodelay(true));
        // Borrowed halves do not shut down the other side when one direction ends.
        let ((downstream_read, downstream_write), (server_read, server_write)) = (downstream.split(), server.split());
        let mut cut = self.link.clone();
        // The end of one direction, for any reason, ends the connection.
        tokio::select! {
            () = self.pump(downstream_read, server_write, Direction::Forward) => {}
            () = self.pump(server_read, downstream_write, Direction::Backward) => {}
            _ = cut.wait_for(|state| *state == LinkState::Cut) => {}
        }
        // A half-open connection loses its end as well, so it stays open until the state changes.
        let is_silent = |state: &LinkState| {
            state.is_swallowing(Direction::Forward, self.number)
                || state.is_swallowing(Direction::Backward, self.number)
        };
        let _ = self.link.clone().wait_for(|state| !is_silent(state)).await;
    }

    fn is_swallowed(&self, direction: Direction) -> bool {
        self.link.borrow().is_swallowing(direction, self.number)
    }

    async fn pump(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, direction: Direction) {
        let mut link = self.link.clone();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).await;
            if link.wait_for(|state| !state.is_holding(direction)).await.is_err() {
                return;
            }
            if self.is_swallowed(direction) {
                return self.swallow(from, direction, read.unwrap_or_default()).await;
            }
            let Ok(length @ 1..) = read else { return };
            if to.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    }

    /// Reads and discards all bytes until the state changes, and counts them in addition to the
    /// `already_read` ones.
    async fn swallow(&self, mut from: impl AsyncRead + Unpin, direction: Direction, already_read: usize) {
        let count = |length: usize| self.swallowed.fetch_add(length.try_into().unwrap(), Ordering::SeqCst);
        count(already_read);
        let mut link = self.link.clone();
        let mut buffer = vec![0; 16 * 1024];
        let drain = async {
            while let Ok(length @ 1..) = from.read(&mut buffer).await {
                count(length);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = drain => {}
            _ = link.wait_for(|state| !state.is_swallowing(direction, self.number)) => {}
        }
    }
}
