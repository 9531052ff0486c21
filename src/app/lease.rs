//! The lease: for how long this replica may answer from memory, without asking the store what was taken back.
//!
//! A round is always the same, at a start, while the lease holds, and after it lapsed: the renewal is sent and durable; **then**,
//! in a new statement, the head of the log is read and applied up to; only then the lease is ours, counted from before the
//! renewal was sent. Who takes something back looks at the renewals when its entry is in the log: it sees ours and waits
//! for us, or it does not, and then we read the entry before we use the lease. To read the head in the renewing statement
//! would leave a gap between the two. The head is compared with what is known here: a log that went back meanwhile is another one,
//! and gives no lease.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use tokio::{
    sync::{Mutex, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    app::{Cx, Failure, Service, follow::Follower, in_time::in_time, shared::Shared},
    domain::{
        replica::{Beat, Peers, Replica, ReplicaId, held_until},
        revocation::Seq,
        time::Timestamp,
    },
    ports::{Heard, Outage},
};

/// How long a round may take before it is given up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How soon a round that failed is tried again, and a listener that was lost is replaced.
const AGAIN_IN: Duration = Duration::from_millis(100);
/// How often in a row a round acknowledges what came during it.
const IN_A_ROW: usize = 16;
/// How many leases ago a replica was last heard of when it is removed; a minute at least.
const FORGOTTEN_AFTER: u32 = 30;

/// How replicas tell each other that they live.
#[derive(Clone, Debug)]
pub struct Following {
    /// What this one is called.
    pub name: String,
    /// How long it may answer from memory after it sent a renewal.
    pub lease: Duration,
    /// How often it renews; a part of the lease.
    pub heartbeat: Duration,
}

/// A replica, as an admin sees it.
#[derive(Debug)]
pub struct ReplicaStanding {
    /// Its last renewal.
    pub beat: Beat,
    /// How many entries of the log it had not applied then.
    pub behind: u64,
    /// For how long this has been its last renewal, as far as the answering replica has seen.
    pub age: Duration,
    /// Whether its lease may still hold.
    pub may_hold: bool,
    /// Whether it is the one that answers.
    pub answers: bool,
}

pub(super) struct Lease {
    replica: Replica,
    following: Following,
    /// Until when it holds, in nanoseconds of our monotonic clock.
    until: AtomicU64,
    /// Held during a round.
    mine: Mutex<Mine>,
    /// Moves on with everything that is heard of the log.
    log_told: watch::Sender<u64>,
    /// Moves on with every acknowledgement that is heard of.
    acks_told: watch::Sender<u64>,
    beats: Shared<Arc<Vec<Beat>>>,
    peers: StdMutex<Peers>,
}

/// What we have told of ourselves.
#[derive(Default)]
struct Mine {
    number: u64,
    acknowledged: Seq,
    is_over: bool,
}

/// Why a round is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Occasion {
    /// It is time to renew.
    Time,
    /// There may be something to apply, or to acknowledge.
    Told,
}

impl Lease {
    pub(super) fn new(replica: Replica, following: Following) -> Self {
        Self {
            replica,
            following,
            until: AtomicU64::new(0),
            mine: Mutex::default(),
            log_told: watch::Sender::default(),
            acks_told: watch::Sender::default(),
            beats: Shared::new("read the replicas"),
            peers: StdMutex::default(),
        }
    }

    /// Whether the lease holds at this time on our monotonic clock.
    pub(super) fn holds(&self, now: Duration) -> bool {
        nanos(now) < self.until.load(Ordering::SeqCst)
    }

    /// Answers from memory until this time on our monotonic clock, at least.
    pub(super) fn hold(&self, until: Duration) {
        self.until.fetch_max(nanos(until), Ordering::SeqCst);
    }

    /// Answers from memory no more, until it is renewed.
    pub(super) fn drop_it(&self) {
        self.until.store(0, Ordering::SeqCst);
    }

    pub(super) fn id(&self) -> ReplicaId {
        self.replica.id
    }

    /// Says that there is something to acknowledge.
    pub(super) fn acknowledge_soon(&self) {
        self.log_told.send_modify(|told| *told = told.wrapping_add(1));
    }

    /// Hears of acknowledgements from now on.
    pub(super) fn acknowledgements(&self) -> watch::Receiver<u64> {
        self.acks_told.subscribe()
    }

    /// Judges by what was seen of the replicas.
    pub(super) fn with_peers<T>(&self, judge: impl FnOnce(&Peers) -> T) -> T {
        judge(&self.peers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Service {
    /// Follows the log and keeps the lease, until the service is [finished](Service::finish). Without it everything is as
    /// exact, and every request asks the store.
    pub async fn follow(&self) {
        self.0.follower.follow().await;
    }

    /// Whether requests are answered from memory now.
    #[must_use]
    pub fn holds_lease(&self) -> bool {
        self.0.follower.lease.holds(self.clock().monotonic())
    }

    /// Up to where the log has been applied here.
    #[must_use]
    pub fn log_applied(&self) -> Seq {
        self.0.follower.applied()
    }

    /// Who follows the log, how far, and with which lease.
    pub async fn list_replicas(&self, cx: &Cx) -> Result<Vec<ReplicaStanding>, Failure> {
        let follower = &self.0.follower;
        let head = follower.latest(cx.now).await?.seq;
        let beats = follower.beats().await?;
        let now = self.clock().monotonic();
        Ok(follower.lease.with_peers(|peers| {
            let standing = |beat: &Beat| ReplicaStanding {
                behind: head.number().saturating_sub(beat.applied.number()),
                age: peers.age(beat, now),
                may_hold: !peers.has_lapsed(beat, now),
                answers: beat.replica.id == follower.lease.id(),
                beat: beat.clone(),
            };
            beats.iter().map(standing).collect()
        }))
    }
}

impl Follower {
    async fn follow(self: &Arc<Self>) {
        // Neither stands in the other's way: what is not heard is found by the next round.
        tokio::select! {
            () = self.listen() => {}
            () = self.keep_lease() => {}
        }
    }

    /// Hears of what others write, on and on.
    async fn listen(&self) {
        loop {
            match self.store.listen().await {
                Err(outage) => tracing::debug!(error = %outage, cause = %outage.source, "can't listen to the store"),
                Ok(mut ear) => {
                    // What was written before we listened, nobody tells us.
                    self.tell(Heard::Log);
                    self.tell(Heard::Acknowledgement);
                    loop {
                        match ear.hear().await {
                            Ok(heard) => self.tell(heard),
                            Err(outage) => {
                                tracing::debug!(error = %outage, cause = %outage.source, "listening ended");
                                break;
                            }
                        }
                    }
                }
            }
            sleep(AGAIN_IN).await;
        }
    }

    fn tell(&self, heard: Heard) {
        let told = match heard {
            Heard::Log => &self.lease.log_told,
            Heard::Acknowledgement => &self.lease.acks_told,
        };
        told.send_modify(|told| *told = told.wrapping_add(1));
    }

    async fn keep_lease(self: &Arc<Self>) {
        let mut told = self.lease.log_told.subscribe();
        let mut time = interval(self.lease.following.heartbeat);
        time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_well = true;
        loop {
            let occasion = tokio::select! {
                _ = time.tick() => Occasion::Time,
                // The sender lives as long as we do.
                _ = told.changed() => Occasion::Told,
            };
            let done = timeout(PATIENCE, self.round(occasion)).await;
            match done.unwrap_or_else(|late| Err(Outage::during("renew the lease")(late))) {
                Ok(true) => return,
                Ok(false) => {
                    if !is_well {
                        tracing::info!("the log is followed again");
                    }
                    is_well = true;
                }
                Err(outage) => {
                    if is_well {
                        tracing::warn!(error = %outage, cause = %outage.source, "the log can't be followed; it is tried again");
                    }
                    is_well = false;
                    time.reset_after(AGAIN_IN.min(self.lease.following.heartbeat));
                }
            }
        }
    }

    /// Says whether it was the last one.
    async fn round(self: &Arc<Self>, occasion: Occasion) -> Result<bool, Outage> {
        let mut mine = self.lease.mine.lock().await;
        if mine.is_over {
            return Ok(true);
        }
        if occasion == Occasion::Told {
            self.latest(self.clock.now()).await?;
            if self.applied() == mine.acknowledged {
                return Ok(false);
            }
        }
        for _ in 0..IN_A_ROW {
            if self.renew(&mut mine).await? {
                break;
            }
        }
        if occasion == Occasion::Time {
            self.beats().await?;
        }
        if self.applied() > mine.acknowledged {
            self.lease.acknowledge_soon();
        }
        Ok(false)
    }

    /// Renews once, and says whether everything that was there then is acknowledged.
    async fn renew(self: &Arc<Self>, mine: &mut Mine) -> Result<bool, Outage> {
        let Following { lease, .. } = self.lease.following;
        // What we are about to acknowledge is in the log as it is now.
        self.recognise().await?;
        let (log, applied) = self.standpoint();
        let sent = self.clock.monotonic();
        mine.number += 1;
        let now = self.clock.now();
        let beat = Beat { replica: self.lease.replica.clone(), number: mine.number, applied, lease, at: now };
        self.store.renew(&beat, applied > mine.acknowledged).await?;
        mine.acknowledged = applied;
        // In this order, always: see the text at the top.
        self.latest(now).await?;
        // What was acknowledged of another log counts as something else in this one.
        Ok(self.take_lease(log, held_until(sent, lease)) && self.applied() == applied)
    }

    /// All replicas, as they are in the store after this was called.
    pub(super) async fn beats(&self) -> Result<Arc<Vec<Beat>>, Outage> {
        let read = async || {
            let beats = in_time("read the replicas", self.store.replicas()).await?;
            let mut peers = self.lease.peers.lock().unwrap_or_else(PoisonError::into_inner);
            peers.observe(&beats, self.clock.monotonic());
            Ok(Arc::new(beats))
        };
        self.lease.beats.read(read).await
    }

    /// Removes replicas that have not been heard of for long: each revoker would wait for them once.
    pub(super) async fn sweep_replicas(&self) -> Result<(), Outage> {
        let now = self.clock.monotonic();
        for beat in self.beats().await?.iter() {
            let long = (beat.lease * FORGOTTEN_AFTER).max(Duration::from_mins(1));
            let age = self.lease.with_peers(|peers| peers.age(beat, now));
            if age >= long && self.store.remove_replica(beat.replica.id, beat.number).await? {
                tracing::info!(replica.id = %beat.replica.id.0, replica.name = beat.replica.name, "replica removed: nothing was heard of it");
            }
        }
        Ok(())
    }

    /// Answers from memory no more, and says so, so that nobody waits for us. After the last answer.
    pub(super) async fn leave(&self) -> Result<(), Outage> {
        let mut mine = self.lease.mine.lock().await;
        mine.is_over = true;
        self.lease.drop_it();
        self.lease.acknowledge_soon();
        if mine.number > 0 {
            self.store.remove_replica(self.lease.id(), mine.number).await?;
        }
        Ok(())
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What this process calls itself among the replicas.
pub(super) fn replica(id: ReplicaId, following: &Following, started: Timestamp) -> Replica {
    Replica { id, name: following.name.clone(), version: env!("CARGO_PKG_VERSION").to_owned(), started }
}
