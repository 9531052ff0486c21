//! The system clock, entropy and threads. No other module accesses them directly.

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
    process::{Resource, Rlimit, getrlimit, setrlimit},
    system::uname,
    time::{ClockId, clock_gettime},
};
use uuid::{Builder, Uuid};

use crate::{
    domain::time::Timestamp,
    ports::{Clock, Entropy, Outage, ProcessUsage, ThreadSpawner},
};

/// Disables core dumps, because the memory of the process contains keys and tokens.
pub fn disable_core_dumps() -> Result<(), Outage> {
    const OPERATION: &str = "disable core dumps";
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(Outage::during(OPERATION))?;
    // The limit does not apply to a core dump that the kernel pipes to a program.
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(Outage::during(OPERATION))?;
    Ok(())
}

/// The clocks of the machine.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Duration,
}

impl SystemClock {
    /// Starts the monotonic clock at zero.
    #[expect(clippy::new_without_default, reason = "starting a clock is not a default value")]
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

/// Raises the limit of file descriptors of this process to the hard limit, and returns the limit
/// before and after. `None` stands for no limit.
pub fn raise_descriptor_limit() -> Result<(Option<u64>, Option<u64>), Outage> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return Ok((current, maximum));
    }
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
        .map_err(Outage::during("raise the limit of file descriptors"))?;
    Ok((current, getrlimit(Resource::Nofile).current))
}

/// Reads what this process uses from `/proc`. Returns `None` on systems without it.
#[must_use]
pub fn read_process_usage() -> Option<ProcessUsage> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).ok();
    let boot_seconds = std::fs::read_to_string("/proc/stat").ok().and_then(|stat| parse_boot_time(&stat))?;
    let open = u64::try_from(std::fs::read_dir("/proc/self/fd").ok()?.count()).ok()?;
    let ticks_per_second = rustix::param::clock_ticks_per_second();
    let usage = parse_process_usage(&read("stat")?, rustix::param::page_size(), ticks_per_second, boot_seconds)?;
    // The directory that is being read is one of them.
    let open_descriptors = open.saturating_sub(1);
    Some(ProcessUsage { open_descriptors, max_descriptors: getrlimit(Resource::Nofile).current, ..usage })
}

fn parse_boot_time(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Parses `/proc/self/stat` (proc(5)). The name of the program, in parentheses, may contain any
/// character.
#[expect(clippy::cast_precision_loss, reason = "a metric needs no more than 52 bits")]
fn parse_process_usage(stat: &str, page_bytes: usize, ticks_per_second: u64, boot: f64) -> Option<ProcessUsage> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields = fields.split_ascii_whitespace().collect::<Vec<_>>();
    // The first field here is the third one of proc(5).
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let seconds = |ticks: u64| ticks as f64 / ticks_per_second as f64;
    let (user, system, threads, start) = (number(14)?, number(15)?, number(20)?, number(22)?);
    let page_bytes = u64::try_from(page_bytes).ok()?;
    Some(ProcessUsage {
        cpu_seconds: seconds(user.saturating_add(system)),
        resident_bytes: number(24)?.saturating_mul(page_bytes),
        virtual_bytes: number(23)?,
        start_seconds: boot + seconds(start),
        threads,
        ..ProcessUsage::default()
    })
}

/// Threads of the operating system, each with a runtime of its own.
#[derive(Clone, Copy, Debug, Default)]
pub struct DedicatedThreads;

impl ThreadSpawner for DedicatedThreads {
    fn spawn(&self, name: &'static str, work: Pin<Box<dyn Future<Output = ()> + Send>>) -> Result<(), Outage> {
        let operation = "start a thread";
        let (notify, started) = mpsc::channel();
        // The thread builds and drops its own runtime, because a runtime can't be dropped within
        // another one.
        let run = move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                drop(notify.send(Ok(())));
                runtime.block_on(work);
            }
            Err(error) => drop(notify.send(Err(error))),
        };
        thread::Builder::new().name(name.to_owned()).spawn(run).map_err(Outage::during(operation))?;
        started.recv().map_err(Outage::during(operation))?.map_err(Outage::during(operation))
    }
}

/// The entropy source of the operating system.
pub struct OsEntropy {
    rng: SystemRandom,
    uuid_key: hmac::Key,
    uuid_count: AtomicU64,
}

impl OsEntropy {
    /// Draws the key of the UUID generator. Fails if the operating system provides no entropy; then
    /// the server can't run.
    pub fn new() -> Result<Self, Outage> {
        let rng = os_random();
        let uuid_key = hmac::Key::generate(hmac::HMAC_SHA256, &rng).map_err(|_| entropy_unavailable())?;
        Ok(Self { rng, uuid_key, uuid_count: AtomicU64::new(0) })
    }
}

impl Entropy for OsEntropy {
    fn random_bytes32(&self) -> Result<[u8; 32], Outage> {
        let mut bytes = [0; 32];
        self.rng.fill(&mut bytes).map_err(|_| entropy_unavailable())?;
        Ok(bytes)
    }

    /// Computes the random bits as `HMAC-SHA-256(key, count)`: as strong as the key, and unable to
    /// fail in the middle of a request.
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
        f.write_str("OsEntropy(..)")
    }
}

/// Returns the entropy source in the form that ring requires, for adapters that generate keys and
/// signatures.
#[expect(clippy::disallowed_methods, reason = "the only source of entropy")]
pub(super) fn os_random() -> SystemRandom {
    SystemRandom::new()
}

/// Returns the outage for missing entropy.
pub(super) fn entropy_unavailable() -> Outage {
    Outage::during("draw random numbers")("the operating system provided none")
}

/// A lease must keep expiring while the machine sleeps, because revokers wait only until its
/// expiry. `Instant` stops during sleep on Linux (`CLOCK_MONOTONIC`); this clock does not.
#[cfg(target_os = "linux")]
const MONOTONIC_CLOCK_ID: ClockId = ClockId::Boottime;
/// On other systems it depends whether this clock advances while the machine sleeps.
#[cfg(not(target_os = "linux"))]
const MONOTONIC_CLOCK_ID: ClockId = ClockId::Monotonic;

fn since_boot() -> Duration {
    let time = clock_gettime(MONOTONIC_CLOCK_ID);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default())
}

/// Returns the host name of the machine.
#[must_use]
pub fn host_name() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

#[expect(clippy::disallowed_methods, reason = "the implementation of the Clock port")]
fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn descriptor_limit_is_raised_to_the_hard_limit() {
        let (before, after) = raise_descriptor_limit().unwrap();
        let maximum = getrlimit(Resource::Nofile).maximum;
        assert_eq!(after, maximum);
        assert!(after.is_none() || before <= after);
        assert_eq!(raise_descriptor_limit().unwrap(), (maximum, maximum), "a second call changes nothing");
    }

    #[test]
    fn process_usage_is_parsed() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 12 0 1000 8192000 300 184 1 1 0";
        let usage = parse_process_usage(stat, 4096, 100, 1_700_000_000.0).unwrap();
        let expected = ProcessUsage {
            cpu_seconds: 3.0,
            resident_bytes: 300 * 4096,
            virtual_bytes: 8_192_000,
            start_seconds: 1_700_000_010.0,
            threads: 12,
            ..ProcessUsage::default()
        };
        assert_eq!(usage, expected);
        assert_eq!(parse_process_usage("7 (a) S 1", 4096, 100, 0.0), None);
        assert_eq!(parse_boot_time("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
        #[cfg(target_os = "linux")]
        assert!(read_process_usage().is_some_and(|usage| usage.threads > 0 && usage.open_descriptors > 0));
    }

    #[test]
    fn ids_are_unique_uuid_v7() {
        let entropy = OsEntropy::new().unwrap();
        let ids: BTreeSet<Uuid> = (0..10_000).map(|_| entropy.new_uuid()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
        let other = OsEntropy::new().unwrap();
        assert_ne!(
            entropy.new_uuid().as_bytes()[6..],
            other.new_uuid().as_bytes()[6..],
            "each process has its own key"
        );
        assert_ne!(entropy.random_bytes32().unwrap(), entropy.random_bytes32().unwrap());
    }

    #[test]
    fn id_starts_with_timestamp() {
        let (clock, entropy) = (SystemClock::new(), OsEntropy::new().unwrap());
        let before = clock.now().unix();
        let (seconds, _) = entropy.new_uuid().get_timestamp().unwrap().to_unix();
        let seconds = i64::try_from(seconds).unwrap();
        assert!(before <= seconds && seconds <= clock.now().unix());
    }
}
