//! Audit records of refused changes.

use crate::{
    app::{ConflictError, Error, Service},
    domain::audit::{Outcome, Record},
};

impl Service {
    /// Records that the change in `record` was refused, and returns the error for the caller.
    pub(in crate::app) fn record_refusal(&self, record: Record, conflict: ConflictError) -> Error {
        let reason = Some(conflict.to_string());
        self.inner.writer.enqueue_audit(Record { outcome: Outcome::Refused, reason, ..record });
        conflict.into()
    }

    /// Records a refusal that reports the current state, and waits until that state is known
    /// everywhere.
    ///
    /// Another request may have caused the state a moment ago, and a replica that has not applied
    /// the change yet must not contradict the answer. A lost race reports no state, so the wait is
    /// skipped.
    pub(in crate::app) async fn record_refusal_after_barrier(&self, record: Record, conflict: ConflictError) -> Error {
        let is_lost_race = conflict == ConflictError::ConcurrentUpdate;
        let refusal = self.record_refusal(record, conflict);
        if is_lost_race {
            return refusal;
        }
        match self.inner.writer.await_barrier().await {
            Ok(()) => refusal,
            Err(outage) => outage.into(),
        }
    }
}
