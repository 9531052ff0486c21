//! The life of a signing key: `pending → active → retired`, by its dates alone, so that every replica agrees.

use serde::{Deserialize, Serialize};

use crate::domain::{
    id::KeyId,
    jose::jwk::SigningAlgorithm,
    settings::MAX_CLOCK_SKEW,
    time::{Lifetime, Timestamp},
};

/// How long others may keep our JWKS (seconds). A key is published for longer than this before it signs.
pub const JWKS_MAX_AGE_SECONDS: u32 = 300;

/// `[keys]`, the part that is a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RotationSettings {
    /// How old an active key may get before the next one is made (seconds).
    pub every: Lifetime,
    /// How long a key is published before it signs (seconds): longer than others cache our JWKS.
    pub publish_ahead: Lifetime,
    /// How long a retired key stays published (seconds): longer than the longest token.
    pub keep_retired: Lifetime,
}

impl Default for RotationSettings {
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
pub struct KeySchedule {
    /// Its `kid`.
    pub kid: KeyId,
    /// What it signs with.
    pub algorithm: SigningAlgorithm,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it signs.
    pub activates_at: Timestamp,
    /// From when on it does not sign any more: when its successor activates.
    pub retires_at: Option<Timestamp>,
    /// From when on it is not published any more.
    pub unpublished_at: Option<Timestamp>,
}

impl KeySchedule {
    /// Where it is in its life now.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.unpublished_at.is_some_and(|at| at.has_passed(now)) {
            KeyState::Gone
        } else if self.retires_at.is_some_and(|at| at.has_passed(now)) {
            KeyState::Retired
        } else if self.activates_at.has_passed(now) {
            KeyState::Active
        } else {
            KeyState::Pending
        }
    }
}

/// The key that signs now: of the active ones of this algorithm, the one that became active last.
#[must_use]
pub fn signing_key(keys: &[KeySchedule], algorithm: SigningAlgorithm, now: Timestamp) -> Option<&KeySchedule> {
    keys.iter()
        .filter(|key| key.algorithm == algorithm && key.state(now) == KeyState::Active)
        .max_by_key(|key| (key.activates_at, key.created_at))
}

/// What a rotation changes: the new key's activation, and the dates of those that it replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationPlan {
    /// From when on the new key signs.
    pub activates_at: Timestamp,
    /// Keys that get an end, with their new dates.
    pub replaced_keys: Vec<KeySchedule>,
}

/// Why a new key is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationReason {
    /// An admin said so.
    Requested,
    /// Perhaps none: only if there is no key yet, or the active one is old enough and no successor waits.
    Age,
}

/// Whether a new key of this algorithm is to be made now, and what that changes.
///
/// The first key of all signs at once. A later one is published first, and its predecessor stays published until nothing it
/// signed can be alive. A key that already waits is kept: the rotation that made it is under way.
#[must_use]
pub fn plan_rotation(
    keys: &[KeySchedule],
    algorithm: SigningAlgorithm,
    rotation: &RotationSettings,
    occasion: RotationReason,
    now: Timestamp,
) -> Option<RotationPlan> {
    let of_kind = |state| keys.iter().filter(move |key| key.algorithm == algorithm && key.state(now) == state);
    if of_kind(KeyState::Pending).next().is_some() {
        return None;
    }
    let Some(current) = signing_key(keys, algorithm, now) else {
        // The very first key signs at once. One of a further algorithm is published first, like any other.
        let is_first = keys.iter().all(|key| key.state(now) == KeyState::Gone);
        let activates = if is_first { now } else { now.saturating_add(rotation.publish_ahead) };
        return Some(RotationPlan { activates_at: activates, replaced_keys: Vec::new() });
    };
    let old_enough =
        current.activates_at.saturating_add(rotation.every).has_passed(now.saturating_add(rotation.publish_ahead));
    if occasion == RotationReason::Age && !old_enough {
        return None;
    }
    let activates = now.saturating_add(rotation.publish_ahead);
    let gone = activates.saturating_add(rotation.keep_retired);
    let replaced = of_kind(KeyState::Active)
        .map(|key| KeySchedule { retires_at: Some(activates), unpublished_at: Some(gone), ..key.clone() })
        .collect();
    Some(RotationPlan { activates_at: activates, replaced_keys: replaced })
}

/// What it takes to be without a key from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovalPlan {
    /// From when on a new key signs, where no other one does. Nobody had the time to fetch it: to sign with a leaked key is worse.
    pub new_key_activates_at: Option<Timestamp>,
    /// Keys with other dates: one that waited and signs now, or one that was to be replaced by the removed one and is not.
    pub rescheduled_keys: Vec<KeySchedule>,
}

/// What it takes to be without this key from now on; nothing, if there is no such key.
///
/// Whoever takes its place has been active for a while already, as far as its dates say: whichever replica's clock is behind
/// must have a key to sign with at this moment.
#[must_use]
pub fn plan_removal(keys: &[KeySchedule], kid: &KeyId, now: Timestamp) -> Option<RemovalPlan> {
    let removed = keys.iter().find(|key| key.kid == *kid)?;
    let of_kind = |state| {
        let others = keys.iter().filter(move |key| key.kid != *kid && key.algorithm == removed.algorithm);
        others.filter(move |key| key.state(now) == state)
    };
    let at_once = now.saturating_sub(MAX_CLOCK_SKEW);
    let active = of_kind(KeyState::Active).max_by_key(|key| (key.activates_at, key.created_at));
    let next = of_kind(KeyState::Pending).min_by_key(|key| (key.activates_at, key.created_at));
    let Some(heir) = active.or(next) else {
        return Some(RemovalPlan { new_key_activates_at: Some(at_once), rescheduled_keys: Vec::new() });
    };
    // It was to make room for the removed one.
    let is_replaced = removed.state(now) == KeyState::Pending && heir.retires_at == Some(removed.activates_at);
    let (retires, gone) = if is_replaced { (None, None) } else { (heir.retires_at, heir.unpublished_at) };
    let is_alone = of_kind(KeyState::Active).count() <= 1;
    let activates = if is_alone { heir.activates_at.min(at_once) } else { heir.activates_at };
    let renewed = KeySchedule { activates_at: activates, retires_at: retires, unpublished_at: gone, ..heir.clone() };
    let renewed = if renewed == *heir { Vec::new() } else { vec![renewed] };
    Some(RemovalPlan { new_key_activates_at: None, rescheduled_keys: renewed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix(seconds)
    }

    fn key(kid: &str, activates: i64) -> KeySchedule {
        KeySchedule {
            kid: kid.parse().unwrap(),
            algorithm: SigningAlgorithm::ES256,
            created_at: at(0),
            activates_at: at(activates),
            retires_at: None,
            unpublished_at: None,
        }
    }

    /// Whichever key of a rotation is removed, at whichever moment: afterwards one signs, at once and for good.
    #[test]
    fn plan_removal_always_leaves_a_signing_key() {
        const NOW: i64 = 1_000_000;
        let rotation = RotationSettings::default();
        let first = KeySchedule { created_at: at(NOW - 9000), ..key("a", NOW - 9000) };
        let es256 = SigningAlgorithm::ES256;
        let command = |keys: &[KeySchedule], now| {
            plan_rotation(keys, es256, &rotation, RotationReason::Requested, at(now)).unwrap()
        };
        let plan = command(std::slice::from_ref(&first), NOW);
        let mut both = plan.replaced_keys;
        both.push(KeySchedule { created_at: at(NOW), activates_at: plan.activates_at, ..key("b", 0) });
        let other = KeySchedule { algorithm: SigningAlgorithm::EdDSA, ..key("other", 5) };
        // The keys, which is removed, how much later; whether one is made; who signs then, if none is made.
        for (keys, kid, later, makes, signs) in [
            (vec![first.clone()], "a", 0, true, None),
            (both.clone(), "a", 0, false, Some("b")),
            (both.clone(), "b", 0, false, Some("a")),
            // b signs, a is retired.
            (both.clone(), "a", 1000, false, Some("b")),
            (both.clone(), "b", 1000, true, None),
            // a is gone.
            (both.clone(), "a", 90_000, false, Some("b")),
        ] {
            let (now, keys) = (NOW + later, [&keys[..], std::slice::from_ref(&other)].concat());
            let plan = plan_removal(&keys, &kid.parse().unwrap(), at(now)).unwrap();
            assert_eq!(plan.new_key_activates_at.is_some(), makes, "{kid} {later}");
            let mut left = keys.into_iter().filter(|key| key.kid.as_str() != kid).collect::<Vec<_>>();
            for renewed in plan.rescheduled_keys {
                left.retain(|key| key.kid != renewed.kid);
                left.push(renewed);
            }
            left.extend(plan.new_key_activates_at.map(|activates| KeySchedule {
                created_at: at(now),
                activates_at: activates,
                ..key("new", 0)
            }));
            // Also by a clock that is behind, and for as long as nobody rotates.
            for then in [now - 3600, now, now + 10, now + 10_000, now + 10_000_000] {
                let signing = signing_key(&left, es256, at(then)).map(|key| key.kid.as_str());
                assert_eq!(signing, Some(signs.unwrap_or("new")), "{kid} {later} {then}");
            }
            assert_eq!(signing_key(&left, SigningAlgorithm::EdDSA, at(now)).unwrap().kid.as_str(), "other");
        }
        assert_eq!(plan_removal(&both, &"c".parse().unwrap(), at(NOW)), None);
    }

    #[test]
    fn plan_rotation_keeps_signing_and_verification_gapless() {
        let rotation = RotationSettings {
            every: Lifetime::seconds(1000),
            publish_ahead: Lifetime::seconds(100),
            keep_retired: Lifetime::seconds(900),
        };
        let plan = |keys: &[KeySchedule], occasion, now| {
            plan_rotation(keys, SigningAlgorithm::ES256, &rotation, occasion, at(now))
        };
        assert_eq!(plan(&[], RotationReason::Age, 5).unwrap().activates_at, at(5), "the first key signs at once");
        let mut keys = vec![key("a", 5)];
        assert_eq!(plan(&keys, RotationReason::Age, 904), None);
        let change = plan(&keys, RotationReason::Age, 905).unwrap();
        keys = change.replaced_keys;
        keys.push(KeySchedule { activates_at: change.activates_at, ..key("b", 0) });
        assert_eq!(plan(&keys, RotationReason::Requested, 906), None, "one rotation at a time");
        for (now, signs, published) in [(1004, "a", 2), (1005, "b", 2), (1904, "b", 2), (1905, "b", 1)] {
            let signing = signing_key(&keys, SigningAlgorithm::ES256, at(now)).unwrap();
            assert_eq!(signing.kid.as_str(), signs, "{now}");
            assert_eq!(keys.iter().filter(|k| k.state(at(now)) != KeyState::Gone).count(), published, "{now}");
        }
        assert_eq!(signing_key(&keys, SigningAlgorithm::RS256, at(1005)), None);
        let further = plan_rotation(&keys, SigningAlgorithm::RS256, &rotation, RotationReason::Age, at(1005)).unwrap();
        assert_eq!(further.activates_at, at(1105), "a key of a further algorithm is published before it signs");
    }
}
