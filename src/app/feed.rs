//! The revocation feed: the log, projected for subscribers that verify tokens offline.
//!
//! A position is sent only when everything up to it has been sent. A subscriber that continues from
//! its position has therefore missed nothing, at whatever replica it continues.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex as SyncMutex;
use tokio::{
    sync::{Mutex, mpsc},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    app::{
        ApiCaller, AuthError, ConflictError, Error, RequestContext, Service,
        replication::follower::{Follower, replay_horizon},
    },
    domain::{
        id::ClientId,
        registry::client::{ADMIN_SCOPE, AUDIT_SCOPE, Client, REVOCATIONS_SCOPE},
        revocation::{
            LogEntry, LogPosition,
            feed::{FeedEntry, FeedScope, project},
        },
        secret::Secret,
        time::Timestamp,
    },
    ports::{Clock, LogStore, Outage},
};

/// The longest time that a request may wait for a new entry.
pub const LONG_POLL_TIMEOUT: Duration = Duration::from_secs(30);
/// The interval at which a stream sends its position and checks that the subscriber is still
/// authorized.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// The time after which a stream is closed if its subscriber does not read.
const SLOW_CONSUMER_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval at which the log is read when no notification arrives.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// The number of log entries that are read at a time.
const SEGMENT_SIZE: u32 = 1000;
/// The number of cached segments. Subscribers that keep up are at the same few positions.
const MAX_CACHED_SEGMENTS: usize = 16;
/// The number of positions behind the head above which a subscriber gets no entries that are long
/// out of date.
const LAG_THRESHOLD: u64 = 10_000;
/// The number of events that may be buffered for one subscriber.
const MAX_BUFFERED_EVENTS: usize = 64;
const OP_READ_FEED_LOG: &str = "read the revocation log for the feed";
/// The scopes of which a subscriber needs one.
const SUBSCRIBER_SCOPES: [&str; 3] = [REVOCATIONS_SCOPE, ADMIN_SCOPE, AUDIT_SCOPE];

/// The number of concurrent subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriberLimits {
    /// Overall.
    pub total: usize,
    /// With the API tokens of one client.
    pub per_client: usize,
}

/// A part of the log, as one subscriber sees it.
#[derive(Debug)]
pub struct FeedPage {
    /// The position that the page continues from.
    pub from: LogPosition,
    /// The position up to which everything has been sent.
    pub up_to: LogPosition,
    /// The end of the log, as far as this replica knows. If it is beyond `up_to`, there are more
    /// entries.
    pub head: LogPosition,
    /// The time at which the page was read.
    pub at: Timestamp,
    /// The entries that the subscriber may see.
    pub entries: Vec<FeedEntry>,
}

/// An event of a stream.
#[derive(Debug)]
pub enum FeedEvent {
    /// An entry, and the position that it continues from.
    Entry(FeedEntry, LogPosition),
    /// A position up to which everything has been sent, which was the end of the log at this time.
    Position(LogPosition, Timestamp),
    /// The end of the stream, and its reason.
    End(&'static str),
}

/// A caller that is authorized to read the feed.
#[derive(Debug)]
pub struct Subscriber {
    client: ClientId,
    scope: FeedScope,
    bearer: Secret,
    call: String,
}

impl Subscriber {
    /// Returns the client that follows the feed.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        &self.client
    }
}

impl Service {
    /// Authorizes the bearer of an API token to read the feed; `call` as in
    /// [`authorize`](Self::authorize).
    pub async fn authorize_subscriber(
        &self,
        bearer: Secret,
        call: String,
        cx: &RequestContext,
    ) -> Result<Subscriber, Error> {
        let caller = self.authorize(&bearer, &SUBSCRIBER_SCOPES, &call, cx).await?;
        let scope = resolve_scope(&caller)?;
        Ok(Subscriber { client: caller.client().id().clone(), scope, bearer, call })
    }

    /// Returns the entries after a position, or from the start of the log. Waits up to `wait` for
    /// an entry that the subscriber may see.
    pub async fn read_feed_page(
        &self,
        subscriber: &Subscriber,
        after: Option<LogPosition>,
        wait: Duration,
        cx: &RequestContext,
    ) -> Result<FeedPage, Error> {
        let feed = &self.inner.feed;
        let from = after.unwrap_or_default();
        feed.check_position(from, cx.now).await?;
        if wait.is_zero() {
            return Ok(feed.read_page(&subscriber.scope, from, cx.now).await?);
        }
        let _permit = feed.acquire_permit(&subscriber.client)?;
        let mut page = feed.wait_for_entries(&subscriber.scope, from, wait.min(LONG_POLL_TIMEOUT)).await?;
        page.from = from;
        // A subscriber that lost its authorization while waiting gets nothing.
        self.reauthorize(subscriber, cx).await?;
        Ok(page)
    }

    /// Opens a stream of the entries after a position, or from the start of the log. The stream
    /// ends when the subscriber disconnects, is too slow or loses its authorization, or when the
    /// server stops.
    pub async fn open_feed_stream(
        &self,
        subscriber: Subscriber,
        after: Option<LogPosition>,
        cx: RequestContext,
    ) -> Result<mpsc::Receiver<FeedEvent>, Error> {
        let from = after.unwrap_or_default();
        self.inner.feed.check_position(from, cx.now).await?;
        let permit = self.inner.feed.acquire_permit(&subscriber.client)?;
        let (sender, receiver) = mpsc::channel(MAX_BUFFERED_EVENTS);
        let service = self.clone();
        tokio::spawn(async move {
            let _permit = permit;
            // An error means that the subscriber has disconnected or does not read.
            let _: Result<(), StreamClosedError> = service.stream_entries(&subscriber, from, &sender, &cx).await;
        });
        Ok(receiver)
    }

    /// Ends all streams and long polls, current and future ones. A server that stops would
    /// otherwise wait for them.
    pub fn end_streams(&self) {
        self.inner.feed.stopping.cancel();
    }

    /// Returns the number of subscribers.
    #[must_use]
    pub fn subscriber_count(&self) -> usize {
        self.inner.feed.subscribers.lock().values().sum()
    }

    async fn stream_entries(
        &self,
        subscriber: &Subscriber,
        mut position: LogPosition,
        sender: &mpsc::Sender<FeedEvent>,
        cx: &RequestContext,
    ) -> Result<(), StreamClosedError> {
        let feed = &self.inner.feed;
        // A new subscriber gets its position at once.
        let mut max_wait = Duration::ZERO;
        loop {
            let page = tokio::select! {
                page = feed.wait_for_entries(&subscriber.scope, position, max_wait) => page,
                () = sender.closed() => return Err(StreamClosedError),
            };
            max_wait = KEEP_ALIVE_INTERVAL;
            let page = match (page, self.reauthorize(subscriber, cx).await) {
                (Ok(page), Ok(())) => page,
                (Err(_), _) | (_, Err(Error::Unavailable(_))) => {
                    return send_event(sender, FeedEvent::End("unknown")).await;
                }
                (_, Err(_)) => return send_event(sender, FeedEvent::End("not_allowed")).await,
            };
            for entry in page.entries {
                let from = std::mem::replace(&mut position, entry.seq);
                send_event(sender, FeedEvent::Entry(entry, from)).await?;
            }
            position = page.up_to;
            if position >= page.head {
                send_event(sender, FeedEvent::Position(position, page.at)).await?;
            }
            if feed.stopping.is_cancelled() {
                return send_event(sender, FeedEvent::End("stopping")).await;
            }
        }
    }

    async fn reauthorize(&self, subscriber: &Subscriber, cx: &RequestContext) -> Result<(), Error> {
        // The request is long: it is judged by the current time, not by the time at which it began.
        let cx = RequestContext { now: self.clock().now(), ..cx.clone() };
        let caller = self.authorize(&subscriber.bearer, &SUBSCRIBER_SCOPES, &subscriber.call, &cx).await?;
        if resolve_scope(&caller)? == subscriber.scope { Ok(()) } else { Err(AuthError::ClientNotAllowed.into()) }
    }
}

fn resolve_scope(caller: &ApiCaller) -> Result<FeedScope, AuthError> {
    match caller.client().client() {
        Ok(Client::Resource(resource)) => Ok(FeedScope::Resource(resource.uri.clone())),
        Ok(Client::Agent(_)) => Err(AuthError::ClientNotAllowed),
        // A token with an admin scope whose client is not registered was issued with the server's
        // own keys.
        Ok(Client::Admin(_)) | Err(_) => Ok(FeedScope::Admin),
    }
}

/// The subscriber has disconnected, or does not read.
struct StreamClosedError;

async fn send_event(sender: &mpsc::Sender<FeedEvent>, event: FeedEvent) -> Result<(), StreamClosedError> {
    match timeout(SLOW_CONSUMER_TIMEOUT, sender.send(event)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(StreamClosedError),
    }
}

/// The ports of a [`Feed`].
pub(super) struct FeedPorts {
    pub(super) log: Arc<dyn LogStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) follower: Arc<Follower>,
}

/// Reads the log for all subscribers, and limits their number.
pub(super) struct Feed {
    ports: FeedPorts,
    limits: SubscriberLimits,
    subscribers: Arc<SubscriberCounts>,
    cache: Mutex<SegmentCache>,
    stopping: CancellationToken,
}

/// Cached segments of one log.
#[derive(Default)]
struct SegmentCache {
    log_epoch: u64,
    segments: VecDeque<Arc<LogSegment>>,
}

/// The number of subscribers of each client.
type SubscriberCounts = SyncMutex<HashMap<ClientId, usize>>;

/// A part of the log: the entries after `from`, up to `up_to`. It never changes.
struct LogSegment {
    from: LogPosition,
    up_to: LogPosition,
    entries: Vec<LogEntry>,
}

/// The permission to be one of the concurrent subscribers; dropping it releases it.
struct SubscriberPermit {
    subscribers: Arc<SubscriberCounts>,
    client: ClientId,
}

impl Drop for SubscriberPermit {
    fn drop(&mut self) {
        let mut counts = self.subscribers.lock();
        if let Some(count) = counts.get_mut(&self.client) {
            *count = count.saturating_sub(1);
        }
        counts.retain(|_, count| *count > 0);
    }
}

impl Feed {
    pub(super) fn new(ports: FeedPorts, limits: SubscriberLimits) -> Self {
        let (subscribers, cache) = (Arc::default(), Mutex::default());
        Self { ports, limits, subscribers, cache, stopping: CancellationToken::new() }
    }

    fn acquire_permit(&self, client: &ClientId) -> Result<SubscriberPermit, ConflictError> {
        acquire_permit(&self.subscribers, self.limits, client)
    }

    /// Checks that the log has reached a position. Otherwise the position belongs to another
    /// log: of another store, or of a state of this store that was lost.
    async fn check_position(&self, from: LogPosition, now: Timestamp) -> Result<(), Error> {
        let applied = self.ports.follower.snapshot(now).await?.seq;
        // Another replica may be ahead, so the store decides.
        if from > applied && from > self.ports.log.read_log_head().await? {
            Err(ConflictError::UnknownCursor.into())
        } else {
            Ok(())
        }
    }

    /// Returns the entries after a position as soon as one is visible in `scope`, or after
    /// `max_wait`.
    async fn wait_for_entries(
        &self,
        scope: &FeedScope,
        from: LogPosition,
        max_wait: Duration,
    ) -> Result<FeedPage, Outage> {
        let FeedPorts { clock, follower, .. } = &self.ports;
        let deadline = clock.monotonic().saturating_add(max_wait);
        let mut applied = follower.subscribe_position();
        let mut position = from;
        loop {
            applied.mark_unchanged();
            let page = self.read_page(scope, position, clock.now()).await?;
            position = page.up_to;
            let remaining = deadline.saturating_sub(clock.monotonic());
            let is_over = remaining.is_zero() || self.stopping.is_cancelled();
            if !page.entries.is_empty() || is_over {
                return Ok(page);
            }
            if position < page.head {
                continue;
            }
            tokio::select! {
                _ = applied.changed() => {}
                () = self.stopping.cancelled() => {}
                () = sleep(remaining.min(POLL_INTERVAL)) => {}
            }
        }
    }

    /// Returns the entries after a position that are there now.
    async fn read_page(&self, scope: &FeedScope, from: LogPosition, now: Timestamp) -> Result<FeedPage, Outage> {
        let snapshot = self.ports.follower.snapshot(now).await?;
        let head = snapshot.seq;
        let segment = self.load_segment(from, head, snapshot.log_epoch, now).await?;
        let entries = segment.entries.iter().filter_map(|entry| project(entry, scope)).collect();
        Ok(FeedPage { from, up_to: segment.up_to, head: head.max(segment.up_to), at: now, entries })
    }

    /// Returns the segment of this log that starts after `from`. The store has every entry up to
    /// `head`.
    async fn load_segment(
        &self,
        from: LogPosition,
        head: LogPosition,
        log_epoch: u64,
        now: Timestamp,
    ) -> Result<Arc<LogSegment>, Outage> {
        if head <= from {
            return Ok(Arc::new(LogSegment { from, up_to: from, entries: Vec::new() }));
        }
        if head.number().saturating_sub(from.number()) > LAG_THRESHOLD {
            return self.read_segment(from, head, replay_horizon(now)).await.map(Arc::new);
        }
        // Locked during the read: subscribers at the same position share it.
        let mut cache = self.cache.lock().await;
        if cache.log_epoch != log_epoch {
            *cache = SegmentCache { log_epoch, ..SegmentCache::default() };
        }
        if let Some(segment) = cache.segments.iter().find(|segment| segment.from == from) {
            return Ok(Arc::clone(segment));
        }
        let segment = Arc::new(self.read_segment(from, head, Timestamp::EPOCH).await?);
        let mut numbered = (from.number().saturating_add(1)..).zip(&segment.entries);
        let has_no_gap = numbered.all(|(number, entry)| entry.seq.number() == number);
        let last = segment.entries.last().map_or(from, |entry| entry.seq);
        if !has_no_gap || last < segment.up_to {
            return Err(Outage::during(OP_READ_FEED_LOG)("the log has a gap"));
        }
        cache.segments.truncate(MAX_CACHED_SEGMENTS - 1);
        cache.segments.push_front(Arc::clone(&segment));
        Ok(segment)
    }

    /// Reads the entries after `from` that were not out of date at `alive_at`.
    async fn read_segment(
        &self,
        from: LogPosition,
        head: LogPosition,
        alive_at: Timestamp,
    ) -> Result<LogSegment, Outage> {
        let entries = self.ports.log.read_log_after(from, alive_at, SEGMENT_SIZE).await?;
        let last = entries.last().map_or(from, |entry| entry.seq);
        let is_last = entries.len() < SEGMENT_SIZE as usize;
        // `head` was in the log before this read: whatever is missing up to it is out of date.
        let up_to = if is_last { head.max(last) } else { last };
        Ok(LogSegment { from, up_to, entries })
    }
}

fn acquire_permit(
    subscribers: &Arc<SubscriberCounts>,
    limits: SubscriberLimits,
    client: &ClientId,
) -> Result<SubscriberPermit, ConflictError> {
    let mut counts = subscribers.lock();
    let of_client = counts.get(client).copied().unwrap_or_default();
    if of_client >= limits.per_client || counts.values().sum::<usize>() >= limits.total {
        return Err(ConflictError::TooManySubscribers);
    }
    counts.insert(client.clone(), of_client.saturating_add(1));
    Ok(SubscriberPermit { subscribers: Arc::clone(subscribers), client: client.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_counted_and_released() {
        let subscribers = Arc::<SubscriberCounts>::default();
        let limits = SubscriberLimits { total: 3, per_client: 2 };
        let acquire = |client: &ClientId| acquire_permit(&subscribers, limits, client);
        let (a, b): (ClientId, ClientId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let first = acquire(&a).unwrap();
        let _second = acquire(&a).unwrap();
        assert!(acquire(&a).is_err(), "the limit of the client is reached");
        let _third = acquire(&b).unwrap();
        assert!(acquire(&b).is_err(), "the overall limit is reached");
        drop(first);
        let _fourth = acquire(&b).unwrap();
        assert_eq!(subscribers.lock().values().sum::<usize>(), 3);
    }
}
