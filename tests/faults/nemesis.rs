//! What befalls replicas and the database, as the dice say.

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
/// The longest silence: longer than anybody waits for the database.
const MAX_SILENCE_MS: u64 = 13_000;

/// How often each thing happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultCounts {
    pub kills: u32,
    pub pauses: u32,
    pub cuts: u32,
    pub blocks: u32,
    pub silences: u32,
    /// How many bytes of the silent lines were taken and never arrived.
    pub swallowed: u64,
    pub restarts: u32,
}

/// What befalls a replica.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    Pause,
    Cut,
    Block,
    Silence,
}

/// Each befalls somebody, whatever the dice say: a short run must not leave one out by chance.
const REQUIRED_FAULTS: [Fault; 5] = [Fault::Kill, Fault::Pause, Fault::Cut, Fault::Block, Fault::Silence];

pub struct Nemesis {
    cluster: Arc<Cluster>,
    /// Which replicas are left alone for now: something has befallen them.
    is_faulted: [AtomicBool; REPLICAS],
    counts: Mutex<FaultCounts>,
    is_over: AtomicBool,
}

impl Nemesis {
    pub fn new(ground: Arc<Cluster>) -> Arc<Self> {
        let struck = std::array::from_fn(|_| AtomicBool::new(false));
        Arc::new(Self {
            cluster: ground,
            is_faulted: struck,
            counts: Mutex::default(),
            is_over: AtomicBool::new(false),
        })
    }

    /// Ends it before its time.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Bad weather for so long; then everything is as it was.
    pub async fn run(self: &Arc<Self>, mut dice: SeededRng, long: Duration) -> FaultCounts {
        let mut under_way = JoinSet::new();
        let until = tokio::time::Instant::now() + long;
        let (mut first, mut since_restart) = (REQUIRED_FAULTS.iter().copied(), 0);
        while tokio::time::Instant::now() < until && !self.is_over.load(Ordering::SeqCst) {
            pause(dice.between(100, 700)).await;
            since_restart += 1;
            let is_due = since_restart > 60 || since_restart > 20 && dice.below(15) == 0;
            if is_due || self.counts.lock().unwrap().restarts == 0 && since_restart > 20 {
                since_restart = 0;
                self.count(|survived| survived.restarts += 1);
                self.cluster.postgres.restart(if dice.below(2) == 0 { "immediate" } else { "fast" }).await;
                continue;
            }
            let at = dice.below(REPLICAS);
            // One is left in peace, mostly: where nobody can do anything, nothing can go wrong.
            let struck = self.is_faulted.iter().filter(|struck| struck.load(Ordering::SeqCst)).count();
            if struck + 1 >= REPLICAS && dice.below(10) > 0 || self.is_faulted[at].swap(true, Ordering::SeqCst) {
                continue;
            }
            let strike = first.next().unwrap_or(match dice.below(12) {
                0..3 => Fault::Kill,
                3..6 => Fault::Pause,
                6..8 => Fault::Cut,
                8..10 => Fault::Block,
                _ => Fault::Silence,
            });
            let (weather, dice) = (Arc::clone(self), dice.split());
            under_way.spawn(async move {
                weather.inject(at, strike, dice).await;
                weather.is_faulted[at].store(false, Ordering::SeqCst);
            });
        }
        under_way.join_all().await;
        let swallowed = self.cluster.replicas.iter().map(|replica| replica.proxy.swallowed()).sum();
        self.count(|survived| survived.swallowed = swallowed);
        *self.counts.lock().unwrap()
    }

    fn count(&self, what: impl FnOnce(&mut FaultCounts)) {
        what(&mut self.counts.lock().unwrap());
    }

    async fn inject(&self, at: usize, strike: Fault, mut dice: SeededRng) {
        let replica = &self.cluster.replicas[at];
        match strike {
            Fault::Kill => {
                self.count(|survived| survived.kills += 1);
                replica.kill();
                pause(dice.between(50, 2_000)).await;
                self.cluster.start(at, Program::Errand);
                self.cluster.wait_until_ready(at, Program::Errand).await;
            }
            Fault::Pause => {
                self.count(|survived| survived.pauses += 1);
                replica.signal("STOP");
                pause(dice.between(100, MAX_PAUSE_MS)).await;
                replica.signal("CONT");
            }
            Fault::Cut => {
                self.count(|survived| survived.cuts += 1);
                replica.proxy.set(LinkState::Cut);
                pause(dice.between(50, 5_000)).await;
                replica.proxy.set(LinkState::Open);
            }
            Fault::Block => {
                self.count(|survived| survived.blocks += 1);
                replica.proxy.set(if dice.below(2) == 0 { LinkState::Blocked } else { LinkState::InboundDropped });
                pause(dice.between(100, 6_000)).await;
                // What was held arrives late, or never.
                if dice.below(2) == 0 {
                    replica.proxy.set(LinkState::Cut);
                    pause(dice.between(10, 200)).await;
                }
                replica.proxy.set(LinkState::Open);
            }
            Fault::Silence => {
                self.count(|survived| survived.silences += 1);
                let lost = [LostDirection::Both, LostDirection::Forward, LostDirection::Backward][dice.below(3)];
                if dice.below(2) == 0 {
                    replica.proxy.silence(lost);
                } else {
                    replica.proxy.drop_connections(lost);
                }
                // About as long as a lease, or longer than every limit.
                let long =
                    if dice.below(2) == 0 { dice.between(100, 4_000) } else { dice.between(4_000, MAX_SILENCE_MS) };
                pause(long).await;
                replica.proxy.set(LinkState::Open);
            }
        }
    }
}

async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
