//! Pruning of the audit trail: records that an export contains are deleted from the store.
//!
//! A signed checkpoint names the last pruned record of each chain, and is committed with the record
//! of the prune before anything is deleted. An interrupted prune can therefore be repeated, and
//! records that went otherwise are missing in a verification.

use std::collections::BTreeMap;

use serde_json::json;
use thiserror::Error;

use super::{checkpoints::Pruning, export::VerifiedExport, verification::AuditReport};
use crate::{
    app::{Error, RequestContext, Service},
    domain::{
        audit::{Event, Head, Outcome, Record, WriterId, read},
        grants::break_glass::ReviewState,
        settings::MIN_RETENTION,
        time::{Lifetime, Timestamp},
    },
    ports::{Outage, PageRequest},
};

/// The age from which on records may be pruned: no task is open that long.
const MIN_AGE: Lifetime = MIN_RETENTION;
/// The number of records that are read at a time.
const READ_PAGE: u32 = 1000;
/// The number of records that are deleted in one transaction.
const DELETE_BATCH: u32 = 500;
const OP_PRUNE: &str = "prune the audit trail";

/// Why records are not pruned.
#[derive(Debug, Error)]
pub enum PruneError {
    /// The time is too recent.
    #[error("`--before` must be at least 25 hours ago: open tasks need their trail")]
    TooRecent,
    /// The trail does not verify.
    #[error("the audit trail does not verify, so nothing was pruned; run `errand audit verify`")]
    Tampering(Box<AuditReport>),
    /// Records are not in the export.
    #[error("the export does not contain every record before that time; export the audit trail again")]
    NotExported,
    /// A break-glass grant of that time is not reviewed.
    #[error("a break-glass grant of {} is not reviewed; its records are needed for the review", .0.to_rfc3339())]
    OpenReview(Timestamp),
    /// The operation failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl From<Outage> for PruneError {
    fn from(outage: Outage) -> Self {
        Self::Failed(outage.into())
    }
}

/// What a prune removes.
#[derive(Debug)]
pub struct PrunePlan {
    /// The number of records.
    pub records: u64,
    /// The number of chains that they are in.
    pub chains: usize,
    before: Timestamp,
    exported: u64,
    pruned: BTreeMap<WriterId, Head>,
}

impl Service {
    /// Plans to remove the records before a time. Each chain is pruned up to its first record that
    /// is not older. Every record must be in the export, and the whole trail must verify.
    pub async fn plan_prune(
        &self,
        before: Timestamp,
        export: &VerifiedExport,
        cx: &RequestContext,
    ) -> Result<PrunePlan, PruneError> {
        if before.saturating_add(MIN_AGE) > cx.now {
            return Err(PruneError::TooRecent);
        }
        self.check_reviews(before).await?;
        // The verification finds the last checkpoint of the export in the store, and compares the
        // records that it names. By the hash chains, the store and the export have the same ones.
        let report = self.verify_audit(std::slice::from_ref(&export.text), cx).await?;
        if !report.findings.is_empty() {
            return Err(PruneError::Tampering(Box::new(report)));
        }
        let mut pruned = self.read_pruned().await?;
        let mut plan =
            PrunePlan { records: 0, chains: 0, before, exported: export.checkpoint.number, pruned: BTreeMap::new() };
        for (writer, head) in report.heads {
            let start = pruned.get(&writer).cloned().unwrap_or_else(Head::empty);
            let end = self.find_prune_end(writer, &start, before).await?;
            if end.n > export.checkpoint.writers.get(&writer).map_or(0, |head| head.n) {
                return Err(PruneError::NotExported);
            }
            if end.n > start.n && end.n <= head.n {
                plan.records = plan.records.saturating_add(end.n - start.n);
                plan.chains += 1;
                pruned.insert(writer, end);
            }
        }
        plan.pruned = pruned;
        Ok(plan)
    }

    /// Signs the checkpoint that names what is pruned, and deletes the records in batches. Returns
    /// the number of deleted records; with those that an interrupted prune left.
    pub async fn prune_audit(&self, plan: &PrunePlan, by: &str, cx: &RequestContext) -> Result<u64, PruneError> {
        let store = self.store();
        // Without the right to delete, the checkpoint must not say that something was pruned.
        store.delete_audit_records(WriterId(uuid::Uuid::nil()), 0, 1).await?;
        if plan.records > 0 {
            let numbers = plan.pruned.iter().map(|(writer, head)| (writer.0.to_string(), json!(head.n)));
            let record = Record {
                admin: Some(by.to_owned()),
                requested: Some(json!({"before": plan.before, "exported_checkpoint": plan.exported})),
                granted: Some(json!({
                    "records": plan.records,
                    "pruned": numbers.collect::<serde_json::Map<_, _>>(),
                })),
                request_id: Some(cx.request_id.clone()),
                ..Record::new(cx.now, Event::AuditPrune, Outcome::Done)
            };
            let pruning = Pruning { pruned: plan.pruned.clone(), record };
            self.sign_checkpoint_with(Some(&pruning), cx).await?;
        }
        let mut deleted = 0_u64;
        // The signed checkpoint decides, and not the plan.
        for (writer, head) in self.read_pruned().await? {
            loop {
                match store.delete_audit_records(writer, head.n, DELETE_BATCH).await? {
                    0 => break,
                    more => deleted = deleted.saturating_add(more),
                }
            }
        }
        Ok(deleted)
    }

    /// Returns the last pruned record of each chain.
    async fn read_pruned(&self) -> Result<BTreeMap<WriterId, Head>, Outage> {
        let state = self.store().read_audit_state().await?;
        let last = super::checkpoints::read_last_checkpoint(&*self.inner.ports.audit_keys, &state)?;
        Ok(last.map(|last| last.pruned).unwrap_or_default())
    }

    /// Returns the last record before a time, of those after `start` without a newer one between.
    async fn find_prune_end(&self, writer: WriterId, start: &Head, before: Timestamp) -> Result<Head, Outage> {
        let mut end = start.clone();
        loop {
            let rows = self.store().read_audit_chain(writer, end.n, READ_PAGE).await?;
            if rows.is_empty() {
                return Ok(end);
            }
            for row in rows {
                let restored = read(writer, row.text()).map_err(Outage::during(OP_PRUNE))?;
                if restored.record.at >= before {
                    return Ok(end);
                }
                end = Head { n: row.n, hash: row.hash };
            }
        }
    }

    async fn check_reviews(&self, before: Timestamp) -> Result<(), PruneError> {
        let mut cursor = None;
        loop {
            let page = PageRequest { cursor, limit: READ_PAGE };
            let page = self.list_break_glass(Some(ReviewState::Open), &page).await?;
            if let Some(open) = page.items.iter().find(|open| open.grant.at < before) {
                return Err(PruneError::OpenReview(open.grant.at));
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }
}
