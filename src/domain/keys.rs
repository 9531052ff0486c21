//! Life cycle of a signing key: `pending → active → retired`. The state follows from the key's
//! dates alone, so that every replica agrees.

use serde::{Deserialize, Serialize};

use crate::domain::{
    id::KeyId,
    jose::jwk::SigningAlgorithm,
    settings::MAX_CLOCK_SKEW,
    time::{Lifetime, Timestamp},
};

/// How long verifiers may cache the JWKS (seconds). A key is published for longer than this before
/// it signs.
pub const JWKS_MAX_AGE_SECONDS: u32 = 300;

/// `[keys]`: the settings of the rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RotationSettings {
    /// The age at which an active key is replaced (seconds).
    pub every: Lifetime,
    /// How long a key is published before it signs (seconds): longer than verifiers cache the JWKS.
    pub publish_ahead: Lifetime,
    /// How long a retired key stays published (seconds): longer than the longest token lifetime.
    pub keep_retired: Lifetime,
}

impl Default for RotationSettings {
    fn default() -> Self {
        Self { every: Lifetime::hours(24 * 30), publish_ahead: Lifetime::minutes(15), keep_retired: Lifetime::hours(1) }
    }
}

/// The state of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Published, not yet signing.
    Pending,
    /// Signing.
    Active,
    /// No longer signing. Its signatures are still verified.
    Retired,
    /// No longer published: every token that it signed has expired.
    Gone,
}

/// The dates of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySchedule {
    /// The `kid`.
    pub kid: KeyId,
    /// The algorithm.
    pub algorithm: SigningAlgorithm,
    /// The time of creation.
    pub created_at: Timestamp,
    /// The time from which it signs.
    pub activates_at: Timestamp,
    /// The time from which it no longer signs: its successor's activation.
    pub retires_at: Option<Timestamp>,
    /// The time at which its publication ends.
    pub unpublished_at: Option<Timestamp>,
}

impl KeySchedule {
    /// Returns the state at `now`.
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

/// Returns the key that signs now: the most recently activated active key of this algorithm.
#[must_use]
pub fn signing_key(keys: &[KeySchedule], algorithm: SigningAlgorithm, now: Timestamp) -> Option<&KeySchedule> {
    keys.iter()
        .filter(|key| key.algorithm == algorithm && key.state(now) == KeyState::Active)
        .max_by_key(|key| (key.activates_at, key.created_at))
}

/// The effect of a rotation: the activation of the next key, and the dates of the keys that it
/// replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationPlan {
    /// The time from which the next key signs.
    pub activates_at: Timestamp,
    /// The pending key that is the next one, with its new dates. `None`: a new key is.
    pub promoted: Option<KeySchedule>,
    /// The replaced keys with their new dates.
    pub replaced_keys: Vec<KeySchedule>,
}

/// Why a new key is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationReason {
    /// An admin requested it.
    Requested,
    /// An admin requested a key that signs at once, although recipients had no time to fetch it.
    Immediate,
    /// Scheduled check. A key is created only if there is none, or if the active one is old enough
    /// and no successor is pending.
    Age,
}

/// Plans the creation of a key of this algorithm, or returns `None` if none is due.
///
/// The very first key signs at once. A later key is published first, and its predecessor stays
/// published until every token that it signed has expired. A pending key is kept, because its
/// rotation is under way; if a key must sign at once, the pending key does. A key may be pending
/// for long because the clock was ahead when it was created.
#[must_use]
pub fn plan_rotation(
    keys: &[KeySchedule],
    algorithm: SigningAlgorithm,
    rotation: &RotationSettings,
    reason: RotationReason,
    now: Timestamp,
) -> Option<RotationPlan> {
    let of_kind = |state| keys.iter().filter(move |key| key.algorithm == algorithm && key.state(now) == state);
    let replaced_from = |activates: Timestamp| {
        let gone = activates.saturating_add(rotation.keep_retired);
        of_kind(KeyState::Active)
            .map(|key| KeySchedule { retires_at: Some(activates), unpublished_at: Some(gone), ..key.clone() })
            .collect()
    };
    if reason == RotationReason::Immediate {
        // A replica whose clock is behind must also have a key to sign with at this moment.
        let activates_at = now.saturating_sub(MAX_CLOCK_SKEW);
        let pending = of_kind(KeyState::Pending).min_by_key(|key| (key.activates_at, key.created_at));
        let promoted = pending.map(|key| KeySchedule { activates_at, ..key.clone() });
        return Some(RotationPlan { activates_at, promoted, replaced_keys: replaced_from(now) });
    }
    if of_kind(KeyState::Pending).next().is_some() {
        return None;
    }
    let Some(current) = signing_key(keys, algorithm, now) else {
        // The very first key signs at once. The first key of an additional algorithm is published
        // ahead, like any later key.
        let is_first = keys.iter().all(|key| key.state(now) == KeyState::Gone);
        let activates = if is_first { now } else { now.saturating_add(rotation.publish_ahead) };
        return Some(RotationPlan { activates_at: activates, promoted: None, replaced_keys: Vec::new() });
    };
    let old_enough =
        current.activates_at.saturating_add(rotation.every).has_passed(now.saturating_add(rotation.publish_ahead));
    if reason == RotationReason::Age && !old_enough {
        return None;
    }
    let activates = now.saturating_add(rotation.publish_ahead);
    Some(RotationPlan { activates_at: activates, promoted: None, replaced_keys: replaced_from(activates) })
}

/// The effect of removing a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovalPlan {
    /// The activation of a replacement key, if no other key can sign. There was no time to publish
    /// it ahead; signing with a leaked key would be worse.
    pub new_key_activates_at: Option<Timestamp>,
    /// Keys with new dates: a pending key that signs now, or a key that the removed one was to
    /// replace.
    pub rescheduled_keys: Vec<KeySchedule>,
}

/// Plans the removal of this key. Returns `None` for an unknown key.
///
/// The dates of the successor say that it has been active for a while. A replica whose clock is
/// behind must also have a key to sign with at this moment.
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
    // The removed key was to replace this one.
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

    /// After the removal of any key of a rotation at any time, one key signs at once and
    /// permanently.
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
        // The keys, the removed key, the delay, whether a key is created, and the signing key if
        // none is created.
        for (keys, kid, later, is_created, want) in [
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
            assert_eq!(plan.new_key_activates_at.is_some(), is_created, "{kid} {later}");
            let mut remaining = keys.into_iter().filter(|key| key.kid.as_str() != kid).collect::<Vec<_>>();
            for renewed in plan.rescheduled_keys {
                remaining.retain(|key| key.kid != renewed.kid);
                remaining.push(renewed);
            }
            remaining.extend(plan.new_key_activates_at.map(|activates| KeySchedule {
                created_at: at(now),
                activates_at: activates,
                ..key("new", 0)
            }));
            // This holds for a clock that is behind, and for as long as no rotation happens.
            for time in [now - 3600, now, now + 10, now + 10_000, now + 10_000_000] {
                let signing = signing_key(&remaining, es256, at(time)).map(|key| key.kid.as_str());
                assert_eq!(signing, Some(want.unwrap_or("new")), "{kid} {later} {time}");
            }
            assert_eq!(signing_key(&remaining, SigningAlgorithm::EdDSA, at(now)).unwrap().kid.as_str(), "other");
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
        let plan = |keys: &[KeySchedule], reason, now| {
            plan_rotation(keys, SigningAlgorithm::ES256, &rotation, reason, at(now))
        };
        assert_eq!(plan(&[], RotationReason::Age, 5).unwrap().activates_at, at(5), "the first key signs at once");
        let mut keys = vec![key("a", 5)];
        assert_eq!(plan(&keys, RotationReason::Age, 904), None);
        let change = plan(&keys, RotationReason::Age, 905).unwrap();
        keys = change.replaced_keys;
        keys.push(KeySchedule { activates_at: change.activates_at, ..key("b", 0) });
        assert_eq!(plan(&keys, RotationReason::Requested, 906), None, "one rotation at a time");
        for (now, want, published) in [(1004, "a", 2), (1005, "b", 2), (1904, "b", 2), (1905, "b", 1)] {
            let signing = signing_key(&keys, SigningAlgorithm::ES256, at(now)).unwrap();
            assert_eq!(signing.kid.as_str(), want, "{now}");
            assert_eq!(keys.iter().filter(|k| k.state(at(now)) != KeyState::Gone).count(), published, "{now}");
        }
        assert_eq!(signing_key(&keys, SigningAlgorithm::RS256, at(1005)), None);
        let further = plan_rotation(&keys, SigningAlgorithm::RS256, &rotation, RotationReason::Age, at(1005)).unwrap();
        assert_eq!(further.activates_at, at(1105), "a key of a further algorithm is published before it signs");
    }

    /// After an immediate rotation at any time, exactly one key signs, at once and for good,
    /// whatever the clock was when the keys were created.
    #[test]
    fn immediate_rotation_signs_at_once() {
        const NOW: i64 = 1_000_000;
        let rotation = RotationSettings::default();
        let ahead = KeySchedule { created_at: at(NOW + 3600), ..key("ahead", NOW + 3600) };
        let old = KeySchedule { created_at: at(NOW - 9000), ..key("old", NOW - 9000) };
        let fresh = KeySchedule { created_at: at(NOW - 60), ..key("fresh", NOW - 60) };
        let other = KeySchedule { algorithm: SigningAlgorithm::EdDSA, ..key("other", 5) };
        for (keys, promoted) in [
            (vec![], None),
            (vec![ahead.clone()], Some("ahead")),
            (vec![old.clone()], None),
            (vec![fresh.clone()], None),
            (vec![old.clone(), ahead.clone()], Some("ahead")),
            (vec![fresh, ahead], Some("ahead")),
            (vec![other], None),
        ] {
            let es256 = SigningAlgorithm::ES256;
            let plan = plan_rotation(&keys, es256, &rotation, RotationReason::Immediate, at(NOW)).unwrap();
            assert_eq!(plan.promoted.as_ref().map(|key| key.kid.as_str()), promoted);
            let next = plan.promoted.unwrap_or_else(|| KeySchedule {
                created_at: at(NOW),
                activates_at: plan.activates_at,
                ..key("new", 0)
            });
            let mut after = keys.clone();
            after.retain(|key| key.kid != next.kid && plan.replaced_keys.iter().all(|other| other.kid != key.kid));
            after.extend(plan.replaced_keys.iter().cloned().chain([next.clone()]));
            for time in [NOW, NOW + 10, NOW + 7200, NOW + 10_000_000] {
                assert_eq!(signing_key(&after, es256, at(time)).unwrap().kid, next.kid, "{promoted:?} {time}");
            }
            let behind = signing_key(&after, es256, at(NOW - 3600)).map(|key| key.algorithm);
            assert_eq!(behind, Some(es256), "a replica whose clock is behind signs too");
        }
    }
}
