//! The revocation feed: the log, told to those who check tokens offline.
//!
//! A position is told only when everything up to it has been told. So a follower that goes on from where it is has missed
//! nothing, at whatever replica it asks.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Mutex, mpsc, watch},
    time::{sleep, timeout},
};

use crate::{
    app::{ApiCaller, AuthError, ConflictError, Error, RequestContext, Service, replication::follower::replay_horizon},
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
    ports::{Outage, Store},
};

/// The longest that a request may wait for something new.
pub const LONG_POLL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a stream says how far it is, and looks whether its caller may still listen.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Who does not take what is sent for so long is dropped.
const SLOW_CONSUMER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a position is looked for that nobody told of.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// How many places of the log are read at a time.
const SEGMENT_SIZE: u32 = 1000;
/// How many stretches are kept: those who follow stand at the same few places.
const MAX_CACHED_SEGMENTS: usize = 16;
/// Who is so many places behind is spared what has long ended.
const LAG_THRESHOLD: u64 = 10_000;
/// How many messages may be on their way to one listener.
const MAX_BUFFERED_EVENTS: usize = 64;
const OP_READ_FEED_LOG: &str = "read the revocation log for the feed";

/// How many may listen at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriberLimits {
    /// All together.
    pub total: usize,
    /// With one client's API tokens.
    pub per_client: usize,
}

/// A part of the log, as it is told to one listener.
#[derive(Debug)]
pub struct FeedPage {
    /// The position that it goes on from.
    pub from: LogPosition,
    /// Everything up to here has been told.
    pub up_to: LogPosition,
    /// Where the log ends, as far as this replica knows. Beyond `up_to`: there is more.
    pub head: LogPosition,
    /// When this was so.
    pub at: Timestamp,
    /// What is told.
    pub entries: Vec<FeedEntry>,
}

/// What a stream says.
#[derive(Debug)]
pub enum FeedEvent {
    /// An entry, and the position that it goes on from.
    Entry(FeedEntry, LogPosition),
    /// Everything up to a position has been told, and was all there was at that time.
    Position(LogPosition, Timestamp),
    /// The stream ends, and why.
    End(&'static str),
}

/// Somebody who may follow the log.
#[derive(Debug)]
pub struct Subscriber {
    client: ClientId,
    scope: FeedScope,
    bearer: Secret,
    call: String,
}

impl Service {
    /// Whether the bearer of an API token may follow the log; `call` as in [`authorize`](Self::authorize).
    pub async fn authorize_subscriber(
        &self,
        bearer: Secret,
        call: String,
        cx: &RequestContext,
    ) -> Result<Subscriber, Error> {
        let caller = self.authorize(&bearer, &[REVOCATIONS_SCOPE, ADMIN_SCOPE, AUDIT_SCOPE], &call, cx).await?;
        let audience = resolve_scope(&caller)?;
        Ok(Subscriber { client: caller.client().id().clone(), scope: audience, bearer, call })
    }

    /// What came after a position; from the beginning, where there is none. Waits so long for something to tell.
    pub async fn read_feed_page(
        &self,
        subscriber: &Subscriber,
        after: Option<LogPosition>,
        wait: Duration,
        cx: &RequestContext,
    ) -> Result<FeedPage, Error> {
        let from = after.unwrap_or_default();
        self.check_position(from, cx.now).await?;
        if wait.is_zero() {
            return Ok(self.read_page(subscriber, from, cx.now).await?);
        }
        let _permit = self.inner.feed.acquire_permit(&subscriber.client)?;
        let mut page = self.wait_for_entries(subscriber, from, wait.min(LONG_POLL_TIMEOUT)).await?;
        page.from = from;
        // Whoever lost the right to listen while waiting hears nothing.
        self.reauthorize(subscriber, cx).await?;
        Ok(page)
    }

    /// Tells everything after a position, and whatever comes, until the listener goes, is too slow or may not listen any
    /// more, or we stop.
    pub async fn open_feed_stream(
        &self,
        subscriber: Subscriber,
        after: Option<LogPosition>,
        cx: RequestContext,
    ) -> Result<mpsc::Receiver<FeedEvent>, Error> {
        let from = after.unwrap_or_default();
        self.check_position(from, cx.now).await?;
        let permit = self.inner.feed.acquire_permit(&subscriber.client)?;
        let (sender, receiver) = mpsc::channel(MAX_BUFFERED_EVENTS);
        let service = self.clone();
        tokio::spawn(async move {
            let _seat = permit;
            // An error means that the listener is gone, or does not listen.
            let _: Result<(), StreamClosedError> = service.stream_entries(&subscriber, from, &sender, &cx).await;
        });
        Ok(receiver)
    }

    /// Ends all streams and waits, now and from now on: nothing else would, when the server stops.
    pub fn end_streams(&self) {
        self.inner.feed.stopping.send_replace(true);
    }

    /// How many listen now.
    #[must_use]
    pub fn subscriber_count(&self) -> usize {
        self.inner.feed.in_use().values().sum()
    }

    async fn stream_entries(
        &self,
        subscriber: &Subscriber,
        mut at: LogPosition,
        sender: &mpsc::Sender<FeedEvent>,
        cx: &RequestContext,
    ) -> Result<(), StreamClosedError> {
        // Who has just come is told at once where it is.
        let mut max_wait = Duration::ZERO;
        loop {
            let page = tokio::select! {
                page = self.wait_for_entries(subscriber, at, max_wait) => page,
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
                let from = std::mem::replace(&mut at, entry.seq);
                send_event(sender, FeedEvent::Entry(entry, from)).await?;
            }
            at = page.up_to;
            if at >= page.head {
                send_event(sender, FeedEvent::Position(at, page.at)).await?;
            }
            if self.inner.feed.is_stopping() {
                return send_event(sender, FeedEvent::End("stopping")).await;
            }
        }
    }

    async fn reauthorize(&self, subscriber: &Subscriber, cx: &RequestContext) -> Result<(), Error> {
        // A long request: its time is not that of its beginning any more.
        let cx = RequestContext { now: self.clock().now(), ..cx.clone() };
        let scopes = [REVOCATIONS_SCOPE, ADMIN_SCOPE, AUDIT_SCOPE];
        let caller = self.authorize(&subscriber.bearer, &scopes, &subscriber.call, &cx).await?;
        if resolve_scope(&caller)? == subscriber.scope { Ok(()) } else { Err(AuthError::ClientNotAllowed.into()) }
    }

    /// What is there after a position, as soon as there is something to tell, or after so long.
    async fn wait_for_entries(
        &self,
        subscriber: &Subscriber,
        from: LogPosition,
        max_wait: Duration,
    ) -> Result<FeedPage, Outage> {
        let until = self.clock().monotonic().saturating_add(max_wait);
        let mut moves = self.inner.follower.subscribe_position();
        let mut stopping = self.inner.feed.stopping.subscribe();
        let mut at = from;
        loop {
            moves.mark_unchanged();
            let page = self.read_page(subscriber, at, self.clock().now()).await?;
            at = page.up_to;
            let left = until.saturating_sub(self.clock().monotonic());
            let is_over = left.is_zero() || self.inner.feed.is_stopping();
            if !page.entries.is_empty() || is_over {
                return Ok(page);
            }
            if at < page.head {
                continue;
            }
            tokio::select! {
                _ = moves.changed() => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
                () = sleep(left.min(POLL_INTERVAL)) => {}
            }
        }
    }

    /// What is there now.
    async fn read_page(&self, subscriber: &Subscriber, from: LogPosition, now: Timestamp) -> Result<FeedPage, Outage> {
        let snapshot = self.inner.follower.snapshot(now).await?;
        let (head, log) = (snapshot.seq, snapshot.log_epoch);
        let stretch = self.inner.feed.load_segment(self.store(), from, (head, log), now).await?;
        let entries = stretch.entries.iter().filter_map(|entry| project(entry, &subscriber.scope)).collect();
        Ok(FeedPage { from, up_to: stretch.up_to, head: head.max(stretch.up_to), at: now, entries })
    }

    /// A position that the log has not reached was told by another log: of another store, or of a state of this one that
    /// was lost.
    async fn check_position(&self, from: LogPosition, now: Timestamp) -> Result<(), Error> {
        let known = self.inner.follower.snapshot(now).await?.seq;
        // Another replica may be ahead, so it is the store that says no.
        if from > known && from > self.store().read_log_head().await? {
            Err(ConflictError::UnknownCursor.into())
        } else {
            Ok(())
        }
    }
}

fn resolve_scope(caller: &ApiCaller) -> Result<FeedScope, AuthError> {
    match caller.client().client() {
        Ok(Client::Resource(resource)) => Ok(FeedScope::Resource(resource.uri.clone())),
        Ok(Client::Agent(_)) => Err(AuthError::ClientNotAllowed),
        // Whose token has an admin's scope and who is not registered has it from the server's own keys.
        Ok(Client::Admin(_)) | Err(_) => Ok(FeedScope::Admin),
    }
}

/// Nobody listens any more.
struct StreamClosedError;

async fn send_event(sender: &mpsc::Sender<FeedEvent>, event: FeedEvent) -> Result<(), StreamClosedError> {
    match timeout(SLOW_CONSUMER_TIMEOUT, sender.send(event)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(StreamClosedError),
    }
}

/// What listeners share.
pub(super) struct Feed {
    limits: SubscriberLimits,
    in_use: Arc<SubscriberCounts>,
    cache: Mutex<SegmentCache>,
    stopping: watch::Sender<bool>,
}

/// Stretches of one log.
#[derive(Default)]
struct SegmentCache {
    log_epoch: u64,
    segments: VecDeque<Arc<LogSegment>>,
}

/// How many sit, by client.
type SubscriberCounts = StdMutex<HashMap<ClientId, usize>>;

/// A part of the log: what stands after `from`, up to `up_to`. It never changes.
struct LogSegment {
    from: LogPosition,
    up_to: LogPosition,
    entries: Vec<LogEntry>,
}

/// The right to be one of those who listen.
struct SubscriberPermit {
    in_use: Arc<SubscriberCounts>,
    client: ClientId,
}

impl Drop for SubscriberPermit {
    fn drop(&mut self) {
        let mut taken = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = taken.get_mut(&self.client) {
            *n = n.saturating_sub(1);
        }
        taken.retain(|_, n| *n > 0);
    }
}

impl Feed {
    pub(super) fn new(limits: SubscriberLimits) -> Self {
        let stopping = watch::Sender::new(false);
        Self { limits, in_use: Arc::default(), cache: Mutex::default(), stopping }
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    fn in_use(&self) -> std::sync::MutexGuard<'_, HashMap<ClientId, usize>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn acquire_permit(&self, client: &ClientId) -> Result<SubscriberPermit, ConflictError> {
        let mut taken = self.in_use();
        let here = taken.get(client).copied().unwrap_or_default();
        if here >= self.limits.per_client || taken.values().sum::<usize>() >= self.limits.total {
            return Err(ConflictError::TooManySubscribers);
        }
        taken.insert(client.clone(), here.saturating_add(1));
        Ok(SubscriberPermit { in_use: Arc::clone(&self.in_use), client: client.clone() })
    }

    /// What stands after `from`, of which at least everything up to `head` is in the store; of this log.
    async fn load_segment(
        &self,
        store: &dyn Store,
        from: LogPosition,
        (head, log): (LogPosition, u64),
        now: Timestamp,
    ) -> Result<Arc<LogSegment>, Outage> {
        if head <= from {
            return Ok(Arc::new(LogSegment { from, up_to: from, entries: Vec::new() }));
        }
        if head.number().saturating_sub(from.number()) > LAG_THRESHOLD {
            return read_segment(store, from, head, replay_horizon(now)).await.map(Arc::new);
        }
        // Held while reading: who stands at the same place waits, and reads no more.
        let mut cache = self.cache.lock().await;
        if cache.log_epoch != log {
            *cache = SegmentCache { log_epoch: log, ..SegmentCache::default() };
        }
        if let Some(stretch) = cache.segments.iter().find(|stretch| stretch.from == from) {
            return Ok(Arc::clone(stretch));
        }
        let stretch = Arc::new(read_segment(store, from, head, Timestamp::EPOCH).await?);
        let mut places = (from.number().saturating_add(1)..).zip(&stretch.entries);
        let is_whole = places.all(|(place, entry)| entry.seq.number() == place);
        let last = stretch.entries.last().map_or(from, |entry| entry.seq);
        if !is_whole || last < stretch.up_to {
            return Err(Outage::during(OP_READ_FEED_LOG)("entries are missing"));
        }
        cache.segments.truncate(MAX_CACHED_SEGMENTS - 1);
        cache.segments.push_front(Arc::clone(&stretch));
        Ok(stretch)
    }
}

/// Reads what stands after `from` and had not ended at `alive_at`.
async fn read_segment(
    store: &dyn Store,
    from: LogPosition,
    head: LogPosition,
    alive_at: Timestamp,
) -> Result<LogSegment, Outage> {
    let entries = store.read_log_after(from, alive_at, SEGMENT_SIZE).await?;
    let last = entries.last().map_or(from, |entry| entry.seq);
    let is_last = entries.len() < SEGMENT_SIZE as usize;
    // `head` was there before this was read: what is not among the last entries up to it has ended.
    let up_to = if is_last { head.max(last) } else { last };
    Ok(LogSegment { from, up_to, entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_counted_and_released() {
        let feed = Feed::new(SubscriberLimits { total: 3, per_client: 2 });
        let (a, b): (ClientId, ClientId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let first = feed.acquire_permit(&a).unwrap();
        let _second = feed.acquire_permit(&a).unwrap();
        assert!(feed.acquire_permit(&a).is_err(), "no more for one client");
        let _third = feed.acquire_permit(&b).unwrap();
        assert!(feed.acquire_permit(&b).is_err(), "no more for all together");
        drop(first);
        let _fourth = feed.acquire_permit(&b).unwrap();
        assert_eq!(feed.in_use().values().sum::<usize>(), 3);
    }
}
