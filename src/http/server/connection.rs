//! The state of one connection: its requests, what it holds for its client, and since when it waits
//! for its client.
//!
//! The time is a tick counter that the listener advances, so that a request reads no clock. A limit
//! takes effect at most one tick late.

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::{sync::Notify, task::AbortHandle};

use crate::http::server::limits::EndReason;

/// What all connections of a listener share.
#[derive(Debug)]
pub(super) struct ListenerLoad {
    /// Ticks since the start of the listener, from 1 on: 0 stands for "not".
    now: AtomicU64,
    limits: MemoryLimits,
    /// Bytes of unread responses.
    unread: AtomicUsize,
    /// Bytes of incomplete requests.
    incomplete: AtomicUsize,
    /// One of the limits is exceeded.
    pub(super) exceeded: Notify,
}

/// Maximum bytes that a listener holds for its clients.
#[derive(Clone, Copy, Debug)]
pub(super) struct MemoryLimits {
    pub(super) unread: usize,
    pub(super) incomplete: usize,
}

impl ListenerLoad {
    pub(super) fn new(limits: MemoryLimits) -> Self {
        Self {
            now: AtomicU64::new(1),
            limits,
            unread: AtomicUsize::new(0),
            incomplete: AtomicUsize::new(0),
            exceeded: Notify::new(),
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    pub(super) fn advance(&self) -> u64 {
        self.now.fetch_add(1, Relaxed) + 1
    }

    pub(super) fn unread(&self) -> usize {
        self.unread.load(Relaxed)
    }

    pub(super) fn incomplete(&self) -> usize {
        self.incomplete.load(Relaxed)
    }

    /// Counts bytes, and notifies the listener if they exceed the limit.
    fn hold(&self, held: &AtomicUsize, limit: usize, bytes: usize) {
        if held.fetch_add(bytes, Relaxed).saturating_add(bytes) > limit {
            self.exceeded.notify_one();
        }
    }
}

/// Timeouts in ticks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    pub(super) keep_alive: u64,
    pub(super) headers: u64,
    pub(super) progress: u64,
}

/// The HTTP version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// The first bytes have not arrived.
    Unknown,
    Http1,
    Http2,
}

/// How the server ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Requests in progress are finished.
    Graceful,
    /// At once.
    Abort,
}

/// Since when a connection is in the state that it is in, in ticks.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    version: Version,
    requests: usize,
    idle_since: u64,
    headers_since: Option<u64>,
    blocked_since: Option<u64>,
    closing_since: Option<u64>,
}

impl Waiting {
    /// Returns whether and why the connection is to be ended.
    fn overdue(self, now: u64, timeouts: Timeouts) -> Option<(EndReason, End)> {
        let exceeds = |since: Option<u64>, limit: u64| since.is_some_and(|since| now.saturating_sub(since) > limit);
        let is_idle = self.requests == 0;
        if exceeds(self.blocked_since, timeouts.progress) {
            Some((EndReason::Progress, End::Abort))
        } else if is_idle && self.version != Version::Http2 && exceeds(self.headers_since, timeouts.headers) {
            Some((EndReason::Headers, End::Abort))
        } else if is_idle && exceeds(self.closing_since, timeouts.headers) {
            Some((EndReason::Idle, End::Abort))
        } else if is_idle && self.closing_since.is_none() && exceeds(Some(self.idle_since), timeouts.keep_alive) {
            Some((EndReason::Idle, End::Graceful))
        } else {
            None
        }
    }
}

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Connection {
    load: Arc<ListenerLoad>,
    max_unread: usize,
    version: AtomicU8,
    /// Requests in progress: until the last byte of the response is handed to the transport.
    requests: AtomicUsize,
    idle_since: AtomicU64,
    headers_since: AtomicU64,
    blocked_since: AtomicU64,
    closing_since: AtomicU64,
    /// Bytes of unread responses.
    unread: AtomicUsize,
    has_room: Notify,
    /// Bytes of incomplete requests, and those of them that belong to headers of HTTP/1.
    incomplete: AtomicUsize,
    incomplete_headers: AtomicUsize,
    /// Tick at which a request was completed, or the first of them began.
    completed_at: AtomicU64,
    streams: Mutex<Vec<Arc<ResponseStream>>>,
    /// The stream whose task the executor starts next.
    starting: Mutex<Option<Arc<ResponseStream>>>,
    /// The peer, unless it is a trusted proxy.
    peer: OnceLock<IpAddr>,
    is_aborted: AtomicBool,
    end: Mutex<Option<End>>,
    ended: Notify,
}

impl Connection {
    pub(super) fn new(load: Arc<ListenerLoad>, max_unread: usize) -> Self {
        let now = load.now();
        Self {
            load,
            max_unread,
            version: AtomicU8::new(0),
            requests: AtomicUsize::new(0),
            idle_since: AtomicU64::new(now),
            headers_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            closing_since: AtomicU64::new(0),
            unread: AtomicUsize::new(0),
            has_room: Notify::new(),
            incomplete: AtomicUsize::new(0),
            incomplete_headers: AtomicUsize::new(0),
            completed_at: AtomicU64::new(now),
            streams: Mutex::default(),
            starting: Mutex::default(),
            peer: OnceLock::new(),
            is_aborted: AtomicBool::new(false),
            end: Mutex::default(),
            ended: Notify::new(),
        }
    }

    // ---- what the transport reports -------------------------------------------------------------

    pub(super) fn version(&self) -> Version {
        match self.version.load(Relaxed) {
            1 => Version::Http1,
            2 => Version::Http2,
            _ => Version::Unknown,
        }
    }

    pub(super) fn set_version(&self, version: Version) {
        let number = match version {
            Version::Unknown => 0,
            Version::Http1 => 1,
            Version::Http2 => 2,
        };
        self.version.store(number, Relaxed);
    }

    /// Notes that the connection is read, or that the TLS handshake is done: the time for the first
    /// headers begins.
    pub(super) fn handshake_done(&self) {
        self.headers_since.store(self.load.now(), Relaxed);
    }

    /// Notes that bytes arrived. Without a request in progress, they belong to the headers of the
    /// next.
    pub(super) fn bytes_arrived(&self, bytes: usize) {
        if self.requests.load(Relaxed) > 0 {
            return;
        }
        if self.headers_since.load(Relaxed) == 0 {
            self.headers_since.store(self.load.now(), Relaxed);
        }
        if self.version() == Version::Http1 {
            self.incomplete_headers.fetch_add(bytes, Relaxed);
            self.hold_incomplete(bytes);
        }
    }

    /// Notes that the transport takes no more bytes.
    pub(super) fn write_blocked(&self) {
        if self.blocked_since.load(Relaxed) == 0 {
            self.blocked_since.store(self.load.now(), Relaxed);
        }
    }

    /// Notes that the transport took bytes.
    pub(super) fn write_progressed(&self) {
        if self.blocked_since.load(Relaxed) != 0 {
            self.blocked_since.store(0, Relaxed);
        }
    }

    // ---- requests -------------------------------------------------------------------------------

    pub(super) fn begin_request(self: &Arc<Self>) -> RequestInProgress {
        self.requests.fetch_add(1, Relaxed);
        self.headers_since.store(0, Relaxed);
        self.release_incomplete(self.incomplete_headers.swap(0, Relaxed));
        RequestInProgress(Arc::clone(self))
    }

    /// Waits until the client has read enough of earlier responses.
    pub(super) async fn wait_for_room(&self) {
        loop {
            let has_room = self.has_room.notified();
            if self.unread.load(Relaxed) < self.max_unread {
                return;
            }
            has_room.await;
        }
    }

    fn hold_incomplete(&self, bytes: usize) {
        if self.incomplete.fetch_add(bytes, Relaxed) == 0 {
            self.completed_at.store(self.load.now(), Relaxed);
        }
        self.load.hold(&self.load.incomplete, self.load.limits.incomplete, bytes);
    }

    fn release_incomplete(&self, bytes: usize) {
        if bytes > 0 {
            self.completed_at.store(self.load.now(), Relaxed);
            self.incomplete.fetch_sub(bytes, Relaxed);
            self.load.incomplete.fetch_sub(bytes, Relaxed);
        }
    }

    /// Hands a stream to the executor, which starts its task next.
    pub(super) fn set_starting(&self, stream: Arc<ResponseStream>) {
        *self.starting.lock() = Some(stream);
    }

    pub(super) fn take_starting(&self) -> Option<Arc<ResponseStream>> {
        self.starting.lock().take()
    }

    pub(super) fn add_stream(&self, stream: Arc<ResponseStream>) {
        self.streams.lock().push(stream);
    }

    /// Names the peer, once.
    pub(super) fn set_peer(&self, peer: IpAddr) {
        let _: Result<(), IpAddr> = self.peer.set(peer);
    }

    pub(super) fn peer(&self) -> Option<IpAddr> {
        self.peer.get().copied()
    }

    // ---- the end --------------------------------------------------------------------------------

    /// Returns how the connection is to be ended, as soon as that is decided.
    pub(super) async fn ended(&self) -> End {
        loop {
            let ended = self.ended.notified();
            if let Some(end) = self.end.lock().take() {
                return end;
            }
            ended.await;
        }
    }

    pub(super) fn request_end(&self, end: End) {
        match end {
            End::Graceful => self.closing_since.store(self.load.now(), Relaxed),
            End::Abort => self.is_aborted.store(true, Relaxed),
        }
        *self.end.lock() = Some(end);
        self.ended.notify_one();
    }

    /// Returns whether the connection was aborted: the kernel then discards what it has not sent.
    pub(super) fn is_aborted(&self) -> bool {
        self.is_aborted.load(Relaxed)
    }

    /// Releases what the connection knows of its streams, and the headers that did not arrive
    /// completely.
    pub(super) fn close(&self) {
        self.release_incomplete(self.incomplete_headers.swap(0, Relaxed));
        self.streams.lock().clear();
        *self.starting.lock() = None;
    }

    // ---- the checks of the listener -------------------------------------------------------------

    pub(super) fn unread(&self) -> usize {
        self.unread.load(Relaxed)
    }

    pub(super) fn incomplete(&self) -> usize {
        self.incomplete.load(Relaxed)
    }

    /// Returns the number of ticks since a request was completed.
    pub(super) fn ticks_without_request(&self, now: u64) -> u64 {
        now.saturating_sub(self.completed_at.load(Relaxed))
    }

    /// Returns whether and why the connection is to be ended.
    pub(super) fn overdue(&self, now: u64, timeouts: Timeouts) -> Option<(EndReason, End)> {
        let since = |ticks: &AtomicU64| Some(ticks.load(Relaxed)).filter(|tick| *tick != 0);
        let waiting = Waiting {
            version: self.version(),
            requests: self.requests.load(Relaxed),
            idle_since: self.idle_since.load(Relaxed),
            headers_since: since(&self.headers_since),
            blocked_since: since(&self.blocked_since),
            closing_since: since(&self.closing_since),
        };
        waiting.overdue(now, timeouts).filter(|_| !self.is_aborted())
    }

    /// Resets the streams whose responses make no progress, and returns how many. A stream that a
    /// reset did not free ends the connection.
    pub(super) fn reset_stalled_streams(&self, now: u64, limit: u64) -> Result<u64, EndReason> {
        let mut streams = self.streams.lock();
        // A stream that only this list names is finished.
        streams.retain(|stream| Arc::strong_count(stream) > 1);
        let mut reset = 0;
        for stream in streams.iter().filter(|stream| stream.is_stalled(now, limit)) {
            if !stream.reset(now) {
                return Err(EndReason::Progress);
            }
            reset += 1;
        }
        Ok(reset)
    }

    /// Returns the number of ticks since the last progress of its slowest response.
    pub(super) fn ticks_without_progress(&self, now: u64) -> u64 {
        let oldest = self.streams.lock().iter().map(|stream| stream.progressed.load(Relaxed)).min();
        now.saturating_sub(oldest.unwrap_or(now))
    }
}

/// A request in progress on a connection. Dropping it ends the request.
#[derive(Debug)]
pub(super) struct RequestInProgress(Arc<Connection>);

impl Drop for RequestInProgress {
    fn drop(&mut self) {
        // The order matters to the check: a connection never appears idle since long ago.
        self.0.idle_since.store(self.0.load.now(), Relaxed);
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

/// One response that the client reads: an HTTP/2 stream, or a large response of HTTP/1.
#[derive(Debug)]
pub(super) struct ResponseStream {
    connection: Arc<Connection>,
    unread: AtomicUsize,
    /// Whether the transport has not asked for more since it took a part of the response.
    awaits_transport: AtomicBool,
    /// Tick of the last progress.
    progressed: AtomicU64,
    is_reset: AtomicBool,
    /// The task of an HTTP/2 stream. Aborting it resets the stream.
    task: OnceLock<AbortHandle>,
}

impl ResponseStream {
    pub(super) fn new(connection: Arc<Connection>) -> Arc<Self> {
        let progressed = AtomicU64::new(connection.load.now());
        Arc::new(Self {
            connection,
            unread: AtomicUsize::new(0),
            awaits_transport: AtomicBool::new(false),
            progressed,
            is_reset: AtomicBool::new(false),
            task: OnceLock::new(),
        })
    }

    pub(super) fn set_task(&self, task: AbortHandle) {
        // Only the executor calls this, once.
        let _: Result<(), AbortHandle> = self.task.set(task);
    }

    /// Notes that the transport asks for the next part.
    pub(super) fn transport_polled(&self) {
        self.awaits_transport.store(false, Relaxed);
        self.progressed.store(self.connection.load.now(), Relaxed);
    }

    /// Notes that the transport took a part and is to ask for the next.
    pub(super) fn part_taken(&self) {
        self.awaits_transport.store(true, Relaxed);
    }

    fn is_stalled(&self, now: u64, limit: u64) -> bool {
        let waits = self.unread.load(Relaxed) > 0 || self.awaits_transport.load(Relaxed);
        waits && now.saturating_sub(self.progressed.load(Relaxed)) > limit
    }

    /// Resets the stream. Returns `false` if that is not possible, or was done before.
    fn reset(&self, now: u64) -> bool {
        let Some(task) = self.task.get() else { return false };
        self.progressed.store(now, Relaxed);
        task.abort();
        !self.is_reset.swap(true, Relaxed)
    }
}

/// Bytes of a response that the client has not read. Dropping it says that they are gone.
#[derive(Debug)]
pub(super) struct Unread {
    stream: Arc<ResponseStream>,
    bytes: usize,
}

impl Unread {
    pub(super) fn new(stream: Arc<ResponseStream>, bytes: usize) -> Self {
        let connection = &stream.connection;
        stream.unread.fetch_add(bytes, Relaxed);
        connection.unread.fetch_add(bytes, Relaxed);
        let load = &connection.load;
        load.hold(&load.unread, load.limits.unread, bytes);
        Self { stream, bytes }
    }

    /// Takes a part of the bytes, at most all of them.
    pub(super) fn take(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { stream: Arc::clone(&self.stream), bytes }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let connection = &self.stream.connection;
        self.stream.unread.fetch_sub(self.bytes, Relaxed);
        let before = connection.unread.fetch_sub(self.bytes, Relaxed);
        connection.load.unread.fetch_sub(self.bytes, Relaxed);
        let is_below = before.saturating_sub(self.bytes) < connection.max_unread;
        if before >= connection.max_unread && is_below {
            connection.has_room.notify_waiters();
        }
    }
}

/// A request that waits: for the rest of its body, until the client has read earlier responses, or
/// because its refusal is held back. Dropping it says that it waits no more.
#[derive(Debug)]
pub(super) struct IncompleteRequest {
    connection: Arc<Connection>,
    bytes: usize,
}

impl IncompleteRequest {
    /// Counts a request with the size of its headers.
    pub(super) fn new(connection: &Arc<Connection>, headers: usize) -> Self {
        let mut request = Self { connection: Arc::clone(connection), bytes: 0 };
        request.add(headers);
        request
    }

    /// Counts bytes that arrived.
    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.connection.hold_incomplete(bytes);
    }
}

impl Drop for IncompleteRequest {
    fn drop(&mut self) {
        self.connection.release_incomplete(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MemoryLimits = MemoryLimits { unread: 100, incomplete: 100 };

    const TIMEOUTS: Timeouts = Timeouts { keep_alive: 75, headers: 5, progress: 30 };

    /// A connection whose client waits for nothing, at tick 100.
    const QUIET: Waiting = Waiting {
        version: Version::Http1,
        requests: 0,
        idle_since: 100,
        headers_since: None,
        blocked_since: None,
        closing_since: None,
    };

    #[test]
    fn overdue_connection_is_ended_by_rule() {
        use {End::*, EndReason::*, Version::*};
        let headers = Waiting { headers_since: Some(100), ..QUIET };
        let blocked = Waiting { blocked_since: Some(100), requests: 1, ..QUIET };
        let closing = Waiting { closing_since: Some(100), idle_since: 1, ..QUIET };
        for (name, waiting, now, expected) in [
            ("keep-alive", QUIET, 175, None),
            ("idle", QUIET, 176, Some((Idle, Graceful))),
            ("idle HTTP/2", Waiting { version: Http2, ..QUIET }, 176, Some((Idle, Graceful))),
            ("request in progress", Waiting { requests: 1, ..QUIET }, 10_000, None),
            ("headers in time", headers, 105, None),
            ("slow headers", headers, 106, Some((Headers, Abort))),
            ("no first byte", Waiting { version: Unknown, ..headers }, 106, Some((Headers, Abort))),
            ("HTTP/2 pings are no headers", Waiting { version: Http2, ..headers }, 106, None),
            (
                "HTTP/2 pings do not extend keep-alive",
                Waiting { version: Http2, ..headers },
                176,
                Some((Idle, Graceful)),
            ),
            ("body of a request in progress", Waiting { requests: 1, ..headers }, 10_000, None),
            ("slow reader", blocked, 130, None),
            ("stalled reader", blocked, 131, Some((Progress, Abort))),
            ("stalled reader without request", Waiting { requests: 0, ..blocked }, 131, Some((Progress, Abort))),
            ("closing", closing, 105, None),
            ("client that does not close", closing, 106, Some((Idle, Abort))),
            ("closing with a request in progress", Waiting { requests: 1, ..closing }, 10_000, None),
        ] {
            assert_eq!(waiting.overdue(now, TIMEOUTS), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn unread_bytes_are_counted_until_dropped() {
        let load = Arc::new(ListenerLoad::new(LIMITS));
        let connection = Arc::new(Connection::new(Arc::clone(&load), 10));
        let stream = ResponseStream::new(Arc::clone(&connection));
        let mut unread = Unread::new(Arc::clone(&stream), 12);
        let part = unread.take(5);
        assert_eq!((load.unread(), connection.unread(), unread.bytes(), part.bytes()), (12, 12, 7, 5));
        let waiting = tokio::spawn({
            let connection = Arc::clone(&connection);
            async move { connection.wait_for_room().await }
        });
        drop(part);
        waiting.await.unwrap();
        assert_eq!(unread.take(100).bytes(), 7);
        drop(unread);
        assert_eq!((load.unread(), connection.unread()), (0, 0));
        let _more = Unread::new(stream, 101);
        load.exceeded.notified().await;
    }

    #[tokio::test]
    async fn incomplete_requests_are_counted_until_dropped() {
        let load = Arc::new(ListenerLoad::new(LIMITS));
        let connection = Arc::new(Connection::new(Arc::clone(&load), 1000));
        connection.set_version(Version::Http1);
        connection.bytes_arrived(30);
        connection.bytes_arrived(10);
        assert_eq!((load.incomplete(), connection.incomplete()), (40, 40), "headers");
        let request = connection.begin_request();
        assert_eq!(load.incomplete(), 0);
        connection.bytes_arrived(30);
        assert_eq!(load.incomplete(), 0, "bytes of a body are counted when they are read");
        load.advance();
        let mut body = IncompleteRequest::new(&connection, 20);
        load.advance();
        body.add(50);
        assert_eq!((load.incomplete(), connection.ticks_without_request(load.now())), (70, 1));
        let other = IncompleteRequest::new(&connection, 31);
        load.exceeded.notified().await;
        drop(other);
        assert_eq!((load.incomplete(), connection.ticks_without_request(load.now())), (70, 0));
        drop((body, request));
        connection.bytes_arrived(7);
        connection.close();
        assert_eq!((load.incomplete(), connection.incomplete()), (0, 0));
        connection.set_version(Version::Http2);
        connection.bytes_arrived(7);
        assert_eq!(load.incomplete(), 0, "frames of HTTP/2 are read at once");
    }

    #[tokio::test]
    async fn stalled_stream_is_reset_once_then_ends_the_connection() {
        let load = Arc::new(ListenerLoad::new(LIMITS));
        let connection = Arc::new(Connection::new(Arc::clone(&load), 1000));
        let stream = ResponseStream::new(Arc::clone(&connection));
        connection.add_stream(Arc::clone(&stream));
        assert_eq!(connection.reset_stalled_streams(40, 30), Ok(0), "nothing is unread");
        let unread = Unread::new(Arc::clone(&stream), 1);
        assert_eq!(connection.reset_stalled_streams(31, 30), Ok(0));
        assert_eq!(connection.reset_stalled_streams(32, 30), Err(EndReason::Progress), "HTTP/1 has no stream to reset");
        stream.set_task(tokio::spawn(std::future::pending::<()>()).abort_handle());
        assert_eq!(connection.reset_stalled_streams(32, 30), Ok(1));
        assert_eq!(connection.reset_stalled_streams(62, 30), Ok(0));
        assert_eq!(connection.reset_stalled_streams(63, 30), Err(EndReason::Progress), "the reset freed nothing");
        drop((unread, stream));
        assert_eq!(connection.reset_stalled_streams(1000, 30), Ok(0));
        assert!(connection.streams.lock().is_empty());
        assert_eq!(load.unread(), 0);
    }
}
