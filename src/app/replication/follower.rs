//! The log follower.
//!
//! One log is followed for revocations, for the registry and for the signing keys.
//!
//! While the [lease](super::lease) is valid, everything that was acknowledged before a request
//! began is in memory here. Otherwise the log's head is read from the store, and the entries since
//! are applied. No response comes from stale memory: if the head can't be read either, the result
//! is an outage.
//!
//! The log only grows. A log that has lost an applied entry (after a failover to a server that had
//! not received the last commits, or after restoring a backup) is a different log: the memory is
//! discarded and the log is read from the start.
//!
//! An entry of a kind or with a verb that this version of the program does not know is never
//! skipped: it may end tokens. The lease ends, every request is an outage that names the version
//! that the entry needs, and only a heartbeat reads the log again.

use std::{
    collections::BTreeSet,
    iter,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ipnet::IpNet;
use parking_lot::{RwLock, RwLockReadGuard};
use tokio::{
    sync::{Mutex, watch},
    task::yield_now,
};

use crate::{
    app::{
        commit::timeout::with_store_timeout,
        replication::{
            coalesce::CoalescedRead,
            lease::Lease,
            snapshot::{FollowerState, Snapshot},
        },
    },
    domain::{
        registry::{Registry, issuer::IssuerKeyId},
        revocation::{
            Index, LogAction, LogAnchor, LogEntry, LogPosition, NewEntry, SharedState, Target, UnknownEntryError,
        },
        time::{Lifetime, Timestamp},
    },
    ports::{Clock, KeyStore, LogStore, Outage, RegistryStore, Signer, TamperingError, TokenRecord, TrustedKeys},
};

/// The number of entries that are read at a time while no request is answered from memory.
const CATCH_UP_PAGE_SIZE: u32 = 10_000;
/// The number of entries that are read at a time while requests are answered from memory on the
/// same cores. A burst then takes longer to apply, but no response is delayed by it.
const FOREGROUND_PAGE_SIZE: u32 = 500;
/// The number of entries that are applied under one lock of the index, before readers get their
/// turn.
const APPLY_CHUNK_SIZE: usize = 256;
/// How wrong wall clocks may have been for the entries that are read at start.
const STARTUP_CLOCK_SLACK: Lifetime = Lifetime::hours(24);
/// The number of entries after the anchor from which on the anchor is moved.
const MIN_ANCHOR_DISTANCE: u64 = 1000;
/// How long after the end of their retention entries are counted by an anchor: longer than a start
/// reads them.
const ANCHORED_HOURS: Lifetime = Lifetime::hours(48);
const OP_FOLLOW_LOG: &str = "follow the revocation log";
const OP_READ_HEAD: &str = "read the log head";
const MISSING_ENTRIES: &str = "the log has a gap";

/// Applies the revocation log to an index in memory.
pub(in crate::app) struct Follower {
    log: Arc<dyn LogStore>,
    registry: Arc<dyn RegistryStore>,
    keys: Arc<dyn KeyStore>,
    signer: Arc<dyn Signer>,
    trusted_keys: Arc<dyn TrustedKeys>,
    /// The special networks in which objects that admins registered may be reached.
    fetch_networks: Vec<IpNet>,
    clock: Arc<dyn Clock>,
    lease: Arc<Lease>,
    head: CoalescedRead<LogPosition>,
    /// Locked while catching up: one request does it, and the others wait for the result.
    catch_up_lock: Arc<Mutex<()>>,
    state: RwLock<FollowerState>,
    /// The applied log position, for tasks that wait for it to advance.
    position: watch::Sender<LogPosition>,
    /// The number of times that rows had been removed or put back outside the program.
    tamperings: AtomicU64,
    /// Incremented when an operator requests that the configuration file is read again.
    reload_requests: watch::Sender<u64>,
}

/// The ports of a [`Follower`].
pub(in crate::app) struct FollowerPorts {
    pub(in crate::app) log: Arc<dyn LogStore>,
    pub(in crate::app) registry: Arc<dyn RegistryStore>,
    pub(in crate::app) keys: Arc<dyn KeyStore>,
    pub(in crate::app) signer: Arc<dyn Signer>,
    pub(in crate::app) trusted_keys: Arc<dyn TrustedKeys>,
    pub(in crate::app) fetch_networks: Vec<IpNet>,
    pub(in crate::app) clock: Arc<dyn Clock>,
}

impl Follower {
    pub(in crate::app) fn new(ports: FollowerPorts, lease: Arc<Lease>) -> Arc<Self> {
        let FollowerPorts { log, registry, keys, signer, trusted_keys, fetch_networks, clock } = ports;
        Arc::new(Self {
            log,
            registry,
            keys,
            signer,
            trusted_keys,
            fetch_networks,
            clock,
            lease,
            head: CoalescedRead::default(),
            catch_up_lock: Arc::default(),
            state: RwLock::default(),
            position: watch::Sender::default(),
            tamperings: AtomicU64::new(0),
            reload_requests: watch::Sender::default(),
        })
    }

    /// Returns a snapshot with everything that was acknowledged before this call (linearizable: a
    /// lease read, or else a read-index read).
    pub(in crate::app) async fn snapshot(self: &Arc<Self>, now: Timestamp) -> Result<Snapshot, Outage> {
        // Check the lease after the request has started: any revocation acknowledged earlier has
        // already been applied here, or the lease has lapsed. If the process is paused between this
        // check and the response, the response is to a request that began before whatever was
        // acknowledged meanwhile.
        if self.holds_lease()
            && let Some(snapshot) = self.snapshot_at(LogPosition::default())
        {
            return Ok(snapshot);
        }
        self.committed_snapshot(now).await
    }

    /// Returns a snapshot that contains every entry committed before this call, acknowledged or not
    /// (a read-index read). Use it before writing.
    pub(in crate::app) async fn committed_snapshot(self: &Arc<Self>, now: Timestamp) -> Result<Snapshot, Outage> {
        self.check_compatibility()?;
        self.read_committed(now).await
    }

    /// Returns an outage if the log has an entry that this version of the program does not know.
    pub(in crate::app) fn check_compatibility(&self) -> Result<(), Outage> {
        match self.state().unknown_entry() {
            Some(unknown) => Err(Outage::during(OP_FOLLOW_LOG)(unknown.clone())),
            None => Ok(()),
        }
    }

    /// Reads the log again although it had an unknown entry: a log that lost the entry can be
    /// followed.
    pub(in crate::app) async fn recheck_compatibility(self: &Arc<Self>, now: Timestamp) -> Result<(), Outage> {
        self.read_committed(now).await?;
        self.set_unknown_entry(None);
        Ok(())
    }

    async fn read_committed(self: &Arc<Self>, now: Timestamp) -> Result<Snapshot, Outage> {
        let read = async || {
            let head = with_store_timeout(OP_READ_HEAD, self.log.read_log_head()).await;
            let head = head.inspect_err(|outage| self.note_tampering(outage))?;
            let follower = Arc::clone(self);
            // Having applied this position is not enough: it may have been a position of another
            // log.
            self.run_exclusively(async move { follower.catch_up_to(head, now).await }).await?;
            Ok(head)
        };
        let head = self.head.read(read).await?;
        self.snapshot_through(head, now).await
    }

    /// Returns a snapshot that contains at least the log up to `seq`, which must have been
    /// committed before this call.
    pub(in crate::app) async fn snapshot_through(
        self: &Arc<Self>,
        seq: LogPosition,
        now: Timestamp,
    ) -> Result<Snapshot, Outage> {
        if let Some(snapshot) = self.snapshot_at(seq) {
            return Ok(snapshot);
        }
        let follower = Arc::clone(self);
        self.run_exclusively(async move {
            match follower.snapshot_at(seq) {
                Some(_) => Ok(()),
                None => follower.catch_up(seq, now).await,
            }
        })
        .await?;
        self.snapshot_at(seq).ok_or_else(|| Outage::during(OP_FOLLOW_LOG)(MISSING_ENTRIES))
    }

    /// Returns how often rows with valid tags turned out not to be the ones that belong there.
    /// The store counts wrong tags.
    pub(in crate::app) fn tampering_count(&self) -> u64 {
        self.tamperings.load(Ordering::Relaxed)
    }

    /// Returns whether requests are answered from memory now.
    pub(in crate::app) fn holds_lease(&self) -> bool {
        self.lease.is_valid(self.clock.monotonic())
    }

    /// Compares the store's log with the applied one, and discards the memory if they differ.
    pub(in crate::app) async fn verify_log_identity(self: &Arc<Self>) -> Result<(), Outage> {
        let follower = Arc::clone(self);
        self.run_exclusively(async move { follower.detect_divergence().await }).await
    }

    /// Runs an operation that excludes all others of its kind. Once it has the lock it runs in a
    /// task of its own, so what it reads is kept even if the caller goes away. A caller that goes
    /// away earlier leaves nothing behind.
    async fn run_exclusively(
        &self,
        operation: impl Future<Output = Result<(), Outage>> + Send + 'static,
    ) -> Result<(), Outage> {
        let guard = Arc::clone(&self.catch_up_lock).lock_owned().await;
        let task = tokio::spawn(async move {
            let _guard = guard;
            operation.await
        });
        let done = task.await.map_err(Outage::during(OP_FOLLOW_LOG))?;
        done.inspect_err(|outage| self.note_tampering(outage))
    }

    /// Gives up the lease if what the store holds was changed outside the program.
    fn note_tampering(&self, outage: &Outage) {
        let Some(tampering) = outage.tampering() else { return };
        if !tampering.is_wrong_code() {
            self.tamperings.fetch_add(1, Ordering::Relaxed);
        }
        tracing::error!("{tampering}; until then the replica answers 503 and holds no lease");
        // Under the write lock: `extend_lease` holds the read lock.
        let _state = self.state.write();
        self.lease.invalidate();
    }

    /// Returns whether the registry in memory says that a party to a token is disabled, so that the
    /// token must not be issued any more. The registry may be outdated: "no" means "not known".
    pub(in crate::app) fn is_party_disabled(&self, token: &TokenRecord) -> bool {
        let state = self.state();
        let registry = state.registry();
        iter::once(&token.client)
            .chain(&token.agents)
            .any(|id| registry.client(id).is_some_and(|client| client.is_disabled()))
    }

    /// Returns a receiver of the applied log position.
    pub(in crate::app) fn subscribe_position(&self) -> watch::Receiver<LogPosition> {
        self.position.subscribe()
    }

    /// Returns a receiver that changes when the configuration file is to be read again.
    pub(in crate::app) fn subscribe_reload_requests(&self) -> watch::Receiver<u64> {
        let mut requests = self.reload_requests.subscribe();
        requests.mark_unchanged();
        requests
    }

    /// Evicts entries that can't end any live token.
    pub(in crate::app) fn evict_expired(&self) {
        let now = self.clock.monotonic();
        let index = self.state().index();
        // Shard by shard, so that readers wait for one shard at most.
        for shard in 0..Index::SHARD_COUNT {
            index.write().evict(shard, now);
        }
    }

    fn snapshot_at(&self, seq: LogPosition) -> Option<Snapshot> {
        self.state().snapshot_at(seq)
    }

    /// Compares the logs, and applies the entries up to the head that are still missing.
    async fn catch_up_to(&self, head: LogPosition, now: Timestamp) -> Result<(), Outage> {
        if self.applied_seq() >= head {
            self.detect_divergence().await?;
        }
        if self.snapshot_at(head).is_none() { self.catch_up(head, now).await } else { Ok(()) }
    }

    /// Compares the entry at the applied position in the store with the entry that was applied
    /// there.
    async fn detect_divergence(&self) -> Result<(), Outage> {
        let Some(applied) = self.state().last_applied().cloned() else { return Ok(()) };
        if self.entry_at(applied.seq).await?.is_none_or(|stored| stored != applied) {
            self.reset(&applied);
        }
        Ok(())
    }

    /// Discards the memory and invalidates the lease, because the store lost an applied entry.
    fn reset(&self, lost: &LogEntry) {
        tracing::error!(
            seq = lost.seq.number(),
            "the store lost part of the revocation log; reading it from the start"
        );
        let mut state = self.state.write();
        // Under the write lock: `extend_lease` holds the read lock while it compares the log epoch.
        self.lease.invalidate();
        state.reset();
    }

    /// Extends the lease, unless the memory is of another log than `log_epoch` or the log has an
    /// unknown entry. Returns whether it did.
    pub(in crate::app) fn extend_lease(&self, log_epoch: u64, until: Duration) -> bool {
        let state = self.state();
        let is_extended = state.log_epoch() == log_epoch && state.unknown_entry().is_none();
        if is_extended {
            self.lease.extend(until);
        }
        is_extended
    }

    /// Returns the log epoch and the applied position.
    pub(in crate::app) fn log_position(&self) -> (u64, LogPosition) {
        let state = self.state();
        (state.log_epoch(), state.applied_seq())
    }

    async fn catch_up(&self, head: LogPosition, now: Timestamp) -> Result<(), Outage> {
        loop {
            match self.fetch_pages(head, now).await {
                Ok(Some(lost)) => self.reset(&lost),
                Ok(None) => return Ok(()),
                Err(outage) => {
                    if let Some(unknown) = outage.unknown_entry() {
                        self.set_unknown_entry(Some(unknown.clone()));
                    }
                    return Err(outage);
                }
            }
        }
    }

    /// Records that the log has an entry that this version of the program does not know, or that
    /// it no longer has one. Ends the lease in the first case.
    fn set_unknown_entry(&self, entry: Option<UnknownEntryError>) {
        let mut state = self.state.write();
        if entry.is_some() {
            // Under the write lock: `extend_lease` holds the read lock while it looks for the
            // entry.
            self.lease.invalidate();
        }
        if !state.set_unknown_entry(entry) {
            return;
        }
        match state.unknown_entry() {
            Some(unknown) => tracing::error!(
                seq = unknown.seq,
                kind = unknown.kind,
                verb = unknown.verb,
                needed = unknown.needed,
                "{unknown}; until then the replica answers 503 and holds no lease"
            ),
            None => tracing::info!("the revocation log has no unknown entry any more"),
        }
    }

    /// Reads and applies the entries since the applied position, page by page. A changed registry
    /// and changed keys are in use before the position advances to their change: a reader that sees
    /// the position also sees its effect. Returns the entry that the pages were to continue from,
    /// if the store has lost it.
    async fn fetch_pages(&self, head: LogPosition, now: Timestamp) -> Result<Option<LogEntry>, Outage> {
        if !self.state().is_loaded() {
            self.detect_divergence().await?;
        }
        let (is_loaded, last_applied) = {
            let state = self.state();
            (state.is_loaded(), state.last_applied().cloned())
        };
        let mut last = if is_loaded { last_applied } else { self.apply_up_to_anchor(now).await? };
        let index = self.state().index();
        loop {
            let limit = if self.holds_lease() { FOREGROUND_PAGE_SIZE } else { CATCH_UP_PAGE_SIZE };
            let from = last.as_ref().map_or_else(|| self.applied_seq(), |last| previous(last.seq));
            // Entries are applied whatever their retention limit: wall clocks may be wrong, here
            // and at a revoker.
            let read = self.log.read_log_after(from, Timestamp::EPOCH, limit);
            let page = with_store_timeout(OP_FOLLOW_LOG, read).await?;
            let is_last_page = page.len() < usize::try_from(limit).unwrap_or(usize::MAX);
            // The entry to continue from is read together with the next ones: between two reads the
            // store might fail over to another log.
            let mut page = page.into_iter();
            if last.is_some() && page.next() != last {
                return Ok(last);
            }
            let page = page.collect::<Vec<_>>();
            for state in SharedState::ALL {
                if is_loaded && page.iter().any(|e| e.entry.target.changed_state() == Some(state)) {
                    self.read_state(state).await?;
                }
            }
            self.apply_to_issuer_keys(&page, is_loaded);
            self.apply(&page, &index).await;
            last = page.into_iter().last().or(last);
            if is_last_page {
                break;
            }
        }
        let applied = self.applied_seq();
        if applied < head {
            // A failover to a shorter log may have come in between.
            let is_missing = with_store_timeout(OP_READ_HEAD, self.log.read_log_head()).await? > applied;
            return Err(if is_missing {
                let next = applied.number().saturating_add(1);
                Outage::during(OP_FOLLOW_LOG)(TamperingError::MissingLogEntry(next))
            } else {
                Outage::during(OP_FOLLOW_LOG)(MISSING_ENTRIES)
            });
        }
        if !is_loaded {
            self.trusted_keys.set_withdrawn_keys(self.state().withdrawn_issuer_keys().clone());
            // The configuration file was read at the start of the process.
            for state in SharedState::ALL.into_iter().filter(|state| *state != SharedState::ConfigurationFile) {
                self.read_state(state).await?;
            }
        }
        self.position.send_replace(self.applied_seq());
        Ok(None)
    }

    /// Applies the retained entries up to the anchor of the log, and verifies that they are those
    /// that the anchor counts. Returns the entry at the anchor. What follows it is read completely.
    ///
    /// Wall clocks may be wrong, here and at a revoker: only entries that have been out of date for
    /// a day are skipped.
    async fn apply_up_to_anchor(&self, now: Timestamp) -> Result<Option<LogEntry>, Outage> {
        let anchor = with_store_timeout(OP_FOLLOW_LOG, self.log.load_log_anchor()).await?;
        self.state.write().discard_unverified();
        if anchor.position == LogPosition::default() {
            let last = self.state().last_applied().cloned();
            return Ok(last.filter(|last| last.seq == self.applied_seq()));
        }
        let index = self.state.write().begin_unverified();
        let alive_at = replay_horizon(now);
        let (mut found, mut from) = (LogAnchor::default(), LogPosition::default());
        loop {
            let read = self.log.read_linked_log(from, alive_at, CATCH_UP_PAGE_SIZE);
            let page = with_store_timeout(OP_FOLLOW_LOG, read).await?;
            let is_full = page.len() >= usize::try_from(CATCH_UP_PAGE_SIZE).unwrap_or(usize::MAX);
            let counted = page.into_iter().take_while(|linked| linked.entry.seq <= anchor.position);
            let counted = counted.inspect(|linked| found.advance(linked));
            let page = counted.map(|linked| linked.entry).collect::<Vec<_>>();
            let Some(last) = page.last() else { break };
            from = last.seq;
            self.apply_to_issuer_keys(&page, false);
            self.apply(&page, &index).await;
            if !is_full {
                break;
            }
        }
        if let Some(hour) = anchor.find_difference(&found, alive_at) {
            return Err(Outage::during(OP_FOLLOW_LOG)(TamperingError::RetainedLogEntries(hour)));
        }
        let entry = self.find_anchored_entry(&anchor).await?;
        index.write().advance_to(anchor.position);
        self.state.write().set_verified(entry.clone());
        Ok(Some(entry))
    }

    /// Returns the entry at an anchor.
    async fn find_anchored_entry(&self, anchor: &LogAnchor) -> Result<LogEntry, Outage> {
        let read = self.log.read_linked_log(previous(anchor.position), Timestamp::EPOCH, 1);
        let seq = anchor.position.number();
        let tampering = match with_store_timeout(OP_FOLLOW_LOG, read).await?.into_iter().next() {
            Some(linked) if linked.tag == anchor.tag => return Ok(linked.entry),
            Some(_) => TamperingError::UnlinkedLogEntry(seq),
            None => TamperingError::MissingLogEntry(seq),
        };
        Err(Outage::during(OP_FOLLOW_LOG)(tampering))
    }

    /// Moves the anchor of the log to its end, if many entries follow it, so that a replica that
    /// starts need not read them.
    pub(in crate::app) async fn advance_anchor(&self, now: Timestamp) -> Result<(), Outage> {
        self.move_anchor(now).await.inspect_err(|outage| self.note_tampering(outage))
    }

    async fn move_anchor(&self, now: Timestamp) -> Result<(), Outage> {
        let mut anchor = with_store_timeout(OP_FOLLOW_LOG, self.log.load_log_anchor()).await?;
        if self.applied_seq().number() < anchor.position.number().saturating_add(MIN_ANCHOR_DISTANCE) {
            return Ok(());
        }
        if anchor.position > LogPosition::default() {
            self.find_anchored_entry(&anchor).await?;
        }
        loop {
            let read = self.log.read_linked_log(anchor.position, Timestamp::EPOCH, FOREGROUND_PAGE_SIZE);
            let page = with_store_timeout(OP_FOLLOW_LOG, read).await?;
            if let Some(first) = page.first()
                && first.previous != anchor.tag
            {
                let seq = first.entry.seq.number();
                return Err(Outage::during(OP_FOLLOW_LOG)(TamperingError::UnlinkedLogEntry(seq)));
            }
            for linked in &page {
                anchor.advance(linked);
            }
            if page.len() < usize::try_from(FOREGROUND_PAGE_SIZE).unwrap_or(usize::MAX) {
                break;
            }
            yield_now().await;
        }
        anchor.forget_before(now.saturating_sub(ANCHORED_HOURS));
        with_store_timeout(OP_FOLLOW_LOG, self.log.store_log_anchor(&anchor)).await
    }

    /// Applies a page in chunks: the position advances with each, and readers wait for one chunk at
    /// most.
    async fn apply(&self, page: &[LogEntry], index: &RwLock<Index>) {
        for chunk in page.chunks(APPLY_CHUNK_SIZE) {
            let applied_at = self.clock.monotonic();
            {
                let mut index = index.write();
                for entry in chunk {
                    index.apply(entry, applied_at);
                }
            }
            self.state.write().set_last_applied(chunk.last().cloned());
            yield_now().await;
        }
        if !page.is_empty() {
            self.position.send_replace(self.applied_seq());
        }
    }

    /// Applies the entries of a page about the keys of identity providers. Until the whole log is
    /// read, withdrawn keys are only collected: the ones known so far stay withdrawn.
    fn apply_to_issuer_keys(&self, page: &[LogEntry], is_loaded: bool) {
        let mut withdrawn = None::<BTreeSet<IssuerKeyId>>;
        for LogEntry { entry: NewEntry { target, verb, .. }, .. } in page {
            match (target, verb) {
                (Target::IssuerKeySet(issuer), _) => self.trusted_keys.discard_issuer_keys(issuer),
                (Target::IssuerKey(key), verb) => {
                    let withdrawn = withdrawn.get_or_insert_with(|| self.state().withdrawn_issuer_keys().clone());
                    _ = match verb {
                        LogAction::Revoke | LogAction::Suspend => withdrawn.insert(key.clone()),
                        LogAction::Resume => withdrawn.remove(key),
                    };
                }
                _ => {}
            }
        }
        if let Some(withdrawn) = withdrawn {
            if is_loaded {
                self.trusted_keys.set_withdrawn_keys(withdrawn.clone());
            }
            self.state.write().set_withdrawn_issuer_keys(withdrawn);
        }
    }

    /// Reads state from the store and uses it from now on.
    async fn read_state(&self, state: SharedState) -> Result<(), Outage> {
        match state {
            SharedState::Keys => {
                self.signer.replace_keys(with_store_timeout(OP_FOLLOW_LOG, self.keys.load_keys()).await?)
            }
            SharedState::Registry => {
                let registry = with_store_timeout(OP_FOLLOW_LOG, load_registry(&*self.registry)).await?;
                let registry = registry.within_networks(&self.fetch_networks);
                self.state.write().replace_registry(Arc::new(registry));
                Ok(())
            }
            SharedState::ConfigurationFile => {
                self.reload_requests.send_modify(|count| *count = count.wrapping_add(1));
                Ok(())
            }
        }
    }

    async fn entry_at(&self, seq: LogPosition) -> Result<Option<LogEntry>, Outage> {
        let read = self.log.read_log_after(previous(seq), Timestamp::EPOCH, 1);
        let entries = with_store_timeout(OP_FOLLOW_LOG, read).await?;
        Ok(entries.into_iter().next().filter(|entry| entry.seq == seq))
    }

    /// Returns the applied log position.
    pub(in crate::app) fn applied_seq(&self) -> LogPosition {
        self.state().applied_seq()
    }

    fn state(&self) -> RwLockReadGuard<'_, FollowerState> {
        self.state.read()
    }
}

fn previous(seq: LogPosition) -> LogPosition {
    LogPosition::new(seq.number().saturating_sub(1))
}

/// Returns the time before which an entry must have gone out of date to be skipped when the whole
/// log is read. The time is a full hour, because the store finds the remaining entries by the hour.
pub(in crate::app) fn replay_horizon(now: Timestamp) -> Timestamp {
    now.saturating_sub(STARTUP_CLOCK_SLACK).end_of_previous_hour()
}

/// Loads the registry and checks its consistency. An inconsistent registry was written by another
/// program and is rejected as a whole.
pub(in crate::app) async fn load_registry(store: &dyn RegistryStore) -> Result<Registry, Outage> {
    let stored = store.load_registry().await?;
    let registry = Registry::build(stored.version, stored.entries, stored.secret_tags).map_err(|errors| {
        let texts = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Outage::during("read the registry")(texts)
    })?;
    Ok(registry
        .with_registrations(stored.registration_positions)
        .with_blocks(stored.blocks)
        .with_tools(stored.known_tools))
}
