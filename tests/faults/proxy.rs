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
pub enum Line {
    Open,
    /// What there was is closed, and so is what comes.
    Cut,
    /// Everything is taken and nothing arrives, until it opens: then it arrives late.
    Blocked,
    /// What the replica sends arrives, and it hears nothing.
    Deaf,
    /// Everything is taken and nothing arrives, ever, and nobody is told that the connection is gone. What has lost
    /// anything is closed when the line changes again.
    Silent {
        lost: Lost,
        /// The first connection that gets through all the same.
        before: u64,
    },
}

/// What a silent line loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// What the replica sends.
    There,
    /// What the database answers.
    Back,
    Both,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

/// One connection: its number, and the line that it is on.
#[derive(Clone)]
struct Connection {
    number: u64,
    line: watch::Receiver<Line>,
    swallowed: Arc<AtomicU64>,
}

/// A proxy, as long as this lives.
pub struct Proxy {
    pub address: SocketAddr,
    line: Arc<watch::Sender<Line>>,
    connections: Arc<AtomicU64>,
    swallowed: Arc<AtomicU64>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Line {
    fn holds(self, way: Way) -> bool {
        match self {
            Self::Blocked => true,
            Self::Deaf => way == Way::Back,
            Self::Open | Self::Cut | Self::Silent { .. } => false,
        }
    }

    fn swallows(self, way: Way, connection: u64) -> bool {
        match self {
            Self::Silent { lost, before } => connection < before && lost.has(way),
            Self::Open | Self::Cut | Self::Blocked | Self::Deaf => false,
        }
    }
}

impl Lost {
    fn has(self, way: Way) -> bool {
        match self {
            Self::There => way == Way::There,
            Self::Back => way == Way::Back,
            Self::Both => true,
        }
    }
}

impl Proxy {
    /// In front of whatever is at the address that is watched.
    pub async fn start(upstream: watch::Receiver<SocketAddr>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let line = Arc::new(watch::Sender::new(Line::Open));
        let (connections, swallowed) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let (lines, numbers, lost) = (Arc::clone(&line), Arc::clone(&connections), Arc::clone(&swallowed));
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else { continue };
                let number = numbers.fetch_add(1, Ordering::SeqCst);
                let connection = Connection { number, line: lines.subscribe(), swallowed: Arc::clone(&lost) };
                tokio::spawn(connection.carry(near, *upstream.borrow()));
            }
        });
        Self { address, line, connections, swallowed, accepting }
    }

    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }

    /// As with a host that lost its power: nothing gets through any more.
    pub fn fall_silent(&self, lost: Lost) {
        self.set(Line::Silent { lost, before: u64::MAX });
    }

    /// As with a firewall that forgot what it had let through: what is connected now is silent, and what comes is good.
    pub fn forget(&self, lost: Lost) {
        self.set(Line::Silent { lost, before: self.connections.load(Ordering::SeqCst) });
    }

    /// How many bytes were taken and never arrived.
    pub fn swallowed(&self) -> u64 {
        self.swallowed.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.set(Line::Cut);
    }
}

impl Connection {
    async fn carry(self, mut near: TcpStream, upstream: SocketAddr) {
        if *self.line.borrow() == Line::Cut {
            return;
        }
        if self.is_swallowed(Way::There) {
            // Nobody on the other side ever hears of it.
            return self.swallow(&mut near, Way::There, 0).await;
        }
        let Ok(mut far) = TcpStream::connect(upstream).await else { return };
        // Small messages back and forth.
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        // Borrowed halves: the end of one way is no word to the other side.
        let ((near_read, near_write), (far_read, far_write)) = (near.split(), far.split());
        let mut cut = self.line.clone();
        // However one way ends, the connection is over.
        tokio::select! {
            () = self.pump(near_read, far_write, Way::There) => {}
            () = self.pump(far_read, near_write, Way::Back) => {}
            _ = cut.wait_for(|line| *line == Line::Cut) => {}
        }
        // Where anything is lost, so is the word that it is over.
        let is_silent = |line: &Line| line.swallows(Way::There, self.number) || line.swallows(Way::Back, self.number);
        let _ = self.line.clone().wait_for(|line| !is_silent(line)).await;
    }

    fn is_swallowed(&self, way: Way) -> bool {
        self.line.borrow().swallows(way, self.number)
    }

    async fn pump(&self, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, way: Way) {
        let mut line = self.line.clone();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let read = from.read(&mut buffer).await;
            if line.wait_for(|line| !line.holds(way)).await.is_err() {
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
    async fn swallow(&self, mut from: impl AsyncRead + Unpin, way: Way, taken: usize) {
        let count = |length: usize| self.swallowed.fetch_add(length.try_into().unwrap(), Ordering::SeqCst);
        count(taken);
        let mut line = self.line.clone();
        let mut buffer = vec![0; 16 * 1024];
        let drain = async {
            while let Ok(length @ 1..) = from.read(&mut buffer).await {
                count(length);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = drain => {}
            _ = line.wait_for(|line| !line.swallows(way, self.number)) => {}
        }
    }
}
