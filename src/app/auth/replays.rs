//! Client assertions that were presented again after their use.
//!
//! A client that captured an assertion of another one can replay it at will. The first replay is
//! found by the store, like any use of an id that was used before. Further ones are refused by this
//! memory, with the authentication: they cost the store nothing, and do not count against the
//! limits of the client whose assertion it is.

use quick_cache::sync::Cache;

use crate::{domain::time::Timestamp, ports::ReplayGuard};

/// The number of assertions that are remembered. The store finds the replays of those that are
/// forgotten.
const MAX_REPLAYS: usize = 4096;

/// The assertions of which this replica saw a replay.
pub(in crate::app) struct KnownReplays {
    /// Party and id, with the time from which on the id may be used again.
    ids: Cache<(String, String), Timestamp>,
}

impl Default for KnownReplays {
    fn default() -> Self {
        Self { ids: Cache::new(MAX_REPLAYS) }
    }
}

impl KnownReplays {
    /// Remembers an id that was used before.
    pub(in crate::app) fn insert(&self, guard: &ReplayGuard) {
        self.ids.insert((guard.party.clone(), guard.id.clone()), guard.keep_until);
    }

    /// Returns whether an id is known to be used.
    pub(in crate::app) fn contains(&self, guard: &ReplayGuard, now: Timestamp) -> bool {
        let key = (guard.party.clone(), guard.id.clone());
        self.ids.get(&key).is_some_and(|keep_until| !keep_until.has_passed(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replay_is_known_for_its_party_until_the_id_may_be_used_again() {
        let guard = |party: &str, id: &str| ReplayGuard {
            party: party.to_owned(),
            id: id.to_owned(),
            keep_until: Timestamp::from_unix(100),
        };
        let (replays, now) = (KnownReplays::default(), Timestamp::from_unix(50));
        assert!(!replays.contains(&guard("client:a", "1"), now));
        replays.insert(&guard("client:a", "1"));
        assert!(replays.contains(&guard("client:a", "1"), now));
        assert!(!replays.contains(&guard("client:a", "2"), now));
        assert!(!replays.contains(&guard("client:b", "1"), now));
        assert!(replays.contains(&guard("client:a", "1"), Timestamp::from_unix(99)));
        assert!(!replays.contains(&guard("client:a", "1"), Timestamp::from_unix(100)));
        for n in 0..3 * MAX_REPLAYS {
            replays.insert(&guard("client:c", &n.to_string()));
        }
        assert!(replays.ids.len() <= MAX_REPLAYS);
    }
}
