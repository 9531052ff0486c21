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
    app::{ApiCaller, AuthFault, Conflict, Cx, Failure, Service, follow::long_over},
    domain::{
        client::{API_ADMIN, API_AUDIT, API_REVOCATIONS, Client},
        feed::{Audience, FeedEntry, told},
        id::ClientId,
        revocation::{LogEntry, Seq},
        secret::Secret,
        time::Timestamp,
    },
    ports::{Outage, Store},
};

/// The longest that a request may wait for something new.
pub const MAX_WAIT: Duration = Duration::from_secs(30);
/// How often a stream says how far it is, and looks whether its caller may still listen.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// Who does not take what is sent for so long is dropped.
const SLOW: Duration = Duration::from_secs(10);
/// How often a position is looked for that nobody told of.
const LOOK: Duration = Duration::from_millis(500);
/// How many places of the log are read at a time.
const STRETCH: u32 = 1000;
/// How many stretches are kept: those who follow stand at the same few places.
const KEPT: usize = 16;
/// Who is so many places behind is spared what has long ended.
const FAR_BEHIND: u64 = 10_000;
/// How many messages may be on their way to one listener.
const IN_FLIGHT: usize = 64;
const DURING: &str = "read the revocation log for the feed";

/// How many may listen at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seats {
    /// All together.
    pub all: usize,
    /// With one client's API tokens.
    pub per_client: usize,
}

/// A part of the log, as it is told to one listener.
#[derive(Debug)]
pub struct FeedPage {
    /// The position that it goes on from.
    pub from: Seq,
    /// Everything up to here has been told.
    pub up_to: Seq,
    /// Where the log ends, as far as this replica knows. Beyond `up_to`: there is more.
    pub head: Seq,
    /// When this was so.
    pub at: Timestamp,
    /// What is told.
    pub entries: Vec<FeedEntry>,
}

/// What a stream says.
#[derive(Debug)]
pub enum Said {
    /// An entry, and the position that it goes on from.
    Entry(FeedEntry, Seq),
    /// Everything up to a position has been told, and was all there was at that time.
    Position(Seq, Timestamp),
    /// The stream ends, and why.
    End(&'static str),
}

/// Somebody who may follow the log.
#[derive(Debug)]
pub struct Listener {
    client: ClientId,
    audience: Audience,
    bearer: Secret,
    call: String,
}

impl Service {
    /// Whether the bearer of an API token may follow the log; `call` as in [`authorize`](Self::authorize).
    pub async fn listener(&self, bearer: Secret, call: String, cx: &Cx) -> Result<Listener, Failure> {
        let caller = self.authorize(&bearer, &[API_REVOCATIONS, API_ADMIN, API_AUDIT], &call, cx).await?;
        let audience = audience_of(&caller)?;
        Ok(Listener { client: caller.client().id().clone(), audience, bearer, call })
    }

    /// What came after a position; from the beginning, where there is none. Waits so long for something to tell.
    pub async fn feed_page(
        &self,
        listener: &Listener,
        after: Option<Seq>,
        wait: Duration,
        cx: &Cx,
    ) -> Result<FeedPage, Failure> {
        let from = after.unwrap_or_default();
        self.is_position(from, cx.now).await?;
        if wait.is_zero() {
            return Ok(self.look(listener, from, cx.now).await?);
        }
        let _seat = self.0.feed.sit(&listener.client)?;
        let mut page = self.wait(listener, from, wait.min(MAX_WAIT)).await?;
        page.from = from;
        // Whoever lost the right to listen while waiting hears nothing.
        self.may_still_listen(listener, cx).await?;
        Ok(page)
    }

    /// Tells everything after a position, and whatever comes, until the listener goes, is too slow or may not listen any
    /// more, or we stop.
    pub async fn feed_stream(
        &self,
        listener: Listener,
        after: Option<Seq>,
        cx: Cx,
    ) -> Result<mpsc::Receiver<Said>, Failure> {
        let from = after.unwrap_or_default();
        self.is_position(from, cx.now).await?;
        let seat = self.0.feed.sit(&listener.client)?;
        let (tell, said) = mpsc::channel(IN_FLIGHT);
        let service = self.clone();
        tokio::spawn(async move {
            let _seat = seat;
            // An error means that the listener is gone, or does not listen.
            let _: Result<(), Gone> = service.tell(&listener, from, &tell, &cx).await;
        });
        Ok(said)
    }

    /// Ends all streams and waits, now and from now on: nothing else would, when the server stops.
    pub fn end_streams(&self) {
        self.0.feed.stopping.send_replace(true);
    }

    /// How many listen now.
    #[must_use]
    pub fn listening(&self) -> usize {
        self.0.feed.taken().values().sum()
    }

    async fn tell(&self, listener: &Listener, mut at: Seq, tell: &mpsc::Sender<Said>, cx: &Cx) -> Result<(), Gone> {
        // Who has just come is told at once where it is.
        let mut patience = Duration::ZERO;
        loop {
            let page = tokio::select! {
                page = self.wait(listener, at, patience) => page,
                () = tell.closed() => return Err(Gone),
            };
            patience = HEARTBEAT;
            let page = match (page, self.may_still_listen(listener, cx).await) {
                (Ok(page), Ok(())) => page,
                (Err(_), _) | (_, Err(Failure::Outage(_))) => return say(tell, Said::End("unknown")).await,
                (_, Err(_)) => return say(tell, Said::End("not_allowed")).await,
            };
            for entry in page.entries {
                let from = std::mem::replace(&mut at, entry.seq);
                say(tell, Said::Entry(entry, from)).await?;
            }
            at = page.up_to;
            if at >= page.head {
                say(tell, Said::Position(at, page.at)).await?;
            }
            if self.0.feed.is_stopping() {
                return say(tell, Said::End("stopping")).await;
            }
        }
    }

    async fn may_still_listen(&self, listener: &Listener, cx: &Cx) -> Result<(), Failure> {
        // A long request: its time is not that of its beginning any more.
        let cx = Cx { now: self.clock().now(), ..cx.clone() };
        let scopes = [API_REVOCATIONS, API_ADMIN, API_AUDIT];
        let caller = self.authorize(&listener.bearer, &scopes, &listener.call, &cx).await?;
        if audience_of(&caller)? == listener.audience { Ok(()) } else { Err(AuthFault::NotForThisClient.into()) }
    }

    /// What is there after a position, as soon as there is something to tell, or after so long.
    async fn wait(&self, listener: &Listener, from: Seq, patience: Duration) -> Result<FeedPage, Outage> {
        let until = self.clock().monotonic().saturating_add(patience);
        let mut moves = self.0.follower.position();
        let mut stopping = self.0.feed.stopping.subscribe();
        let mut at = from;
        loop {
            moves.mark_unchanged();
            let page = self.look(listener, at, self.clock().now()).await?;
            at = page.up_to;
            let left = until.saturating_sub(self.clock().monotonic());
            let is_over = left.is_zero() || self.0.feed.is_stopping();
            if !page.entries.is_empty() || is_over {
                return Ok(page);
            }
            if at < page.head {
                continue;
            }
            tokio::select! {
                _ = moves.changed() => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
                () = sleep(left.min(LOOK)) => {}
            }
        }
    }

    /// What is there now.
    async fn look(&self, listener: &Listener, from: Seq, now: Timestamp) -> Result<FeedPage, Outage> {
        let view = self.0.follower.current(now).await?;
        let (head, log) = (view.seq, view.log);
        let stretch = self.0.feed.stretch(self.store(), from, (head, log), now).await?;
        let entries = stretch.entries.iter().filter_map(|entry| told(entry, &listener.audience)).collect();
        Ok(FeedPage { from, up_to: stretch.up_to, head: head.max(stretch.up_to), at: now, entries })
    }

    /// A position that the log has not reached was told by another log: of another store, or of a state of this one that
    /// was lost.
    async fn is_position(&self, from: Seq, now: Timestamp) -> Result<(), Failure> {
        let known = self.0.follower.current(now).await?.seq;
        // Another replica may be ahead, so it is the store that says no.
        if from > known && from > self.store().head().await? { Err(Conflict::NoSuchPosition.into()) } else { Ok(()) }
    }
}

fn audience_of(caller: &ApiCaller) -> Result<Audience, AuthFault> {
    match caller.client().client() {
        Ok(Client::Resource(resource)) => Ok(Audience::Resource(resource.uri.clone())),
        Ok(Client::Agent(_)) => Err(AuthFault::NotForThisClient),
        // Whose token has an admin's scope and who is not registered has it from the server's own keys.
        Ok(Client::Admin(_)) | Err(_) => Ok(Audience::Admin),
    }
}

/// Nobody listens any more.
struct Gone;

async fn say(tell: &mpsc::Sender<Said>, said: Said) -> Result<(), Gone> {
    match timeout(SLOW, tell.send(said)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone),
    }
}

/// What listeners share.
pub(super) struct Feed {
    seats: Seats,
    taken: Arc<Taken>,
    kept: Mutex<Kept>,
    stopping: watch::Sender<bool>,
}

/// Stretches of one log.
#[derive(Default)]
struct Kept {
    log: u64,
    stretches: VecDeque<Arc<Stretch>>,
}

/// How many sit, by client.
type Taken = StdMutex<HashMap<ClientId, usize>>;

/// A part of the log: what stands after `from`, up to `up_to`. It never changes.
struct Stretch {
    from: Seq,
    up_to: Seq,
    entries: Vec<LogEntry>,
}

/// The right to be one of those who listen.
struct Seat {
    taken: Arc<Taken>,
    client: ClientId,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = taken.get_mut(&self.client) {
            *n = n.saturating_sub(1);
        }
        taken.retain(|_, n| *n > 0);
    }
}

impl Feed {
    pub(super) fn new(seats: Seats) -> Self {
        let stopping = watch::Sender::new(false);
        Self { seats, taken: Arc::default(), kept: Mutex::default(), stopping }
    }

    fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, HashMap<ClientId, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sit(&self, client: &ClientId) -> Result<Seat, Conflict> {
        let mut taken = self.taken();
        let here = taken.get(client).copied().unwrap_or_default();
        if here >= self.seats.per_client || taken.values().sum::<usize>() >= self.seats.all {
            return Err(Conflict::TooManyListen);
        }
        taken.insert(client.clone(), here.saturating_add(1));
        Ok(Seat { taken: Arc::clone(&self.taken), client: client.clone() })
    }

    /// What stands after `from`, of which at least everything up to `head` is in the store; of this log.
    async fn stretch(
        &self,
        store: &dyn Store,
        from: Seq,
        (head, log): (Seq, u64),
        now: Timestamp,
    ) -> Result<Arc<Stretch>, Outage> {
        if head <= from {
            return Ok(Arc::new(Stretch { from, up_to: from, entries: Vec::new() }));
        }
        if head.number().saturating_sub(from.number()) > FAR_BEHIND {
            return read(store, from, head, long_over(now)).await.map(Arc::new);
        }
        // Held while reading: who stands at the same place waits, and reads no more.
        let mut kept = self.kept.lock().await;
        if kept.log != log {
            *kept = Kept { log, ..Kept::default() };
        }
        if let Some(stretch) = kept.stretches.iter().find(|stretch| stretch.from == from) {
            return Ok(Arc::clone(stretch));
        }
        let stretch = Arc::new(read(store, from, head, Timestamp::EPOCH).await?);
        let mut places = (from.number().saturating_add(1)..).zip(&stretch.entries);
        let is_whole = places.all(|(place, entry)| entry.seq.number() == place);
        let last = stretch.entries.last().map_or(from, |entry| entry.seq);
        if !is_whole || last < stretch.up_to {
            return Err(Outage::during(DURING)("entries are missing"));
        }
        kept.stretches.truncate(KEPT - 1);
        kept.stretches.push_front(Arc::clone(&stretch));
        Ok(stretch)
    }
}

/// Reads what stands after `from` and had not ended at `alive_at`.
async fn read(store: &dyn Store, from: Seq, head: Seq, alive_at: Timestamp) -> Result<Stretch, Outage> {
    let entries = store.log_after(from, alive_at, STRETCH).await?;
    let last = entries.last().map_or(from, |entry| entry.seq);
    let is_last = entries.len() < STRETCH as usize;
    // `head` was there before this was read: what is not among the last entries up to it has ended.
    let up_to = if is_last { head.max(last) } else { last };
    Ok(Stretch { from, up_to, entries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_counted_and_given_back() {
        let feed = Feed::new(Seats { all: 3, per_client: 2 });
        let (a, b): (ClientId, ClientId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let first = feed.sit(&a).unwrap();
        let _second = feed.sit(&a).unwrap();
        assert!(feed.sit(&a).is_err(), "no more for one client");
        let _third = feed.sit(&b).unwrap();
        assert!(feed.sit(&b).is_err(), "no more for all together");
        drop(first);
        let _fourth = feed.sit(&b).unwrap();
        assert_eq!(feed.taken().values().sum::<usize>(), 3);
    }
}
