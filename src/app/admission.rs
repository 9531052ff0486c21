//! Admission: how many requests one caller may send to this replica.
//!
//! Each caller has a rate with a burst and a number of requests in progress, by the family of the
//! request. A caller that exceeds them is refused before its request costs anything, so that it
//! delays no other caller. Callers are known here, so authentication comes first.

use std::{
    fmt,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::Clock as LimiterClock,
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};
use quick_cache::sync::Cache;

use crate::{
    app::{Caller, Error, RequesterCaller, Service},
    domain::{
        admission::{Excess, Family, Throttled},
        id::ClientId,
        settings::{AdmissionLimits, RateLimit},
    },
    ports::Clock,
};

/// The number of callers whose use is remembered. The least used ones are forgotten first, and
/// begin anew.
const MAX_CALLERS: usize = 65_536;

/// The monotonic clock of the service, as the limiter reads it.
#[derive(Clone)]
struct MonotonicClock(Arc<dyn Clock>);

impl LimiterClock for MonotonicClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

type Limiter = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, StateInformationMiddleware>;

/// What one caller uses.
struct CallerUsage {
    limiter: Limiter,
    in_flight: AtomicU32,
}

/// The callers of this replica and what they use.
pub(in crate::app) struct Admission {
    clock: MonotonicClock,
    /// The limit is a part of the key, so that a reloaded limit takes effect at once.
    callers: Cache<(Family, RateLimit, String), Arc<CallerUsage>>,
}

/// A request that was admitted. It counts as in progress until the value is dropped.
pub struct Admitted {
    usage: Arc<CallerUsage>,
    /// The family of the request.
    pub family: Family,
    /// The limit that applies.
    pub limit: RateLimit,
    /// The number of further requests that the caller may send at once.
    pub remaining: u32,
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, limit, remaining, .. } = self;
        f.debug_struct("Admitted")
            .field("family", family)
            .field("limit", limit)
            .field("remaining", remaining)
            .finish_non_exhaustive()
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.usage.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Admission {
    pub(in crate::app) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock: MonotonicClock(clock), callers: Cache::new(MAX_CALLERS) }
    }

    /// Admits a request of a caller, or says when the caller may retry.
    pub(in crate::app) fn admit(
        &self,
        limits: &AdmissionLimits,
        family: Family,
        caller: String,
    ) -> Result<Admitted, Throttled> {
        let limit = family.limit(limits);
        let usage = self.usage(family, caller, limit);
        let throttled = |unit, retry_after: Duration| Throttled { family, limit, unit, retry_after };
        // Counted first: a request that is refused for its number does not use up the rate.
        let admitted = Admitted { family, limit, remaining: 0, usage: Arc::clone(&usage) };
        if usage.in_flight.fetch_add(1, Ordering::AcqRel) >= limit.in_flight.get() {
            return Err(throttled(Excess::InFlight, Duration::ZERO));
        }
        match usage.limiter.check() {
            Ok(state) => {
                let mut admitted = admitted;
                admitted.remaining = state.remaining_burst_capacity();
                Ok(admitted)
            }
            Err(refusal) => Err(throttled(Excess::Rate, refusal.wait_time_from(self.clock.now()))),
        }
    }

    /// Charges a caller for further work of a request that was admitted: as much as this number of
    /// requests, or the whole burst if that is less.
    fn charge(&self, limits: &AdmissionLimits, family: Family, caller: String, number: u32) -> Result<(), Throttled> {
        let limit = family.limit(limits);
        let Some(number) = NonZeroU32::new(number.min(limit.burst.get())) else { return Ok(()) };
        let checked = self.usage(family, caller, limit).limiter.check_n(number);
        match checked {
            // The number is never above the burst.
            Ok(Ok(_)) | Err(_) => Ok(()),
            Ok(Err(refusal)) => {
                let retry_after = refusal.wait_time_from(self.clock.now());
                Err(Throttled { family, limit, unit: Excess::Rate, retry_after })
            }
        }
    }

    fn usage(&self, family: Family, caller: String, limit: RateLimit) -> Arc<CallerUsage> {
        let key = (family, limit, caller);
        if let Some(usage) = self.callers.get(&key) {
            return usage;
        }
        let quota = Quota::per_second(limit.per_second).allow_burst(limit.burst);
        let limiter = RateLimiter::direct_with_clock(quota, self.clock.clone());
        let usage = Arc::new(CallerUsage { limiter: limiter.with_middleware(), in_flight: AtomicU32::new(0) });
        // Another request of the caller may have been faster.
        self.callers.get_or_insert_with(&key, || Ok::<_, std::convert::Infallible>(Arc::clone(&usage))).unwrap_or(usage)
    }
}

impl Service {
    /// Admits a request of a client.
    pub fn admit_client(&self, family: Family, client: &ClientId) -> Result<Admitted, Error> {
        self.admit(family, client.to_string())
    }

    /// Charges a client for further work of a request that was admitted.
    pub(in crate::app) fn charge_client(&self, family: Family, client: &ClientId, number: u32) -> Result<(), Error> {
        Ok(self.inner.admission.charge(&self.settings().admission, family, client.to_string(), number)?)
    }

    fn admit(&self, family: Family, caller: String) -> Result<Admitted, Error> {
        Ok(self.inner.admission.admit(&self.settings().admission, family, caller)?)
    }

    /// Admits a request of a requester.
    pub fn admit_requester(&self, requester: &RequesterCaller) -> Result<Admitted, Error> {
        self.admit(Family::Requester, requester.identity())
    }

    /// Admits a request of a client or of a requester at the APIs that both use.
    pub fn admit_caller(&self, caller: &Caller) -> Result<Admitted, Error> {
        match caller {
            Caller::Client(caller) => self.admit_client(Family::Tasks, caller.client().id()),
            Caller::Requester(caller) => self.admit_requester(caller),
        }
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::domain::time::Timestamp;

    #[derive(Default)]
    struct ManualClock(Mutex<Duration>);

    impl ManualClock {
        fn advance(&self, by: Duration) {
            *self.0.lock() += by;
        }
    }

    impl Clock for ManualClock {
        fn now(&self) -> Timestamp {
            Timestamp::EPOCH
        }

        fn monotonic(&self) -> Duration {
            *self.0.lock()
        }
    }

    type TestAdmission = (Admission, AdmissionLimits);

    fn admission(limit: RateLimit) -> (TestAdmission, Arc<ManualClock>) {
        let clock = Arc::<ManualClock>::default();
        let limits = AdmissionLimits { exchange: limit, ..AdmissionLimits::default() };
        ((Admission::new(Arc::clone(&clock) as _), limits), clock)
    }

    fn admit((admission, limits): &TestAdmission, caller: &str) -> Result<Admitted, Throttled> {
        admission.admit(limits, Family::Exchange, caller.to_owned())
    }

    #[test]
    fn burst_then_rate() {
        let (admission, clock) = admission(RateLimit::new(10, 5, 100));
        let remaining = (0..5).map(|_| admit(&admission, "planner").unwrap().remaining).collect::<Vec<_>>();
        assert_eq!(remaining, [4, 3, 2, 1, 0]);
        let refused = admit(&admission, "planner").unwrap_err();
        assert_eq!((refused.unit, refused.retry_after), (Excess::Rate, Duration::from_millis(100)));
        // Another caller and another family are not affected.
        assert!(admit(&admission, "reader").is_ok());
        assert!(admission.0.admit(&admission.1, Family::Tasks, "planner".to_owned()).is_ok());
        // A tenth of a second is one request.
        clock.advance(Duration::from_millis(100));
        assert!(admit(&admission, "planner").is_ok() && admit(&admission, "planner").is_err());
        // A long pause is one burst, and not more.
        clock.advance(Duration::from_hours(1));
        assert_eq!((0..100).filter(|_| admit(&admission, "planner").is_ok()).count(), 5);
    }

    #[test]
    fn further_work_of_a_request_is_charged() {
        let ((admission, limits), clock) = admission(RateLimit::new(10, 20, 100));
        let charge = |number| admission.charge(&limits, Family::Exchange, "planner".to_owned(), number);
        assert_eq!(charge(0), Ok(()));
        assert_eq!(charge(15), Ok(()));
        let refused = charge(10).unwrap_err();
        assert_eq!((refused.unit, refused.retry_after), (Excess::Rate, Duration::from_millis(500)));
        assert_eq!(charge(5), Ok(()), "a refused charge takes nothing");
        // More than the burst waits for the whole burst.
        clock.advance(Duration::from_secs(1));
        assert!(charge(63).is_err());
        clock.advance(Duration::from_secs(1));
        assert_eq!(charge(63), Ok(()));
        assert!(admission.admit(&limits, Family::Exchange, "planner".to_owned()).is_err());
    }

    #[test]
    fn requests_in_progress_are_limited() {
        let (admission, _) = admission(RateLimit::new(1_000, 1_000, 2));
        let (first, second) = (admit(&admission, "planner").unwrap(), admit(&admission, "planner").unwrap());
        let refused = admit(&admission, "planner").unwrap_err();
        assert_eq!(refused.unit, Excess::InFlight);
        // What was refused is not in progress.
        assert!(admit(&admission, "planner").is_err() && admit(&admission, "reader").is_ok());
        drop(first);
        let third = admit(&admission, "planner").unwrap();
        assert!(admit(&admission, "planner").is_err());
        drop((second, third));
        assert!(admit(&admission, "planner").is_ok());
    }

    #[test]
    fn changed_limit_takes_effect_at_once() {
        let ((admission, limits), _) = admission(RateLimit::new(1, 1, 64));
        let admit = |limits| admission.admit(limits, Family::Exchange, "planner".to_owned());
        assert!(admit(&limits).is_ok() && admit(&limits).is_err());
        let raised = AdmissionLimits { exchange: RateLimit::new(1, 2, 64), ..limits };
        assert!(admit(&raised).is_ok() && admit(&raised).is_ok() && admit(&raised).is_err());
    }

    #[test]
    fn refusal_names_the_limit() {
        let (admission, _) = admission(RateLimit::new(1, 1, 1));
        let held = admit(&admission, "planner").unwrap();
        let text = admit(&admission, "planner").unwrap_err().to_string();
        assert_eq!(text, "too many requests in progress: the limit is 1 ([limits] exchange); retry after 1 s");
        drop(held);
        let text = admit(&admission, "planner").unwrap_err().to_string();
        assert_eq!(text, "too many requests per second: the limit is 1 ([limits] exchange); retry after 1 s");
    }

    #[test]
    fn concurrent_requests_never_exceed_the_limit() {
        let (admission, _) = admission(RateLimit::new(1_000_000, 1_000_000, 3));
        let most = AtomicU32::new(0);
        let now = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Ok(admitted) = admit(&admission, "planner") {
                            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            now.fetch_sub(1, Ordering::SeqCst);
                            drop(admitted);
                        }
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert!(admit(&admission, "planner").is_ok());
    }
}
