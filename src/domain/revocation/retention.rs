//! Retention of log entries.

use std::time::Duration;

use crate::domain::{
    settings::{MAX_CLOCK_SKEW, TOKEN_LIFETIME_CAP},
    time::Timestamp,
};

/// How long an entry stays in the index after it was applied: longer than the lifetime of any token
/// that it could revoke, plus the maximum skew of wall clocks between replicas. It is counted on
/// this process's monotonic clock, so no wall clock can evict an entry early.
pub const RETENTION: Duration = Duration::from_secs(TOKEN_LIFETIME_CAP.as_seconds() as u64 + 3600);

/// Returns until when the entry about a token must be retained. The result is never before the time
/// of writing, however long ago the token expired, because tokens older than a skipped entry count
/// as revoked.
#[must_use]
pub fn retain_until(expires: Timestamp, now: Timestamp) -> Timestamp {
    expires.max(now).saturating_add(MAX_CLOCK_SKEW)
}

/// Returns the latest time at which a token that was issued before, or is being issued now, can
/// expire.
#[must_use]
pub fn latest_possible_expiry(now: Timestamp) -> Timestamp {
    now.saturating_add(TOKEN_LIFETIME_CAP).saturating_add(MAX_CLOCK_SKEW)
}
