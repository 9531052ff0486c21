//! Limits and counters of the connections of a listener.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::http::server::source_address::TrustedProxies;

/// Limits of the connections of one listener.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Maximum open connections. Further connections are closed at once.
    pub total: usize,
    /// Maximum open connections of one peer: an IPv4 address, or an IPv6 network of 64 bits.
    /// Trusted proxies are exempt.
    pub per_peer: usize,
    /// How long a connection without a request stays open. HTTP/2 pings do not extend it.
    pub keep_alive: Duration,
    /// Time limit of a client for the TLS handshake, and for the headers of a request from their
    /// first byte on.
    pub headers: Duration,
    /// How long a client may leave a response unread without progress. On HTTP/2 the limit applies
    /// to each stream.
    pub progress: Duration,
    /// Maximum bytes of unread responses of one connection. Until the client reads, its further
    /// requests wait.
    pub unread_per_connection: usize,
    /// Maximum bytes of unread responses of all connections. Above it, connections that make no
    /// progress are closed, the largest one first.
    pub unread_total: usize,
    /// Maximum bytes of incomplete requests of all connections: headers and bodies that have not
    /// arrived completely, and requests that wait until their client reads. Above it, connections
    /// that complete no request are closed, the largest one first.
    pub incomplete_total: usize,
    /// Refusals per second that are sent to one source address, after a burst of one second's
    /// worth. Further ones are held back.
    pub refusals_per_second: u32,
    /// The reverse proxies whose reports of source addresses are believed.
    pub proxies: TrustedProxies,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            total: 10_000,
            per_peer: 1000,
            keep_alive: Duration::from_secs(75),
            headers: Duration::from_secs(5),
            progress: Duration::from_secs(30),
            unread_per_connection: 1 << 20,
            unread_total: 128 << 20,
            incomplete_total: 64 << 20,
            refusals_per_second: 200,
            proxies: TrustedProxies::default(),
        }
    }
}

/// The peers that share one per-peer limit: an IPv4 address, or an IPv6 network of 64 bits, which
/// one host can use completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PeerGroup(IpAddr);

impl PeerGroup {
    pub(super) fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        })
    }
}

/// Why a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionRefusal {
    /// The listener has as many connections as it may.
    Total,
    /// The peer has as many connections as it may.
    PerPeer,
}

/// Why the server ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// No request was in progress for too long.
    Idle,
    /// The headers of a request did not arrive in time.
    Headers,
    /// The client did not read.
    Progress,
    /// The responses that the client did not read used too much memory.
    Unread,
    /// The requests that the client did not complete used too much memory.
    Incomplete,
}

/// Counts the connections of a server, for its metrics.
#[derive(Debug, Default)]
pub struct ConnectionCounters {
    open: AtomicU64,
    unread_bytes: AtomicU64,
    incomplete_bytes: AtomicU64,
    refused: [AtomicU64; 2],
    ended: [AtomicU64; 5],
    reset_streams: AtomicU64,
}

impl ConnectionCounters {
    /// Returns the number of open connections.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// Returns the bytes of responses that clients have not read, as of the last check.
    #[must_use]
    pub fn unread_bytes(&self) -> u64 {
        self.unread_bytes.load(Ordering::Relaxed)
    }

    /// Returns the bytes of requests that clients have not completed, as of the last check.
    #[must_use]
    pub fn incomplete_bytes(&self) -> u64 {
        self.incomplete_bytes.load(Ordering::Relaxed)
    }

    /// Returns the number of refused connections by the limit that refused them.
    #[must_use]
    pub fn refused(&self) -> [(&'static str, u64); 2] {
        let [total, per_peer] = &self.refused;
        [("total", total.load(Ordering::Relaxed)), ("per_peer", per_peer.load(Ordering::Relaxed))]
    }

    /// Returns the number of connections that the server ended, by reason.
    #[must_use]
    pub fn ended(&self) -> [(&'static str, u64); 5] {
        let [idle, headers, progress, unread, incomplete] = &self.ended;
        [("idle", idle), ("headers", headers), ("progress", progress), ("unread", unread), ("incomplete", incomplete)]
            .map(|(reason, count)| (reason, count.load(Ordering::Relaxed)))
    }

    /// Returns the number of HTTP/2 streams that were reset because the client did not read.
    #[must_use]
    pub fn reset_streams(&self) -> u64 {
        self.reset_streams.load(Ordering::Relaxed)
    }

    pub(super) fn connection_opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connection_closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn set_held(&self, unread: usize, incomplete: usize) {
        let store = |counter: &AtomicU64, bytes: usize| {
            counter.store(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        store(&self.unread_bytes, unread);
        store(&self.incomplete_bytes, incomplete);
    }

    pub(super) fn connection_refused(&self, refusal: ConnectionRefusal) {
        let [total, per_peer] = &self.refused;
        let counter = match refusal {
            ConnectionRefusal::Total => total,
            ConnectionRefusal::PerPeer => per_peer,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connection_ended(&self, reason: EndReason) {
        let [idle, headers, progress, unread, incomplete] = &self.ended;
        let counter = match reason {
            EndReason::Idle => idle,
            EndReason::Headers => headers,
            EndReason::Progress => progress,
            EndReason::Unread => unread,
            EndReason::Incomplete => incomplete,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stream_reset(&self) {
        self.reset_streams.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_share_a_limit_by_address_or_by_ipv6_network() {
        let group = |text: &str| PeerGroup::of(text.parse().unwrap());
        for (one, other, is_shared) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.2", false),
            ("2001:db8::1", "2001:db8::ffff:0:1", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("::1", "127.0.0.1", false),
        ] {
            assert_eq!(group(one) == group(other), is_shared, "{one} {other}");
        }
    }
}
