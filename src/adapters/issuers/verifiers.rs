//! Verifiers of the key sets that are written down in entries, kept so that they are built once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    adapters::jose::VerifierSet,
    domain::jwk::{JwkSet, JwsAlgorithm},
};

/// How many key sets are remembered. Twice the half: see [`Verifiers::of`].
const CAP: usize = 1024;

/// Key sets by what they say. Entries change by the day at most, so forgetting is rare and cheap.
#[derive(Debug, Default)]
pub(super) struct Verifiers(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Name, Arc<VerifierSet>>,
    old: HashMap<Name, Arc<VerifierSet>>,
}

/// The digest of a key set, and what its keys may be used for.
type Name = ([u8; 32], Vec<JwsAlgorithm>);

impl Verifiers {
    /// The verifiers of a key set. When half of the cap has been asked for since the last time, whatever was not asked
    /// for in that time is forgotten.
    pub(super) fn of(&self, keys: &JwkSet, algorithms: &[JwsAlgorithm]) -> Arc<VerifierSet> {
        let name = (*keys.digest(), algorithms.to_vec());
        if let Some(known) = self.generations().find(&name) {
            return known;
        }
        // Built without the lock; if two build the same, one of them is dropped.
        let built = Arc::new(VerifierSet::build(keys, algorithms));
        self.generations().keep(name, Arc::clone(&built));
        built
    }

    fn generations(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn find(&mut self, name: &Name) -> Option<Arc<VerifierSet>> {
        if let Some(known) = self.young.get(name) {
            return Some(Arc::clone(known));
        }
        let known = self.old.remove(name)?;
        self.keep(name.clone(), Arc::clone(&known));
        Some(known)
    }

    fn keep(&mut self, name: Name, keys: Arc<VerifierSet>) {
        if self.young.len() >= CAP / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(name, keys);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn remembers_what_is_used_and_is_bounded() {
        let verifiers = Verifiers::default();
        let set = |n: usize| JwkSet::try_from(json!({"keys":[{"kty":"EC","kid":n.to_string()}]})).unwrap();
        let first = verifiers.of(&set(0), &[JwsAlgorithm::ES256]);
        assert!(!Arc::ptr_eq(&first, &verifiers.of(&set(0), &[JwsAlgorithm::EdDSA])), "another use of the same keys");
        for n in 1..3 * CAP {
            let _ = verifiers.of(&set(n), &[JwsAlgorithm::ES256]);
            assert!(Arc::ptr_eq(&first, &verifiers.of(&set(0), &[JwsAlgorithm::ES256])), "in use all the time");
        }
        let generations = verifiers.generations();
        assert!(generations.young.len() + generations.old.len() <= CAP);
    }
}
