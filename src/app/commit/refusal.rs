//! Audit records of refused changes.

use crate::{
    app::{ConflictError, Error, Service},
    domain::audit::{Outcome, Record},
    ports::{Outage, WriteSet},
};

impl Service {
    /// Records that the change in `record` was refused, and returns the error for the caller.
    ///
    /// The record of an admin's request is durable before this returns; if it can't be written, the
    /// result is an outage. Clients and requesters can cause refusals at will, so their records are
    /// [sampled](crate::app::sampling) and don't wait for the store.
    pub(in crate::app) async fn record_refusal(&self, record: Record, conflict: ConflictError) -> Error {
        let record = Record { outcome: Outcome::Refused, reason: Some(conflict.to_string()), ..record };
        if record.admin.is_none() {
            self.enqueue_sampled(record);
            return conflict.into();
        }
        match self.inner.writer.commit_record(record).await {
            Ok(()) => conflict.into(),
            Err(outage) => outage.into(),
        }
    }

    /// Commits audit records, if there are any.
    pub(in crate::app) async fn commit_records(&self, audit_records: Vec<Record>) -> Result<(), Outage> {
        if audit_records.is_empty() {
            return Ok(());
        }
        self.inner.writer.commit(WriteSet { audit_records, ..WriteSet::default() }).await.map(|_| ())
    }

    /// Records a refusal that reports the current state, and waits until that state is known
    /// everywhere.
    ///
    /// Another request may have caused the state a moment ago, and a replica that has not applied
    /// the change yet must not contradict the answer. A lost race reports no state, so the wait is
    /// skipped.
    pub(in crate::app) async fn record_refusal_after_barrier(&self, record: Record, conflict: ConflictError) -> Error {
        let is_lost_race = conflict == ConflictError::ConcurrentUpdate;
        let refusal = self.record_refusal(record, conflict).await;
        if is_lost_race || matches!(refusal, Error::Unavailable(_)) {
            return refusal;
        }
        match self.inner.writer.await_barrier().await {
            Ok(()) => refusal,
            Err(outage) => outage.into(),
        }
    }
}
