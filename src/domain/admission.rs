//! Admission: the families of requests, and why a request is not admitted.

use std::{fmt, time::Duration};

use thiserror::Error;

use crate::domain::settings::{AdmissionLimits, RateLimit};

/// The families of requests. Each has limits of its own, so that one use does not take away from
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// The token and revocation endpoints.
    Exchange,
    /// The introspection endpoint.
    Introspection,
    /// The evaluation endpoints.
    Evaluation,
    /// The task API, for clients.
    Tasks,
    /// The task and grant API, for requesters.
    Requester,
    /// The admin API.
    Admin,
    /// The revocation feed.
    Feed,
}

impl Family {
    /// Returns the name of the family: its key in `[limits]`, and the name of the policy in
    /// `RateLimit` headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Introspection => "introspection",
            Self::Evaluation => "evaluation",
            Self::Tasks => "tasks",
            Self::Requester => "requester",
            Self::Admin => "admin",
            Self::Feed => "feed",
        }
    }

    /// Returns the limit of the family.
    #[must_use]
    pub fn limit(self, limits: &AdmissionLimits) -> RateLimit {
        match self {
            Self::Exchange => limits.exchange,
            Self::Introspection => limits.introspection,
            Self::Evaluation => limits.evaluation,
            Self::Tasks => limits.tasks,
            Self::Requester => limits.requester,
            Self::Admin => limits.admin,
            Self::Feed => limits.feed,
        }
    }
}

/// Returns whole seconds for `Retry-After` (RFC 9110 §10.2.3), rounded up: at least one, so that no
/// client retries at once.
#[must_use]
pub fn retry_after_seconds(wait: Duration) -> u64 {
    let seconds = wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0));
    seconds.max(1)
}

/// A request that was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many {unit}: the limit is {} ([limits] {}); retry after {} s", self.number(), .family.as_str(), retry_after_seconds(self.retry_after))]
pub struct Throttled {
    /// The family of the request.
    pub family: Family,
    /// The limit that applies.
    pub limit: RateLimit,
    /// The excess: `requests per second` or `requests in progress`.
    pub unit: Excess,
    /// When a request will be admitted again.
    pub retry_after: Duration,
}

/// Which limit is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excess {
    /// The rate.
    Rate,
    /// The number of requests at a time.
    InFlight,
}

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rate => "requests per second",
            Self::InFlight => "requests in progress",
        })
    }
}

impl Throttled {
    fn number(&self) -> u32 {
        match self.unit {
            Excess::Rate => self.limit.per_second.get(),
            Excess::InFlight => self.limit.in_flight.get(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_at_least_a_second_and_never_too_early() {
        for (wait, seconds) in [(0, 1), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (59_999, 60)] {
            assert_eq!(retry_after_seconds(Duration::from_millis(wait)), seconds, "{wait} ms");
        }
        assert_eq!(retry_after_seconds(Duration::MAX), u64::MAX);
    }
}
