//! The invariant, and the reachability properties that show that the invariant is not vacuous.

use stateright::Property;

use crate::{
    protocol::{Mutant, Protocol},
    state::{Introspection, Renewal, Replica, Round, Row, SystemState, revocation_bit},
};

/// The guarantee in `docs/reference/revocation-protocol.md`.
pub const SAFETY_PROPERTY: &str = "no introspection that starts after a revocation was acknowledged responds `active`";

pub fn all_properties(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut properties = vec![
        Property::always(SAFETY_PROPERTY, |protocol: &Protocol, state: &SystemState| {
            // An introspection that starts and ends in this state. A replica without a lease reads
            // the head of the log from the store.
            let is_wrong = |replica: &Replica| {
                let answers_from_memory = protocol.trusts_memory(replica);
                (answers_from_memory || protocol.is_head_taken_as_own(state, replica)) && state.has_wrong_state(replica)
            };
            let is_covered = state.grace == 0 || protocol.is(Mutant::TrustedImmediately);
            !(state.is_violated || is_covered && state.replicas.iter().any(is_wrong))
        }),
        // The other properties show that the interesting states are reachable. Without them, the
        // invariant could hold vacuously.
        Property::sometimes("every revocation is acknowledged", |protocol: &Protocol, state: &SystemState| {
            state.acknowledged == revocation_bit(protocol.revocations + 1) - 1
        }),
        Property::sometimes("every replica answers from memory", |protocol: &Protocol, state: &SystemState| {
            state.replicas.iter().all(|replica| protocol.trusts_memory(replica))
        }),
        Property::sometimes(
            "a revocation is acknowledged while a live replica has not applied it",
            |_, state: &SystemState| {
                state.replicas.iter().any(|replica| {
                    replica.is_up && replica.row.is_some() && replica.applied == 0 && state.is_acknowledged(1)
                })
            },
        ),
        Property::sometimes("a revocation waits for a valid lease", |_, state: &SystemState| {
            let delays_revocation = |row: Row| row.waited_for != 0 && row.left > 0 && row.applied < state.log;
            state.replicas.iter().any(|replica| replica.own > 0 && replica.row.is_some_and(delays_revocation))
        }),
        Property::sometimes(
            "a revocation stops waiting for a replica that keeps renewing",
            |_, state: &SystemState| {
                let is_over = |replica: &Replica| replica.round(1) == Round::Waiting { left: 0 };
                let renews = |row: Row| row.waited_for != 0 && row.left > 0 && row.applied == 0;
                state.replicas.iter().any(is_over)
                    && state.replicas.iter().any(|replica| replica.row.is_some_and(renews))
            },
        ),
        Property::sometimes(
            "all replicas answer from memory after all revocations were acknowledged",
            |protocol: &Protocol, state: &SystemState| {
                let all = |replica: &Replica| protocol.trusts_memory(replica) && replica.applied == state.log;
                state.acknowledged == revocation_bit(protocol.revocations + 1) - 1 && state.replicas.iter().all(all)
            },
        ),
    ];
    if protocol.introspections {
        properties.push(Property::sometimes("an introspection reads the log head", |_, state: &SystemState| {
            let reads_head = |replica: &Replica| matches!(replica.introspection, Some(Introspection::HasHead { .. }));
            state.replicas.iter().any(reads_head)
        }));
    }
    if protocol.has_barriers {
        properties.push(Property::sometimes(
            "a repeated revocation is acknowledged before the first one",
            |_, state: &SystemState| {
                let waits = |replica: &Replica| replica.round(1) != Round::None;
                state.is_acknowledged(1) && state.replicas.iter().any(waits)
            },
        ));
    }
    if protocol.has_reaping {
        properties.push(Property::sometimes("a row is removed while its replica renews", |_, state: &SystemState| {
            let is_renewing = |replica: &Replica| matches!(replica.renewal, Renewal::AwaitingHead { .. });
            state.replicas.iter().any(|replica| replica.row.is_none() && is_renewing(replica))
        }));
    }
    if protocol.has_log_rollback {
        properties.push(Property::sometimes(
            "a replica retains a lost entry after all earlier leases have expired",
            |_, state: &SystemState| {
                let retains = |replica: &Replica| replica.is_up && replica.is_stale;
                state.is_acknowledged(2) && state.grace == 0 && state.replicas.iter().any(retains)
            },
        ));
    }
    properties
}
