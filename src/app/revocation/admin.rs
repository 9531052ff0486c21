//! Revocation by admins: one transaction with the log entries, the state changes and the audit
//! record.
//!
//! Ending an ancestor takes one log entry: everything derived from it carries its name.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    app::{
        AdminAction, ApiCaller, Error, RequestContext, Revocation, RevocationReceipt, RevocationTarget, Service,
        commit::{
            approval::apply_approval,
            idempotency::{Idempotent, Replay},
            retry::{Completion, Decision},
        },
        four_eyes::act_of,
        revocation::{blocking::plan_block, plan::RevocationPlan},
    },
    domain::{
        audit::{Event, Outcome, Record},
        four_eyes::lift_needs_approval,
        registry::BlockAction,
        revocation::Target,
        task::TaskAction,
        time::Timestamp,
    },
    ports::{Outage, WriteSet},
};

/// The response that is stored for an idempotency key.
#[derive(Serialize, Deserialize)]
struct StoredRevocation {
    kind: String,
    key: String,
    at: Timestamp,
}

impl StoredRevocation {
    fn new(target: &Target, at: Timestamp) -> Self {
        Self { kind: target.kind().to_owned(), key: target.key(), at }
    }

    fn target(&self) -> Result<Target, Outage> {
        Target::parse(&self.kind, &self.key)
            .ok_or_else(|| Outage::during("read a stored response")("its target is malformed"))
    }
}

impl Service {
    /// Revokes, suspends, resumes, blocks or unblocks the target. When this returns, the change is
    /// durable, and every replica applies it.
    pub async fn revoke(
        &self,
        admin: &ApiCaller,
        revocation: Revocation,
        cx: &RequestContext,
    ) -> Result<RevocationReceipt, Error> {
        self.revoke_with_wait(admin, revocation, None, cx).await
    }

    /// Does the same as [`revoke`](Self::revoke), but waits at most this long for all replicas. The
    /// change is then durable, and may not yet be
    /// [everywhere](crate::domain::replication::Propagation::is_complete).
    pub async fn revoke_with_wait(
        &self,
        admin: &ApiCaller,
        revocation: Revocation,
        max_wait: Option<Duration>,
        cx: &RequestContext,
    ) -> Result<RevocationReceipt, Error> {
        let Revocation { target, action, reason, idempotency_key } = &revocation;
        let (kind, key) = target.kind_and_key();
        let fingerprint = json!([action.as_str(), kind, key, reason]).to_string();
        let request = Idempotent::new(admin.identity(), idempotency_key.clone(), fingerprint, cx);
        let completion = self.commit_with_retry(&request, max_wait, |_| async {
            let plan = self.plan_revocation(admin, &revocation, cx).await?;
            let RevocationPlan { target, log_entries, precondition, state_changes, lifted, audit_record } = plan;
            let record = Record {
                admin: Some(admin.identity()),
                requested: Some(requested_details(target.kind(), &target.key(), *action)),
                reason: Some(reason.to_string()),
                request_id: Some(cx.request_id.clone()),
                source: cx.source_text(),
                ..*audit_record
            };
            let approval = match &lifted {
                Some(block) if lift_needs_approval(block, &admin.identity()) => {
                    let snapshot = self.inner.follower.committed_snapshot(cx.now).await?;
                    let current = json!({"block": block.kind, "reason": block.reason, "by": block.by, "at": block.at});
                    self.find_approval(admin, &snapshot.registry, &act_of(&record, Some(&current))?, cx)?
                }
                Some(_) | None => None,
            };
            let mut write = WriteSet {
                precondition,
                idempotency: request.storing(&StoredRevocation::new(&target, cx.now))?,
                state_changes,
                log_entries,
                audit_records: vec![record],
                ..WriteSet::default()
            };
            apply_approval(&mut write, approval);
            Ok(Decision::Write(Box::new(write), target))
        });
        match completion.await {
            Ok(Completion::Done(target, propagation)) => {
                if matches!(target, Target::Requester(_) | Target::Agent(_) | Target::Issuer(_)) {
                    self.clean_up_revoked(cx).await;
                }
                Ok(RevocationReceipt::new(target, cx.now, propagation)?)
            }
            Ok(Completion::Replayed(Replay { response, propagation })) => {
                Ok(RevocationReceipt::new(response.target()?, response.at, propagation)?)
            }
            Ok(Completion::Refused(conflict)) => {
                let record = refusal_record(admin, &revocation, cx);
                Err(self.record_refusal_after_barrier(record, conflict).await)
            }
            Err(Error::Conflict(conflict)) => {
                Err(self.record_refusal(refusal_record(admin, &revocation, cx), conflict).await)
            }
            Err(error) => Err(error),
        }
    }

    /// Plans what the action writes, on the state of now.
    pub(super) async fn plan_revocation(
        &self,
        admin: &ApiCaller,
        revocation: &Revocation,
        cx: &RequestContext,
    ) -> Result<RevocationPlan, Error> {
        match (revocation.action, &revocation.target) {
            (AdminAction::Revoke, _) => self.plan_revoke(admin, revocation, cx).await,
            (action @ (AdminAction::Suspend | AdminAction::Resume), RevocationTarget::Task(id)) => {
                self.plan_task_transition(admin, *id, TaskAction::try_from(action)?, revocation, cx).await
            }
            (action, target) => {
                // A concurrent change may be newer than the snapshot of this request.
                let snapshot = self.inner.follower.committed_snapshot(cx.now).await?;
                let action = BlockAction::try_from(action)?;
                let mut plan = plan_block(admin, &snapshot.registry, target, action, &revocation.reason, cx)?;
                if let (BlockAction::Block, RevocationTarget::Requester(requester)) = (action, target) {
                    let (by, reason) = (admin.identity(), revocation.reason.as_str());
                    plan.prepend_entries(self.end_evidence_of_requester(requester, &by, reason, cx).await?);
                }
                Ok(plan)
            }
        }
    }
}

/// Returns kind, key and verb for the audit record. `revoke` is the default and left out.
fn requested_details(kind: &str, key: &str, action: AdminAction) -> serde_json::Value {
    match action {
        AdminAction::Revoke => json!({"kind": kind, "key": key}),
        action => json!({"kind": kind, "key": key, "verb": action.as_str()}),
    }
}

/// Returns the audit record of a refused revocation.
fn refusal_record(admin: &ApiCaller, revocation: &Revocation, cx: &RequestContext) -> Record {
    let (kind, key) = revocation.target.kind_and_key();
    Record {
        admin: Some(admin.identity()),
        requested: Some(requested_details(kind, &key, revocation.action)),
        request_id: Some(cx.request_id.clone()),
        source: cx.source_text(),
        ..Record::new(cx.now, Event::Revocation, Outcome::Done)
    }
}
