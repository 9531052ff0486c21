//! Sampling of authentication failures for the audit trail. Per minute, reason and client, the
//! first failures are recorded individually, and the rest as one count.
//!
//! Sending wrong credentials needs no credentials, so the number of failures has no limit; the
//! number of records must have one, or the failures could fill the disk.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde_json::json;

use crate::{
    app::{AuthError, RequestContext},
    domain::{
        audit::{Event, Outcome, Record},
        id::ClientId,
        time::{Lifetime, Timestamp},
    },
};

/// Number of failures of a kind that are recorded individually in each window.
const BURST_LIMIT: u64 = 20;
/// Length of a window.
const WINDOW: Lifetime = Lifetime::minutes(1);

/// The failures of the current windows, by kind. Bounded: the reasons are a closed set, and only
/// registered clients are distinguished.
#[derive(Default)]
pub(in crate::app) struct AuthFailureLog {
    windows: Mutex<HashMap<FailureKind, Window>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct FailureKind {
    reason: String,
    /// The claimed client, if it is registered.
    client: Option<ClientId>,
}

#[derive(Clone, Copy)]
struct Window {
    start: Timestamp,
    count: u64,
}

impl AuthFailureLog {
    /// Counts a failure, and returns the records to write. `client` is the claimed client, if it is
    /// registered.
    pub(in crate::app) fn add(&self, error: AuthError, client: Option<ClientId>, cx: &RequestContext) -> Vec<Record> {
        let mut records = Vec::new();
        let kind = FailureKind { reason: error.to_string(), client };
        let mut windows = self.windows.lock();
        let window = windows.entry(kind.clone()).or_insert(Window { start: cx.now, count: 0 });
        if window.is_closed(cx.now) {
            records.extend(window.summary_record(&kind, cx.now));
            *window = Window { start: cx.now, count: 0 };
        }
        window.count = window.count.saturating_add(1);
        if window.count <= BURST_LIMIT {
            records.push(auth_failure_record(error, kind.client, cx));
        }
        records
    }

    /// Removes the windows that are closed at `now`, or all of them at shutdown, and returns their
    /// counts as records.
    pub(in crate::app) fn drain(&self, now: Timestamp, is_shutdown: bool) -> Vec<Record> {
        let mut records = Vec::new();
        self.windows.lock().retain(|kind, window| {
            let is_drained = is_shutdown || window.is_closed(now);
            if is_drained {
                records.extend(window.summary_record(kind, now));
            }
            !is_drained
        });
        records
    }
}

impl Window {
    /// A window is closed too if the clock was set back: its length is then unknown.
    fn is_closed(self, now: Timestamp) -> bool {
        self.start.saturating_add(WINDOW).has_passed(now) || now < self.start
    }

    fn summary_record(self, kind: &FailureKind, now: Timestamp) -> Option<Record> {
        let count = self.count.checked_sub(BURST_LIMIT).filter(|count| *count > 0)?;
        Some(Record {
            client: kind.client.clone(),
            requested: Some(json!({"count": count, "since": self.start})),
            reason: Some(kind.reason.clone()),
            ..Record::new(now, Event::ClientAuthenticate, Outcome::Refused)
        })
    }
}

/// Builds the record of one failure. `client` is the claimed client, if it is registered; other
/// claims are not repeated.
pub(in crate::app) fn auth_failure_record(error: AuthError, client: Option<ClientId>, cx: &RequestContext) -> Record {
    Record {
        client,
        reason: Some(error.to_string()),
        request_id: Some(cx.request_id.clone()),
        ..Record::new(cx.now, Event::ClientAuthenticate, Outcome::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cx(now: i64) -> RequestContext {
        RequestContext { request_id: "r".parse().unwrap(), now: Timestamp::from_unix(now) }
    }

    fn count_of(record: &Record) -> Option<u64> {
        record.requested.as_ref().and_then(|requested| requested.get("count")?.as_u64())
    }

    #[test]
    fn burst_is_recorded_then_counted() {
        let failures = AuthFailureLog::default();
        let planner = || "planner".parse().ok();
        let mut written = 0;
        for n in 0..10_000 {
            written += failures.add(AuthError::UnknownClient, None, &cx(1000 + n / 500)).len();
        }
        assert_eq!(written, 20);
        // Another reason and a registered client have counts of their own.
        assert_eq!(failures.add(AuthError::WrongSecret, None, &cx(1020)).len(), 1);
        assert_eq!(failures.add(AuthError::UnknownClient, planner(), &cx(1020)).len(), 1);
        assert!(failures.drain(Timestamp::from_unix(1059), false).is_empty());
        // The next window begins with the count of the previous one.
        let next = failures.add(AuthError::UnknownClient, None, &cx(1060));
        assert_eq!(next.iter().map(count_of).collect::<Vec<_>>(), [Some(9_980), None]);
        assert_eq!(next[0].requested.as_ref().unwrap()["since"], 1000);
        // Failures that were recorded individually are not counted again.
        assert!(failures.drain(Timestamp::from_unix(5000), false).is_empty());
        assert!(failures.windows.lock().is_empty());
    }

    #[test]
    fn every_auth_failure_is_counted_once() {
        let failures = AuthFailureLog::default();
        let mut total = 0;
        let mut count = |records: Vec<Record>| total += records.iter().map(|r| count_of(r).unwrap_or(1)).sum::<u64>();
        // The clock advances, stays the same and is set back.
        for n in 0..1000_i64 {
            count(failures.add(AuthError::UnknownClient, None, &cx(5000 + n * 7 % 311 * (n % 3))));
            if n % 100 == 0 {
                count(failures.drain(Timestamp::from_unix(5000 + n), false));
            }
        }
        count(failures.drain(Timestamp::from_unix(5000), true));
        assert_eq!(total, 1000);
        assert!(failures.windows.lock().is_empty());
    }
}
