//! The clock, the dice and the threads. The one place that may have them: everybody else is told the time, given numbers
//! and run.

use std::{
    fmt,
    pin::Pin,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use rustix::{
    system::uname,
    time::{ClockId, clock_gettime},
};
use uuid::{Builder, Uuid};

use crate::{
    domain::time::Timestamp,
    ports::{Clock, Entropy, Outage, ThreadSpawner},
};

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Duration,
}

impl SystemClock {
    /// Starts the monotonic clock at zero.
    #[expect(clippy::new_without_default, reason = "a clock that starts is no default value")]
    #[must_use]
    pub fn new() -> Self {
        Self { start: since_boot() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_epoch = wall_clock();
        Timestamp::from_unix(i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        since_boot().saturating_sub(self.start)
    }
}

/// The operating system's threads, each with a runtime of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct DedicatedThreads;

impl ThreadSpawner for DedicatedThreads {
    fn spawn(&self, name: &'static str, work: Pin<Box<dyn Future<Output = ()> + Send>>) -> Result<(), Outage> {
        let during = "start a thread";
        let (notify, started) = mpsc::channel();
        // The runtime is made there and ends there: one can't be dropped where others are at work.
        let run = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                drop(notify.send(Ok(())));
                runtime.block_on(work);
            }
            Err(fault) => drop(notify.send(Err(fault))),
        };
        thread::Builder::new().name(name.to_owned()).spawn(run).map_err(Outage::during(during))?;
        started.recv().map_err(Outage::during(during))?.map_err(Outage::during(during))
    }
}

/// The operating system's random numbers.
pub struct OsEntropy {
    rng: SystemRandom,
    uuid_key: hmac::Key,
    uuid_count: AtomicU64,
}

impl OsEntropy {
    /// Draws the seed of the ids. Fails if the operating system has no random numbers; then nothing can work.
    pub fn new() -> Result<Self, Outage> {
        let random = os_random();
        let ids = hmac::Key::generate(hmac::HMAC_SHA256, &random).map_err(|_| entropy_unavailable())?;
        Ok(Self { rng: random, uuid_key: ids, uuid_count: AtomicU64::new(0) })
    }
}

impl Entropy for OsEntropy {
    fn random_bytes32(&self) -> Result<[u8; 32], Outage> {
        let mut bytes = [0; 32];
        self.rng.fill(&mut bytes).map_err(|_| entropy_unavailable())?;
        Ok(bytes)
    }

    /// The random bits are `HMAC-SHA-256(seed, count)`: as good as the seed, and there is no way to fail half way through
    /// a request.
    fn new_uuid(&self) -> Uuid {
        let count = self.uuid_count.fetch_add(1, Ordering::Relaxed);
        let tag = hmac::sign(&self.uuid_key, &count.to_be_bytes());
        let bits = tag.as_ref().first_chunk::<10>().copied().unwrap_or_default();
        let millis = u64::try_from(wall_clock().as_millis()).unwrap_or(u64::MAX);
        Builder::from_unix_timestamp_millis(millis, &bits).into_uuid()
    }
}

impl fmt::Debug for OsEntropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dice(..)")
    }
}

/// The dice as ring wants them, for the adapters that make keys and signatures.
#[expect(clippy::disallowed_methods, reason = "this is where dice come from")]
pub(super) fn os_random() -> SystemRandom {
    SystemRandom::new()
}

/// Said wherever dice fail.
pub(super) fn entropy_unavailable() -> Outage {
    Outage::during("drawing random numbers")("the operating system gave none")
}

/// A lease must not outlive a machine's sleep: what was taken back meanwhile was not waited for. `Instant` stands still
/// then on Linux (`CLOCK_MONOTONIC`); this one goes on.
#[cfg(target_os = "linux")]
const MONOTONIC_CLOCK_ID: ClockId = ClockId::Boottime;
/// Whether it goes on while the machine sleeps differs from system to system.
#[cfg(not(target_os = "linux"))]
const MONOTONIC_CLOCK_ID: ClockId = ClockId::Monotonic;

fn since_boot() -> Duration {
    let time = clock_gettime(MONOTONIC_CLOCK_ID);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// What this machine calls itself.
#[must_use]
pub fn host_name() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

#[expect(clippy::disallowed_methods, reason = "this is the Clock port")]
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_uuid_v7() {
        let dice = OsEntropy::new().unwrap();
        let ids: BTreeSet<Uuid> = (0..10_000).map(|_| dice.new_uuid()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
        let other = OsEntropy::new().unwrap();
        assert_ne!(dice.new_uuid().as_bytes()[6..], other.new_uuid().as_bytes()[6..], "each process has its own seed");
        assert_ne!(dice.random_bytes32().unwrap(), dice.random_bytes32().unwrap());
    }

    #[test]
    fn id_starts_with_timestamp() {
        let (clock, dice) = (SystemClock::new(), OsEntropy::new().unwrap());
        let before = clock.now().unix();
        let (seconds, _) = dice.new_uuid().get_timestamp().unwrap().to_unix();
        let seconds = i64::try_from(seconds).unwrap();
        assert!(before <= seconds && seconds <= clock.now().unix());
    }
}
