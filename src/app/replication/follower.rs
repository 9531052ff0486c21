//! Following the revocation log: one thing to follow for what was taken back, for the registry and for the keys.
//!
//! While our lease holds ([`lease`](crate::app::replication::lease)), everything that was acknowledged before a request began is known here.
//! When it does not, the head of the log is read from the store, and what came since is applied. No answer comes from an
//! old memory: when the head can't be read either, that is an outage.
//!
//! The log only grows. One that has lost what we know of it (after a failover to a server that had not got the last
//! commits, or from a backup) is another log: then everything is forgotten, and read anew.

use std::{
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use tokio::{
    sync::{Mutex, watch},
    task::yield_now,
};

use crate::{
    app::{
        commit::timeout::with_store_timeout,
        replication::{coalesce::CoalescedRead, lease::Lease},
    },
    domain::{
        registry::Registry,
        revocation::{Index, LogEntry, LogPosition, RevocationKeys, Standing, Target},
        time::{Lifetime, Timestamp},
    },
    ports::{Clock, Outage, Signer, Store},
};

/// How many entries are read at a time when nobody is answered before all of them are applied.
const CATCH_UP_PAGE_SIZE: u32 = 10_000;
/// And while requests are answered from memory, on the same cores: what comes in a burst takes longer, and no answer does.
const FOREGROUND_PAGE_SIZE: u32 = 500;
/// How many are applied before those who look into the index get their turn.
const APPLY_CHUNK_SIZE: usize = 256;
/// How far wall clocks may have been wrong for what is read at a start.
const STARTUP_CLOCK_SLACK: Lifetime = Lifetime::hours(24);
const OP_FOLLOW_LOG: &str = "follow the revocation log";
const OP_READ_HEAD: &str = "read the log's head";

pub(in crate::app) struct Follower {
    pub(in crate::app) store: Arc<dyn Store>,
    signer: Arc<dyn Signer>,
    pub(in crate::app) clock: Arc<dyn Clock>,
    /// For how long the log need not be asked for.
    pub(in crate::app) lease: Lease,
    /// The head of the log, as the store says it is.
    head: CoalescedRead<LogPosition>,
    /// Held while catching up, so that one request does it and the others wait for it.
    catch_up_lock: Arc<Mutex<()>>,
    state: RwLock<FollowerState>,
    /// Up to where the log was applied, for those who wait for that to change.
    position: watch::Sender<LogPosition>,
}

#[derive(Default)]
struct FollowerState {
    registry: Arc<Registry>,
    is_loaded: bool,
    /// How often it was read.
    registry_generation: u64,
    /// When everything is forgotten, another one takes its place: whoever looks into this one still sees all of it.
    index: Arc<RwLock<Index>>,
    /// The entry up to which the log was applied.
    last_applied: Option<LogEntry>,
    /// How often another log took the place of the one before.
    log_epoch: u64,
}

/// What is known at one moment: the registry, and the log up to a position. A request holds one from start to end.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Whom and what we know.
    pub registry: Arc<Registry>,
    /// Up to where the log was applied, at least.
    pub seq: LogPosition,
    /// Of which log: it is another number when the store has lost a part of it and positions mean something else.
    pub(in crate::app) log_epoch: u64,
    /// Which reading of the registry it is: what was found by one holds for everybody who has the same one. (Its version
    /// is a place in the store, which may have something else there after a failover.)
    pub(in crate::app) registry_generation: u64,
    index: Arc<RwLock<Index>>,
}

impl Snapshot {
    /// What the log says of a token.
    #[must_use]
    pub fn standing(&self, names: &RevocationKeys) -> Standing {
        self.index.read().unwrap_or_else(PoisonError::into_inner).standing(names)
    }

    /// Whether an entry that is held ends the token: every replica that has applied as much says the same.
    #[must_use]
    pub fn is_revoked(&self, names: &RevocationKeys) -> bool {
        self.index.read().unwrap_or_else(PoisonError::into_inner).standing_by_entries(names) == Standing::Revoked
    }
}

impl Follower {
    pub(in crate::app) fn new(
        store: Arc<dyn Store>,
        signer: Arc<dyn Signer>,
        clock: Arc<dyn Clock>,
        lease: Lease,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            signer,
            clock,
            lease,
            head: CoalescedRead::new(OP_READ_HEAD),
            catch_up_lock: Arc::default(),
            state: RwLock::default(),
            position: watch::Sender::default(),
        })
    }

    /// Everything that was acknowledged before this was called.
    pub(in crate::app) async fn snapshot(self: &Arc<Self>, now: Timestamp) -> Result<Snapshot, Outage> {
        // The lease is looked at after the request began, and that is what counts: whoever took something back before then
        // has waited for us. If the process is stopped between here and its answer, that answer is to a request that
        // began before whatever was acknowledged meanwhile.
        if self.lease.is_valid(self.clock.monotonic())
            && let Some(view) = self.snapshot_at(LogPosition::default())
        {
            return Ok(view);
        }
        self.committed_snapshot(now).await
    }

    /// Everything that was committed before this was called, acknowledged or not: for who is about to write.
    pub(in crate::app) async fn committed_snapshot(self: &Arc<Self>, now: Timestamp) -> Result<Snapshot, Outage> {
        let read = async || {
            let head = with_store_timeout(OP_READ_HEAD, self.store.read_log_head()).await?;
            let follower = Arc::clone(self);
            // That we have got as far is not enough: it may have been by another log.
            self.run_exclusively(async move { follower.catch_up_to(head, now).await }).await?;
            Ok(head)
        };
        let head = self.head.read(read).await?;
        self.snapshot_through(head, now).await
    }

    /// The log up to a place that was committed before this was called, at least.
    pub(in crate::app) async fn snapshot_through(
        self: &Arc<Self>,
        head: LogPosition,
        now: Timestamp,
    ) -> Result<Snapshot, Outage> {
        if let Some(view) = self.snapshot_at(head) {
            return Ok(view);
        }
        let follower = Arc::clone(self);
        self.run_exclusively(async move {
            match follower.snapshot_at(head) {
                Some(_) => Ok(()),
                None => follower.catch_up(head, now).await,
            }
        })
        .await?;
        self.snapshot_at(head).ok_or_else(|| Outage::during(OP_FOLLOW_LOG)("entries are missing"))
    }

    /// Looks whether the log is still the one that was applied, and forgets everything if it is not.
    pub(in crate::app) async fn verify_log_identity(self: &Arc<Self>) -> Result<(), Outage> {
        let follower = Arc::clone(self);
        self.run_exclusively(async move { follower.detect_divergence().await }).await
    }

    /// Does this when nobody else does anything of the kind. A task of its own, once it is its turn: what was read is kept,
    /// even if whoever asked goes away meanwhile; and who goes away before leaves nothing behind.
    async fn run_exclusively(
        &self,
        operation: impl Future<Output = Result<(), Outage>> + Send + 'static,
    ) -> Result<(), Outage> {
        let turn = Arc::clone(&self.catch_up_lock).lock_owned().await;
        let acting = tokio::spawn(async move {
            let _turn = turn;
            operation.await
        });
        acting.await.map_err(Outage::during(OP_FOLLOW_LOG))?
    }

    /// Up to where the log has been applied, and whenever that changes.
    pub(in crate::app) fn subscribe_position(&self) -> watch::Receiver<LogPosition> {
        self.position.subscribe()
    }

    /// Drops entries that can't end any token any more.
    pub(in crate::app) fn evict_expired(&self) {
        let now = self.clock.monotonic();
        let index = Arc::clone(&self.state().index);
        // Part by part, so that nobody waits for long.
        for part in 0..Index::SHARD_COUNT {
            index.write().unwrap_or_else(PoisonError::into_inner).evict(part, now);
        }
    }

    fn snapshot_at(&self, head: LogPosition) -> Option<Snapshot> {
        // A changed registry is known before the position moves on, so this one is not older than its position.
        let state = self.state();
        let seq = state.applied_seq();
        (state.is_loaded && seq >= head).then(|| Snapshot {
            registry: Arc::clone(&state.registry),
            seq,
            log_epoch: state.log_epoch,
            registry_generation: state.registry_generation,
            index: Arc::clone(&state.index),
        })
    }

    /// Compares, and applies what there is up to the head, if we are not there.
    async fn catch_up_to(&self, head: LogPosition, now: Timestamp) -> Result<(), Outage> {
        if self.applied_seq() >= head {
            self.detect_divergence().await?;
        }
        if self.snapshot_at(head).is_none() { self.catch_up(head, now).await } else { Ok(()) }
    }

    /// Compares what stands in the log at our position with what was applied there.
    async fn detect_divergence(&self) -> Result<(), Outage> {
        let Some(last) = self.state().last_applied.clone() else { return Ok(()) };
        if self.entry_at(last.seq).await?.is_none_or(|there| there != last) {
            self.reset(&last);
        }
        Ok(())
    }

    /// What stood there was lost: then we know nothing, and answer nothing from memory.
    fn reset(&self, lost: &LogEntry) {
        tracing::error!(seq = lost.seq.number(), "the store has lost a part of the revocation log: all is read anew");
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // While nobody can take one for what was known.
        self.lease.invalidate();
        *state = FollowerState {
            log_epoch: state.log_epoch.saturating_add(1),
            registry_generation: state.registry_generation,
            ..FollowerState::default()
        };
    }

    /// Takes the lease, unless what is known is of another log than when it was acknowledged.
    pub(in crate::app) fn acquire_lease(&self, log_epoch: u64, until: Duration) -> bool {
        let state = self.state();
        let is_same = state.log_epoch == log_epoch;
        if is_same {
            self.lease.extend(until);
        }
        is_same
    }

    /// Of which log it is what is known, and up to where.
    pub(in crate::app) fn log_position(&self) -> (u64, LogPosition) {
        let state = self.state();
        (state.log_epoch, state.applied_seq())
    }

    async fn catch_up(&self, head: LogPosition, now: Timestamp) -> Result<(), Outage> {
        while let Some(lost) = self.fetch_pages(head, now).await? {
            self.reset(&lost);
        }
        Ok(())
    }

    /// Reads what came since, page by page. A changed registry and changed keys are taken into use before the position
    /// moves on to where they changed: who sees the position also sees what it stands for. Returns the entry that it
    /// wanted to go on from, if that is not there any more.
    async fn fetch_pages(&self, head: LogPosition, now: Timestamp) -> Result<Option<LogEntry>, Outage> {
        if !self.state().is_loaded {
            self.detect_divergence().await?;
        }
        let (loaded, index, last) = {
            let state = self.state();
            (state.is_loaded, Arc::clone(&state.index), state.last_applied.clone())
        };
        let mut last = last.filter(|_| loaded);
        // Wall clocks may be wrong, ours and a revoker's. So what comes in while we follow is applied whatever it says
        // of its end, and at a start nothing is passed over that ended less than a day ago.
        let alive_at = if loaded { Timestamp::EPOCH } else { replay_horizon(now) };
        loop {
            let limit =
                if self.lease.is_valid(self.clock.monotonic()) { FOREGROUND_PAGE_SIZE } else { CATCH_UP_PAGE_SIZE };
            let from = last.as_ref().map_or_else(|| self.applied_seq(), |last| previous(last.seq));
            let page = with_store_timeout(OP_FOLLOW_LOG, self.store.read_log_after(from, alive_at, limit)).await?;
            let is_last = page.len() < usize::try_from(limit).unwrap_or(usize::MAX);
            // Where we go on is read together with what comes then: between two reads it might become another log.
            let mut page = page.into_iter();
            if last.is_some() && page.next() != last {
                return Ok(last);
            }
            let page = page.collect::<Vec<_>>();
            let changed = |target: &Target| loaded && page.iter().any(|e| e.entry.target == *target);
            if changed(&Target::Keys) {
                self.read_keys().await?;
            }
            if changed(&Target::Registry) {
                self.read_registry().await?;
            }
            self.apply(&page, &index).await;
            last = page.into_iter().last().or(last);
            if is_last {
                break;
            }
        }
        if self.applied_seq() < head {
            // What stands there was passed over: it has long ended.
            let last =
                self.entry_at(head).await?.ok_or_else(|| Outage::during(OP_FOLLOW_LOG)("entries are missing"))?;
            self.state.write().unwrap_or_else(PoisonError::into_inner).last_applied = Some(last);
            index.write().unwrap_or_else(PoisonError::into_inner).advance_to(head);
        }
        if !loaded {
            self.read_keys().await?;
            self.read_registry().await?;
        }
        self.position.send_replace(self.applied_seq());
        Ok(None)
    }

    /// Applies a page, a few entries at a time: the position moves on with them, and nobody waits for all.
    async fn apply(&self, page: &[LogEntry], index: &RwLock<Index>) {
        for few in page.chunks(APPLY_CHUNK_SIZE) {
            let applied_at = self.clock.monotonic();
            {
                let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
                for entry in few {
                    index.apply(entry, applied_at);
                }
            }
            self.state.write().unwrap_or_else(PoisonError::into_inner).last_applied = few.last().cloned();
            yield_now().await;
        }
        if !page.is_empty() {
            self.position.send_replace(self.applied_seq());
        }
    }

    async fn read_keys(&self) -> Result<(), Outage> {
        self.signer.replace_keys(with_store_timeout(OP_FOLLOW_LOG, self.store.load_keys()).await?)
    }

    async fn read_registry(&self) -> Result<(), Outage> {
        let registry = Arc::new(with_store_timeout(OP_FOLLOW_LOG, load_registry(&*self.store)).await?);
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        (state.registry, state.is_loaded) = (registry, true);
        state.registry_generation = state.registry_generation.saturating_add(1);
        Ok(())
    }

    async fn entry_at(&self, seq: LogPosition) -> Result<Option<LogEntry>, Outage> {
        let found =
            with_store_timeout(OP_FOLLOW_LOG, self.store.read_log_after(previous(seq), Timestamp::EPOCH, 1)).await?;
        Ok(found.into_iter().next().filter(|entry| entry.seq == seq))
    }

    pub(in crate::app) fn applied_seq(&self) -> LogPosition {
        self.state().applied_seq()
    }

    fn state(&self) -> RwLockReadGuard<'_, FollowerState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FollowerState {
    fn applied_seq(&self) -> LogPosition {
        self.index.read().unwrap_or_else(PoisonError::into_inner).applied()
    }
}

/// The place before it.
fn previous(seq: LogPosition) -> LogPosition {
    LogPosition::new(seq.number().saturating_sub(1))
}

/// What had ended by then is passed over where all of the log is read. Whole hours: that is how the store finds the rest.
pub(in crate::app) fn replay_horizon(now: Timestamp) -> Timestamp {
    now.saturating_sub(STARTUP_CLOCK_SLACK).end_of_previous_hour()
}

/// The stored registry, consistent. One that is not was written by another program: nothing is answered by it.
pub(in crate::app) async fn load_registry(store: &dyn Store) -> Result<Registry, Outage> {
    let stored = store.load_registry().await?;
    let registry = Registry::build(stored.version, stored.entries, stored.secret_tags).map_err(|faults| {
        let texts = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Outage::during("read the registry")(texts)
    })?;
    Ok(registry
        .with_registrations(stored.registration_positions)
        .with_blocks(stored.blocks)
        .with_tools(stored.known_tools))
}
