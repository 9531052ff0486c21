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
    app::{
        Error, RequestContext, Service,
        commit::timeout::with_store_timeout,
        replication::{coalesce::CoalescedRead, follower::Follower},
    },
    domain::{
        replication::{Heartbeat, PeerObservations, Replica, ReplicaId, lease_deadline},
        revocation::LogPosition,
        time::Timestamp,
    },
    ports::{Notification, Outage},
};

/// How long a round may take before it is given up.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(10);
/// How soon a round that failed is tried again, and a listener that was lost is replaced.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// How often in a row a round acknowledges what came during it.
const MAX_RENEWALS_PER_TICK: usize = 16;
/// How many leases ago a replica was last heard of when it is removed; a minute at least.
const REAP_AFTER_LEASES: u32 = 30;

/// How replicas tell each other that they live.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// What this one is called.
    pub replica_name: String,
    /// How long it may answer from memory after it sent a renewal.
    pub duration: Duration,
    /// How often it renews; a part of the lease.
    pub heartbeat_interval: Duration,
}

/// A replica, as an admin sees it.
#[derive(Debug)]
pub struct ReplicaStatus {
    /// Its last renewal.
    pub heartbeat: Heartbeat,
    /// How many entries of the log it had not applied then.
    pub lag: u64,
    /// For how long this has been its last renewal, as far as the answering replica has seen.
    pub since_last_renewal: Duration,
    /// Whether its lease may still hold.
    pub may_hold_lease: bool,
    /// Whether it is the one that answers.
    pub is_self: bool,
}

pub(in crate::app) struct Lease {
    replica: Replica,
    settings: LeaseSettings,
    /// Until when it holds, in nanoseconds of our monotonic clock.
    valid_until: AtomicU64,
    /// Held during a round.
    renewal: Mutex<RenewalState>,
    /// Moves on with everything that is heard of the log.
    log_changed: watch::Sender<u64>,
    /// Moves on with every acknowledgement that is heard of.
    acks_changed: watch::Sender<u64>,
    heartbeats: CoalescedRead<Arc<Vec<Heartbeat>>>,
    peers: StdMutex<PeerObservations>,
}

/// What we have told of ourselves.
#[derive(Default)]
struct RenewalState {
    number: u64,
    acked_seq: LogPosition,
    is_deregistered: bool,
}

/// Why a round is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RenewalTrigger {
    /// It is time to renew.
    Tick,
    /// There may be something to apply, or to acknowledge.
    LogChanged,
}

impl Lease {
    pub(in crate::app) fn new(replica: Replica, settings: LeaseSettings) -> Self {
        Self {
            replica,
            settings,
            valid_until: AtomicU64::new(0),
            renewal: Mutex::default(),
            log_changed: watch::Sender::default(),
            acks_changed: watch::Sender::default(),
            heartbeats: CoalescedRead::new("read the replicas"),
            peers: StdMutex::default(),
        }
    }

    /// Whether the lease holds at this time on our monotonic clock.
    pub(in crate::app) fn is_valid(&self, now: Duration) -> bool {
        saturating_nanos(now) < self.valid_until.load(Ordering::SeqCst)
    }

    /// Answers from memory until this time on our monotonic clock, at least.
    pub(in crate::app) fn extend(&self, until: Duration) {
        self.valid_until.fetch_max(saturating_nanos(until), Ordering::SeqCst);
    }

    /// Answers from memory no more, until it is renewed.
    pub(in crate::app) fn invalidate(&self) {
        self.valid_until.store(0, Ordering::SeqCst);
    }

    pub(in crate::app) fn id(&self) -> ReplicaId {
        self.replica.id
    }

    /// Says that there is something to acknowledge.
    pub(in crate::app) fn request_ack(&self) {
        self.log_changed.send_modify(|counter| *counter = counter.wrapping_add(1));
    }

    /// Hears of acknowledgements from now on.
    pub(in crate::app) fn subscribe_acks(&self) -> watch::Receiver<u64> {
        self.acks_changed.subscribe()
    }

    /// Judges by what was seen of the replicas.
    pub(in crate::app) fn with_peers<T>(&self, inspect: impl FnOnce(&PeerObservations) -> T) -> T {
        inspect(&self.peers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Service {
    /// Follows the log and keeps the lease, until the service is [finished](Service::finish). Without it everything is as
    /// exact, and every request asks the store.
    pub async fn follow_log(&self) {
        self.inner.follower.run().await;
    }

    /// Whether requests are answered from memory now.
    #[must_use]
    pub fn holds_lease(&self) -> bool {
        self.inner.follower.lease.is_valid(self.clock().monotonic())
    }

    /// Up to where the log has been applied here.
    #[must_use]
    pub fn applied_seq(&self) -> LogPosition {
        self.inner.follower.applied_seq()
    }

    /// Who follows the log, how far, and with which lease.
    pub async fn list_replicas(&self, cx: &RequestContext) -> Result<Vec<ReplicaStatus>, Error> {
        let follower = &self.inner.follower;
        let head = follower.committed_snapshot(cx.now).await?.seq;
        let heartbeats = follower.read_heartbeats().await?;
        let now = self.clock().monotonic();
        Ok(follower.lease.with_peers(|peers| {
            let standing = |beat: &Heartbeat| ReplicaStatus {
                lag: head.number().saturating_sub(beat.applied.number()),
                since_last_renewal: peers.age(beat, now),
                may_hold_lease: !peers.has_lapsed(beat, now),
                is_self: beat.replica.id == follower.lease.id(),
                heartbeat: beat.clone(),
            };
            heartbeats.iter().map(standing).collect()
        }))
    }
}

impl Follower {
    async fn run(self: &Arc<Self>) {
        // Neither stands in the other's way: what is not heard is found by the next round.
        tokio::select! {
            () = self.listen_for_changes() => {}
            () = self.renew_loop() => {}
        }
    }

    /// Hears of what others write, on and on.
    async fn listen_for_changes(&self) {
        loop {
            match self.store.listen().await {
                Err(outage) => tracing::debug!(error = %outage, cause = %outage.source, "can't listen to the store"),
                Ok(mut ear) => {
                    // What was written before we listened, nobody tells us.
                    self.notify(Notification::Log);
                    self.notify(Notification::Acknowledgement);
                    loop {
                        match ear.recv().await {
                            Ok(heard) => self.notify(heard),
                            Err(outage) => {
                                tracing::debug!(error = %outage, cause = %outage.source, "listening ended");
                                break;
                            }
                        }
                    }
                }
            }
            sleep(RETRY_DELAY).await;
        }
    }

    fn notify(&self, notification: Notification) {
        let changed = match notification {
            Notification::Log => &self.lease.log_changed,
            Notification::Acknowledgement => &self.lease.acks_changed,
        };
        changed.send_modify(|counter| *counter = counter.wrapping_add(1));
    }

    async fn renew_loop(self: &Arc<Self>) {
        let mut log_changed = self.lease.log_changed.subscribe();
        let mut time = interval(self.lease.settings.heartbeat_interval);
        time.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_healthy = true;
        loop {
            let trigger = tokio::select! {
                _ = time.tick() => RenewalTrigger::Tick,
                // The sender lives as long as we do.
                _ = log_changed.changed() => RenewalTrigger::LogChanged,
            };
            let done = timeout(RENEWAL_TIMEOUT, self.heartbeat(trigger)).await;
            match done.unwrap_or_else(|late| Err(Outage::during("renew the lease")(late))) {
                Ok(true) => return,
                Ok(false) => {
                    if !is_healthy {
                        tracing::info!("the log is followed again");
                    }
                    is_healthy = true;
                }
                Err(outage) => {
                    if is_healthy {
                        tracing::warn!(error = %outage, cause = %outage.source, "the log can't be followed; it is tried again");
                    }
                    is_healthy = false;
                    time.reset_after(RETRY_DELAY.min(self.lease.settings.heartbeat_interval));
                }
            }
        }
    }

    /// Says whether it was the last one.
    async fn heartbeat(self: &Arc<Self>, trigger: RenewalTrigger) -> Result<bool, Outage> {
        let mut renewal = self.lease.renewal.lock().await;
        if renewal.is_deregistered {
            return Ok(true);
        }
        if trigger == RenewalTrigger::LogChanged {
            self.committed_snapshot(self.clock.now()).await?;
            if self.applied_seq() == renewal.acked_seq {
                return Ok(false);
            }
        }
        for _ in 0..MAX_RENEWALS_PER_TICK {
            if self.write_renewal(&mut renewal).await? {
                break;
            }
        }
        if trigger == RenewalTrigger::Tick {
            self.read_heartbeats().await?;
        }
        if self.applied_seq() > renewal.acked_seq {
            self.lease.request_ack();
        }
        Ok(false)
    }

    /// Renews once, and says whether everything that was there then is acknowledged.
    async fn write_renewal(self: &Arc<Self>, renewal: &mut RenewalState) -> Result<bool, Outage> {
        let LeaseSettings { duration: lease, .. } = self.lease.settings;
        // What we are about to acknowledge is in the log as it is now.
        self.verify_log_identity().await?;
        let (log, applied) = self.log_position();
        let sent = self.clock.monotonic();
        renewal.number += 1;
        let now = self.clock.now();
        let beat = Heartbeat { replica: self.lease.replica.clone(), number: renewal.number, applied, lease, at: now };
        self.store.record_heartbeat(&beat, applied > renewal.acked_seq).await?;
        renewal.acked_seq = applied;
        // In this order, always: see the text at the top.
        self.committed_snapshot(now).await?;
        // What was acknowledged of another log counts as something else in this one.
        Ok(self.acquire_lease(log, lease_deadline(sent, lease)) && self.applied_seq() == applied)
    }

    /// All replicas, as they are in the store after this was called.
    pub(in crate::app) async fn read_heartbeats(&self) -> Result<Arc<Vec<Heartbeat>>, Outage> {
        let read = async || {
            let heartbeats = with_store_timeout("read the replicas", self.store.list_replicas()).await?;
            let mut peers = self.lease.peers.lock().unwrap_or_else(PoisonError::into_inner);
            peers.observe(&heartbeats, self.clock.monotonic());
            Ok(Arc::new(heartbeats))
        };
        self.lease.heartbeats.read(read).await
    }

    /// Removes replicas that have not been heard of for long: each revoker would wait for them once.
    pub(in crate::app) async fn reap_dead_replicas(&self) -> Result<(), Outage> {
        let now = self.clock.monotonic();
        for beat in self.read_heartbeats().await?.iter() {
            let long = (beat.lease * REAP_AFTER_LEASES).max(Duration::from_mins(1));
            let age = self.lease.with_peers(|peers| peers.age(beat, now));
            if age >= long && self.store.deregister_replica(beat.replica.id, beat.number).await? {
                tracing::info!(replica.id = %beat.replica.id.0, replica.name = beat.replica.name, "replica removed: nothing was heard of it");
            }
        }
        Ok(())
    }

    /// Answers from memory no more, and says so, so that nobody waits for us. After the last answer.
    pub(in crate::app) async fn deregister(&self) -> Result<(), Outage> {
        let mut renewal = self.lease.renewal.lock().await;
        renewal.is_deregistered = true;
        self.lease.invalidate();
        self.lease.request_ack();
        if renewal.number > 0 {
            self.store.deregister_replica(self.lease.id(), renewal.number).await?;
        }
        Ok(())
    }
}

fn saturating_nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// What this process calls itself among the replicas.
pub(in crate::app) fn describe_replica(id: ReplicaId, settings: &LeaseSettings, started: Timestamp) -> Replica {
    Replica {
        id,
        name: settings.replica_name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: started,
    }
}
