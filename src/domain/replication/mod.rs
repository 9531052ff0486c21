//! Replicas that answer from memory: how long each of them may, and for whom a revocation waits.
//!
//! A replica sends a renewal, reads the head of the log after the renewal is durable, applies up to it, and may then answer
//! from memory for the length of its lease, counted from before the renewal was sent. So a replica that is still to be
//! waited for is one whose renewal could be seen when the entry was already in the log; whoever renews later reads the
//! entry first. No clock is ever compared with another one's: each side counts a length of time on its own.

mod ack_round;
mod heartbeat;

pub use ack_round::{AckRound, Propagation};
pub use heartbeat::{Heartbeat, PeerObservations, Replica, ReplicaId, lease_deadline};
