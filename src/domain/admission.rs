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
    /// The task API, for clients.
    Tasks,
    /// The task and grant API, for requesters.
    Requester,
    /// The admin API.
    Admin,
}

impl Family {
    /// Returns the name of the family: its key in `[limits]`, and the name of the policy in
    /// `RateLimit` headers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exchange => "exchange",
            Self::Introspection => "introspection",
            Self::Tasks => "tasks",
            Self::Requester => "requester",
            Self::Admin => "admin",
        }
    }

    /// Returns the limit of the family.
    #[must_use]
    pub fn limit(self, limits: &AdmissionLimits) -> RateLimit {
        match self {
            Self::Exchange => limits.exchange,
            Self::Introspection => limits.introspection,
            Self::Tasks => limits.tasks,
            Self::Requester => limits.requester,
            Self::Admin => limits.admin,
        }
    }
}

/// A request that was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("too many {unit}: the limit is {} ([limits] {}); retry after {} s", self.number(), .family.as_str(), .retry_after.as_secs())]
pub struct Throttled {
    /// The family of the request.
    pub family: Family,
    /// The limit that applies.
    pub limit: RateLimit,
    /// The excess: `requests per second` or `requests in progress`.
    pub unit: Excess,
    /// When a request will be admitted again: whole seconds, at least one.
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
