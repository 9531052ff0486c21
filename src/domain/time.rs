//! Timestamps and durations as plain data. A use-case reads the clock once and passes the value on.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Seconds since 1970-01-01T00:00:00Z: the `NumericDate` of RFC 7519 §2 without fractions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// 9999-12-31T23:59:59Z: the last second that RFC 3339 can represent.
const MAX_UNIX_SECONDS: i64 = 253_402_300_799;

impl Timestamp {
    /// The first second of 1970.
    pub const EPOCH: Self = Self(0);
    /// The last representable second (end of the year 9999).
    pub const MAX: Self = Self(MAX_UNIX_SECONDS);

    /// Returns the time with this many seconds since the epoch, clamped to the years 1970 to 9999.
    #[must_use]
    pub const fn from_unix(seconds: i64) -> Self {
        if seconds < 0 {
            Self(0)
        } else if seconds > MAX_UNIX_SECONDS {
            Self(MAX_UNIX_SECONDS)
        } else {
            Self(seconds)
        }
    }

    /// Returns the seconds since the epoch.
    #[must_use]
    pub const fn unix(self) -> i64 {
        self.0
    }

    /// Adds a duration. Saturates, so that a hostile number can shorten a lifetime but not wrap it.
    #[must_use]
    pub const fn saturating_add(self, duration: Lifetime) -> Self {
        Self::from_unix(self.0.saturating_add(duration.0 as i64))
    }

    /// Subtracts a duration, saturating at 1970.
    #[must_use]
    pub const fn saturating_sub(self, duration: Lifetime) -> Self {
        Self::from_unix(self.0.saturating_sub(duration.0 as i64))
    }

    /// Returns the last second of the previous hour, saturating at 1970.
    #[must_use]
    pub const fn end_of_previous_hour(self) -> Self {
        Self::from_unix(self.0 - self.0 % 3600 - 1)
    }

    /// Returns whether this expiry has passed. RFC 7519 §4.1.4: a token is invalid "on or after"
    /// its expiry.
    #[must_use]
    pub const fn has_passed(self, now: Self) -> bool {
        self.0 <= now.0
    }

    /// Returns the duration from `now` until this time; zero if it has passed.
    #[must_use]
    pub fn remaining_from(self, now: Self) -> Lifetime {
        Lifetime(u32::try_from(self.0.saturating_sub(now.0).max(0)).unwrap_or(u32::MAX))
    }

    /// Formats the time as RFC 3339, in UTC, to the second.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        OffsetDateTime::from_unix_timestamp(self.0).ok().and_then(|at| at.format(&Rfc3339).ok()).unwrap_or_default()
    }

    /// Parses RFC 3339, discarding fractions of a second.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        (0..=MAX_UNIX_SECONDS).contains(&at.unix_timestamp()).then_some(Self(at.unix_timestamp()))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_rfc3339())
    }
}

/// A duration in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lifetime(u32);

impl Lifetime {
    /// Returns a duration of this many seconds.
    #[must_use]
    pub const fn seconds(seconds: u32) -> Self {
        Self(seconds)
    }

    /// Returns a duration of this many minutes.
    #[must_use]
    pub const fn minutes(minutes: u32) -> Self {
        Self(minutes.saturating_mul(60))
    }

    /// Returns a duration of this many hours.
    #[must_use]
    pub const fn hours(hours: u32) -> Self {
        Self::minutes(hours.saturating_mul(60))
    }

    /// Returns the number of seconds.
    #[must_use]
    pub const fn as_seconds(self) -> u32 {
        self.0
    }

    /// Returns the sum of two durations.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamp_has_passed_in_its_own_second() {
        let exp = Timestamp::from_unix(100);
        assert!(!exp.has_passed(Timestamp::from_unix(99)));
        assert!(exp.has_passed(Timestamp::from_unix(100)));
        assert!(exp.has_passed(Timestamp::from_unix(101)));
    }

    #[test]
    fn out_of_range_timestamps_saturate() {
        assert_eq!(Timestamp::from_unix(i64::MAX).saturating_add(Lifetime(u32::MAX)), Timestamp::MAX);
        assert_eq!(Timestamp::from_unix(i64::MIN).saturating_sub(Lifetime(u32::MAX)), Timestamp::EPOCH);
        assert_eq!(Timestamp::MAX.to_rfc3339(), "9999-12-31T23:59:59Z");
        assert_eq!(Timestamp::parse_rfc3339("2026-11-20T10:00:00+01:00"), Some(Timestamp(1_795_165_200)));
        assert_eq!(Timestamp::parse_rfc3339("yesterday"), None);
    }

    #[test]
    fn end_of_previous_hour_is_in_a_complete_hour() {
        for (at, want) in [(7200, 7199), (7199, 3599), (3600, 3599), (3599, 0), (0, 0)] {
            assert_eq!(Timestamp::from_unix(at).end_of_previous_hour(), Timestamp::from_unix(want), "{at}");
        }
        assert_eq!(Timestamp::MAX.end_of_previous_hour().to_rfc3339(), "9999-12-31T22:59:59Z");
    }
}
