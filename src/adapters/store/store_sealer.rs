//! The sealer of what the store holds. Its keys are read from the store after the store is opened.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::RwLock;

use crate::{
    domain::audit::{SALT_LEN, Seal},
    ports::{Outage, StoreSealer, StoredKeys},
};

/// The sealer, once it is known. Until then its use is an outage. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct SealerCell {
    sealer: Arc<RwLock<Option<Arc<dyn StoreSealer>>>>,
    mismatches: Arc<AtomicU64>,
}

impl SealerCell {
    /// Sets the sealer, in place of an earlier one.
    pub(crate) fn set(&self, sealer: Arc<dyn StoreSealer>) {
        let counting = CountingSealer { sealer, mismatches: Arc::clone(&self.mismatches) };
        *self.sealer.write() = Some(Arc::new(counting));
    }

    /// Forgets the sealer.
    pub(crate) fn clear(&self) {
        *self.sealer.write() = None;
    }

    /// Returns the sealer, if it is known.
    pub(crate) fn find(&self) -> Option<Arc<dyn StoreSealer>> {
        self.sealer.read().clone()
    }

    /// Returns the sealer.
    pub(crate) fn get(&self) -> Result<Arc<dyn StoreSealer>, Outage> {
        let missing = || Outage::during("authenticate what the store holds")("the store has not been unlocked");
        self.find().ok_or_else(missing)
    }

    /// Returns how often a tag or a seal was wrong.
    pub(crate) fn mismatch_count(&self) -> u64 {
        self.mismatches.load(Ordering::Relaxed)
    }
}

/// A sealer that counts what it finds not to be authentic.
struct CountingSealer {
    sealer: Arc<dyn StoreSealer>,
    mismatches: Arc<AtomicU64>,
}

impl CountingSealer {
    fn count(&self, is_authentic: bool) {
        if !is_authentic {
            self.mismatches.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl StoreSealer for CountingSealer {
    fn new_salt(&self) -> [u8; SALT_LEN] {
        self.sealer.new_salt()
    }

    fn seal(&self, hash: &str) -> Result<Seal, Outage> {
        self.sealer.seal(hash)
    }

    fn seal_registry(&self, version: u64, digest: &str) -> Result<String, Outage> {
        self.sealer.seal_registry(version, digest)
    }

    fn is_registry_authentic(&self, version: u64, digest: &str, seal: &str) -> Result<bool, Outage> {
        self.sealer.is_registry_authentic(version, digest, seal).inspect(|is_authentic| self.count(*is_authentic))
    }

    fn seal_keys(&self, keys: &StoredKeys) -> Result<String, Outage> {
        self.sealer.seal_keys(keys)
    }

    fn verify_keys(&self, keys: &StoredKeys) -> Result<(), Outage> {
        self.sealer.verify_keys(keys).inspect_err(|outage| self.count(outage.tampering().is_none()))
    }

    fn tag_row(&self, row: &str) -> Result<String, Outage> {
        self.sealer.tag_row(row)
    }

    fn is_row_authentic(&self, row: &str, tag: &str) -> Result<bool, Outage> {
        self.sealer.is_row_authentic(row, tag).inspect(|is_authentic| self.count(*is_authentic))
    }
}
