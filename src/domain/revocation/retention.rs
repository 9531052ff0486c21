//! How long entries of the revocation log are kept.

use std::time::Duration;

use crate::domain::{
    settings::{MAX_CLOCK_SKEW, TOKEN_LIFETIME_CAP},
    time::Timestamp,
};

/// How long an entry is held after it was applied: longer than any token lives that it could end, and than wall clocks of
/// replicas may differ. Counted on the holder's own monotonic clock: nobody's wall clock can make an entry go early.
pub const RETENTION: Duration = Duration::from_secs(TOKEN_LIFETIME_CAP.as_seconds() as u64 + 3600);

/// When the entry about a token may be forgotten. Never before it is written, however long ago the token ended: where entries
/// were passed over, nothing is good that is as old.
#[must_use]
pub fn retain_until(expires: Timestamp, now: Timestamp) -> Timestamp {
    expires.max(now).saturating_add(MAX_CLOCK_SKEW)
}

/// Nothing that was issued until now, and nothing that is being issued, lives longer than this.
#[must_use]
pub fn latest_possible_expiry(now: Timestamp) -> Timestamp {
    now.saturating_add(TOKEN_LIFETIME_CAP).saturating_add(MAX_CLOCK_SKEW)
}
