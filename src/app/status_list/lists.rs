//! Status lists, derived from the revocation log.
//!
//! The status of a token is 0 until an entry concerns the token, and the status of an unassigned
//! index is 0. A list therefore changes only when the log does. For each entry, the tokens that the
//! entry may concern are selected, and each is judged by the rule of introspection
//! ([`Snapshot::standing`]).
//!
//! A token may become durable after the entry that ends it was checked, because its issue was
//! decided earlier. That decision used a log at most one lease old, and a token whose commit comes
//! more than [`ISSUE_DEADLINE`] later is discarded. Entries are therefore checked again until that
//! time has passed for every replica.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex as SyncMutex;
use tokio::sync::Mutex;

use crate::{
    app::replication::{
        coalesce::CoalescedRead,
        follower::{Follower, replay_horizon},
        snapshot::Snapshot,
    },
    domain::{
        id::TokenId,
        jose::jwk::SigningAlgorithm,
        registry::Registry,
        revocation::{LogEntry, LogPosition, Standing, Target},
        settings::TOKEN_LIFETIME_CAP,
        status_list::{
            LIST_EXPIRY_GRACE, LIST_SIZE, ListId, Shard, StatusBits, StatusIndex, StatusListClaims, TYP_STATUS_LIST,
            Width, entity_tag, gzip, status_of,
        },
        time::{Lifetime, Timestamp},
        uri::IssuerUrl,
    },
    ports::{Clock, IndexedToken, LogStore, Outage, Signer, StatusListStore, TokenCursor, TokenRecord, TokenSelector},
};

/// The minimum interval between two checks of the log while the log changes.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Upper bound between the last validity check of a token and its commit. A token that is committed
/// later is not given to its client. Without this bound, a token could become durable after the log
/// entry that ends it was processed, and its status would never be set.
pub(in crate::app) const ISSUE_DEADLINE: Duration = Duration::from_secs(10);
/// The age of an entry after which a token that the entry ends can't become durable and be returned
/// to a client: the longest lease, the longest commit, and a margin for clocks that run at
/// different rates.
const STABILITY_WINDOW: Duration = Duration::from_secs(35).saturating_add(ISSUE_DEADLINE);
/// The number of log entries that are read at a time.
const LOG_PAGE_SIZE: u32 = 10_000;
/// The number of names in one token query.
const SELECTOR_CHUNK_SIZE: usize = 500;
/// The number of tokens that are read at a time.
const TOKEN_PAGE_SIZE: u32 = 5_000;
/// The size of a list token above which it is compressed; a shorter one fits into one packet.
const GZIP_MIN_SIZE: usize = 1400;
const OP_BUILD_STATUS_LIST: &str = "build a status list";

/// A status list as it is served.
#[derive(Clone, Debug)]
pub struct StatusList {
    /// The status list token (`statuslist+jwt`).
    pub token: Bytes,
    /// The token compressed with gzip, if that is smaller.
    pub gzipped: Option<Bytes>,
    /// The entity tag of this token.
    pub etag: String,
    /// How long the token may be cached.
    pub ttl: Lifetime,
}

/// What status lists are signed with and for.
#[derive(Debug)]
pub(in crate::app) struct StatusListParameters {
    pub(in crate::app) issuer: IssuerUrl,
    /// The `aud` of transaction tokens.
    pub(in crate::app) trust_domain: String,
    pub(in crate::app) algorithm: SigningAlgorithm,
    pub(in crate::app) ttl: Lifetime,
}

/// The ports of [`StatusLists`].
pub(in crate::app) struct StatusListPorts {
    pub(in crate::app) log: Arc<dyn LogStore>,
    pub(in crate::app) status_lists: Arc<dyn StatusListStore>,
    pub(in crate::app) signer: Arc<dyn Signer>,
    pub(in crate::app) clock: Arc<dyn Clock>,
    pub(in crate::app) follower: Arc<Follower>,
}

/// Builds, signs and caches status lists.
pub(in crate::app) struct StatusLists {
    ports: StatusListPorts,
    parameters: StatusListParameters,
    /// Locked while lists are being built: one request does it, and the others wait for the result.
    state: Mutex<BuildState>,
    /// The number of reserved blocks of each shard, as of the last read.
    shards: SyncMutex<BTreeMap<Shard, u64>>,
    shard_read: CoalescedRead<()>,
}

/// What has been built so far.
#[derive(Default)]
struct BuildState {
    /// The log that it was built from.
    log_epoch: u64,
    /// The position up to which no further check can find anything new.
    stable_seq: LogPosition,
    /// Later positions of the log's head, each with the time of the check that saw it.
    unstable: VecDeque<(LogPosition, Duration)>,
    /// The position that the last check covered, and its start.
    last_check: Option<(LogPosition, Duration)>,
    /// The tokens whose records were changed outside the program, each with the time when that was
    /// found and the index that was marked for it. They are read again until they are restored.
    tampered: BTreeMap<TokenId, (Timestamp, Option<StatusIndex>)>,
    /// Whether an index was marked that turned out to be of another token. The next check starts
    /// again.
    has_wrong_mark: bool,
    /// The lists with a status other than 0.
    statuses: BTreeMap<ListId, StatusBits>,
    signed_lists: BTreeMap<ListId, SignedList>,
}

/// A signed list, and what it was signed with.
struct SignedList {
    list: Arc<StatusList>,
    signed_at: Timestamp,
    key_version: u64,
}

impl StatusLists {
    pub(in crate::app) fn new(ports: StatusListPorts, parameters: StatusListParameters) -> Arc<Self> {
        Arc::new(Self {
            ports,
            parameters,
            state: Mutex::default(),
            shards: SyncMutex::default(),
            shard_read: CoalescedRead::default(),
        })
    }

    /// Returns a list that is at most [`REFRESH_INTERVAL`] behind the snapshot, or `None` if the
    /// list does not exist.
    pub(in crate::app) async fn read(
        self: &Arc<Self>,
        id: ListId,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Option<Arc<StatusList>>, Outage> {
        if !self.exists(id, now).await? {
            return Ok(None);
        }
        {
            let state = self.state.lock().await;
            if state.log_epoch == snapshot.log_epoch
                && state.is_current(snapshot.seq, self.ports.clock.monotonic())
                && let Some(signed) = state.signed_lists.get(&id)
                && self.is_fresh(signed)
            {
                return Ok(Some(Arc::clone(&signed.list)));
            }
        }
        // In a task of its own: the result is kept even if the caller goes away meanwhile.
        let lists = Arc::clone(self);
        let rebuild = tokio::spawn(async move { lists.rebuild(id).await });
        rebuild.await.map_err(Outage::during(OP_BUILD_STATUS_LIST))?.map(Some)
    }

    /// Returns the URIs of all lists with a reserved index.
    pub(in crate::app) async fn list_uris(&self, now: Timestamp) -> Result<Vec<String>, Outage> {
        self.read_shards(now).await?;
        let shards = self.shards.lock();
        let ids = shards.iter().flat_map(|(shard, blocks)| ListId::iter_allocated(*shard, *blocks));
        Ok(ids.map(|id| id.uri(&self.parameters.issuer)).collect())
    }

    /// Returns whether an index of the list has been reserved. If memory does not show it, the
    /// store is read, once for all concurrent callers.
    async fn exists(&self, id: ListId, now: Timestamp) -> Result<bool, Outage> {
        let is_known = || self.shards.lock().get(&id.shard).is_some_and(|blocks| id.is_allocated(*blocks));
        if is_known() {
            return Ok(true);
        }
        if !id.shard.is_plausible(now) {
            return Ok(false);
        }
        self.read_shards(now).await?;
        Ok(is_known())
    }

    async fn read_shards(&self, now: Timestamp) -> Result<(), Outage> {
        let read = async || {
            let cutoff = now.saturating_sub(LIST_EXPIRY_GRACE);
            let shards = self.ports.status_lists.list_status_shards(cutoff).await?;
            *self.shards.lock() = shards.into_iter().collect();
            Ok(())
        };
        self.shard_read.read(read).await
    }

    /// Returns whether a signed list can be served as it is: at most half its `ttl` old, and signed
    /// with current keys.
    fn is_fresh(&self, signed: &SignedList) -> bool {
        let (now, ttl) = (self.ports.clock.now(), self.parameters.ttl);
        let until = signed.signed_at.saturating_add(Lifetime::seconds((ttl.as_seconds() / 2).max(1)));
        signed.signed_at <= now && !until.has_passed(now) && signed.key_version == self.ports.signer.version()
    }

    async fn rebuild(&self, id: ListId) -> Result<Arc<StatusList>, Outage> {
        let mut state = self.state.lock().await;
        let now = self.ports.clock.now();
        let snapshot = self.ports.follower.snapshot(now).await?;
        if state.log_epoch != snapshot.log_epoch {
            *state = BuildState { log_epoch: snapshot.log_epoch, ..BuildState::default() };
        }
        if !state.is_current(snapshot.seq, self.ports.clock.monotonic()) {
            self.apply_log(&mut state, &snapshot, now).await?;
        }
        if let Some(signed) = state.signed_lists.get(&id).filter(|signed| self.is_fresh(signed)) {
            return Ok(Arc::clone(&signed.list));
        }
        let key_version = self.ports.signer.version();
        let list = Arc::new(self.sign_list(id, state.statuses.get(&id), now)?);
        state.signed_lists.insert(id, SignedList { list: Arc::clone(&list), signed_at: now, key_version });
        Ok(list)
    }

    fn sign_list(&self, id: ListId, statuses: Option<&StatusBits>, now: Timestamp) -> Result<StatusList, Outage> {
        let all_valid;
        let statuses = match statuses {
            Some(statuses) => statuses,
            None => {
                all_valid = StatusBits::new(Width::Two, LIST_SIZE);
                &all_valid
            }
        };
        let StatusListParameters { issuer, algorithm, ttl, .. } = &self.parameters;
        let claims = StatusListClaims::new(issuer, id, statuses, *ttl, now);
        let claims = serde_json::to_vec(&claims).map_err(Outage::during("serialize the claims"))?;
        let token = self.ports.signer.sign(*algorithm, TYP_STATUS_LIST, &claims, now)?;
        let gzipped = (token.len() > GZIP_MIN_SIZE).then(|| gzip(token.as_bytes()));
        let gzipped = gzipped.filter(|gzipped| gzipped.len() < token.len()).map(Bytes::from);
        Ok(StatusList { etag: entity_tag(&token), token: token.into(), gzipped, ttl: *ttl })
    }

    /// Checks the unstable part of the log, and sets the status of every token that its entries may
    /// concern.
    async fn apply_log(&self, state: &mut BuildState, snapshot: &Snapshot, now: Timestamp) -> Result<(), Outage> {
        let started = self.ports.clock.monotonic();
        state.evict_expired(now);
        let tampered = chunk_selectors(state.tampered.keys().copied(), TokenSelector::Tokens);
        for selector in tampered {
            self.mark_affected(state, &selector, snapshot, now).await?;
        }
        if state.has_wrong_mark {
            let (log_epoch, tampered) = (state.log_epoch, std::mem::take(&mut state.tampered));
            *state = BuildState { log_epoch, tampered, ..BuildState::default() };
        }
        let alive_at = if state.stable_seq == LogPosition::default() { replay_horizon(now) } else { Timestamp::EPOCH };
        let mut from = state.stable_seq;
        loop {
            let entries = self.ports.log.read_log_after(from, alive_at, LOG_PAGE_SIZE).await?;
            let Some(last) = entries.last() else { break };
            from = last.seq;
            let entries = entries.iter().filter(|entry| entry.seq <= snapshot.seq);
            for selector in affected_token_selectors(entries, &self.parameters.trust_domain, &snapshot.registry) {
                self.mark_affected(state, &selector, snapshot, now).await?;
            }
            if from >= snapshot.seq {
                break;
            }
        }
        state.mark_checked(snapshot.seq, started);
        Ok(())
    }

    async fn mark_affected(
        &self,
        state: &mut BuildState,
        selector: &TokenSelector,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<(), Outage> {
        let (store, alive_at) = (&self.ports.status_lists, now.saturating_sub(LIST_EXPIRY_GRACE));
        let mut cursor = TokenCursor::default();
        loop {
            let tokens = store.list_tokens_with_status(selector, alive_at, cursor, TOKEN_PAGE_SIZE).await?;
            for token in &tokens {
                match &token.record {
                    Some(record) => state.set_token_status(record, snapshot),
                    None => state.mark_tampered(token, now),
                }
            }
            match tokens.last() {
                Some(last) if tokens.len() >= TOKEN_PAGE_SIZE as usize => {
                    cursor = last.cursor;
                }
                Some(_) | None => return Ok(()),
            }
        }
    }
}

impl BuildState {
    /// Returns whether the lists are current for a snapshot up to `head`: nothing is unchecked,
    /// unstable or tampered with, or the last check is less than [`REFRESH_INTERVAL`] ago.
    fn is_current(&self, head: LogPosition, now: Duration) -> bool {
        self.last_check.is_some_and(|(checked, started)| {
            let is_complete =
                checked >= head && self.unstable.is_empty() && self.tampered.is_empty() && !self.has_wrong_mark;
            is_complete || now.saturating_sub(started) < REFRESH_INTERVAL
        })
    }

    fn set_token_status(&mut self, token: &TokenRecord, snapshot: &Snapshot) {
        if let Some((_, marked)) = self.tampered.remove(&token.id)
            && marked.is_some_and(|marked| token.status_index != Some(marked))
        {
            self.has_wrong_mark = true;
        }
        if let Some(index) = token.status_index {
            self.set_status(index, status_of(snapshot.standing(&token.revocation_keys())));
        }
    }

    /// Marks a token as suspended whose record was changed outside the program: whether it is valid
    /// is unknown until the record is restored.
    fn mark_tampered(&mut self, token: &IndexedToken, now: Timestamp) {
        let (_, marked) = self.tampered.entry(token.cursor.id).or_insert((now, None));
        if marked.is_none() {
            *marked = token.index;
        }
        if let Some(index) = *marked {
            self.set_status(index, status_of(Standing::Suspended));
        }
    }

    fn set_status(&mut self, index: StatusIndex, status: u8) {
        let list = index.list_id();
        if status == 0 && !self.statuses.contains_key(&list) {
            return;
        }
        let statuses = self.statuses.entry(list).or_insert_with(|| StatusBits::new(Width::Two, LIST_SIZE));
        if statuses.set(index.idx(), status) {
            self.signed_lists.remove(&list);
        }
    }

    /// Records a check of the log up to `head` that started at `started`.
    fn mark_checked(&mut self, head: LogPosition, started: Duration) {
        if self.unstable.back().map_or(self.stable_seq, |(seq, _)| *seq) < head {
            self.unstable.push_back((head, started));
        }
        while let Some((seq, at)) = self.unstable.front()
            && started.saturating_sub(*at) >= STABILITY_WINDOW
        {
            self.stable_seq = *seq;
            self.unstable.pop_front();
        }
        self.last_check = Some((head, started));
    }

    fn evict_expired(&mut self, now: Timestamp) {
        let longest_life = TOKEN_LIFETIME_CAP.saturating_add(LIST_EXPIRY_GRACE);
        self.tampered.retain(|_, (found, _)| !found.saturating_add(longest_life).has_passed(now));
        self.statuses.retain(|list, _| !list.shard.is_expired(now));
        self.signed_lists.retain(|list, _| !list.shard.is_expired(now));
    }
}

/// Returns selectors for the tokens that the entries may concern. The audience of a transaction
/// token is the trust domain, whatever resources it allows something at.
///
/// An entry about all agents concerns the tokens of the registered ones. Tokens of an agent that is
/// no longer registered were revoked with its removal.
fn affected_token_selectors<'a>(
    entries: impl Iterator<Item = &'a LogEntry>,
    trust_domain: &str,
    registry: &Registry,
) -> Vec<TokenSelector> {
    let (mut tokens, mut tasks, mut grants) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut requesters, mut agents) = (BTreeSet::new(), BTreeSet::new());
    let (mut audiences, mut issuers) = (BTreeSet::new(), BTreeSet::new());
    let mut delegators = BTreeSet::new();
    for LogEntry { entry, .. } in entries {
        match &entry.target {
            Target::Token(id) => _ = tokens.insert(*id),
            Target::Task(id) => _ = tasks.insert(*id),
            Target::Grant(id) => _ = grants.insert(*id),
            Target::Requester(key) => requesters.extend(key.split_once(' ')),
            Target::Agent(id) => _ = agents.insert(id.clone()),
            Target::AllAgents => agents.extend(registry.agents().map(|agent| agent.id.clone())),
            Target::Resource(uri) | Target::Tool(uri, _) | Target::BreakGlass(uri) => {
                audiences.extend([uri.to_string(), trust_domain.to_owned()]);
            }
            Target::Delegation(_, requester) => {
                delegators.insert((requester.issuer.to_string(), requester.subject.to_string()));
            }
            Target::Issuer(url) => _ = issuers.insert(url.clone()),
            // API tokens have no status index, and the other targets concern no token.
            Target::Credentials(_)
            | Target::Evidence(_)
            | Target::Registry
            | Target::Keys
            | Target::Configuration
            | Target::IssuerKey(_)
            | Target::IssuerKeySet(_) => {}
        }
    }
    let requesters = requesters.into_iter().map(|(issuer, subject)| (issuer.to_owned(), subject.to_owned()));
    let requesters = delegators.into_iter().chain(requesters).collect::<BTreeSet<_>>();
    let selectors = [
        chunk_selectors(tokens, TokenSelector::Tokens),
        chunk_selectors(tasks, TokenSelector::Tasks),
        chunk_selectors(grants, TokenSelector::Grants),
        chunk_selectors(requesters, TokenSelector::Requesters),
        chunk_selectors(agents, TokenSelector::Agents),
        chunk_selectors(audiences, TokenSelector::Audiences),
        chunk_selectors(issuers, TokenSelector::Issuers),
    ];
    selectors.into_iter().flatten().collect()
}

/// Splits the names into selectors that are small enough for a fast query.
fn chunk_selectors<T: Clone>(
    names: impl IntoIterator<Item = T>,
    selector: fn(Vec<T>) -> TokenSelector,
) -> Vec<TokenSelector> {
    let names = names.into_iter().collect::<Vec<_>>();
    names.chunks(SELECTOR_CHUNK_SIZE).map(|chunk| selector(chunk.to_vec())).collect()
}
