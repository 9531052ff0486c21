//! What must hold in every state, and what there must be to make that mean something.

use stateright::Property;

use crate::{
    protocol::{Mutant, Protocol},
    state::{Introspection, Renewal, Replica, Round, Row, SystemState, revocation_bit},
};

/// Promise 5.
pub const SAFETY_PROPERTY: &str = "who asks after a revocation was acknowledged is never told `active`";

pub fn all_properties(protocol: &Protocol) -> Vec<Property<Protocol>> {
    let mut properties = vec![
        Property::always(SAFETY_PROPERTY, |protocol: &Protocol, world: &SystemState| {
            // An introspection that begins and ends at this moment. Who has no lease asks the store.
            let is_wrong = |replica: &Replica| {
                let by_memory = protocol.trusts_memory(replica);
                (by_memory || protocol.is_head_taken_as_own(world, replica)) && world.has_wrong_state(replica)
            };
            let is_told = world.grace == 0 || protocol.is(Mutant::TrustedImmediately);
            !(world.is_violated || is_told && world.replicas.iter().any(is_wrong))
        }),
        // The rest shows that there is something to look at: what never happens is never wrong.
        Property::sometimes("every revocation is acknowledged", |protocol: &Protocol, world: &SystemState| {
            world.acknowledged == revocation_bit(protocol.revocations + 1) - 1
        }),
        Property::sometimes("every replica answers from memory", |protocol: &Protocol, world: &SystemState| {
            world.replicas.iter().all(|replica| protocol.trusts_memory(replica))
        }),
        Property::sometimes(
            "a revocation is acknowledged without a replica that does not know it",
            |_, world: &SystemState| {
                world.replicas.iter().any(|replica| {
                    replica.is_up && replica.row.is_some() && replica.applied == 0 && world.is_acknowledged(1)
                })
            },
        ),
        Property::sometimes("a revocation waits for a lease that holds", |_, world: &SystemState| {
            let is_waited_for = |row: Row| row.waited_for != 0 && row.left > 0 && row.applied < world.log;
            world.replicas.iter().any(|replica| replica.own > 0 && replica.row.is_some_and(is_waited_for))
        }),
        Property::sometimes(
            "a revocation waits for nobody, although somebody renews on and on",
            |_, world: &SystemState| {
                let is_over = |replica: &Replica| replica.round(1) == Round::Waiting { left: 0 };
                let renews = |row: Row| row.waited_for != 0 && row.left > 0 && row.applied == 0;
                world.replicas.iter().any(is_over)
                    && world.replicas.iter().any(|replica| replica.row.is_some_and(renews))
            },
        ),
        Property::sometimes(
            "all answer from memory after everything was acknowledged",
            |protocol: &Protocol, world: &SystemState| {
                let all = |replica: &Replica| protocol.trusts_memory(replica) && replica.applied == world.log;
                world.acknowledged == revocation_bit(protocol.revocations + 1) - 1 && world.replicas.iter().all(all)
            },
        ),
    ];
    if protocol.introspections {
        properties.push(Property::sometimes("an introspection asks the store", |_, world: &SystemState| {
            let asks = |replica: &Replica| matches!(replica.introspection, Some(Introspection::HasHead { .. }));
            world.replicas.iter().any(asks)
        }));
    }
    if protocol.has_barriers {
        properties.push(Property::sometimes(
            "somebody hears that it is so already before the first one",
            |_, world: &SystemState| {
                let waits = |replica: &Replica| replica.round(1) != Round::None;
                world.is_acknowledged(1) && world.replicas.iter().any(waits)
            },
        ));
    }
    if protocol.has_reaping {
        properties.push(Property::sometimes("a row is removed, and its replica goes on", |_, world: &SystemState| {
            let is_on_its_way = |replica: &Replica| matches!(replica.renewal, Renewal::AwaitingHead { .. });
            world.replicas.iter().any(|replica| replica.row.is_none() && is_on_its_way(replica))
        }));
    }
    if protocol.has_log_rollback {
        properties.push(Property::sometimes(
            "somebody remembers what was lost after all leases of then",
            |_, world: &SystemState| {
                let remembers = |replica: &Replica| replica.is_up && replica.is_stale;
                world.is_acknowledged(2) && world.grace == 0 && world.replicas.iter().any(remembers)
            },
        ));
    }
    properties
}
