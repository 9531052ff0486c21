//! A cache of the verifiers for inline key sets, so that each is built once.

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, MutexGuard};

use crate::{
    adapters::jose::VerifierSet,
    domain::jose::jwk::{JwkSet, JwsAlgorithm},
};

/// The maximum number of cached key sets, in two generations; see [`VerifierCache::get_or_build`].
const MAX_KEY_SETS: usize = 1024;

/// Verifiers by the content of their key set. Entries change once a day at most, so eviction is
/// rare and cheap.
#[derive(Debug, Default)]
pub(super) struct VerifierCache(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    current: HashMap<CacheKey, Arc<VerifierSet>>,
    previous: HashMap<CacheKey, Arc<VerifierSet>>,
}

/// The digest of a key set, and the allowed algorithms.
type CacheKey = ([u8; 32], Vec<JwsAlgorithm>);

impl VerifierCache {
    /// Returns the verifiers of a key set. When the current generation holds half of the maximum,
    /// the previous one is dropped: the key sets that were not used since the last change of
    /// generations.
    pub(super) fn get_or_build(&self, keys: &JwkSet, algorithms: &[JwsAlgorithm]) -> Arc<VerifierSet> {
        let key = (*keys.digest(), algorithms.to_vec());
        if let Some(verifiers) = self.lock().get(&key) {
            return verifiers;
        }
        // Built outside the lock. If two callers build the same set, one result is dropped.
        let built = Arc::new(VerifierSet::build(keys, algorithms));
        self.lock().insert(key, Arc::clone(&built));
        built
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock()
    }
}

impl Generations {
    fn get(&mut self, key: &CacheKey) -> Option<Arc<VerifierSet>> {
        if let Some(verifiers) = self.current.get(key) {
            return Some(Arc::clone(verifiers));
        }
        let verifiers = self.previous.remove(key)?;
        self.insert(key.clone(), Arc::clone(&verifiers));
        Some(verifiers)
    }

    fn insert(&mut self, key: CacheKey, keys: Arc<VerifierSet>) {
        if self.current.len() >= MAX_KEY_SETS / 2 {
            self.previous = std::mem::take(&mut self.current);
        }
        self.current.insert(key, keys);
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
            assert!(Arc::ptr_eq(&first, &verifiers.get_or_build(&set(0), &[JwsAlgorithm::ES256])), "in constant use");
        }
        let generations = verifiers.lock();
        assert!(generations.current.len() + generations.previous.len() <= MAX_KEY_SETS);
    }
}
