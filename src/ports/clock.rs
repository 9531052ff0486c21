//! Time.

use std::time::Duration;

use crate::domain::time::Timestamp;

/// A source of time. A use case reads it once.
pub trait Clock: Send + Sync {
    /// Returns the wall-clock time, in whole seconds.
    fn now(&self) -> Timestamp;

    /// Returns a reading that never goes back, counted from an arbitrary start. It serves
    /// measurements and leases, and never decides whether a token is valid. It keeps counting while
    /// the machine sleeps, where the platform allows it.
    fn monotonic(&self) -> Duration;
}
