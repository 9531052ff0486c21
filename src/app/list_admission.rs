//! Admission of lists: how many lists a client may read at the same time, and how many rows per
//! second.
//!
//! Lists have connections of their own, and the first limit keeps one client from occupying all of
//! them. A row costs processor time as well, so the second limit keeps one client from occupying
//! the processors with large lists.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;

use crate::{
    app::{ApiCaller, ConflictError, RequesterCaller, Service},
    ports::Clock,
};

/// Rows per second that one client may read in lists, sustained.
const ROWS_PER_SECOND: u64 = 2_000;
/// Rows that one client may read at once after a pause.
const ROWS_BURST: u64 = 20_000;
/// The number of clients above which those without use are forgotten.
const MAX_IDLE_CALLERS: usize = 4096;

/// Counts the lists that are being read.
pub(in crate::app) struct ListAdmission {
    max_per_client: usize,
    clock: Arc<dyn Clock>,
    callers: Callers,
}

type Callers = Arc<Mutex<HashMap<String, ListUsage>>>;

/// What one caller uses.
#[derive(Debug, Default)]
struct ListUsage {
    in_progress: usize,
    /// Rows that the caller read, less those that the time since allows.
    rows: u64,
    /// The time of `rows`.
    at: Duration,
}

impl ListUsage {
    fn advance(&mut self, now: Duration) {
        let allowed = now.saturating_sub(self.at).as_millis().saturating_mul(ROWS_PER_SECOND.into()) / 1000;
        // Less than a row is kept for the next time.
        if allowed > 0 {
            self.rows = self.rows.saturating_sub(u64::try_from(allowed).unwrap_or(u64::MAX));
            self.at = now;
        }
    }
}

/// The permission to read one list. Dropping it ends the list.
#[derive(Debug)]
pub struct ListPermit {
    caller: String,
    callers: Callers,
}

impl ListPermit {
    /// Counts the rows of the list.
    pub fn count_rows(&self, rows: usize) {
        if let Some(usage) = self.callers.lock().get_mut(&self.caller) {
            usage.rows = usage.rows.saturating_add(u64::try_from(rows).unwrap_or(u64::MAX));
        }
    }
}

impl ListAdmission {
    pub(in crate::app) fn new(max_per_client: usize, clock: Arc<dyn Clock>) -> Self {
        Self { max_per_client, clock, callers: Arc::default() }
    }

    fn admit(&self, caller: String) -> Result<ListPermit, ConflictError> {
        let now = self.clock.monotonic();
        let mut callers = self.callers.lock();
        if callers.len() >= MAX_IDLE_CALLERS {
            callers.retain(|_, usage| {
                usage.advance(now);
                usage.in_progress > 0 || usage.rows > 0
            });
        }
        let usage = callers.entry(caller.clone()).or_insert(ListUsage { at: now, ..ListUsage::default() });
        usage.advance(now);
        if usage.in_progress >= self.max_per_client {
            return Err(ConflictError::TooManyLists(self.max_per_client));
        }
        if usage.rows >= ROWS_BURST {
            return Err(ConflictError::TooManyRows(ROWS_PER_SECOND));
        }
        usage.in_progress += 1;
        Ok(ListPermit { caller, callers: Arc::clone(&self.callers) })
    }
}

impl Drop for ListPermit {
    fn drop(&mut self) {
        let mut callers = self.callers.lock();
        if let Some(usage) = callers.get_mut(&self.caller) {
            usage.in_progress = usage.in_progress.saturating_sub(1);
            if usage.in_progress == 0 && usage.rows == 0 {
                callers.remove(&self.caller);
            }
        }
    }
}

impl Service {
    /// Admits a list of a client, which lasts until the permit is dropped.
    pub fn admit_list(&self, caller: &ApiCaller) -> Result<ListPermit, ConflictError> {
        self.inner.list_admission.admit(format!("client:{}", caller.client().id()))
    }

    /// Admits a list of a requester, which lasts until the permit is dropped.
    pub fn admit_requester_list(&self, caller: &RequesterCaller) -> Result<ListPermit, ConflictError> {
        self.inner.list_admission.admit(caller.identity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    #[derive(Default)]
    struct ManualClock(Mutex<Duration>);

    impl Clock for ManualClock {
        fn now(&self) -> Timestamp {
            Timestamp::EPOCH
        }

        fn monotonic(&self) -> Duration {
            *self.0.lock()
        }
    }

    fn admission() -> (ListAdmission, Arc<ManualClock>) {
        let clock = Arc::<ManualClock>::default();
        (ListAdmission::new(2, Arc::clone(&clock) as _), clock)
    }

    #[test]
    fn lists_are_counted_per_client_and_released() {
        let (admission, _) = admission();
        let admit = |caller: &str| admission.admit(caller.to_owned());
        let first = admit("client:a").unwrap();
        let _second = admit("client:a").unwrap();
        assert_eq!(admit("client:a").unwrap_err(), ConflictError::TooManyLists(2));
        let other = admit("client:b").unwrap();
        drop(first);
        let _third = admit("client:a").unwrap();
        assert!(admit("client:a").is_err());
        drop(other);
        assert!(!admission.callers.lock().contains_key("client:b"), "a client without lists is forgotten");
    }

    #[test]
    fn rows_of_a_client_are_limited_by_rate() {
        let (admission, clock) = admission();
        let read = |caller: &str| admission.admit(caller.to_owned()).map(|permit| permit.count_rows(1000));
        let count = |caller: &str| (0..100).filter(|_| read(caller).is_ok()).count();
        assert_eq!(count("client:a"), 20, "a burst");
        assert_eq!(read("client:a").unwrap_err(), ConflictError::TooManyRows(ROWS_PER_SECOND));
        assert_eq!(count("client:b"), 20, "another client");
        *clock.0.lock() += Duration::from_secs(1);
        assert_eq!(count("client:a"), 2);
        // Ticks that are shorter than a row add up.
        for _ in 0..4000 {
            *clock.0.lock() += Duration::from_micros(250);
            let _: Result<(), ConflictError> = read("client:c");
        }
        assert!(admission.callers.lock()["client:c"].rows <= ROWS_BURST + 1000);
        assert_eq!(count("client:a"), 2, "another second");
        *clock.0.lock() += Duration::from_hours(1);
        assert_eq!(count("client:a"), 20, "a long pause is one burst");
        // Clients that have paused long enough are forgotten.
        *clock.0.lock() += Duration::from_hours(1);
        for n in 0..MAX_IDLE_CALLERS {
            admission.admit(format!("client:{n}")).unwrap().count_rows(1);
        }
        *clock.0.lock() += Duration::from_hours(1);
        read("client:a").unwrap();
        assert_eq!(admission.callers.lock().len(), 1);
    }
}
