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
    app::{AuthFault, Cx},
    domain::{
        audit::{Event, Outcome, Record},
        id::ClientId,
        time::{Lifetime, Timestamp},
    },
};

/// How many of a kind stand in the trail one by one, each minute.
const ONE_BY_ONE: u64 = 20;
const INTERVAL: Lifetime = Lifetime::minutes(1);

/// What was refused lately, by why and whom. Bounded: the reasons are a closed set, and a client is named only when it is
/// registered.
#[derive(Default)]
pub(super) struct Refusals(Mutex<HashMap<(String, Option<ClientId>), Lately>>);

#[derive(Clone, Copy)]
struct Lately {
    since: Timestamp,
    times: u64,
}

impl Refusals {
    /// The records to write when a client is refused now. What was claimed is not repeated: a client is named when there is
    /// one of this name.
    pub(super) fn add(&self, fault: AuthFault, known: Option<ClientId>, cx: &Cx) -> Vec<Record> {
        let mut records = Vec::new();
        let of_kind = (fault.to_string(), known);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = all.entry(of_kind.clone()).or_insert(Lately { since: cx.now, times: 0 });
        if lately.is_over(cx.now) {
            records.extend(lately.counted(&of_kind, cx.now));
            *lately = Lately { since: cx.now, times: 0 };
        }
        lately.times = lately.times.saturating_add(1);
        if lately.times <= ONE_BY_ONE {
            records.push(refused_client(fault, of_kind.1, cx));
        }
        records
    }

    /// The counts of minutes that are over at `now`; all, where it is the end.
    pub(super) fn take(&self, now: Timestamp, is_end: bool) -> Vec<Record> {
        let mut records = Vec::new();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|of_kind, lately| {
            let is_over = is_end || lately.is_over(now);
            if is_over {
                records.extend(lately.counted(of_kind, now));
            }
            !is_over
        });
        records
    }
}

impl Lately {
    /// Also when the clock was set back: the minute is then not one.
    fn is_over(self, now: Timestamp) -> bool {
        self.since.after(INTERVAL).is_past(now) || now < self.since
    }

    fn counted(self, (reason, client): &(String, Option<ClientId>), now: Timestamp) -> Option<Record> {
        let more = self.times.checked_sub(ONE_BY_ONE).filter(|more| *more > 0)?;
        Some(Record {
            client: client.clone(),
            asked: Some(json!({"more": more, "since": self.since})),
            reason: Some(reason.clone()),
            ..Record::new(now, Event::ClientAuthenticate, Outcome::Refused)
        })
    }
}

/// What was claimed is not repeated: a client is named when there is one of this name.
pub(super) fn refused_client(fault: AuthFault, known: Option<ClientId>, cx: &Cx) -> Record {
    Record {
        client: known,
        reason: Some(fault.to_string()),
        request_id: Some(cx.request_id.clone()),
        ..Record::new(cx.now, Event::ClientAuthenticate, Outcome::Refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cx(now: i64) -> Cx {
        Cx { request_id: "r".parse().unwrap(), now: Timestamp::from_unix(now) }
    }

    fn more(record: &Record) -> Option<u64> {
        record.asked.as_ref().and_then(|asked| asked.get("more")?.as_u64())
    }

    #[test]
    fn a_flood_is_a_few_records_and_a_count() {
        let refusals = Refusals::default();
        let planner = || "planner".parse().ok();
        let mut written = 0;
        for n in 0..10_000 {
            written += refusals.add(AuthFault::Unknown, None, &cx(1000 + n / 500)).len();
        }
        assert_eq!(written, 20);
        // Another reason, and somebody who is known, have counts of their own.
        assert_eq!(refusals.add(AuthFault::Secret, None, &cx(1020)).len(), 1);
        assert_eq!(refusals.add(AuthFault::Unknown, planner(), &cx(1020)).len(), 1);
        assert!(refusals.take(Timestamp::from_unix(1059), false).is_empty());
        // The next minute begins with the count of the last one.
        let next = refusals.add(AuthFault::Unknown, None, &cx(1060));
        assert_eq!(next.iter().map(more).collect::<Vec<_>>(), [Some(9_980), None]);
        assert_eq!(next[0].asked.as_ref().unwrap()["since"], 1000);
        // Few enough to stand one by one are not counted again.
        assert!(refusals.take(Timestamp::from_unix(5000), false).is_empty());
        assert!(refusals.0.lock().unwrap().is_empty());
    }

    #[test]
    fn every_refusal_is_counted_once() {
        let refusals = Refusals::default();
        let mut total = 0;
        let mut count = |records: Vec<Record>| total += records.iter().map(|r| more(r).unwrap_or(1)).sum::<u64>();
        // Clocks go on, stand still and are set back.
        for n in 0..1000_i64 {
            count(refusals.add(AuthFault::Unknown, None, &cx(5000 + n * 7 % 311 * (n % 3))));
            if n % 100 == 0 {
                count(refusals.take(Timestamp::from_unix(5000 + n), false));
            }
        }
        count(refusals.take(Timestamp::from_unix(5000), true));
        assert_eq!(total, 1000);
        assert!(refusals.0.lock().unwrap().is_empty());
    }
}
