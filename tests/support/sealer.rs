//! The keys that authenticate what test stores hold.

use std::sync::{Arc, OnceLock};

use errand::{
    adapters::keyring::{Kek, KekSet, Keyring, generate_sealed_keys},
    domain::{sealed_key::KeyPurpose, time::Timestamp},
};

/// Returns a sealer of audit records with keys of its own, the same for all stores of the process.
pub fn sealer() -> Arc<Keyring> {
    static SEALER: OnceLock<Arc<Keyring>> = OnceLock::new();
    let create = || {
        let keks = || KekSet::from(Kek::new(&[7; 32]).unwrap());
        let sealed_keys = generate_sealed_keys(&keks(), &KeyPurpose::ALL, Timestamp::EPOCH).unwrap();
        Arc::new(Keyring::open_new(keks(), sealed_keys).unwrap())
    };
    Arc::clone(SEALER.get_or_init(create))
}
