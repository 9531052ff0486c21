//! The nemesis: injects faults into replicas and the database, chosen by a seeded random number
//! generator.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{
    cluster::{Cluster, Program, REPLICAS},
    proxy::{LinkState, LostDirection},
    seeded_rng::SeededRng,
};

/// The longest pause: several leases.
const MAX_PAUSE_MS: u64 = 7_000;
/// The longest time that a link is half-open: longer than every timeout for the database.
const MAX_SILENCE_MS: u64 = 13_000;

/// Number of injected faults by kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultCounts {
    pub kills: u32,
    pub pauses: u32,
    pub cuts: u32,
    pub blocks: u32,
    pub silences: u32,
    /// Number of bytes that half-open links accepted and did not deliver.
    pub swallowed: u64,
    pub restarts: u32,
}

/// A fault of a replica, or of its link to the database.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Pause,
    Cut,
    Block,
    Silence,
}

/// Faults that every run injects first, before the random ones: a short run must not omit one by
/// chance.
const REQUIRED_FAULTS: [Fault; 5] = [Fault::Kill, Fault::Pause, Fault::Cut, Fault::Block, Fault::Silence];

/// The fault injector of one run.
pub struct Nemesis {
    cluster: Arc<Cluster>,
    /// Which replicas have a fault now. They get no second one at the same time.
    is_faulted: [AtomicBool; REPLICAS],
    counts: Mutex<FaultCounts>,
    is_over: AtomicBool,
}

impl Nemesis {
    pub fn new(cluster: Arc<Cluster>) -> Arc<Self> {
        let is_faulted = std::array::from_fn(|_| AtomicBool::new(false));
        Arc::new(Self { cluster, is_faulted, counts: Mutex::default(), is_over: AtomicBool::new(false) })
    }

    /// Stops the injection of faults early.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Injects faults for the given time. Returns when all of them are undone.
    pub async fn run(self: &Arc<Self>, mut rng: SeededRng, duration: Duration) -> FaultCounts {
        let mut active_faults = JoinSet::new();
        let until = tokio::time::Instant::now() + duration;
        let (mut required, mut since_restart) = (REQUIRED_FAULTS.iter().copied(), 0);
        while tokio::time::Instant::now() < until && !self.is_over.load(Ordering::SeqCst) {
            pause(rng.between(100, 700)).await;
            since_restart += 1;
            let is_due = since_restart > 60 || since_restart > 20 && rng.below(15) == 0;
            if is_due || self.counts.lock().unwrap().restarts == 0 && since_restart > 20 {
                since_restart = 0;
                self.count(|counts| counts.restarts += 1);
                self.cluster.postgres.restart(if rng.below(2) == 0 { "immediate" } else { "fast" }).await;
                continue;
            }
            let at = rng.below(REPLICAS);
            // One replica mostly stays without a fault: while no request succeeds, there is nothing
            // to check.
            let faulted = self.is_faulted.iter().filter(|is_faulted| is_faulted.load(Ordering::SeqCst)).count();
            if faulted + 1 >= REPLICAS && rng.below(10) > 0 || self.is_faulted[at].swap(true, Ordering::SeqCst) {
                continue;
            }
            let fault = required.next().unwrap_or(match rng.below(12) {
                0..3 => Fault::Kill,
                3..6 => Fault::Pause,
                6..8 => Fault::Cut,
                8..10 => Fault::Block,
                _ => Fault::Silence,
            });
            let (nemesis, rng) = (Arc::clone(self), rng.split());
            active_faults.spawn(async move {
                nemesis.inject(at, fault, rng).await;
                nemesis.is_faulted[at].store(false, Ordering::SeqCst);
            });
        }
        active_faults.join_all().await;
        let swallowed = self.cluster.replicas.iter().map(|replica| replica.proxy.swallowed()).sum();
        self.count(|counts| counts.swallowed = swallowed);
        *self.counts.lock().unwrap()
    }

    fn count(&self, update: impl FnOnce(&mut FaultCounts)) {
        update(&mut self.counts.lock().unwrap());
    }

    async fn inject(&self, at: usize, fault: Fault, mut rng: SeededRng) {
        let replica = &self.cluster.replicas[at];
        match fault {
            Fault::Kill => {
                self.count(|counts| counts.kills += 1);
                replica.kill();
                pause(rng.between(50, 2_000)).await;
                self.cluster.start(at, Program::Errand);
                self.cluster.wait_until_ready(at, Program::Errand).await;
            }
            Fault::Pause => {
                self.count(|counts| counts.pauses += 1);
                replica.signal("STOP");
                pause(rng.between(100, MAX_PAUSE_MS)).await;
                replica.signal("CONT");
            }
            Fault::Cut => {
                self.count(|counts| counts.cuts += 1);
                replica.proxy.set(LinkState::Cut);
                pause(rng.between(50, 5_000)).await;
                replica.proxy.set(LinkState::Open);
            }
            Fault::Block => {
                self.count(|counts| counts.blocks += 1);
                replica.proxy.set(if rng.below(2) == 0 { LinkState::Blocked } else { LinkState::InboundDropped });
                pause(rng.between(100, 6_000)).await;
                // Held data arrives late, or is lost with the connection.
                if rng.below(2) == 0 {
                    replica.proxy.set(LinkState::Cut);
                    pause(rng.between(10, 200)).await;
                }
                replica.proxy.set(LinkState::Open);
            }
            Fault::Silence => {
                self.count(|counts| counts.silences += 1);
                let lost = [LostDirection::Both, LostDirection::Forward, LostDirection::Backward][rng.below(3)];
                if rng.below(2) == 0 {
                    replica.proxy.silence(lost);
                } else {
                    replica.proxy.drop_connections(lost);
                }
                // About as long as a lease, or up to longer than every timeout.
                let duration_ms =
                    if rng.below(2) == 0 { rng.between(100, 4_000) } else { rng.between(4_000, MAX_SILENCE_MS) };
                pause(duration_ms).await;
                replica.proxy.set(LinkState::Open);
            }
        }
    }
}

async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
