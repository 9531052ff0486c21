//! Lanes: the connections of a store, separated by the work that they do.
//!
//! A pool that clients can fill delays only those clients. Requests, lists and commits have a pool
//! each, and a reserved pool serves the follower, the lease, readiness and revocations.

use std::time::Duration;

use thiserror::Error;

use crate::ports::{CommitError, ListError, Outage};

/// The operation of an outage that means that a lane had no connection.
pub(crate) const OP_CONNECT: &str = "connect to the store";

/// The number of connections that no request of a client can occupy.
pub(crate) const RESERVED_CONNECTIONS: u32 = 4;

/// An error of a store call, as far as it concerns the connection that the call used.
pub(crate) trait CallError: From<Outage> {
    /// Returns the outage after which the connection may be unusable. `None`: the connection is in
    /// order.
    fn outage(&self) -> Option<&Outage>;

    /// Returns the error of a call that took longer than its lane allows.
    fn timed_out(limit: Duration) -> Self {
        Outage::during("read the store")(CallTimedOutError(limit)).into()
    }

    /// Returns the error of a call whose statement the database canceled after a limit. The
    /// operation stays named where the error can name one.
    fn or_timed_out(self, _limit: Duration) -> Self {
        self
    }
}

/// A call took longer than its lane allows.
#[derive(Debug, Error)]
#[error("the statement took longer than {} ms", .0.as_millis())]
struct CallTimedOutError(Duration);

impl CallError for Outage {
    fn outage(&self) -> Option<&Outage> {
        Some(self)
    }
}

impl CallError for ListError {
    fn outage(&self) -> Option<&Outage> {
        match self {
            Self::Outage(outage) => Some(outage),
            Self::InvalidCursor | Self::TimedOut(_) => None,
        }
    }

    fn timed_out(limit: Duration) -> Self {
        Self::TimedOut(limit)
    }

    fn or_timed_out(self, limit: Duration) -> Self {
        Self::TimedOut(limit)
    }
}

impl CallError for CommitError {
    fn outage(&self) -> Option<&Outage> {
        match self {
            Self::Outage(outage) => Some(outage),
            Self::RolledBack(_) => None,
        }
    }
}

/// Runs one call on a connection of a lane: `on!(self.requests, read::find_task(id))`.
macro_rules! on {
    ($lane:expr, $($call:ident)::+ ($($argument:expr),* $(,)?)) => {{
        let mut connection = $lane.acquire().await?;
        let limit = connection.limit();
        let result = limit.apply($($call)::+(&mut connection, $($argument),*)).await;
        connection.conclude(result)
    }};
}

pub(crate) use on;
