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
    dice::Dice,
    ground::{Ground, Program, REPLICAS},
    proxy::{Line, Lost},
};

/// The longest pause: several leases.
const LONGEST_PAUSE: u64 = 7_000;
/// The longest silence: longer than anybody waits for the database.
const LONGEST_SILENCE: u64 = 13_000;

/// How often each thing happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Survived {
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
enum Strike {
    Kill,
    Pause,
    Cut,
    Block,
    Silence,
}

/// Each befalls somebody, whatever the dice say: a short run must not leave one out by chance.
const AT_LEAST: [Strike; 5] = [Strike::Kill, Strike::Pause, Strike::Cut, Strike::Block, Strike::Silence];

pub struct Weather {
    ground: Arc<Ground>,
    /// Which replicas are left alone for now: something has befallen them.
    struck: [AtomicBool; REPLICAS],
    survived: Mutex<Survived>,
    is_over: AtomicBool,
}

impl Weather {
    pub fn new(ground: Arc<Ground>) -> Arc<Self> {
        let struck = std::array::from_fn(|_| AtomicBool::new(false));
        Arc::new(Self { ground, struck, survived: Mutex::default(), is_over: AtomicBool::new(false) })
    }

    /// Ends it before its time.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Bad weather for so long; then everything is as it was.
    pub async fn rage(self: &Arc<Self>, mut dice: Dice, long: Duration) -> Survived {
        let mut under_way = JoinSet::new();
        let until = tokio::time::Instant::now() + long;
        let (mut first, mut since_restart) = (AT_LEAST.iter().copied(), 0);
        while tokio::time::Instant::now() < until && !self.is_over.load(Ordering::SeqCst) {
            pause(dice.between(100, 700)).await;
            since_restart += 1;
            let is_due = since_restart > 60 || since_restart > 20 && dice.below(15) == 0;
            if is_due || self.survived.lock().unwrap().restarts == 0 && since_restart > 20 {
                since_restart = 0;
                self.count(|survived| survived.restarts += 1);
                self.ground.postgres.restart(if dice.below(2) == 0 { "immediate" } else { "fast" }).await;
                continue;
            }
            let at = dice.below(REPLICAS);
            // One is left in peace, mostly: where nobody can do anything, nothing can go wrong.
            let struck = self.struck.iter().filter(|struck| struck.load(Ordering::SeqCst)).count();
            if struck + 1 >= REPLICAS && dice.below(10) > 0 || self.struck[at].swap(true, Ordering::SeqCst) {
                continue;
            }
            let strike = first.next().unwrap_or(match dice.below(12) {
                0..3 => Strike::Kill,
                3..6 => Strike::Pause,
                6..8 => Strike::Cut,
                8..10 => Strike::Block,
                _ => Strike::Silence,
            });
            let (weather, dice) = (Arc::clone(self), dice.split());
            under_way.spawn(async move {
                weather.strike(at, strike, dice).await;
                weather.struck[at].store(false, Ordering::SeqCst);
            });
        }
        under_way.join_all().await;
        let swallowed = self.ground.replicas.iter().map(|replica| replica.proxy.swallowed()).sum();
        self.count(|survived| survived.swallowed = swallowed);
        *self.survived.lock().unwrap()
    }

    fn count(&self, what: impl FnOnce(&mut Survived)) {
        what(&mut self.survived.lock().unwrap());
    }

    async fn strike(&self, at: usize, strike: Strike, mut dice: Dice) {
        let replica = &self.ground.replicas[at];
        match strike {
            Strike::Kill => {
                self.count(|survived| survived.kills += 1);
                replica.kill();
                pause(dice.between(50, 2_000)).await;
                self.ground.start(at, Program::Errand);
                self.ground.ready(at, Program::Errand).await;
            }
            Strike::Pause => {
                self.count(|survived| survived.pauses += 1);
                replica.signal("STOP");
                pause(dice.between(100, LONGEST_PAUSE)).await;
                replica.signal("CONT");
            }
            Strike::Cut => {
                self.count(|survived| survived.cuts += 1);
                replica.proxy.set(Line::Cut);
                pause(dice.between(50, 5_000)).await;
                replica.proxy.set(Line::Open);
            }
            Strike::Block => {
                self.count(|survived| survived.blocks += 1);
                replica.proxy.set(if dice.below(2) == 0 { Line::Blocked } else { Line::Deaf });
                pause(dice.between(100, 6_000)).await;
                // What was held arrives late, or never.
                if dice.below(2) == 0 {
                    replica.proxy.set(Line::Cut);
                    pause(dice.between(10, 200)).await;
                }
                replica.proxy.set(Line::Open);
            }
            Strike::Silence => {
                self.count(|survived| survived.silences += 1);
                let lost = [Lost::Both, Lost::There, Lost::Back][dice.below(3)];
                if dice.below(2) == 0 {
                    replica.proxy.fall_silent(lost);
                } else {
                    replica.proxy.forget(lost);
                }
                // About as long as a lease, or longer than every limit.
                let long =
                    if dice.below(2) == 0 { dice.between(100, 4_000) } else { dice.between(4_000, LONGEST_SILENCE) };
                pause(long).await;
                replica.proxy.set(Line::Open);
            }
        }
    }
}

async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
