//! Leases of replicas and propagation of revocations.
//!
//! A replica writes a heartbeat, and reads the head of the log after the heartbeat is durable. It
//! applies the log up to that head, and may then answer from memory for the length of its lease.
//! The lease is counted from before the heartbeat was sent.
//!
//! A revocation therefore waits for those replicas whose heartbeat was visible when the entry was
//! already in the log. A replica that renews later reads the entry first. Clocks are never compared
//! with each other: each side measures durations on its own monotonic clock.

mod ack_round;
mod heartbeat;

pub use ack_round::{AckRound, Propagation};
pub use heartbeat::{Heartbeat, PeerObservations, Replica, ReplicaId, lease_deadline};
