//! Renewal of the lease.
//!
//! Every heartbeat has the same order: at start, while the lease is valid, and after it lapsed. The
//! renewal is sent and becomes durable. **Then**, in a new statement, the log's head is read and
//! every entry up to it is applied. Only then is the lease extended, counted from before the
//! renewal was sent.
//!
//! A revoker reads the renewals when its entry is in the log. If it sees this renewal, it waits for
//! this replica. If it does not, this replica reads the entry before it uses the lease. Reading the
//! head in the renewing statement would leave a gap between the two.
//!
//! The log is compared with what was applied here: a log that lost commits meanwhile is a different
//! log, and the renewal does not extend the lease.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use tokio::{
    sync::{Mutex, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};

use crate::{
    app::replication::{follower::Follower, lease::Lease, peers::Peers},
    domain::{
        configuration::FileVersion,
        replication::{Heartbeat, Replica, ReplicaId, lease_deadline},
        revocation::LogPosition,
        time::Timestamp,
    },
    ports::{Clock, ErrorChain, Notification, Outage, ReplicaStore},
};

/// The time limit of one heartbeat.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The delay before a failed heartbeat is retried, and before a lost listener is replaced. Each
/// further failure doubles it.
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// The longest delay before a lost listener is replaced. Heartbeats stand in for it meanwhile.
const MAX_LISTEN_DELAY: Duration = Duration::from_secs(2);
/// The number of renewals that one heartbeat may send to acknowledge entries that arrive during it.
const MAX_RENEWALS_PER_TICK: usize = 16;

/// The settings of this replica's lease.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// The name of this replica.
    pub replica_name: String,
    /// How long the replica may answer from memory after it sent a renewal.
    pub duration: Duration,
    /// The interval between renewals; a fraction of the lease.
    pub heartbeat_interval: Duration,
}

/// Renews the lease of this replica and acknowledges what the follower has applied.
pub(in crate::app) struct LeaseRenewal {
    replica_id: ReplicaId,
    /// How this replica describes itself in its heartbeats.
    description: RwLock<Replica>,
    settings: LeaseSettings,
    replicas: Arc<dyn ReplicaStore>,
    clock: Arc<dyn Clock>,
    follower: Arc<Follower>,
    lease: Arc<Lease>,
    peers: Arc<Peers>,
    /// Whether the last heartbeat failed.
    is_failing: AtomicBool,
    /// Locked during a heartbeat.
    state: Mutex<RenewalState>,
    /// Incremented when the log may have entries to apply, or this replica may have some to
    /// acknowledge.
    log_changed: watch::Sender<u64>,
    /// Incremented when a replica may have acknowledged entries.
    acks_changed: watch::Sender<u64>,
}

/// The stores and engines of a [`LeaseRenewal`].
pub(in crate::app) struct RenewalPorts {
    pub(in crate::app) replicas: Arc<dyn ReplicaStore>,
    pub(in crate::app) clock: Arc<dyn Clock>,
    pub(in crate::app) follower: Arc<Follower>,
    pub(in crate::app) lease: Arc<Lease>,
    pub(in crate::app) peers: Arc<Peers>,
}

/// What this replica has sent so far.
#[derive(Default)]
struct RenewalState {
    /// The number of the last renewal.
    number: u64,
    /// The log position that the last renewal acknowledged.
    acked_seq: LogPosition,
    is_deregistered: bool,
    /// Whether the last heartbeat failed. The next one then reads the log before it renews the
    /// lease: a replica that can't follow the log must not make revokers wait for it.
    has_failed: bool,
}

/// The reason for a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RenewalTrigger {
    /// The heartbeat interval has passed.
    Tick,
    /// There may be entries to apply or to acknowledge.
    LogChanged,
}

/// What follows a heartbeat.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HeartbeatOutcome {
    /// The loop continues.
    Continue,
    /// The replica has deregistered, and the loop ends.
    Deregistered,
}

impl LeaseRenewal {
    pub(in crate::app) fn new(replica_id: ReplicaId, settings: LeaseSettings, ports: RenewalPorts) -> Self {
        let RenewalPorts { replicas, clock, follower, lease, peers } = ports;
        Self {
            replica_id,
            description: RwLock::new(describe_replica(replica_id, &settings, clock.now())),
            settings,
            replicas,
            clock,
            follower,
            lease,
            peers,
            is_failing: AtomicBool::new(false),
            state: Mutex::default(),
            log_changed: watch::Sender::default(),
            acks_changed: watch::Sender::default(),
        }
    }

    pub(in crate::app) fn replica_id(&self) -> ReplicaId {
        self.replica_id
    }

    /// Describes the configuration file of this replica in its next heartbeats.
    pub(in crate::app) fn describe_file(&self, file: FileVersion, pending_restart: Vec<String>) {
        let mut description = self.description.write();
        (description.file, description.pending_restart) = (Some(file), pending_restart);
    }

    /// Returns whether the last heartbeat failed.
    pub(in crate::app) fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Requests a heartbeat that acknowledges what has been applied.
    pub(in crate::app) fn request_ack(&self) {
        increment(&self.log_changed);
    }

    /// Returns a receiver that changes whenever a replica may have acknowledged entries.
    pub(in crate::app) fn subscribe_acks(&self) -> watch::Receiver<u64> {
        self.acks_changed.subscribe()
    }

    /// Renews the lease until the replica deregisters.
    pub(in crate::app) async fn run(&self) {
        // The listener only shortens delays: the next heartbeat finds entries whose notification
        // was lost.
        tokio::select! {
            () = self.listen_for_changes() => {}
            () = self.renew_loop() => {}
        }
    }

    /// Passes on the store's notifications.
    async fn listen_for_changes(&self) {
        let mut backoff = Backoff::new(MAX_LISTEN_DELAY);
        loop {
            match self.replicas.listen().await {
                Err(outage) => tracing::debug!(error = %ErrorChain(&outage), "can't listen to the store, retrying"),
                Ok(mut listener) => {
                    backoff.reset();
                    // The store sends no notification for what was written before.
                    self.notify(Notification::Log);
                    self.notify(Notification::Acknowledgement);
                    loop {
                        match listener.recv().await {
                            Ok(notification) => self.notify(notification),
                            Err(outage) => {
                                tracing::debug!(error = %ErrorChain(&outage), "listener lost, reconnecting");
                                break;
                            }
                        }
                    }
                }
            }
            sleep(backoff.next()).await;
        }
    }

    fn notify(&self, notification: Notification) {
        increment(match notification {
            Notification::Log => &self.log_changed,
            Notification::Acknowledgement => &self.acks_changed,
        });
    }

    async fn renew_loop(&self) {
        let mut log_changed = self.log_changed.subscribe();
        let mut ticks = interval(self.settings.heartbeat_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = Backoff::new(self.settings.heartbeat_interval);
        loop {
            let trigger = tokio::select! {
                _ = ticks.tick() => RenewalTrigger::Tick,
                // The sender is a field of `self`, so it outlives this loop.
                _ = log_changed.changed() => RenewalTrigger::LogChanged,
            };
            let result = timeout(RENEWAL_TIMEOUT, self.heartbeat(trigger)).await;
            match result.unwrap_or_else(|elapsed| Err(Outage::during("renew the lease")(elapsed))) {
                Ok(HeartbeatOutcome::Deregistered) => return,
                Ok(HeartbeatOutcome::Continue) => {
                    backoff.reset();
                    if self.is_failing.swap(false, Ordering::Relaxed) {
                        tracing::info!("revocation log available again");
                    }
                }
                Err(outage) => {
                    if !self.is_failing.swap(true, Ordering::Relaxed) {
                        tracing::warn!(error = %ErrorChain(&outage), "revocation log unavailable, retrying");
                    }
                    ticks.reset_after(backoff.next());
                }
            }
        }
    }

    async fn heartbeat(&self, trigger: RenewalTrigger) -> Result<HeartbeatOutcome, Outage> {
        let mut state = self.state.lock().await;
        if state.is_deregistered {
            return Ok(HeartbeatOutcome::Deregistered);
        }
        let had_failed = std::mem::replace(&mut state.has_failed, true);
        if had_failed {
            self.follower.recheck_compatibility(self.clock.now()).await?;
        }
        if trigger == RenewalTrigger::LogChanged {
            self.follower.committed_snapshot(self.clock.now()).await?;
            if self.follower.applied_seq() == state.acked_seq {
                state.has_failed = false;
                return Ok(HeartbeatOutcome::Continue);
            }
        }
        for _ in 0..MAX_RENEWALS_PER_TICK {
            if self.write_renewal(&mut state).await? {
                break;
            }
        }
        if trigger == RenewalTrigger::Tick {
            self.peers.read_heartbeats().await?;
        }
        if self.follower.applied_seq() > state.acked_seq {
            self.request_ack();
        }
        state.has_failed = false;
        Ok(HeartbeatOutcome::Continue)
    }

    /// Renews the lease once. Returns whether everything in the log at that time is acknowledged.
    async fn write_renewal(&self, state: &mut RenewalState) -> Result<bool, Outage> {
        let lease = self.settings.duration;
        // What is about to be acknowledged must be in the log as it is now.
        self.follower.verify_log_identity().await?;
        let (log_epoch, applied) = self.follower.log_position();
        let sent = self.clock.monotonic();
        state.number += 1;
        let now = self.clock.now();
        let heartbeat =
            Heartbeat { replica: self.description.read().clone(), number: state.number, applied, lease, at: now };
        self.replicas.record_heartbeat(&heartbeat, applied > state.acked_seq).await?;
        state.acked_seq = applied;
        // Always in this order: see the module documentation.
        self.follower.committed_snapshot(now).await?;
        // An acknowledgement of another log counts for other entries in this one.
        let is_extended = self.follower.extend_lease(log_epoch, lease_deadline(sent, lease));
        Ok(is_extended && self.follower.applied_seq() == applied)
    }

    /// Stops answering from memory and removes the replica from the store, so that no revoker waits
    /// for it. Called after the last response.
    pub(in crate::app) async fn deregister(&self) -> Result<(), Outage> {
        let mut state = self.state.lock().await;
        state.is_deregistered = true;
        self.lease.invalidate();
        self.request_ack();
        if state.number > 0 {
            self.replicas.deregister_replica(self.replica_id, state.number).await?;
        }
        Ok(())
    }
}

/// The delays between attempts that fail, so that a store that is away is not flooded with them.
struct Backoff {
    delay: Duration,
    max: Duration,
}

impl Backoff {
    fn new(max: Duration) -> Self {
        Self { delay: RETRY_DELAY, max }
    }

    /// Returns the delay before the next attempt.
    fn next(&mut self) -> Duration {
        let delay = self.delay.min(self.max);
        self.delay = self.delay.saturating_mul(2).min(self.max);
        delay
    }

    /// Notes that an attempt succeeded.
    fn reset(&mut self) {
        self.delay = RETRY_DELAY;
    }
}

fn increment(counter: &watch::Sender<u64>) {
    counter.send_modify(|count| *count = count.wrapping_add(1));
}

fn describe_replica(id: ReplicaId, settings: &LeaseSettings, started_at: Timestamp) -> Replica {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Replica { id, name: settings.replica_name.clone(), version, started_at, file: None, pending_restart: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_delay_up_to_the_maximum() {
        let delays = |max: u64| {
            let mut backoff = Backoff::new(Duration::from_millis(max));
            let delays = [(); 5].map(|()| backoff.next().as_millis());
            backoff.reset();
            (delays, backoff.next().as_millis())
        };
        assert_eq!(delays(1000), ([100, 200, 400, 800, 1000], 100));
        assert_eq!(delays(500), ([100, 200, 400, 500, 500], 100));
        assert_eq!(delays(50), ([50; 5], 50), "a heartbeat is not delayed");
    }
}
