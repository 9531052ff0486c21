//! The sealer of audit records and of the registry. Its keys are read from the store after the
//! store is opened.

use std::sync::{Arc, OnceLock};

use crate::ports::{Outage, StoreSealer};

/// The sealer, once it is known. Until then its use is an outage. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct SealerCell(Arc<OnceLock<Arc<dyn StoreSealer>>>);

impl SealerCell {
    /// Sets the sealer. Only the first call has an effect.
    pub(crate) fn set(&self, sealer: Arc<dyn StoreSealer>) {
        self.0.get_or_init(|| sealer);
    }

    /// Returns the sealer.
    pub(crate) fn get(&self) -> Result<&dyn StoreSealer, Outage> {
        let missing = || Outage::during("authenticate what the store holds")("the store has not been unlocked");
        self.0.get().map(|sealer| &**sealer).ok_or_else(missing)
    }
}
