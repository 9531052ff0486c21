//! The first record of each kind. It is always recorded; further ones may be left out.

use std::hash::Hash;

use parking_lot::Mutex;
use quick_cache::sync::Cache;

/// Maximum number of keys that are remembered.
const CAPACITY: usize = 65_536;

/// The keys whose first record is queued. Bounded: the next record of an evicted key is written
/// once more.
pub(in crate::app) struct FirstRecords<K> {
    keys: Cache<K, ()>,
    /// Held while the first record of a key is queued.
    first: Mutex<()>,
}

impl<K: Eq + Hash + Clone> Default for FirstRecords<K> {
    fn default() -> Self {
        Self { keys: Cache::new(CAPACITY), first: Mutex::default() }
    }
}

impl<K: Eq + Hash + Clone> FirstRecords<K> {
    /// Calls `enqueue` unless there is a record with this key, and remembers the key if the record
    /// was queued: after a dropped record, the next one takes its place. Of concurrent calls for a
    /// key, one succeeds. Returns whether an earlier call recorded the key.
    pub(in crate::app) fn record_once(&self, key: K, enqueue: impl FnOnce() -> bool) -> bool {
        if self.keys.get(&key).is_some() {
            return true;
        }
        let _first = self.first.lock();
        if self.keys.get(&key).is_some() {
            return true;
        }
        if enqueue() {
            self.keys.insert(key, ());
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_remembered_within_the_capacity() {
        let records = FirstRecords::<(usize, bool)>::default();
        assert!(!records.record_once((0, true), || true));
        assert!(records.record_once((0, true), || panic!("recorded twice")));
        assert!(!records.record_once((0, false), || true), "another key");
        for n in 1..3 * CAPACITY {
            records.record_once((n, true), || true);
        }
        assert!(records.keys.len() <= CAPACITY);
        let remembered = (0..3 * CAPACITY).filter(|n| records.keys.get(&(*n, true)).is_some()).count();
        assert!(remembered >= CAPACITY * 9 / 10, "{remembered} of {CAPACITY}");
    }

    #[test]
    fn dropped_record_is_replaced_by_the_next_one() {
        let records = FirstRecords::default();
        assert!(!records.record_once("token", || false));
        assert!(!records.record_once("token", || true));
        assert!(records.record_once("token", || true));
    }
}
