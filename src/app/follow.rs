//! Following the revocation log: one thing to follow for what was taken back, for the registry and for the keys.
//!
//! For every request the head of the log is read from the store, and what came since is applied; then everything that was
//! acknowledged before the request began is known here. No answer comes from an old memory: when the head can't be
//! read, that is an outage.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Mutex;

use crate::{
    app::shared::Shared,
    domain::{
        registry::Registry,
        revocation::{Index, Names, Seq, Standing, Target},
        time::Timestamp,
    },
    ports::{Outage, Signer, Store},
};

/// How many entries are read at a time.
const BATCH: u32 = 10_000;

pub(super) struct Follower {
    store: Arc<dyn Store>,
    signer: Arc<dyn Signer>,
    /// The head of the log, as the store says it is.
    head: Shared<Seq>,
    /// Held while catching up, so that one request does it and the others wait for it.
    catching_up: Mutex<()>,
    known: RwLock<Known>,
    index: Arc<RwLock<Index>>,
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
}

impl Follower {
    pub(super) fn new(store: Arc<dyn Store>, signer: Arc<dyn Signer>) -> Self {
        Self {
            store,
            signer,
            head: Shared::new("read the log's head"),
            catching_up: Mutex::default(),
            known: RwLock::default(),
            index: Arc::default(),
        }
    }

    /// Everything that was committed before this was called.
    pub(super) async fn current(&self, now: Timestamp) -> Result<View, Outage> {
        let head = self.head.read(|| self.store.head()).await?;
        if let Some(view) = self.view_at(head) {
            return Ok(view);
        }
        let _one_at_a_time = self.catching_up.lock().await;
        if self.view_at(head).is_none() {
            self.catch_up(head, now).await?;
        }
        self.view_at(head).ok_or_else(|| Outage::during("follow the revocation log")("entries are missing"))
    }

    /// Drops entries that can't end any token any more.
    pub(super) fn forget(&self, now: Timestamp) {
        self.index.write().unwrap_or_else(PoisonError::into_inner).forget(now);
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
        let (mut entries, mut from) = (Vec::new(), self.applied());
        loop {
            let page = self.store.log_after(from, now, BATCH).await?;
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
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        for entry in &entries {
            index.apply(entry);
        }
        index.applied_up_to(head);
        Ok(())
    }

    fn applied(&self) -> Seq {
        self.index.read().unwrap_or_else(PoisonError::into_inner).applied()
    }
}

/// The stored registry, consistent. One that is not was written by another program: nothing is answered by it.
pub(super) async fn load(store: &dyn Store) -> Result<Registry, Outage> {
    let stored = store.registry().await?;
    Registry::build(stored.version, stored.entries, stored.tags).map_err(|faults| {
        let texts = faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        Outage::during("read the registry")(texts)
    })
}
