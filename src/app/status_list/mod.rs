//! Status lists: what has become of the tokens that have a place in one, for anybody who does not ask about each.
//!
//! A token that nothing was done to is a 0, and so is a number that nobody has: a list changes when something is taken back,
//! and at no other time. So the log is what is followed: for each entry, the tokens that it may be about are looked up
//! and judged by the same rule as everywhere ([`View::standing`]).
//!
//! A token may become durable after the entry that ends it was looked at: it was decided on before that. But whoever decided
//! knew the log as it was a lease before, or later, and nobody gets a token that took longer to be written than
//! [`ISSUE_DEADLINE`]. So an entry is looked at again until that time is over for every replica.

pub(super) mod allocator;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Mutex;

use crate::{
    app::{
        ConflictError, Error, RequestContext, Service, Snapshot,
        replication::{coalesce::CoalescedRead, follower::replay_horizon},
    },
    domain::{
        revocation::{LogEntry, LogPosition, Target},
        status_list::{
            LIST_EXPIRY_GRACE, LIST_SIZE, ListId, Shard, StatusBits, StatusIndex, StatusListClaims, TYP_STATUS_LIST,
            Width, entity_tag, gzip, status_of,
        },
        time::{Lifetime, Timestamp},
    },
    ports::{Outage, TokenCursor, TokenSelector},
};

/// How old what is told may be, when the log never rests.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Upper bound between the last validity check of a token and its commit. A token that is committed
/// later is not given to its client. Without this bound, a token could become durable after the log
/// entry that ends it was processed, and its status would never be set.
pub(super) const ISSUE_DEADLINE: Duration = Duration::from_secs(10);
/// After so long, no token becomes durable any more that an entry ends and that somebody gets: the longest lease, what
/// writing may take, and what clocks that run at different rates may differ by.
const STABILITY_WINDOW: Duration = Duration::from_secs(35).saturating_add(ISSUE_DEADLINE);
/// How many entries, names and tokens are read at a time.
const LOG_PAGE_SIZE: u32 = 10_000;
const SELECTOR_CHUNK_SIZE: usize = 500;
const TOKEN_PAGE_SIZE: u32 = 5_000;
/// What is shorter than this fits into one packet anyway.
const GZIP_MIN_SIZE: usize = 1400;
const OP_BUILD_STATUS_LIST: &str = "work out a status list";

/// A list as it is served.
#[derive(Clone, Debug)]
pub struct StatusList {
    /// The token (`statuslist+jwt`).
    pub token: Bytes,
    /// The same, gzipped, where that makes it smaller.
    pub gzipped: Option<Bytes>,
    /// The name of this very text.
    pub etag: String,
    /// For how many seconds it may be kept.
    pub ttl: Lifetime,
}

pub(super) struct StatusLists {
    /// Held while something is worked out, so that one request does it and the others wait for it.
    state: Mutex<BuildState>,
    /// How many blocks were taken of each shard, as far as that was ever read.
    shards: StdMutex<BTreeMap<Shard, u64>>,
    shard_read: CoalescedRead<()>,
}

impl Default for StatusLists {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            shards: StdMutex::default(),
            shard_read: CoalescedRead::new("read the status lists"),
        }
    }
}

/// What was worked out so far.
#[derive(Default)]
struct BuildState {
    /// Of which log.
    log_epoch: u64,
    /// Up to here nothing can be found any more that was not found.
    stable_seq: LogPosition,
    /// Up to where the log reached at which time, beyond that.
    unstable: VecDeque<(LogPosition, Duration)>,
    /// Up to where the log was looked at, and when that began.
    last_check: Option<(LogPosition, Duration)>,
    /// Lists in which something is not 0.
    statuses: BTreeMap<ListId, StatusBits>,
    signed_lists: BTreeMap<ListId, SignedList>,
}

/// A list, and what it was made of.
struct SignedList {
    list: Arc<StatusList>,
    signed_at: Timestamp,
    /// The version of the keys.
    key_version: u64,
}

impl Service {
    /// A status list, no more than a second behind the log.
    pub async fn read_status_list(&self, id: ListId, cx: &RequestContext) -> Result<Arc<StatusList>, Error> {
        if id.shard.is_expired(cx.now) {
            return Err(ConflictError::StatusListExpired.into());
        }
        // Without a view there is no answer, whatever is kept.
        let snapshot = self.0.follower.snapshot(cx.now).await?;
        if !self.status_list_exists(id, cx.now).await? {
            return Err(ConflictError::NotFound("status list").into());
        }
        {
            let state = self.0.status_lists.state.lock().await;
            if state.log_epoch == snapshot.log_epoch
                && state.is_current(snapshot.seq, self.clock().monotonic())
                && let Some(signed) = state.signed_lists.get(&id)
                && self.is_fresh(signed)
            {
                return Ok(Arc::clone(&signed.list));
            }
        }
        // A task of its own: what was worked out is kept, even if whoever asked goes away meanwhile.
        let service = self.clone();
        let worked_out = tokio::spawn(async move { service.rebuild(id).await });
        Ok(worked_out.await.map_err(Outage::during(OP_BUILD_STATUS_LIST))??)
    }

    /// The lists that there are now.
    pub async fn list_status_lists(&self, cx: &RequestContext) -> Result<Vec<String>, Error> {
        self.0.follower.snapshot(cx.now).await?;
        self.read_shards(cx.now).await?;
        let shards = self.0.status_lists.shards();
        let ids = shards.iter().flat_map(|(shard, blocks)| ListId::iter_allocated(*shard, *blocks));
        Ok(ids.map(|id| id.uri(&self.settings().issuer)).collect())
    }

    /// Whether a number of the list was ever taken. What is not known here is asked for, once for all who ask.
    async fn status_list_exists(&self, id: ListId, now: Timestamp) -> Result<bool, Outage> {
        let is_there = || self.0.status_lists.shards().get(&id.shard).is_some_and(|blocks| id.is_allocated(*blocks));
        if is_there() {
            return Ok(true);
        }
        if !id.shard.is_plausible(now) {
            return Ok(false);
        }
        self.read_shards(now).await?;
        Ok(is_there())
    }

    async fn read_shards(&self, now: Timestamp) -> Result<(), Outage> {
        let lists = &self.0.status_lists;
        let read = async || {
            let shards = self.store().list_status_shards(now.saturating_sub(LIST_EXPIRY_GRACE)).await?;
            *lists.shards() = shards.into_iter().collect();
            Ok(())
        };
        lists.shard_read.read(read).await
    }

    /// Whether a list can be told as it is: it is young, and signed by keys that are ours.
    fn is_fresh(&self, signed: &SignedList) -> bool {
        let (now, ttl) = (self.clock().now(), self.settings().status_list.ttl);
        let until = signed.signed_at.saturating_add(Lifetime::seconds((ttl.as_seconds() / 2).max(1)));
        signed.signed_at <= now && !until.has_passed(now) && signed.key_version == self.0.ports.signer.version()
    }

    async fn rebuild(&self, id: ListId) -> Result<Arc<StatusList>, Outage> {
        let mut state = self.0.status_lists.state.lock().await;
        let now = self.clock().now();
        let snapshot = self.0.follower.snapshot(now).await?;
        if state.log_epoch != snapshot.log_epoch {
            *state = BuildState { log_epoch: snapshot.log_epoch, ..BuildState::default() };
        }
        if !state.is_current(snapshot.seq, self.clock().monotonic()) {
            self.apply_log(&mut state, &snapshot, now).await?;
        }
        if let Some(signed) = state.signed_lists.get(&id).filter(|signed| self.is_fresh(signed)) {
            return Ok(Arc::clone(&signed.list));
        }
        let keys = self.0.ports.signer.version();
        let list = Arc::new(self.sign_list(id, state.statuses.get(&id), now)?);
        state.signed_lists.insert(id, SignedList { list: Arc::clone(&list), signed_at: now, key_version: keys });
        Ok(list)
    }

    fn sign_list(&self, id: ListId, statuses: Option<&StatusBits>, now: Timestamp) -> Result<StatusList, Outage> {
        let settings = self.settings();
        let nothing;
        let statuses = match statuses {
            Some(statuses) => statuses,
            None => {
                nothing = StatusBits::new(Width::Two, LIST_SIZE);
                &nothing
            }
        };
        let ttl = settings.status_list.ttl;
        let claims = StatusListClaims::new(&settings.issuer, id, statuses, ttl, now);
        let claims = serde_json::to_vec(&claims).map_err(Outage::during("write the claims"))?;
        let token = self.0.ports.signer.sign(settings.algorithm, TYP_STATUS_LIST, &claims, now)?;
        let gzipped = (token.len() > GZIP_MIN_SIZE).then(|| gzip(token.as_bytes()));
        let gzipped = gzipped.filter(|gzipped| gzipped.len() < token.len()).map(Bytes::from);
        Ok(StatusList { etag: entity_tag(&token), token: token.into(), gzipped, ttl })
    }

    /// Goes through what is not settled of the log, and sets what has become of the tokens that it may be about.
    async fn apply_log(&self, state: &mut BuildState, snapshot: &Snapshot, now: Timestamp) -> Result<(), Outage> {
        let began = self.clock().monotonic();
        state.evict_expired(now);
        let alive_at = if state.stable_seq == LogPosition::default() { replay_horizon(now) } else { Timestamp::EPOCH };
        let mut from = state.stable_seq;
        loop {
            let entries = self.store().read_log_after(from, alive_at, LOG_PAGE_SIZE).await?;
            let Some(last) = entries.last() else { break };
            from = last.seq;
            let entries = entries.iter().filter(|entry| entry.seq <= snapshot.seq);
            for having in affected_token_selectors(entries, &self.settings().trust_domain) {
                self.mark_affected(state, &having, snapshot, now.saturating_sub(LIST_EXPIRY_GRACE)).await?;
            }
            if from >= snapshot.seq {
                break;
            }
        }
        state.mark_checked(snapshot.seq, began);
        Ok(())
    }

    async fn mark_affected(
        &self,
        state: &mut BuildState,
        selector: &TokenSelector,
        snapshot: &Snapshot,
        alive_at: Timestamp,
    ) -> Result<(), Outage> {
        let mut cursor = TokenCursor::default();
        loop {
            let tokens = self.store().list_tokens_with_status(selector, alive_at, cursor, TOKEN_PAGE_SIZE).await?;
            for token in &tokens {
                if let Some(place) = token.status_index {
                    state.set_status(place, status_of(snapshot.standing(&token.revocation_keys())));
                }
            }
            match tokens.last() {
                Some(last) if tokens.len() >= TOKEN_PAGE_SIZE as usize => {
                    cursor = TokenCursor { issued: last.issued, id: last.id };
                }
                Some(_) | None => return Ok(()),
            }
        }
    }
}

impl StatusLists {
    fn shards(&self) -> std::sync::MutexGuard<'_, BTreeMap<Shard, u64>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BuildState {
    /// Whether nothing has to be looked up, for who knows the log up to `head`.
    fn is_current(&self, head: LogPosition, now: Duration) -> bool {
        self.last_check.is_some_and(|(looked, began)| {
            let is_all = looked >= head && self.unstable.is_empty();
            is_all || now.saturating_sub(began) < REFRESH_INTERVAL
        })
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

    /// The log was gone through up to `head`, and that began at `began`.
    fn mark_checked(&mut self, head: LogPosition, began: Duration) {
        if self.unstable.back().map_or(self.stable_seq, |(seq, _)| *seq) < head {
            self.unstable.push_back((head, began));
        }
        while let Some((seq, at)) = self.unstable.front()
            && began.saturating_sub(*at) >= STABILITY_WINDOW
        {
            self.stable_seq = *seq;
            self.unstable.pop_front();
        }
        self.last_check = Some((head, began));
    }

    fn evict_expired(&mut self, now: Timestamp) {
        self.statuses.retain(|list, _| !list.shard.is_expired(now));
        self.signed_lists.retain(|list, _| !list.shard.is_expired(now));
    }
}

/// How the tokens are found that entries may be about. A transaction token is for the trust domain, and for whatever
/// resources it allows something at.
fn affected_token_selectors<'a>(entries: impl Iterator<Item = &'a LogEntry>, trust_domain: &str) -> Vec<TokenSelector> {
    let (mut tokens, mut tasks, mut grants) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let (mut requesters, mut agents) = (BTreeSet::new(), BTreeSet::new());
    let (mut audiences, mut issuers) = (BTreeSet::new(), BTreeSet::new());
    for LogEntry { entry, .. } in entries {
        match &entry.target {
            Target::Token(id) => _ = tokens.insert(*id),
            Target::Task(id) => _ = tasks.insert(*id),
            Target::Grant(id) => _ = grants.insert(*id),
            Target::Requester(key) => requesters.extend(key.split_once(' ')),
            Target::Agent(id) => _ = agents.insert(id.clone()),
            Target::Resource(uri) => audiences.extend([uri.to_string(), trust_domain.to_owned()]),
            Target::Issuer(url) => _ = issuers.insert(url.clone()),
            // An API token has no place, and the rest is about no token.
            Target::Credentials(_) | Target::Registry | Target::Keys => {}
        }
    }
    let requesters = requesters.into_iter().map(|(issuer, subject)| (issuer.to_owned(), subject.to_owned()));
    let parts = [
        chunk_selectors(tokens, TokenSelector::Tokens),
        chunk_selectors(tasks, TokenSelector::Tasks),
        chunk_selectors(grants, TokenSelector::Grants),
        chunk_selectors(requesters, TokenSelector::Requesters),
        chunk_selectors(agents, TokenSelector::Agents),
        chunk_selectors(audiences, TokenSelector::Audiences),
        chunk_selectors(issuers, TokenSelector::Issuers),
    ];
    parts.into_iter().flatten().collect()
}

/// So many at a time that a statement takes no time.
fn chunk_selectors<T: Clone>(
    names: impl IntoIterator<Item = T>,
    selector: fn(Vec<T>) -> TokenSelector,
) -> Vec<TokenSelector> {
    let names = names.into_iter().collect::<Vec<_>>();
    names.chunks(SELECTOR_CHUNK_SIZE).map(|part| selector(part.to_vec())).collect()
}
