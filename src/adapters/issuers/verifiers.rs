//! Verifiers of the key sets that are written down in entries, kept so that they are built once.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    adapters::jose::VerifierSet,
    domain::jose::jwk::{JwkSet, JwsAlgorithm},
};

/// How many key sets are remembered. Twice the half: see [`Verifiers::of`].
const MAX_KEY_SETS: usize = 1024;

/// Key sets by what they say. Entries change by the day at most, so forgetting is rare and cheap.
#[derive(Debug, Default)]
pub(super) struct VerifierCache(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    current: HashMap<CacheKey, Arc<VerifierSet>>,
    previous: HashMap<CacheKey, Arc<VerifierSet>>,
}

/// The digest of a key set, and what its keys may be used for.
type CacheKey = ([u8; 32], Vec<JwsAlgorithm>);

impl VerifierCache {
    /// The verifiers of a key set. When half of the cap has been asked for since the last time, whatever was not asked
    /// for in that time is forgotten.
    pub(super) fn get_or_build(&self, keys: &JwkSet, algorithms: &[JwsAlgorithm]) -> Arc<VerifierSet> {
        let name = (*keys.digest(), algorithms.to_vec());
        if let Some(known) = self.lock().get(&name) {
            return known;
        }
        // Built without the lock; if two build the same, one of them is dropped.
        let built = Arc::new(VerifierSet::build(keys, algorithms));
        self.lock().insert(name, Arc::clone(&built));
        built
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn get(&mut self, name: &CacheKey) -> Option<Arc<VerifierSet>> {
        if let Some(known) = self.current.get(name) {
            return Some(Arc::clone(known));
        }
        let known = self.previous.remove(name)?;
        self.insert(name.clone(), Arc::clone(&known));
        Some(known)
    }

    fn insert(&mut self, name: CacheKey, keys: Arc<VerifierSet>) {
        if self.current.len() >= MAX_KEY_SETS / 2 {
            self.previous = std::mem::take(&mut self.current);
        }
        self.current.insert(name, keys);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn recently_used_verifiers_are_kept_within_limit() {
        let verifiers = VerifierCache::default();
        let set = |n: usize| JwkSet::try_from(json!({"keys":[{"kty":"EC","kid":n.to_string()}]})).unwrap();
        let first = verifiers.get_or_build(&set(0), &[JwsAlgorithm::ES256]);
        assert!(
            !Arc::ptr_eq(&first, &verifiers.get_or_build(&set(0), &[JwsAlgorithm::EdDSA])),
            "another use of the same keys"
        );
        for n in 1..3 * MAX_KEY_SETS {
            let _ = verifiers.get_or_build(&set(n), &[JwsAlgorithm::ES256]);
            assert!(
                Arc::ptr_eq(&first, &verifiers.get_or_build(&set(0), &[JwsAlgorithm::ES256])),
                "in use all the time"
            );
        }
        let generations = verifiers.lock();
        assert!(generations.current.len() + generations.previous.len() <= MAX_KEY_SETS);
    }
}
