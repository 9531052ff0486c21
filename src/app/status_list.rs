//! Status lists: what has become of the tokens that have a place in one, for anybody who does not ask about each.
//!
//! A token that nothing was done to is a 0, and so is a number that nobody has: a list changes when something is taken back,
//! and at no other time. So the log is what is followed: for each entry, the tokens that it may be about are looked up
//! and judged by the same rule as everywhere ([`View::standing`]).
//!
//! A token may become durable after the entry that ends it was looked at: it was decided on before that. But whoever decided
//! knew the log as it was a lease before, or later, and nobody gets a token that took longer to be written than
//! [`WRITTEN_WITHIN`]. So an entry is looked at again until that time is over for every replica.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, Mutex as StdMutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::Mutex;

use crate::{
    app::{Conflict, Cx, Failure, Service, View, exchange::WRITTEN_WITHIN, follow::long_over, shared::Shared},
    domain::{
        revocation::{LogEntry, Seq, Target},
        status_list::{
            LIST_SIZE, ListId, Packed, STAYS, Shard, StatusListClaims, StatusPlace, TYP_STATUS_LIST, Width, entity_tag,
            gzip, status_of,
        },
        time::{Lifetime, Timestamp},
    },
    ports::{Having, ListedAfter, Outage},
};

/// How old what is told may be, when the log never rests.
const PACE: Duration = Duration::from_secs(1);
/// After so long, no token becomes durable any more that an entry ends and that somebody gets: the longest lease, what
/// writing may take, and what clocks that run at different rates may differ by.
const SETTLES: Duration = Duration::from_secs(35).saturating_add(WRITTEN_WITHIN);
/// How many entries, names and tokens are read at a time.
const ENTRIES: u32 = 10_000;
const NAMES: usize = 500;
const TOKENS: u32 = 5_000;
/// What is shorter than this fits into one packet anyway.
const WORTH_ZIPPING: usize = 1400;
const DURING: &str = "work out a status list";

/// A list as it is served.
#[derive(Clone, Debug)]
pub struct StatusList {
    /// The token (`statuslist+jwt`).
    pub token: Bytes,
    /// The same, gzipped, where that makes it smaller.
    pub gzipped: Option<Bytes>,
    /// The name of this very text.
    pub tag: String,
    /// For how many seconds it may be kept.
    pub ttl: Lifetime,
}

pub(super) struct StatusLists {
    /// Held while something is worked out, so that one request does it and the others wait for it.
    known: Mutex<Known>,
    /// How many blocks were taken of each shard, as far as that was ever read.
    shards: StdMutex<BTreeMap<Shard, u64>>,
    reading: Shared<()>,
}

impl Default for StatusLists {
    fn default() -> Self {
        Self { known: Mutex::default(), shards: StdMutex::default(), reading: Shared::new("read the status lists") }
    }
}

/// What was worked out so far.
#[derive(Default)]
struct Known {
    /// Of which log.
    log: u64,
    /// Up to here nothing can be found any more that was not found.
    settled: Seq,
    /// Up to where the log reached at which time, beyond that.
    seen: VecDeque<(Seq, Duration)>,
    /// Up to where the log was looked at, and when that began.
    looked: Option<(Seq, Duration)>,
    /// Lists in which something is not 0.
    statuses: BTreeMap<ListId, Packed>,
    signed: BTreeMap<ListId, Signed>,
}

/// A list, and what it was made of.
struct Signed {
    list: Arc<StatusList>,
    at: Timestamp,
    /// The version of the keys.
    keys: u64,
}

impl Service {
    /// A status list, no more than a second behind the log.
    pub async fn status_list(&self, id: ListId, cx: &Cx) -> Result<Arc<StatusList>, Failure> {
        if id.shard.is_over(cx.now) {
            return Err(Conflict::ListIsOver.into());
        }
        // Without a view there is no answer, whatever is kept.
        let view = self.0.follower.current(cx.now).await?;
        if !self.is_status_list(id, cx.now).await? {
            return Err(Conflict::NotFound("status list").into());
        }
        {
            let known = self.0.status_lists.known.lock().await;
            if known.log == view.log
                && known.is_current(view.seq, self.clock().monotonic())
                && let Some(signed) = known.signed.get(&id)
                && self.is_fresh(signed)
            {
                return Ok(Arc::clone(&signed.list));
            }
        }
        // A task of its own: what was worked out is kept, even if whoever asked goes away meanwhile.
        let service = self.clone();
        let worked_out = tokio::spawn(async move { service.work_out(id).await });
        Ok(worked_out.await.map_err(Outage::during(DURING))??)
    }

    /// The lists that there are now.
    pub async fn status_lists(&self, cx: &Cx) -> Result<Vec<String>, Failure> {
        self.0.follower.current(cx.now).await?;
        self.read_shards(cx.now).await?;
        let shards = self.0.status_lists.shards();
        let ids = shards.iter().flat_map(|(shard, blocks)| ListId::of(*shard, *blocks));
        Ok(ids.map(|id| id.uri(&self.settings().issuer)).collect())
    }

    /// Whether a number of the list was ever taken. What is not known here is asked for, once for all who ask.
    async fn is_status_list(&self, id: ListId, now: Timestamp) -> Result<bool, Outage> {
        let is_there = || self.0.status_lists.shards().get(&id.shard).is_some_and(|blocks| id.is_among(*blocks));
        if is_there() {
            return Ok(true);
        }
        if !id.shard.is_near(now) {
            return Ok(false);
        }
        self.read_shards(now).await?;
        Ok(is_there())
    }

    async fn read_shards(&self, now: Timestamp) -> Result<(), Outage> {
        let lists = &self.0.status_lists;
        let read = async || {
            let shards = self.store().status_shards(now.before(STAYS)).await?;
            *lists.shards() = shards.into_iter().collect();
            Ok(())
        };
        lists.reading.read(read).await
    }

    /// Whether a list can be told as it is: it is young, and signed by keys that are ours.
    fn is_fresh(&self, signed: &Signed) -> bool {
        let (now, ttl) = (self.clock().now(), self.settings().status_list.ttl);
        let until = signed.at.after(Lifetime::seconds((ttl.as_seconds() / 2).max(1)));
        signed.at <= now && !until.is_past(now) && signed.keys == self.0.parts.signer.version()
    }

    async fn work_out(&self, id: ListId) -> Result<Arc<StatusList>, Outage> {
        let mut known = self.0.status_lists.known.lock().await;
        let now = self.clock().now();
        let view = self.0.follower.current(now).await?;
        if known.log != view.log {
            *known = Known { log: view.log, ..Known::default() };
        }
        if !known.is_current(view.seq, self.clock().monotonic()) {
            self.go_through(&mut known, &view, now).await?;
        }
        if let Some(signed) = known.signed.get(&id).filter(|signed| self.is_fresh(signed)) {
            return Ok(Arc::clone(&signed.list));
        }
        let keys = self.0.parts.signer.version();
        let list = Arc::new(self.sign_list(id, known.statuses.get(&id), now)?);
        known.signed.insert(id, Signed { list: Arc::clone(&list), at: now, keys });
        Ok(list)
    }

    fn sign_list(&self, id: ListId, statuses: Option<&Packed>, now: Timestamp) -> Result<StatusList, Outage> {
        let settings = self.settings();
        let nothing;
        let statuses = match statuses {
            Some(statuses) => statuses,
            None => {
                nothing = Packed::new(Width::Two, LIST_SIZE);
                &nothing
            }
        };
        let ttl = settings.status_list.ttl;
        let claims = StatusListClaims::new(&settings.issuer, id, statuses, ttl, now);
        let claims = serde_json::to_vec(&claims).map_err(Outage::during("write the claims"))?;
        let token = self.0.parts.signer.sign(settings.algorithm, TYP_STATUS_LIST, &claims, now)?;
        let gzipped = (token.len() > WORTH_ZIPPING).then(|| gzip(token.as_bytes()));
        let gzipped = gzipped.filter(|gzipped| gzipped.len() < token.len()).map(Bytes::from);
        Ok(StatusList { tag: entity_tag(&token), token: token.into(), gzipped, ttl })
    }

    /// Goes through what is not settled of the log, and sets what has become of the tokens that it may be about.
    async fn go_through(&self, known: &mut Known, view: &View, now: Timestamp) -> Result<(), Outage> {
        let began = self.clock().monotonic();
        known.drop_what_is_over(now);
        let alive_at = if known.settled == Seq::default() { long_over(now) } else { Timestamp::EPOCH };
        let mut from = known.settled;
        loop {
            let entries = self.store().log_after(from, alive_at, ENTRIES).await?;
            let Some(last) = entries.last() else { break };
            from = last.seq;
            let entries = entries.iter().filter(|entry| entry.seq <= view.seq);
            for having in sought(entries, &self.settings().trust_domain) {
                self.look_for(known, &having, view, now.before(STAYS)).await?;
            }
            if from >= view.seq {
                break;
            }
        }
        known.looked(view.seq, began);
        Ok(())
    }

    async fn look_for(
        &self,
        known: &mut Known,
        having: &Having,
        view: &View,
        alive_at: Timestamp,
    ) -> Result<(), Outage> {
        let mut after = ListedAfter::default();
        loop {
            let tokens = self.store().listed_tokens(having, alive_at, after, TOKENS).await?;
            for token in &tokens {
                if let Some(place) = token.status {
                    known.put(place, status_of(view.standing(&token.names())));
                }
            }
            match tokens.last() {
                Some(last) if tokens.len() >= TOKENS as usize => {
                    after = ListedAfter { issued: last.issued, id: last.id };
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

impl Known {
    /// Whether nothing has to be looked up, for who knows the log up to `head`.
    fn is_current(&self, head: Seq, now: Duration) -> bool {
        self.looked.is_some_and(|(looked, began)| {
            let is_all = looked >= head && self.seen.is_empty();
            is_all || now.saturating_sub(began) < PACE
        })
    }

    fn put(&mut self, place: StatusPlace, status: u8) {
        let list = place.list();
        if status == 0 && !self.statuses.contains_key(&list) {
            return;
        }
        let statuses = self.statuses.entry(list).or_insert_with(|| Packed::new(Width::Two, LIST_SIZE));
        if statuses.put(place.index(), status) {
            self.signed.remove(&list);
        }
    }

    /// The log was gone through up to `head`, and that began at `began`.
    fn looked(&mut self, head: Seq, began: Duration) {
        if self.seen.back().map_or(self.settled, |(seq, _)| *seq) < head {
            self.seen.push_back((head, began));
        }
        while let Some((seq, at)) = self.seen.front()
            && began.saturating_sub(*at) >= SETTLES
        {
            self.settled = *seq;
            self.seen.pop_front();
        }
        self.looked = Some((head, began));
    }

    fn drop_what_is_over(&mut self, now: Timestamp) {
        self.statuses.retain(|list, _| !list.shard.is_over(now));
        self.signed.retain(|list, _| !list.shard.is_over(now));
    }
}

/// How the tokens are found that entries may be about. A transaction token is for the trust domain, and for whatever
/// resources it allows something at.
fn sought<'a>(entries: impl Iterator<Item = &'a LogEntry>, trust_domain: &str) -> Vec<Having> {
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
        parts(tokens, Having::Tokens),
        parts(tasks, Having::Tasks),
        parts(grants, Having::Grants),
        parts(requesters, Having::Requesters),
        parts(agents, Having::Agents),
        parts(audiences, Having::Audiences),
        parts(issuers, Having::Issuers),
    ];
    parts.into_iter().flatten().collect()
}

/// So many at a time that a statement takes no time.
fn parts<T: Clone>(names: impl IntoIterator<Item = T>, having: fn(Vec<T>) -> Having) -> Vec<Having> {
    let names = names.into_iter().collect::<Vec<_>>();
    names.chunks(NAMES).map(|part| having(part.to_vec())).collect()
}
