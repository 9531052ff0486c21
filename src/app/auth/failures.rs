//! Refused clients, and requesters at the portal, on record, without a limit to how often one can be refused: some of a kind stand in the trail one by
//! one, the others of the same minute are counted, and the count is one record.
//!
//! Anybody can send wrong credentials, as fast as the network takes them; a disk must not fill by it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use serde_json::json;

use crate::{
    app::{AuthError, RequestContext},
    domain::{
        audit::{Event, Outcome, Record},
        id::ClientId,
        time::{Lifetime, Timestamp},
    },
};

/// How many of a kind stand in the trail one by one, each minute.
const BURST_LIMIT: u64 = 20;
const WINDOW: Lifetime = Lifetime::minutes(1);

/// What was refused lately, by why and whom. Bounded: the reasons are a closed set, and a client is named only when it is
/// registered.
#[derive(Default)]
pub(in crate::app) struct AuthFailureLog(Mutex<HashMap<(String, Option<ClientId>), Window>>);

#[derive(Clone, Copy)]
struct Window {
    start: Timestamp,
    count: u64,
}

impl AuthFailureLog {
    /// The records to write when a client is refused now. What was claimed is not repeated: a client is named when there is
    /// one of this name.
    pub(in crate::app) fn add(&self, error: AuthError, known: Option<ClientId>, cx: &RequestContext) -> Vec<Record> {
        let mut records = Vec::new();
        let of_kind = (error.to_string(), known);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = all.entry(of_kind.clone()).or_insert(Window { start: cx.now, count: 0 });
        if lately.is_closed(cx.now) {
            records.extend(lately.summary_record(&of_kind, cx.now));
            *lately = Window { start: cx.now, count: 0 };
        }
        lately.count = lately.count.saturating_add(1);
        if lately.count <= BURST_LIMIT {
            records.push(auth_failure_record(error, of_kind.1, cx));
        }
        records
    }

    /// The counts of minutes that are over at `now`; all, where it is the end.
    pub(in crate::app) fn drain(&self, now: Timestamp, is_end: bool) -> Vec<Record> {
        let mut records = Vec::new();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|of_kind, lately| {
            let is_over = is_end || lately.is_closed(now);
            if is_over {
                records.extend(lately.summary_record(of_kind, now));
            }
            !is_over
        });
        records
    }
}

impl Window {
    /// Also when the clock was set back: the minute is then not one.
    fn is_closed(self, now: Timestamp) -> bool {
        self.start.saturating_add(WINDOW).has_passed(now) || now < self.start
    }

    fn summary_record(self, (reason, client): &(String, Option<ClientId>), now: Timestamp) -> Option<Record> {
        let more = self.count.checked_sub(BURST_LIMIT).filter(|more| *more > 0)?;
        Some(Record {
            client: client.clone(),
            requested: Some(json!({"more": more, "since": self.start})),
            reason: Some(reason.clone()),
            ..Record::new(now, Event::ClientAuthenticate, Outcome::Refused)
        })
    }
}

/// What was claimed is not repeated: a client is named when there is one of this name.
pub(in crate::app) fn auth_failure_record(error: AuthError, known: Option<ClientId>, cx: &RequestContext) -> Record {
    Record {
        client: known,
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

    fn more(record: &Record) -> Option<u64> {
        record.requested.as_ref().and_then(|asked| asked.get("more")?.as_u64())
    }

    #[test]
    fn burst_is_recorded_then_counted() {
        let refusals = AuthFailureLog::default();
        let planner = || "planner".parse().ok();
        let mut written = 0;
        for n in 0..10_000 {
            written += refusals.add(AuthError::UnknownClient, None, &cx(1000 + n / 500)).len();
        }
        assert_eq!(written, 20);
        // Another reason, and somebody who is known, have counts of their own.
        assert_eq!(refusals.add(AuthError::WrongSecret, None, &cx(1020)).len(), 1);
        assert_eq!(refusals.add(AuthError::UnknownClient, planner(), &cx(1020)).len(), 1);
        assert!(refusals.drain(Timestamp::from_unix(1059), false).is_empty());
        // The next minute begins with the count of the last one.
        let next = refusals.add(AuthError::UnknownClient, None, &cx(1060));
        assert_eq!(next.iter().map(more).collect::<Vec<_>>(), [Some(9_980), None]);
        assert_eq!(next[0].requested.as_ref().unwrap()["since"], 1000);
        // Few enough to stand one by one are not counted again.
        assert!(refusals.drain(Timestamp::from_unix(5000), false).is_empty());
        assert!(refusals.0.lock().unwrap().is_empty());
    }

    #[test]
    fn every_auth_failure_is_counted_once() {
        let refusals = AuthFailureLog::default();
        let mut total = 0;
        let mut count = |records: Vec<Record>| total += records.iter().map(|r| more(r).unwrap_or(1)).sum::<u64>();
        // Clocks go on, stand still and are set back.
        for n in 0..1000_i64 {
            count(refusals.add(AuthError::UnknownClient, None, &cx(5000 + n * 7 % 311 * (n % 3))));
            if n % 100 == 0 {
                count(refusals.drain(Timestamp::from_unix(5000 + n), false));
            }
        }
        count(refusals.drain(Timestamp::from_unix(5000), true));
        assert_eq!(total, 1000);
        assert!(refusals.0.lock().unwrap().is_empty());
    }
}
