//! Sampling of refusals for the audit trail. Per minute, event, caller and reason, the first
//! refusals are recorded one by one, and the rest as one count. A caller is a client, or else a
//! requester.
//!
//! A client can cause refusals at will, and wrong credentials need no client at all. The number of
//! refusals has no limit, so the number of records must have one, or refusals could fill the disk.
//! Refused requests of admins are not sampled; see [`Service::record_refusal`].

use std::collections::HashMap;

use parking_lot::Mutex;
use serde_json::json;

use crate::{
    app::Service,
    domain::{
        audit::{Event, Outcome, Record},
        id::ClientId,
        requester::Requester,
        time::{Lifetime, Timestamp},
    },
};

/// Number of refusals of a kind that are recorded one by one in each window.
const BURST_LIMIT: u64 = 20;
/// Length of a window.
const WINDOW: Lifetime = Lifetime::minutes(1);
/// Number of kinds whose reasons and requesters are distinguished. Further kinds of a client share
/// one window, and so do those of all requesters.
const MAX_KINDS: usize = 4096;
/// The reason in the record of a window that several reasons share.
const OTHER_REASONS: &str = "other reasons";

/// The refusals of the current windows, by kind. Bounded: only registered clients are
/// distinguished, and not more than [`MAX_KINDS`] reasons and requesters.
#[derive(Default)]
pub(in crate::app) struct RefusalSampler {
    windows: Mutex<HashMap<RefusalKind, Window>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct RefusalKind {
    event: Event,
    outcome: Outcome,
    /// The client, or the claimed client if it is registered.
    client: Option<ClientId>,
    /// The requester, if no client sent the request.
    requester: Option<Requester>,
    reason: Option<String>,
}

#[derive(Clone, Copy)]
struct Window {
    start: Timestamp,
    count: u64,
    /// How many of them were recorded one by one.
    recorded: u64,
}

impl Window {
    fn new(start: Timestamp) -> Self {
        Self { start, count: 0, recorded: 0 }
    }
}

impl RefusalSampler {
    /// Counts a refusal, and returns the records to write: none, the record itself, or with it the
    /// count of the previous window.
    pub(in crate::app) fn sample(&self, record: Record) -> Vec<Record> {
        self.add(record, BURST_LIMIT)
    }

    /// Counts an event that is never recorded by itself. Returns the count of the previous window,
    /// if that is due.
    pub(in crate::app) fn count(&self, record: Record) -> Vec<Record> {
        self.add(record, 0)
    }

    fn add(&self, record: Record, burst: u64) -> Vec<Record> {
        let now = record.at;
        let mut windows = self.windows.lock();
        let mut kind = RefusalKind {
            event: record.event,
            outcome: record.outcome,
            client: record.client.clone(),
            requester: record.requester.clone().filter(|_| record.client.is_none()),
            reason: record.reason.clone(),
        };
        if windows.len() >= MAX_KINDS && !windows.contains_key(&kind) {
            (kind.requester, kind.reason) = (None, Some(OTHER_REASONS.to_owned()));
        }
        let window = windows.entry(kind.clone()).or_insert(Window::new(now));
        let mut records = Vec::new();
        if window.is_closed(now) {
            records.extend(window.summary_record(&kind, now));
            *window = Window::new(now);
        }
        window.count = window.count.saturating_add(1);
        if window.recorded < burst {
            window.recorded += 1;
            records.push(record);
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
    /// A window is closed too if the clock was set back by more than a window. Requests are
    /// concurrent, so `now` may be a little earlier than the start.
    fn is_closed(self, now: Timestamp) -> bool {
        self.start.saturating_add(WINDOW).has_passed(now) || self.start > now.saturating_add(WINDOW)
    }

    fn summary_record(self, kind: &RefusalKind, now: Timestamp) -> Option<Record> {
        let more = self.count.checked_sub(self.recorded).filter(|more| *more > 0)?;
        Some(Record {
            client: kind.client.clone(),
            requester: kind.requester.clone(),
            requested: Some(json!({"count": more, "since": self.start})),
            reason: kind.reason.clone(),
            ..Record::new(now, kind.event, kind.outcome)
        })
    }
}

impl Service {
    /// Records a refusal that a client can cause at will, without waiting for the store.
    pub(in crate::app) fn enqueue_sampled(&self, record: Record) {
        for record in self.inner.refusals.sample(record) {
            self.inner.writer.enqueue_audit(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(reason: &str, client: Option<&str>, now: i64) -> Record {
        Record {
            client: client.map(|id| id.parse().unwrap()),
            reason: Some(reason.to_owned()),
            ..Record::new(Timestamp::from_unix(now), Event::ClientAuthenticate, Outcome::Refused)
        }
    }

    fn requester(subject: &str) -> Requester {
        let issuer = "https://login.example.com".parse().unwrap();
        Requester { issuer, subject: subject.parse().unwrap() }
    }

    fn more(record: &Record) -> Option<u64> {
        record.requested.as_ref().and_then(|requested| requested.get("count")?.as_u64())
    }

    #[test]
    fn burst_is_recorded_then_counted() {
        let sampler = RefusalSampler::default();
        let mut written = 0;
        for n in 0..10_000 {
            written += sampler.sample(refusal("unknown", None, 1000 + n / 500)).len();
        }
        assert_eq!(written, 20);
        // Another reason, another event and a registered client have counts of their own.
        assert_eq!(sampler.sample(refusal("wrong", None, 1020)).len(), 1);
        assert_eq!(sampler.sample(refusal("unknown", Some("planner"), 1020)).len(), 1);
        assert_eq!(sampler.sample(Record { event: Event::TokenIssue, ..refusal("unknown", None, 1020) }).len(), 1);
        assert!(sampler.drain(Timestamp::from_unix(1059), false).is_empty());
        // The next window begins with the count of the previous one.
        let next = sampler.sample(refusal("unknown", None, 1060));
        assert_eq!(next.iter().map(more).collect::<Vec<_>>(), [Some(9_980), None]);
        assert_eq!(next[0].requested.as_ref().unwrap()["since"], 1000);
        // Refusals that were recorded one by one are not counted again.
        assert!(sampler.drain(Timestamp::from_unix(5000), false).is_empty());
        assert!(sampler.windows.lock().is_empty());
    }

    #[test]
    fn requesters_have_windows_of_their_own() {
        let sampler = RefusalSampler::default();
        let by = |subject: &str, client| Record {
            requester: Some(requester(subject)),
            ..refusal("the task has ended", client, 1000)
        };
        assert_eq!((0..100).map(|_| sampler.sample(by("mallory", None)).len()).sum::<usize>(), 20);
        assert_eq!(sampler.sample(by("alice", None)).len(), 1, "a flood of one person hides no other");
        assert_eq!(
            (0..100).map(|n| sampler.sample(by(&format!("user-{n}"), Some("planner"))).len()).sum::<usize>(),
            20
        );
        let counts = sampler.drain(Timestamp::from_unix(2000), false);
        let subjects = counts.iter().map(|record| record.requester.as_ref().map(|who| who.subject.to_string()));
        assert_eq!(subjects.flatten().collect::<Vec<_>>(), ["mallory"]);
    }

    #[test]
    fn request_that_began_earlier_opens_no_window() {
        let sampler = RefusalSampler::default();
        let written = (0..100).map(|n| sampler.sample(refusal("unknown", None, 1001 - n % 2)).len()).sum::<usize>();
        assert_eq!(written, 20);
    }

    #[test]
    fn counted_event_is_not_recorded_by_itself() {
        let sampler = RefusalSampler::default();
        let unknown = |now| Record { outcome: Outcome::Inactive, ..refusal("foreign", Some("files"), now) };
        assert!((0..100).all(|_| sampler.count(unknown(1000)).is_empty()));
        let summary = sampler.count(unknown(1060));
        assert_eq!(summary.iter().map(more).collect::<Vec<_>>(), [Some(100)]);
        assert_eq!((summary[0].outcome, summary[0].client.clone()), (Outcome::Inactive, "files".parse().ok()));
    }

    #[test]
    fn every_refusal_is_counted_once() {
        let sampler = RefusalSampler::default();
        let mut total = 0;
        let mut count = |records: Vec<Record>| total += records.iter().map(|r| more(r).unwrap_or(1)).sum::<u64>();
        // The clock advances, stays the same and is set back.
        for n in 0..1000_i64 {
            count(sampler.sample(refusal("unknown", None, 5000 + n * 7 % 311 * (n % 3))));
            if n % 100 == 0 {
                count(sampler.drain(Timestamp::from_unix(5000 + n), false));
            }
        }
        count(sampler.drain(Timestamp::from_unix(5000), true));
        assert_eq!(total, 1000);
        assert!(sampler.windows.lock().is_empty());
    }

    #[test]
    fn kinds_are_bounded() {
        let sampler = RefusalSampler::default();
        let mut written = 0;
        for n in 0..3 * MAX_KINDS {
            written += sampler.sample(refusal(&format!("reason {n}"), Some("planner"), 1000)).len();
        }
        assert_eq!(sampler.windows.lock().len(), MAX_KINDS + 1);
        assert_eq!(written as u64, MAX_KINDS as u64 + BURST_LIMIT);
        // So is the number of requesters.
        for n in 0..100 {
            sampler
                .sample(Record { requester: Some(requester(&format!("user-{n}"))), ..refusal("conflict", None, 1000) });
        }
        assert_eq!(sampler.windows.lock().len(), MAX_KINDS + 2);
        // Another client is still distinguished.
        sampler.sample(refusal("reason 0", Some("reader"), 1000));
        assert_eq!(sampler.windows.lock().len(), MAX_KINDS + 3);
        let counted = sampler.drain(Timestamp::from_unix(1000), true).iter().filter_map(more).sum::<u64>();
        assert_eq!(counted, 2 * MAX_KINDS as u64 - BURST_LIMIT + 100 - BURST_LIMIT);
    }
}
