//! The propagation of a log entry to the replicas.

use serde::Serialize;

use crate::domain::replication::Propagation;

/// The propagation of a log entry.
#[derive(Debug, Serialize)]
pub(in crate::http) struct PropagationView {
    seq: u64,
    replicas_acknowledged: usize,
    replicas_lapsed: usize,
    /// Zero, unless the caller limited its wait.
    replicas_pending: usize,
    propagated_ms: u128,
}

impl From<&Propagation> for PropagationView {
    fn from(propagation: &Propagation) -> Self {
        Self {
            seq: propagation.seq.number(),
            replicas_acknowledged: propagation.acknowledged,
            replicas_lapsed: propagation.lapsed,
            replicas_pending: propagation.pending,
            propagated_ms: propagation.elapsed.as_millis(),
        }
    }
}
