//! Durations as whole nanoseconds, for readings of the monotonic clock that are kept in an atomic
//! integer.

use std::time::Duration;

/// Returns the duration in nanoseconds, or `u64::MAX` (584 years) if it does not fit.
pub(in crate::app) fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
