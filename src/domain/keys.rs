//! The life of a signing key: `pending → active → retired`, by its dates alone, so that every replica agrees.

use serde::{Deserialize, Serialize};

use crate::domain::{
    id::KeyId,
    jwk::SigningAlgorithm,
    time::{Lifetime, Timestamp},
};

/// How long others may keep our JWKS (seconds). A key is published for longer than this before it signs.
pub const JWKS_MAX_AGE: u32 = 300;

/// `[keys]`, the part that is a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rotation {
    /// How old an active key may get before the next one is made (seconds).
    pub every: Lifetime,
    /// How long a key is published before it signs (seconds): longer than others cache our JWKS.
    pub publish_ahead: Lifetime,
    /// How long a retired key stays published (seconds): longer than the longest token.
    pub keep_retired: Lifetime,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { every: Lifetime::hours(24 * 30), publish_ahead: Lifetime::minutes(15), keep_retired: Lifetime::hours(1) }
    }
}

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Published, does not sign yet.
    Pending,
    /// Signs.
    Active,
    /// Signs no more; what it signed is still verified.
    Retired,
    /// Not published any more: nothing it signed is alive.
    Gone,
}

/// A key's dates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDates {
    /// Its `kid`.
    pub kid: KeyId,
    /// What it signs with.
    pub algorithm: SigningAlgorithm,
    /// When it was made.
    pub created: Timestamp,
    /// From when on it signs.
    pub activates: Timestamp,
    /// From when on it does not sign any more: when its successor activates.
    pub retires: Option<Timestamp>,
    /// From when on it is not published any more.
    pub gone: Option<Timestamp>,
}

impl KeyDates {
    /// Where it is in its life now.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.gone.is_some_and(|at| at.is_past(now)) {
            KeyState::Gone
        } else if self.retires.is_some_and(|at| at.is_past(now)) {
            KeyState::Retired
        } else if self.activates.is_past(now) {
            KeyState::Active
        } else {
            KeyState::Pending
        }
    }
}

/// The key that signs now: of the active ones of this algorithm, the one that became active last.
#[must_use]
pub fn signing_key(keys: &[KeyDates], algorithm: SigningAlgorithm, now: Timestamp) -> Option<&KeyDates> {
    keys.iter()
        .filter(|key| key.algorithm == algorithm && key.state(now) == KeyState::Active)
        .max_by_key(|key| (key.activates, key.created))
}

/// What a rotation changes: the new key's activation, and the dates of those that it replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationPlan {
    /// From when on the new key signs.
    pub activates: Timestamp,
    /// Keys that get an end, with their new dates.
    pub replaced: Vec<KeyDates>,
}

/// Why a new key is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// An admin said so.
    Command,
    /// Perhaps none: only if there is no key yet, or the active one is old enough and no successor waits.
    Age,
}

/// Whether a new key of this algorithm is to be made now, and what that changes.
///
/// The first key of all signs at once. A later one is published first, and its predecessor stays published until nothing it
/// signed can be alive. A key that already waits is kept: the rotation that made it is under way.
#[must_use]
pub fn plan_rotation(
    keys: &[KeyDates],
    algorithm: SigningAlgorithm,
    rotation: &Rotation,
    occasion: Occasion,
    now: Timestamp,
) -> Option<RotationPlan> {
    let of_kind = |state| keys.iter().filter(move |key| key.algorithm == algorithm && key.state(now) == state);
    if of_kind(KeyState::Pending).next().is_some() {
        return None;
    }
    let Some(current) = signing_key(keys, algorithm, now) else {
        // The very first key signs at once. One of a further algorithm is published first, like any other.
        let is_first = keys.iter().all(|key| key.state(now) == KeyState::Gone);
        let activates = if is_first { now } else { now.after(rotation.publish_ahead) };
        return Some(RotationPlan { activates, replaced: Vec::new() });
    };
    let old_enough = current.activates.after(rotation.every).is_past(now.after(rotation.publish_ahead));
    if occasion == Occasion::Age && !old_enough {
        return None;
    }
    let activates = now.after(rotation.publish_ahead);
    let gone = activates.after(rotation.keep_retired);
    let replaced = of_kind(KeyState::Active)
        .map(|key| KeyDates { retires: Some(activates), gone: Some(gone), ..key.clone() })
        .collect();
    Some(RotationPlan { activates, replaced })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix(seconds)
    }

    fn key(kid: &str, activates: i64) -> KeyDates {
        KeyDates {
            kid: kid.parse().unwrap(),
            algorithm: SigningAlgorithm::ES256,
            created: at(0),
            activates: at(activates),
            retires: None,
            gone: None,
        }
    }

    #[test]
    fn a_rotation_leaves_no_gap_and_no_orphan() {
        let rotation = Rotation {
            every: Lifetime::seconds(1000),
            publish_ahead: Lifetime::seconds(100),
            keep_retired: Lifetime::seconds(900),
        };
        let plan = |keys: &[KeyDates], occasion, now| {
            plan_rotation(keys, SigningAlgorithm::ES256, &rotation, occasion, at(now))
        };
        assert_eq!(plan(&[], Occasion::Age, 5).unwrap().activates, at(5), "the first key signs at once");
        let mut keys = vec![key("a", 5)];
        assert_eq!(plan(&keys, Occasion::Age, 904), None);
        let change = plan(&keys, Occasion::Age, 905).unwrap();
        keys = change.replaced;
        keys.push(KeyDates { activates: change.activates, ..key("b", 0) });
        assert_eq!(plan(&keys, Occasion::Command, 906), None, "one rotation at a time");
        for (now, signs, published) in [(1004, "a", 2), (1005, "b", 2), (1904, "b", 2), (1905, "b", 1)] {
            let signing = signing_key(&keys, SigningAlgorithm::ES256, at(now)).unwrap();
            assert_eq!(signing.kid.as_str(), signs, "{now}");
            assert_eq!(keys.iter().filter(|k| k.state(at(now)) != KeyState::Gone).count(), published, "{now}");
        }
        assert_eq!(signing_key(&keys, SigningAlgorithm::RS256, at(1005)), None);
        let further = plan_rotation(&keys, SigningAlgorithm::RS256, &rotation, Occasion::Age, at(1005)).unwrap();
        assert_eq!(further.activates, at(1105), "a key of a further algorithm is published before it signs");
    }
}
