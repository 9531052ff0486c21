//! The open connections of a listener: admission within the limits, and the periodic check that
//! ends connections whose clients take too long or too much.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::http::server::{
    connection::{Connection, End, ListenerLoad, MemoryLimits, Timeouts, Version},
    limits::{ConnectionCounters, ConnectionLimits, ConnectionRefusal, EndReason, PeerGroup},
    refusal_pace::RefusalPace,
    source_address::TrustedProxies,
};

/// The longest interval of the check.
const MAX_TICK: Duration = Duration::from_secs(1);
const MIN_TICK: Duration = Duration::from_millis(10);
/// Connections per second of one peer that the server may have to end before new connections of
/// that peer wait.
const ENDED_PER_SECOND: u32 = 2;

/// The open connections of a listener.
#[derive(Debug)]
pub(super) struct ConnectionTable {
    limits: ConnectionLimits,
    counters: Arc<ConnectionCounters>,
    load: Arc<ListenerLoad>,
    pace: Arc<RefusalPace>,
    /// The pace of connections that the server ended, by peer.
    ended: RefusalPace,
    tick: Duration,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    connections: HashMap<u64, Arc<Connection>>,
    by_peer: HashMap<PeerGroup, usize>,
    last_id: u64,
    /// Refused since the last check.
    refused: u64,
}

/// A connection in the table. Dropping it removes the connection.
#[derive(Debug)]
pub(super) struct ConnectionEntry {
    table: Arc<ConnectionTable>,
    id: u64,
    peer: Option<PeerGroup>,
    pub(super) connection: Arc<Connection>,
}

impl ConnectionTable {
    pub(super) fn new(limits: ConnectionLimits, counters: Arc<ConnectionCounters>) -> Arc<Self> {
        let shortest = limits.keep_alive.min(limits.headers).min(limits.progress);
        Arc::new(Self {
            load: Arc::new(ListenerLoad::new(MemoryLimits {
                unread: limits.unread_total,
                incomplete: limits.incomplete_total,
            })),
            pace: Arc::new(RefusalPace::new(limits.refusals_per_second)),
            ended: RefusalPace::new(ENDED_PER_SECOND),
            tick: (shortest / 4).clamp(MIN_TICK, MAX_TICK),
            entries: Mutex::default(),
            limits,
            counters,
        })
    }

    /// Adds a connection, if the limits allow it.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Result<ConnectionEntry, ConnectionRefusal> {
        let group = (!self.limits.proxies.contains(peer)).then(|| PeerGroup::of(peer));
        let connection = Arc::new(Connection::new(Arc::clone(&self.load), self.limits.unread_per_connection));
        let mut entries = self.entries.lock();
        let of_peer = group.and_then(|group| entries.by_peer.get(&group)).copied().unwrap_or_default();
        let refusal = if entries.connections.len() >= self.limits.total {
            Some(ConnectionRefusal::Total)
        } else if group.is_some() && of_peer >= self.limits.per_peer {
            Some(ConnectionRefusal::PerPeer)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            entries.refused += 1;
            self.counters.connection_refused(refusal);
            return Err(refusal);
        }
        if let Some(group) = group {
            entries.by_peer.insert(group, of_peer + 1);
        }
        entries.last_id += 1;
        let id = entries.last_id;
        entries.connections.insert(id, Arc::clone(&connection));
        self.counters.connection_opened();
        Ok(ConnectionEntry { table: Arc::clone(self), id, peer: group, connection })
    }

    /// Checks the connections until the future is dropped.
    pub(super) async fn check_periodically(&self) {
        let mut ticks = interval(self.tick);
        // A process that was suspended does not count the time against its clients.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.check(self.load.advance()),
                () = self.load.exceeded.notified() => {}
            }
            self.limit_memory();
            // Looking at all connections must not become the load.
            sleep(MIN_TICK).await;
        }
    }

    fn check(&self, now: u64) {
        let timeouts = self.timeouts();
        let connections = {
            let mut entries = self.entries.lock();
            let refused = std::mem::take(&mut entries.refused);
            if refused > 0 {
                let open = entries.connections.len();
                tracing::warn!(refused, open, "connections refused: a limit of `[limits]` is reached");
            }
            entries.connections.values().map(Arc::clone).collect::<Vec<_>>()
        };
        self.counters.set_held(self.load.unread(), self.load.incomplete());
        for connection in connections {
            match connection.reset_stalled_streams(now, timeouts.progress) {
                Ok(reset) => (0..reset).for_each(|_| self.counters.stream_reset()),
                Err(reason) => self.end(&connection, reason, End::Abort),
            }
            if let Some((reason, end)) = connection.overdue(now, timeouts) {
                self.end(&connection, reason, end);
            }
        }
    }

    /// Ends connections until what the rest holds is within the limits: first those of the peer
    /// that holds the most, and of them those that make no progress. Trusted proxies, which stand
    /// for many clients, are the last choice.
    fn limit_memory(&self) {
        let now = self.load.now();
        self.limit(EndReason::Unread, self.load.unread(), self.limits.unread_total, |connection| {
            (connection.unread(), connection.ticks_without_progress(now))
        });
        self.limit(EndReason::Incomplete, self.load.incomplete(), self.limits.incomplete_total, |connection| {
            (connection.incomplete(), connection.ticks_without_request(now))
        });
    }

    /// Ends connections if all together hold more than the limit. `held_by` returns the bytes of a
    /// connection, and the number of ticks without progress.
    fn limit(&self, reason: EndReason, held: usize, limit: usize, held_by: impl Fn(&Connection) -> (usize, u64)) {
        if held <= limit {
            return;
        }
        let connections = self.entries.lock().connections.values().map(Arc::clone).collect::<Vec<_>>();
        // The bytes of an aborted connection go with it, as soon as its task runs.
        let live = connections.into_iter().filter(|connection| !connection.is_aborted());
        let mut candidates = live
            .map(|connection| (held_by(&connection), connection.peer().map(PeerGroup::of), connection))
            .filter(|((bytes, _), ..)| *bytes > 0)
            .collect::<Vec<_>>();
        // The total of before also has connections that were closed meanwhile.
        let (mut held, mut of_peers) = (0_usize, HashMap::<PeerGroup, usize>::new());
        for ((bytes, _), peer, _) in &candidates {
            held = held.saturating_add(*bytes);
            if let Some(peer) = peer {
                let of_peer = of_peers.entry(*peer).or_default();
                *of_peer = of_peer.saturating_add(*bytes);
            }
        }
        let of_peer = |peer: Option<PeerGroup>| peer.and_then(|peer| of_peers.get(&peer)).copied().unwrap_or_default();
        candidates
            .sort_unstable_by_key(|((bytes, ticks), peer, _)| std::cmp::Reverse((of_peer(*peer), *ticks, *bytes)));
        let mut excess = held.saturating_sub(limit);
        for ((bytes, _), _, connection) in candidates {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(bytes);
            self.end(&connection, reason, End::Abort);
        }
    }

    fn end(&self, connection: &Connection, reason: EndReason, end: End) {
        if connection.is_aborted() {
            return;
        }
        tracing::debug!(?reason, ?end, "ending a connection");
        // An idle connection that does not close after the request to do so was counted by then.
        if reason != EndReason::Idle || end != End::Abort {
            self.counters.connection_ended(reason);
        }
        // Clients open connections ahead of their requests, and do not need all of them.
        let is_unused = reason == EndReason::Headers && connection.version() == Version::Unknown;
        if reason != EndReason::Idle
            && !is_unused
            && let Some(peer) = connection.peer()
        {
            self.ended.count(peer);
        }
        connection.request_end(end);
    }

    fn timeouts(&self) -> Timeouts {
        let ticks =
            |limit: Duration| u64::try_from(limit.as_nanos().div_ceil(self.tick.as_nanos())).unwrap_or(u64::MAX);
        let ConnectionLimits { keep_alive, headers, progress, .. } = self.limits;
        Timeouts { keep_alive: ticks(keep_alive), headers: ticks(headers), progress: ticks(progress) }
    }
}

impl ConnectionEntry {
    /// Returns the reverse proxies whose reports of source addresses are believed.
    pub(super) fn proxies(&self) -> &TrustedProxies {
        &self.table.limits.proxies
    }

    /// Returns how long the connection is to wait before it is read, because the server had to end
    /// others of the peer. Trusted proxies are exempt.
    pub(super) fn wait(&self, peer: IpAddr) -> Duration {
        if self.peer.is_some() { self.table.ended.wait(peer) } else { Duration::ZERO }
    }

    /// Notes that the connection is read from now on. From now on it counts if the server has to
    /// end it: one that only waited does not prolong the wait of others.
    pub(super) fn begin(&self, peer: IpAddr) {
        self.connection.handshake_done();
        if self.peer.is_some() {
            self.connection.set_peer(peer);
        }
    }

    /// Returns the pace of the refusals to each source address.
    pub(super) fn pace(&self) -> &Arc<RefusalPace> {
        &self.table.pace
    }

    /// Returns the time limit for headers, which is also the one for the TLS handshake.
    pub(super) fn headers_timeout(&self) -> Duration {
        self.table.limits.headers
    }
}

impl Drop for ConnectionEntry {
    fn drop(&mut self) {
        self.connection.close();
        self.table.counters.connection_closed();
        let mut entries = self.table.entries.lock();
        entries.connections.remove(&self.id);
        if let Some(group) = self.peer
            && let Some(count) = entries.by_peer.get_mut(&group)
        {
            *count -= 1;
            if *count == 0 {
                entries.by_peer.remove(&group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::server::connection::{IncompleteRequest, ResponseStream, Unread};

    fn table(limits: ConnectionLimits) -> Arc<ConnectionTable> {
        ConnectionTable::new(limits, Arc::default())
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn connections_are_admitted_within_both_limits() {
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        let table = table(ConnectionLimits {
            total: 4,
            per_peer: 2,
            proxies: TrustedProxies { networks: proxies.into(), ..TrustedProxies::default() },
            ..ConnectionLimits::default()
        });
        let first = table.admit(peer("192.0.2.1")).unwrap();
        let second = table.admit(peer("192.0.2.1")).unwrap();
        assert_eq!(table.admit(peer("192.0.2.1")).unwrap_err(), ConnectionRefusal::PerPeer);
        drop(first);
        let third = table.admit(peer("192.0.2.1")).unwrap();
        let others = ["10.0.0.1", "10.0.0.1"].map(|address| table.admit(peer(address)).unwrap());
        assert_eq!(table.admit(peer("10.0.0.1")).unwrap_err(), ConnectionRefusal::Total);
        assert_eq!(table.admit(peer("192.0.2.9")).unwrap_err(), ConnectionRefusal::Total);
        assert_eq!(table.counters.open(), 4);
        assert_eq!(table.counters.refused(), [("total", 2), ("per_peer", 1)]);
        drop((second, third, others));
        assert_eq!(table.counters.open(), 0);
        let entries = table.entries.lock();
        assert!(entries.connections.is_empty() && entries.by_peer.is_empty());
    }

    #[test]
    fn memory_limit_ends_stalled_connections_before_reading_ones() {
        let table = table(ConnectionLimits { unread_total: 100, ..ConnectionLimits::default() });
        let entries = [0, 1, 2].map(|n| table.admit(peer(&format!("192.0.2.{n}"))).unwrap());
        let hold = |entry: &ConnectionEntry, bytes| {
            let stream = ResponseStream::new(Arc::clone(&entry.connection));
            entry.connection.add_stream(Arc::clone(&stream));
            (Unread::new(Arc::clone(&stream), bytes), stream)
        };
        let [stalled, small, reading] = entries.each_ref();
        let held = [hold(stalled, 60), hold(small, 30)];
        table.load.advance();
        let others = hold(reading, 50);
        table.limit_memory();
        let aborted = entries.each_ref().map(|entry| entry.connection.is_aborted());
        assert_eq!(aborted, [true, false, false], "the largest of those without progress");
        assert_eq!(table.counters.ended()[3], ("unread", 1));
        table.limit_memory();
        let aborted = entries.each_ref().map(|entry| entry.connection.is_aborted());
        assert_eq!(aborted, [true, false, false], "the bytes of an aborted connection go with it");
        let more = hold(small, 40);
        table.limit_memory();
        let aborted = entries.each_ref().map(|entry| entry.connection.is_aborted());
        assert_eq!(aborted, [true, true, false], "the rest exceeds the limit");
        drop((held, others, more));
    }

    #[test]
    fn memory_limit_ends_connections_that_complete_no_request() {
        let table = table(ConnectionLimits { incomplete_total: 100, ..ConnectionLimits::default() });
        let entries = [0, 1, 2].map(|n| table.admit(peer(&format!("192.0.2.{n}"))).unwrap());
        let hold = |entry: &ConnectionEntry, bytes| IncompleteRequest::new(&entry.connection, bytes);
        let [small, large, busy] = entries.each_ref();
        let held = [hold(small, 30), hold(large, 40), hold(busy, 60)];
        table.load.advance();
        drop(hold(busy, 1));
        table.limit_memory();
        let aborted = entries.each_ref().map(|entry| entry.connection.is_aborted());
        assert_eq!(aborted, [false, true, false], "the largest of those that complete none");
        assert_eq!(table.counters.ended()[4], ("incomplete", 1));
        table.limit_memory();
        assert_eq!(table.counters.ended()[4], ("incomplete", 1), "the bytes of an aborted connection go with it");
        drop(held);
    }

    /// A peer that holds much can't push out others by small requests that it completes.
    #[test]
    fn memory_limit_begins_with_the_peer_that_holds_the_most() {
        let table = table(ConnectionLimits { incomplete_total: 100, ..ConnectionLimits::default() });
        let begin = |address: &str| {
            let entry = table.admit(peer(address)).unwrap();
            entry.begin(peer(address));
            entry
        };
        let hold = |entry: &ConnectionEntry, bytes| IncompleteRequest::new(&entry.connection, bytes);
        let greedy = [(); 4].map(|()| begin("192.0.2.1"));
        let honest = begin("192.0.2.2");
        let proxy = table.admit(peer("192.0.2.3")).unwrap();
        let held = (hold(&honest, 30), hold(&proxy, 40), greedy.each_ref().map(|entry| hold(entry, 20)));
        table.load.advance();
        for entry in &greedy {
            drop(hold(entry, 1));
        }
        table.limit_memory();
        let aborted = [&honest, &proxy].map(|entry| entry.connection.is_aborted());
        assert_eq!(aborted, [false, false]);
        assert_eq!(greedy.iter().filter(|entry| entry.connection.is_aborted()).count(), 3);
        drop(held);
    }

    #[test]
    fn peer_whose_connections_had_to_be_ended_waits() {
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        let proxies = TrustedProxies { networks: proxies.into(), ..TrustedProxies::default() };
        let table = table(ConnectionLimits { proxies, ..ConnectionLimits::default() });
        let end = |address: &str, reason, version: Option<Version>| {
            let entry = table.admit(peer(address)).unwrap();
            if let Some(version) = version {
                entry.begin(peer(address));
                entry.connection.set_version(version);
            }
            table.end(&entry.connection, reason, End::Abort);
        };
        for _ in 0..10 {
            end("192.0.2.1", EndReason::Headers, None);
            end("192.0.2.2", EndReason::Idle, Some(Version::Http1));
            end("192.0.2.3", EndReason::Incomplete, Some(Version::Http2));
            end("192.0.2.5", EndReason::Headers, Some(Version::Http1));
            end("192.0.2.6", EndReason::Headers, Some(Version::Unknown));
            end("10.0.0.1", EndReason::Incomplete, Some(Version::Http2));
        }
        let addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.5", "192.0.2.6", "10.0.0.1"];
        let waits = addresses.map(|address| {
            let wait = table.admit(peer(address)).unwrap().wait(peer(address));
            !wait.is_zero()
        });
        assert_eq!(waits, [false, false, true, false, true, false, false]);
    }

    #[test]
    fn timeouts_are_rounded_up_to_ticks() {
        let default = table(ConnectionLimits::default());
        assert_eq!(default.tick, MAX_TICK);
        let Timeouts { keep_alive, headers, progress } = default.timeouts();
        assert_eq!((keep_alive, headers, progress), (75, 5, 30));
        let short = table(ConnectionLimits { headers: Duration::from_millis(50), ..ConnectionLimits::default() });
        assert!(short.tick < Duration::from_millis(50) && short.timeouts().headers >= 4);
    }
}
