//! The lease: how long this replica may answer from memory without reading the log's head from the
//! store.
//!
//! [`renewal`](super::renewal) extends it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::app::nanos::saturating_nanos;

/// The lease of this replica. A new lease is not valid.
#[derive(Debug, Default)]
pub(in crate::app) struct Lease {
    /// The end of the lease, in nanoseconds of the monotonic clock.
    valid_until: AtomicU64,
}

impl Lease {
    /// Returns whether the lease is valid at this reading of the monotonic clock.
    pub(in crate::app) fn is_valid(&self, now: Duration) -> bool {
        saturating_nanos(now) < self.valid_until.load(Ordering::SeqCst)
    }

    /// Extends the lease to this reading of the monotonic clock, unless it already lasts longer.
    pub(in crate::app) fn extend(&self, until: Duration) {
        self.valid_until.fetch_max(saturating_nanos(until), Ordering::SeqCst);
    }

    /// Ends the lease; the next [`extend`](Self::extend) makes it valid again.
    pub(in crate::app) fn invalidate(&self) {
        self.valid_until.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lease_is_valid_until_its_end_and_is_never_shortened() {
        let lease = Lease::default();
        let at = Duration::from_secs;
        assert!(!lease.is_valid(at(0)));
        lease.extend(at(5));
        assert!(lease.is_valid(at(4)) && !lease.is_valid(at(5)));
        lease.extend(at(3));
        assert!(lease.is_valid(at(4)), "an earlier end does not shorten it");
        lease.invalidate();
        assert!(!lease.is_valid(at(0)));
        lease.extend(at(3));
        assert!(lease.is_valid(at(2)) && !lease.is_valid(at(3)));
    }
}
