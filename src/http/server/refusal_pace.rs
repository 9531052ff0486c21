//! The pace of refusals. A client that is refused and sends the next request at once costs as much
//! as it gets answers, and each answer has a log line. So the first refusals to a source address
//! are sent at once, and further ones at a steady pace.
//!
//! A refusal that is held back takes a connection or a stream of it, which others may share. So
//! only a number of them is held back at a time, and the rest is sent at once.
//!
//! Responses that are no refusals are never held back. The memory of a response that is held back
//! counts as that of an incomplete request.
//!
//! Connections that the server had to end have a pace of their own: a client that opens them again
//! at once waits with its new connections.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use parking_lot::Mutex;

use crate::http::server::limits::PeerGroup;

/// Maximum addresses whose refusals are counted at a time.
const MAX_ADDRESSES: usize = 65_536;
/// The refusals that are sent at once: as many as in this time at the steady pace.
const BURST: Duration = Duration::from_secs(1);
/// Maximum refusals to one address that are held back at a time.
const MAX_HELD: usize = 100;
/// The longest wait. Other clients may have the same address.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// Interval between removals of addresses whose time has passed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The refusals to each source address.
#[derive(Debug)]
pub(super) struct RefusalPace {
    start: Instant,
    interval: Duration,
    addresses: Mutex<Addresses>,
}

/// Times are counted from the start.
#[derive(Debug, Default)]
struct Addresses {
    /// When the next refusal is due. An address without an entry, or with a time that has passed,
    /// was refused no more often than the pace allows.
    due: HashMap<PeerGroup, Duration>,
    /// The refusals that are held back now.
    held: HashMap<PeerGroup, usize>,
    /// When the last entries that had passed were removed.
    swept: Duration,
}

impl RefusalPace {
    #[expect(clippy::disallowed_methods, reason = "a timer of the transport; the rule takes the time as an argument")]
    pub(super) fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1).checked_div(per_second).unwrap_or_default();
        Self { start: Instant::now(), interval, addresses: Mutex::default() }
    }

    /// Counts a response to a source address. Returns how long it is to be held back, if it is.
    pub(super) fn hold_back(self: &Arc<Self>, source: IpAddr, status: StatusCode) -> Option<HeldRefusal> {
        let delay = if is_refusal(status) { self.delay_at(self.start.elapsed(), source) } else { Duration::ZERO };
        if delay.is_zero() {
            return None;
        }
        let group = PeerGroup::of(source);
        let mut addresses = self.addresses.lock();
        let held = addresses.held.entry(group).or_default();
        if *held >= MAX_HELD {
            return None;
        }
        *held += 1;
        Some(HeldRefusal { pace: Arc::clone(self), group, delay })
    }

    /// Counts a connection of a peer that the server ended.
    pub(super) fn count(&self, peer: IpAddr) {
        let _: Duration = self.delay_at(self.start.elapsed(), peer);
    }

    /// Returns how long a peer is to wait, without counting anything.
    pub(super) fn wait(&self, peer: IpAddr) -> Duration {
        self.wait_at(self.start.elapsed(), peer)
    }

    fn wait_at(&self, now: Duration, peer: IpAddr) -> Duration {
        let due = self.addresses.lock().due.get(&PeerGroup::of(peer)).copied().unwrap_or_default();
        due.saturating_sub(now).saturating_sub(BURST)
    }

    fn delay_at(&self, now: Duration, source: IpAddr) -> Duration {
        let group = PeerGroup::of(source);
        let mut addresses = self.addresses.lock();
        let Addresses { due, swept, .. } = &mut *addresses;
        if due.len() >= MAX_ADDRESSES && now.saturating_sub(*swept) >= SWEEP_INTERVAL {
            due.retain(|_, due| *due > now);
            *swept = now;
        }
        if due.len() >= MAX_ADDRESSES && !due.contains_key(&group) {
            return Duration::ZERO;
        }
        let next = due.entry(group).or_insert(now);
        *next = (*next).max(now).saturating_add(self.interval).min(now.saturating_add(BURST + MAX_WAIT));
        next.saturating_sub(now).saturating_sub(BURST)
    }
}

/// A refusal that is held back. Dropping it says that it is held back no more.
#[derive(Debug)]
pub(super) struct HeldRefusal {
    pace: Arc<RefusalPace>,
    group: PeerGroup,
    /// How long it is to be held back.
    pub(super) delay: Duration,
}

impl Drop for HeldRefusal {
    fn drop(&mut self) {
        let mut addresses = self.pace.addresses.lock();
        if let Some(held) = addresses.held.get_mut(&self.group) {
            *held = held.saturating_sub(1);
            if *held == 0 {
                addresses.held.remove(&self.group);
            }
        }
    }
}

/// Returns whether a status refuses a request for a reason that lies with the client. An outage or
/// an overload is answered at once.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_beyond_the_burst_are_paced_by_address() {
        let pace = RefusalPace::new(10);
        let delay =
            |now: u64, source: &str| pace.delay_at(Duration::from_millis(now), source.parse().unwrap()).as_millis();
        assert!((0..10).all(|_| delay(0, "192.0.2.1") == 0), "one second's worth at once");
        assert_eq!([(); 3].map(|()| delay(0, "192.0.2.1")), [100, 200, 300]);
        assert_eq!(delay(0, "192.0.2.2"), 0, "another address");
        assert_eq!(delay(100, "192.0.2.1"), 300, "time passes");
        assert_eq!(delay(10_000, "192.0.2.1"), 0);
        // An IPv6 network counts as one, like for connections.
        assert!((0..10).all(|n| delay(0, &format!("2001:db8::{n}")) == 0));
        assert_eq!((delay(0, "2001:db8::ffff"), delay(0, "2001:db8:1::1")), (100, 0));
    }

    #[test]
    fn no_wait_is_longer_than_the_maximum() {
        let pace = RefusalPace::new(1);
        let peer = "192.0.2.1".parse().unwrap();
        let longest = (0..1000).map(|_| pace.delay_at(Duration::ZERO, peer)).max();
        assert_eq!(longest, Some(MAX_WAIT));
        assert_eq!(pace.wait_at(MAX_WAIT, peer), Duration::ZERO);
    }

    #[test]
    fn wait_counts_nothing() {
        let pace = RefusalPace::new(2);
        let (peer, at) = ("192.0.2.1".parse().unwrap(), Duration::from_millis);
        assert_eq!(pace.wait_at(Duration::ZERO, peer), Duration::ZERO);
        let delays = [(); 4].map(|()| pace.delay_at(Duration::ZERO, peer).as_millis());
        assert_eq!(delays, [0, 0, 500, 1000]);
        assert_eq!([0, 400, 1000, 5000].map(|now| pace.wait_at(at(now), peer).as_millis()), [1000, 600, 0, 0]);
        assert_eq!(pace.wait_at(Duration::ZERO, "192.0.2.2".parse().unwrap()), Duration::ZERO);
    }

    #[test]
    fn only_refusals_are_paced() {
        let pace = Arc::new(RefusalPace::new(1));
        let source = "192.0.2.1".parse().unwrap();
        for (status, is_paced) in
            [(200, false), (304, false), (500, false), (503, false), (400, true), (401, true), (404, true), (429, true)]
        {
            let status = StatusCode::from_u16(status).unwrap();
            let held = (0..10).map(|_| pace.hold_back(source, status)).collect::<Vec<_>>();
            assert_eq!(held.iter().any(Option::is_some), is_paced, "{status}");
            pace.addresses.lock().due.clear();
        }
    }

    #[test]
    fn held_back_refusals_are_bounded_by_address() {
        let pace = Arc::new(RefusalPace::new(1));
        let refuse = |source: &str| pace.hold_back(source.parse().unwrap(), StatusCode::NOT_FOUND);
        let mut held = (0..3 * MAX_HELD).filter_map(|_| refuse("192.0.2.1")).collect::<Vec<_>>();
        assert_eq!(held.len(), MAX_HELD);
        assert!(held.iter().all(|held| !held.delay.is_zero()));
        assert!((0..10).any(|_| refuse("192.0.2.2").is_some()), "another address");
        held.pop();
        held.extend(refuse("192.0.2.1"));
        assert_eq!(held.len(), MAX_HELD);
        assert!(refuse("192.0.2.1").is_none());
        drop(held);
        assert!(pace.addresses.lock().held.is_empty());
    }

    #[test]
    fn addresses_are_bounded() {
        let pace = RefusalPace::new(1);
        let address = |n: u32| IpAddr::V4(std::net::Ipv4Addr::from_bits(n));
        for n in 0..70_000 {
            pace.delay_at(Duration::ZERO, address(n));
        }
        assert_eq!(pace.addresses.lock().due.len(), MAX_ADDRESSES);
        assert!((0..10).any(|_| !pace.delay_at(Duration::ZERO, address(0)).is_zero()), "known ones are still paced");
        pace.delay_at(Duration::from_mins(1), address(70_000));
        assert_eq!(pace.addresses.lock().due.len(), 1, "those that have passed are forgotten");
    }
}
