//! Following the revocation log: one thing to follow for what was taken back, for the registry and for the keys.
//!
//! While our lease holds ([`lease`](super::lease)), everything that was acknowledged before a request began is known here.
//! When it does not, the head of the log is read from the store, and what came since is applied. No answer comes from an
//! old memory: when the head can't be read either, that is an outage.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{Mutex, watch};

use crate::{
    app::{lease::Lease, shared::Shared},
    domain::{
        registry::Registry,
        revocation::{Index, Names, Seq, Standing, Target},
        time::{Lifetime, Timestamp},
    },
    ports::{Clock, Outage, Signer, Store},
};

/// How many entries are read at a time.
const BATCH: u32 = 10_000;
/// How far wall clocks may have been wrong for what is read at a start.
const COLD_SLACK: Lifetime = Lifetime::hours(24);
const DURING: &str = "follow the revocation log";

pub(super) struct Follower {
    pub(super) store: Arc<dyn Store>,
    signer: Arc<dyn Signer>,
    pub(super) clock: Arc<dyn Clock>,
    /// For how long the log need not be asked for.
    pub(super) lease: Lease,
    /// The head of the log, as the store says it is.
    head: Shared<Seq>,
    /// Held while catching up, so that one request does it and the others wait for it.
    catching_up: Mutex<()>,
    known: RwLock<Known>,
    index: Arc<RwLock<Index>>,
    /// Up to where the log was applied, for those who wait for that to change.
    position: watch::Sender<Seq>,
}

#[derive(Default)]
struct Known {
    registry: Arc<Registry>,
    loaded: bool,
}

/// What is known at one moment: the registry, and the log up to a position. A request holds one from start to end.
#[derive(Clone, Debug)]
pub struct View {
    /// Whom and what we know.
    pub registry: Arc<Registry>,
    /// Up to where the log was applied, at least.
    pub seq: Seq,
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
            head: Shared::new("read the log's head"),
            catching_up: Mutex::default(),
            known: RwLock::default(),
            index: Arc::default(),
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
        let head = self.head.read(|| self.store.head()).await?;
        self.reach(head, now).await
    }

    /// The log up to a place that was committed before this was called, at least.
    pub(super) async fn reach(self: &Arc<Self>, head: Seq, now: Timestamp) -> Result<View, Outage> {
        if let Some(view) = self.view_at(head) {
            return Ok(view);
        }
        // A task of its own: what was read is kept, even if whoever asked goes away meanwhile.
        let follower = Arc::clone(self);
        let caught_up = tokio::spawn(async move {
            let _one_at_a_time = follower.catching_up.lock().await;
            match follower.view_at(head) {
                Some(_) => Ok(()),
                None => follower.catch_up(head, now).await,
            }
        });
        caught_up.await.map_err(Outage::during(DURING))??;
        self.view_at(head).ok_or_else(|| Outage::during(DURING)("entries are missing"))
    }

    /// Up to where the log has been applied, and whenever that changes.
    pub(super) fn position(&self) -> watch::Receiver<Seq> {
        self.position.subscribe()
    }

    /// Drops entries that can't end any token any more.
    pub(super) fn forget(&self) {
        let now = self.clock.monotonic();
        // Part by part, so that nobody waits for long.
        for part in 0..Index::PARTS {
            self.index.write().unwrap_or_else(PoisonError::into_inner).forget(part, now);
        }
    }

    fn view_at(&self, head: Seq) -> Option<View> {
        let seq = self.index.read().unwrap_or_else(PoisonError::into_inner).applied();
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        (known.loaded && seq >= head).then(|| View {
            registry: Arc::clone(&known.registry),
            seq,
            index: Arc::clone(&self.index),
        })
    }

    /// Reads what came since, takes a changed registry and changed keys into use, and only then moves the position on:
    /// who sees the position also sees what it stands for.
    async fn catch_up(&self, head: Seq, now: Timestamp) -> Result<(), Outage> {
        let loaded = self.known.read().unwrap_or_else(PoisonError::into_inner).loaded;
        // Wall clocks may be wrong, ours and a revoker's. So what comes in while we follow is applied whatever it says
        // of its end, and at a start nothing is passed over that ended less than a day ago.
        let alive_at = if loaded { Timestamp::EPOCH } else { now.before(COLD_SLACK) };
        let (mut entries, mut from) = (Vec::new(), self.applied());
        loop {
            let page = self.store.log_after(from, alive_at, BATCH).await?;
            let Some(last) = page.last() else { break };
            from = last.seq;
            entries.extend(page);
        }
        let changed = |target: &Target| !loaded || entries.iter().any(|e| e.entry.target == *target);
        if changed(&Target::Keys) {
            self.signer.replace(self.store.keys().await?)?;
        }
        if changed(&Target::Registry) {
            let registry = load(&*self.store).await?;
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            *known = Known { registry: Arc::new(registry), loaded: true };
        }
        let applied_at = self.clock.monotonic();
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        for entry in &entries {
            index.apply(entry, applied_at);
        }
        index.applied_up_to(head);
        self.position.send_replace(index.applied());
        Ok(())
    }

    pub(super) fn applied(&self) -> Seq {
        self.index.read().unwrap_or_else(PoisonError::into_inner).applied()
    }
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
