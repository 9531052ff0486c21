//! Following the revocation log: one thing to follow for what was taken back, for the registry and for the keys.
//!
//! While our lease holds ([`lease`](super::lease)), everything that was acknowledged before a request began is known here.
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
    app::{in_time::in_time, lease::Lease, shared::Shared},
    domain::{
        registry::Registry,
        revocation::{Index, LogEntry, Names, Seq, Standing, Target},
        time::{Lifetime, Timestamp},
    },
    ports::{Clock, Outage, Signer, Store},
};

/// How many entries are read at a time when nobody is answered before all of them are applied.
const BATCH: u32 = 10_000;
/// And while requests are answered from memory, on the same cores: what comes in a burst takes longer, and no answer does.
const SIP: u32 = 500;
/// How many are applied before those who look into the index get their turn.
const AT_ONCE: usize = 256;
/// How far wall clocks may have been wrong for what is read at a start.
const COLD_SLACK: Lifetime = Lifetime::hours(24);
const DURING: &str = "follow the revocation log";
const HEAD: &str = "read the log's head";

pub(super) struct Follower {
    pub(super) store: Arc<dyn Store>,
    signer: Arc<dyn Signer>,
    pub(super) clock: Arc<dyn Clock>,
    /// For how long the log need not be asked for.
    pub(super) lease: Lease,
    /// The head of the log, as the store says it is.
    head: Shared<Seq>,
    /// Held while catching up, so that one request does it and the others wait for it.
    catching_up: Arc<Mutex<()>>,
    known: RwLock<Known>,
    /// Up to where the log was applied, for those who wait for that to change.
    position: watch::Sender<Seq>,
}

#[derive(Default)]
struct Known {
    registry: Arc<Registry>,
    loaded: bool,
    /// How often it was read.
    readings: u64,
    /// When everything is forgotten, another one takes its place: whoever looks into this one still sees all of it.
    index: Arc<RwLock<Index>>,
    /// The entry up to which the log was applied.
    last: Option<LogEntry>,
    /// How often another log took the place of the one before.
    log: u64,
}

/// What is known at one moment: the registry, and the log up to a position. A request holds one from start to end.
#[derive(Clone, Debug)]
pub struct View {
    /// Whom and what we know.
    pub registry: Arc<Registry>,
    /// Up to where the log was applied, at least.
    pub seq: Seq,
    /// Of which log: it is another number when the store has lost a part of it and positions mean something else.
    pub(super) log: u64,
    /// Which reading of the registry it is: what was found by one holds for everybody who has the same one. (Its version
    /// is a place in the store, which may have something else there after a failover.)
    pub(super) reading: u64,
    index: Arc<RwLock<Index>>,
}

impl View {
    /// What the log says of a token.
    #[must_use]
    pub fn standing(&self, names: &Names) -> Standing {
        self.index.read().unwrap_or_else(PoisonError::into_inner).standing(names)
    }

    /// Whether an entry that is held ends the token: every replica that has applied as much says the same.
    #[must_use]
    pub fn is_ended(&self, names: &Names) -> bool {
        self.index.read().unwrap_or_else(PoisonError::into_inner).word(names) == Standing::Revoked
    }
}

impl Follower {
    pub(super) fn new(
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
            head: Shared::new(HEAD),
            catching_up: Arc::default(),
            known: RwLock::default(),
            position: watch::Sender::default(),
        })
    }

    /// Everything that was acknowledged before this was called.
    pub(super) async fn current(self: &Arc<Self>, now: Timestamp) -> Result<View, Outage> {
        // The lease is looked at after the request began, and that is what counts: whoever took something back before then
        // has waited for us. If the process is stopped between here and its answer, that answer is to a request that
        // began before whatever was acknowledged meanwhile.
        if self.lease.holds(self.clock.monotonic())
            && let Some(view) = self.view_at(Seq::default())
        {
            return Ok(view);
        }
        self.latest(now).await
    }

    /// Everything that was committed before this was called, acknowledged or not: for who is about to write.
    pub(super) async fn latest(self: &Arc<Self>, now: Timestamp) -> Result<View, Outage> {
        let read = async || {
            let head = in_time(HEAD, self.store.head()).await?;
            let follower = Arc::clone(self);
            // That we have got as far is not enough: it may have been by another log.
            self.alone(async move { follower.go_up_to(head, now).await }).await?;
            Ok(head)
        };
        let head = self.head.read(read).await?;
        self.reach(head, now).await
    }

    /// The log up to a place that was committed before this was called, at least.
    pub(super) async fn reach(self: &Arc<Self>, head: Seq, now: Timestamp) -> Result<View, Outage> {
        if let Some(view) = self.view_at(head) {
            return Ok(view);
        }
        let follower = Arc::clone(self);
        self.alone(async move {
            match follower.view_at(head) {
                Some(_) => Ok(()),
                None => follower.catch_up(head, now).await,
            }
        })
        .await?;
        self.view_at(head).ok_or_else(|| Outage::during(DURING)("entries are missing"))
    }

    /// Looks whether the log is still the one that was applied, and forgets everything if it is not.
    pub(super) async fn recognise(self: &Arc<Self>) -> Result<(), Outage> {
        let follower = Arc::clone(self);
        self.alone(async move { follower.compare().await }).await
    }

    /// Does this when nobody else does anything of the kind. A task of its own, once it is its turn: what was read is kept,
    /// even if whoever asked goes away meanwhile; and who goes away before leaves nothing behind.
    async fn alone(&self, act: impl Future<Output = Result<(), Outage>> + Send + 'static) -> Result<(), Outage> {
        let turn = Arc::clone(&self.catching_up).lock_owned().await;
        let acting = tokio::spawn(async move {
            let _turn = turn;
            act.await
        });
        acting.await.map_err(Outage::during(DURING))?
    }

    /// Up to where the log has been applied, and whenever that changes.
    pub(super) fn position(&self) -> watch::Receiver<Seq> {
        self.position.subscribe()
    }

    /// Drops entries that can't end any token any more.
    pub(super) fn forget(&self) {
        let now = self.clock.monotonic();
        let index = Arc::clone(&self.known().index);
        // Part by part, so that nobody waits for long.
        for part in 0..Index::PARTS {
            index.write().unwrap_or_else(PoisonError::into_inner).forget(part, now);
        }
    }

    fn view_at(&self, head: Seq) -> Option<View> {
        // A changed registry is known before the position moves on, so this one is not older than its position.
        let known = self.known();
        let seq = known.applied();
        (known.loaded && seq >= head).then(|| View {
            registry: Arc::clone(&known.registry),
            seq,
            log: known.log,
            reading: known.readings,
            index: Arc::clone(&known.index),
        })
    }

    /// Compares, and applies what there is up to the head, if we are not there.
    async fn go_up_to(&self, head: Seq, now: Timestamp) -> Result<(), Outage> {
        if self.applied() >= head {
            self.compare().await?;
        }
        if self.view_at(head).is_none() { self.catch_up(head, now).await } else { Ok(()) }
    }

    /// Compares what stands in the log at our position with what was applied there.
    async fn compare(&self) -> Result<(), Outage> {
        let Some(last) = self.known().last.clone() else { return Ok(()) };
        if self.entry_at(last.seq).await?.is_none_or(|there| there != last) {
            self.start_anew(&last);
        }
        Ok(())
    }

    /// What stood there was lost: then we know nothing, and answer nothing from memory.
    fn start_anew(&self, lost: &LogEntry) {
        tracing::error!(seq = lost.seq.number(), "the store has lost a part of the revocation log: all is read anew");
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        // While nobody can take one for what was known.
        self.lease.drop_it();
        *known = Known { log: known.log.saturating_add(1), readings: known.readings, ..Known::default() };
    }

    /// Takes the lease, unless what is known is of another log than when it was acknowledged.
    pub(super) fn take_lease(&self, log: u64, until: Duration) -> bool {
        let known = self.known();
        let is_same = known.log == log;
        if is_same {
            self.lease.hold(until);
        }
        is_same
    }

    /// Of which log it is what is known, and up to where.
    pub(super) fn standpoint(&self) -> (u64, Seq) {
        let known = self.known();
        (known.log, known.applied())
    }

    async fn catch_up(&self, head: Seq, now: Timestamp) -> Result<(), Outage> {
        while let Some(lost) = self.read_on(head, now).await? {
            self.start_anew(&lost);
        }
        Ok(())
    }

    /// Reads what came since, page by page. A changed registry and changed keys are taken into use before the position
    /// moves on to where they changed: who sees the position also sees what it stands for. Returns the entry that it
    /// wanted to go on from, if that is not there any more.
    async fn read_on(&self, head: Seq, now: Timestamp) -> Result<Option<LogEntry>, Outage> {
        if !self.known().loaded {
            self.compare().await?;
        }
        let (loaded, index, last) = {
            let known = self.known();
            (known.loaded, Arc::clone(&known.index), known.last.clone())
        };
        let mut last = last.filter(|_| loaded);
        // Wall clocks may be wrong, ours and a revoker's. So what comes in while we follow is applied whatever it says
        // of its end, and at a start nothing is passed over that ended less than a day ago.
        let alive_at = if loaded { Timestamp::EPOCH } else { long_over(now) };
        loop {
            let limit = if self.lease.holds(self.clock.monotonic()) { SIP } else { BATCH };
            let from = last.as_ref().map_or_else(|| self.applied(), |last| before(last.seq));
            let page = in_time(DURING, self.store.log_after(from, alive_at, limit)).await?;
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
        if self.applied() < head {
            // What stands there was passed over: it has long ended.
            let last = self.entry_at(head).await?.ok_or_else(|| Outage::during(DURING)("entries are missing"))?;
            self.known.write().unwrap_or_else(PoisonError::into_inner).last = Some(last);
            index.write().unwrap_or_else(PoisonError::into_inner).applied_up_to(head);
        }
        if !loaded {
            self.read_keys().await?;
            self.read_registry().await?;
        }
        self.position.send_replace(self.applied());
        Ok(None)
    }

    /// Applies a page, a few entries at a time: the position moves on with them, and nobody waits for all.
    async fn apply(&self, page: &[LogEntry], index: &RwLock<Index>) {
        for few in page.chunks(AT_ONCE) {
            let applied_at = self.clock.monotonic();
            {
                let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
                for entry in few {
                    index.apply(entry, applied_at);
                }
            }
            self.known.write().unwrap_or_else(PoisonError::into_inner).last = few.last().cloned();
            yield_now().await;
        }
        if !page.is_empty() {
            self.position.send_replace(self.applied());
        }
    }

    async fn read_keys(&self) -> Result<(), Outage> {
        self.signer.replace(in_time(DURING, self.store.keys()).await?)
    }

    async fn read_registry(&self) -> Result<(), Outage> {
        let registry = Arc::new(in_time(DURING, load(&*self.store)).await?);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        (known.registry, known.loaded) = (registry, true);
        known.readings = known.readings.saturating_add(1);
        Ok(())
    }

    async fn entry_at(&self, seq: Seq) -> Result<Option<LogEntry>, Outage> {
        let found = in_time(DURING, self.store.log_after(before(seq), Timestamp::EPOCH, 1)).await?;
        Ok(found.into_iter().next().filter(|entry| entry.seq == seq))
    }

    pub(super) fn applied(&self) -> Seq {
        self.known().applied()
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn applied(&self) -> Seq {
        self.index.read().unwrap_or_else(PoisonError::into_inner).applied()
    }
}

/// The place before it.
fn before(seq: Seq) -> Seq {
    Seq::new(seq.number().saturating_sub(1))
}

/// What had ended by then is passed over where all of the log is read. Whole hours: that is how the store finds the rest.
pub(super) fn long_over(now: Timestamp) -> Timestamp {
    now.before(COLD_SLACK).last_hour()
}

/// The stored registry, consistent. One that is not was written by another program: nothing is answered by it.
pub(super) async fn load(store: &dyn Store) -> Result<Registry, Outage> {
    let stored = store.registry().await?;
    let registry = Registry::build(stored.version, stored.entries, stored.tags).map_err(|faults| {
        let texts = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Outage::during("read the registry")(texts)
    })?;
    Ok(registry.registered(stored.since).without(stored.shut_out).with_tools(stored.tools))
}
