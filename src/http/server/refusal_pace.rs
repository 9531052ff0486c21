//! The pace of refusals. A client that is refused and sends the next request at once costs as much
//! as it gets answers, and each answer has a log line. So the first refusals to a source address
//! are sent at once, and further ones at a steady pace, however many connections the client has.
//!
//! Responses that are no refusals are never held back. The memory of a response that is held back
//! counts as that of an incomplete request.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use parking_lot::Mutex;

use crate::http::server::limits::PeerGroup;

/// Maximum addresses whose refusals are counted at a time.
const MAX_ADDRESSES: usize = 65_536;
/// The refusals that are sent at once: as many as in this time at the steady pace.
const BURST: Duration = Duration::from_secs(1);
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
    /// When the last entries that had passed were removed.
    swept: Duration,
}

impl RefusalPace {
    #[expect(clippy::disallowed_methods, reason = "a timer of the transport; the rule takes the time as an argument")]
    pub(super) fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1).checked_div(per_second).unwrap_or_default();
        Self { start: Instant::now(), interval, addresses: Mutex::default() }
    }

    /// Counts a response to a source address. Returns how long it is to be held back.
    pub(super) fn delay(&self, source: IpAddr, status: StatusCode) -> Duration {
        if is_refusal(status) { self.delay_at(self.start.elapsed(), source) } else { Duration::ZERO }
    }

    fn delay_at(&self, now: Duration, source: IpAddr) -> Duration {
        let group = PeerGroup::of(source);
        let mut addresses = self.addresses.lock();
        let Addresses { due, swept } = &mut *addresses;
        if due.len() >= MAX_ADDRESSES && now.saturating_sub(*swept) >= SWEEP_INTERVAL {
            due.retain(|_, due| *due > now);
            *swept = now;
        }
        if due.len() >= MAX_ADDRESSES && !due.contains_key(&group) {
            return Duration::ZERO;
        }
        let next = due.entry(group).or_insert(now);
        *next = (*next).max(now).saturating_add(self.interval);
        next.saturating_sub(now).saturating_sub(BURST)
    }
}

/// Returns whether a status refuses a request: a client error, or an overload.
fn is_refusal(status: StatusCode) -> bool {
    status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE
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
    fn only_refusals_are_paced() {
        let pace = RefusalPace::new(1);
        let source = "192.0.2.1".parse().unwrap();
        for (status, is_paced) in [(200, false), (304, false), (400, true), (401, true), (404, true), (429, true)] {
            let status = StatusCode::from_u16(status).unwrap();
            let delays = (0..10).map(|_| pace.delay(source, status)).collect::<Vec<_>>();
            assert_eq!(delays.iter().any(|delay| !delay.is_zero()), is_paced, "{status}");
            pace.addresses.lock().due.clear();
        }
        assert!(!is_refusal(StatusCode::INTERNAL_SERVER_ERROR) && is_refusal(StatusCode::SERVICE_UNAVAILABLE));
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
