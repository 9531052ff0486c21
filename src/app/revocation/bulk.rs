//! Changes of many tasks in one transaction, after a dry run that shows the effect and returns a
//! confirmation.
//!
//! The confirmation is a MAC-protected text, so nothing is stored for it. It binds the admin, the
//! action, the selection, the time before which the tasks were opened, the tasks that were shown,
//! and its own expiry.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    app::{
        AdminAction, ApiCaller, ConflictError, Error, LogicError, RequestContext, RequestError, Service,
        TransitionRequest,
        commit::{
            idempotency::{IDEMPOTENCY_RETENTION, Idempotent, Replay},
            retry::{Completion, Decision},
        },
        revocation::{dry_run::DryRun, evidence::ends_evidence},
        tasks::transition::{plan_transition, transition_record, with_task_fields},
    },
    domain::{
        audit::{Event, Outcome, Record},
        decode_base64url, encode_base64url,
        id::{Reason, TaskId},
        replication::Propagation,
        revocation::{LogAction, LogPosition, Target},
        task::{Initiator, Task, TaskAction, TaskState, selection_digest::SelectionDigest},
        time::{Lifetime, Timestamp},
    },
    ports::{
        EvidenceSelector, IdempotentRequest, PageRequest, Precondition, StateChange, TaskFilter, TokenFilter, WriteSet,
    },
};

/// The maximum number of tasks of a selection: all are changed in one transaction.
pub const MAX_TASKS: usize = 1000;
/// How long a confirmation is valid.
const CONFIRMATION_LIFETIME: Lifetime = Lifetime::minutes(5);

/// The tasks that are changed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// The tasks with these ids.
    Ids(BTreeSet<TaskId>),
    /// All tasks that match the filter.
    Matching(TaskFilter),
}

impl Selection {
    /// Returns the selection for audit records and confirmations: equal selections have equal
    /// values.
    fn audit_details(&self) -> Value {
        match self {
            Self::Ids(ids) => json!({"ids": ids}),
            Self::Matching(filter) => json!({
                "requester": filter.requester,
                "agent": filter.agent,
                "state": filter.state,
                "resource": filter.resource,
                "opened_from": filter.created_from,
                "opened_before": filter.created_before,
            }),
        }
    }
}

/// A request to change many tasks.
#[derive(Debug)]
pub struct BulkTaskAction {
    /// The tasks.
    pub selection: Selection,
    /// The action.
    pub action: AdminAction,
    /// The admin's reason.
    pub reason: Reason,
    /// The confirmation from the dry run.
    pub confirmation: Option<String>,
}

/// A durable change of many tasks.
#[derive(Debug, PartialEq, Eq)]
pub struct BulkReceipt {
    /// The position of the last log entry.
    pub seq: LogPosition,
    /// How many tasks were changed.
    pub tasks: u64,
    /// When they were changed.
    pub at: Timestamp,
    /// How far the change is propagated.
    pub propagation: Propagation,
}

/// The response that is stored for a confirmation.
#[derive(Serialize, Deserialize)]
struct StoredBulkReceipt {
    tasks: u64,
    at: Timestamp,
}

/// What a confirmation binds in addition to the members that the request repeats.
#[derive(Clone, Debug)]
struct Confirmation {
    opened_before: Timestamp,
    digest: SelectionDigest,
    expires: Timestamp,
    /// Makes each confirmation unique, so that one can't serve as the idempotency key of another.
    nonce: String,
}

impl Confirmation {
    fn to_text(&self) -> String {
        format!("{}.{}.{}.{}", self.opened_before.unix(), self.digest.to_text(), self.expires.unix(), self.nonce)
    }

    /// Parses a confirmation and its MAC. The MAC also binds the admin and the request.
    fn parse(confirmation: &str) -> Option<(Self, Vec<u8>)> {
        let parts = confirmation.split('.').collect::<Vec<_>>();
        let [opened_before, digest, expires, nonce, mac] = *parts.as_slice() else { return None };
        let time = |text: &str| text.parse().ok().map(Timestamp::from_unix);
        let confirmation = Self {
            opened_before: time(opened_before)?,
            digest: SelectionDigest::parse(digest)?,
            expires: time(expires)?,
            nonce: nonce.to_owned(),
        };
        Some((confirmation, decode_base64url(mac)?))
    }
}

impl Service {
    /// Returns what the action would change now, and a confirmation to carry it out. Nothing is
    /// changed.
    pub async fn dry_run_tasks(
        &self,
        admin: &ApiCaller,
        bulk: &BulkTaskAction,
        cx: &RequestContext,
    ) -> Result<DryRun, Error> {
        let action = TaskAction::try_from(bulk.action)?;
        // Tasks opened in this second are included. Tasks opened while the admin reviews the dry
        // run are not.
        let opened_before = cx.now.saturating_add(Lifetime::seconds(1));
        let tasks = self.select_tasks(admin, bulk, action, opened_before, cx).await?;
        let targets = tasks.iter().map(|task| (LogAction::from(action), Target::Task(task.id))).collect::<Vec<_>>();
        let filter = match &tasks[..] {
            [task] => TokenFilter { task: Some(task.id), ..TokenFilter::default() },
            _ => TokenFilter::default(),
        };
        let mut dry_run = self.find_affected_tokens(admin, &targets, filter, cx).await?;
        dry_run.add_tasks(tasks.iter().map(|task| task.id));
        let confirmation = Confirmation {
            opened_before,
            digest: SelectionDigest::from_tasks(action, &tasks),
            expires: cx.now.saturating_add(CONFIRMATION_LIFETIME),
            nonce: self.inner.ports.entropy.new_uuid().to_string(),
        };
        let text = confirmation.to_text();
        let mac = self.inner.ports.pepper.mac(&confirmation_mac_input(admin, bulk, &text));
        dry_run.confirmation = Some((format!("{text}.{}", encode_base64url(&mac)), confirmation.expires));
        Ok(dry_run)
    }

    /// Changes the confirmed tasks. When this returns, the change is durable and known everywhere,
    /// or `max_wait` is over. The confirmation is the idempotency key.
    pub async fn transition_tasks(
        &self,
        admin: &ApiCaller,
        bulk: &BulkTaskAction,
        max_wait: Option<Duration>,
        cx: &RequestContext,
    ) -> Result<BulkReceipt, Error> {
        let action = TaskAction::try_from(bulk.action)?;
        let refuse = async |conflict| self.record_refusal(audit_summary(admin, bulk, cx), conflict).await;
        let Some(text) = bulk.confirmation.as_deref() else {
            return Err(refuse(ConflictError::ConfirmationRequired(CONFIRMATION_MISSING)).await);
        };
        let confirmation = Confirmation::parse(text).filter(|(confirmation, mac)| {
            self.inner.ports.pepper.verify_mac(&confirmation_mac_input(admin, bulk, &confirmation.to_text()), mac)
        });
        let Some((confirmation, mac)) = confirmation else {
            return Err(refuse(ConflictError::ConfirmationRequired(CONFIRMATION_MISMATCH)).await);
        };
        let request = Idempotent::from(IdempotentRequest {
            caller: admin.identity(),
            // The MAC identifies the confirmation, however many tasks it covers.
            key: format!("confirmation {}", encode_base64url(&mac)),
            fingerprint: bulk.reason.to_string(),
            response: String::new(),
            keep_until: cx.now.saturating_add(IDEMPOTENCY_RETENTION),
        });
        let completion = self.commit_with_retry(&request, max_wait, |_| async {
            if confirmation.expires.has_passed(cx.now) {
                return Ok(Decision::Refuse(ConflictError::ConfirmationRequired(CONFIRMATION_EXPIRED)));
            }
            let matching = self.select_tasks(admin, bulk, action, confirmation.opened_before, cx).await?;
            let (tasks, others) =
                matching.into_iter().partition::<Vec<_>, _>(|task| confirmation.digest.contains(action, task));
            // Only tasks that the dry run showed are changed; some of them may have ended since.
            // Another task that never changed its state was opened since, and is skipped. Any other
            // may be meant, but the admin has not seen it.
            if others.iter().any(|task| task.version > 0) {
                return Ok(Decision::Refuse(ConflictError::ConfirmationRequired(SELECTION_CHANGED)));
            }
            let receipt = StoredBulkReceipt { tasks: tasks.len() as u64, at: cx.now };
            let idempotency = request.storing(&receipt)?;
            let mut write = WriteSet { idempotency, ..build_write(admin, bulk, action, &tasks, cx) };
            let by = Initiator::Admin(admin.identity());
            if ends_evidence(action, &by) {
                let selector = EvidenceSelector::Tasks(tasks.iter().map(|task| task.id).collect());
                let by = by.to_string();
                let evidence = self.end_evidence_for_agents(&selector, &by, bulk.reason.as_str(), cx);
                // They come first, since the response names the position of the last entry.
                write.log_entries.splice(0..0, evidence.await?);
            }
            Ok(Decision::Write(Box::new(write), receipt))
        });
        match completion.await {
            Ok(Completion::Done(StoredBulkReceipt { tasks, at }, propagation)) => {
                let propagation = propagation.ok_or(LogicError::MissingLogPosition)?;
                Ok(BulkReceipt { seq: propagation.seq, tasks, at, propagation })
            }
            Ok(Completion::Replayed(Replay { response: StoredBulkReceipt { tasks, at }, propagation })) => {
                let propagation = match propagation {
                    Some(propagation) => propagation,
                    // All tasks had ended before, so there was no log entry.
                    None => self.inner.writer.await_head_propagation(max_wait).await?,
                };
                Ok(BulkReceipt { seq: propagation.seq, tasks, at, propagation })
            }
            Ok(Completion::Refused(conflict)) | Err(Error::Conflict(conflict)) => Err(refuse(conflict).await),
            Err(error) => Err(error),
        }
    }

    /// Returns the selected tasks that the action is possible for, opened before the given time.
    async fn select_tasks(
        &self,
        admin: &ApiCaller,
        bulk: &BulkTaskAction,
        action: TaskAction,
        opened_before: Timestamp,
        cx: &RequestContext,
    ) -> Result<Vec<Task>, Error> {
        let by = Initiator::Admin(admin.identity());
        let mut tasks = Vec::new();
        match &bulk.selection {
            Selection::Ids(ids) => {
                for id in ids {
                    tasks.push(self.reserved_store().find_task(*id).await?.ok_or(ConflictError::NotFound("task"))?);
                }
            }
            Selection::Matching(filter) => {
                let limit = filter.created_before.map_or(opened_before, |requested| requested.min(opened_before));
                // Suspending and resuming each start from one of the two states that are not final.
                let state = filter.state.or(match action {
                    TaskAction::Suspend => Some(TaskState::Active),
                    TaskAction::Resume => Some(TaskState::Suspended),
                    TaskAction::Revoke | TaskAction::Complete | TaskAction::Fail | TaskAction::Expire => None,
                });
                let filter = TaskFilter { state, only_open: true, created_before: Some(limit), ..filter.clone() };
                let page =
                    self.reserved_store().list_tasks(&filter, &PageRequest { cursor: None, limit: 1000 }).await?;
                if page.next.is_some() {
                    return Err(RequestError::InvalidParameter("kind", TOO_MANY_TASKS).into());
                }
                tasks = page.items;
            }
        }
        tasks.retain(|task| task.next_state(action, &by, cx.now).is_ok());
        if tasks.len() > MAX_TASKS {
            Err(RequestError::InvalidParameter("kind", TOO_MANY_TASKS).into())
        } else {
            Ok(tasks)
        }
    }
}

const TOO_MANY_TASKS: &str =
    "more than 1000 tasks match; narrow the selection, or revoke by agent, requester, resource or issuer";
const SELECTION_CHANGED: &str =
    "more tasks match than the dry run showed, or their state has changed since; repeat the `dry_run`";
const CONFIRMATION_MISSING: &str = "a selection needs the `confirmation` from the same request with `dry_run`";
const CONFIRMATION_MISMATCH: &str = "the confirmation does not match this request of this admin; repeat the `dry_run`";
const CONFIRMATION_EXPIRED: &str = "the confirmation has expired; repeat the `dry_run`";

/// Returns the input of the confirmation's MAC.
fn confirmation_mac_input(admin: &ApiCaller, bulk: &BulkTaskAction, confirmation: &str) -> String {
    json!(["confirmation", admin.identity(), bulk.action.as_str(), bulk.selection.audit_details(), confirmation])
        .to_string()
}

/// Builds one write for all tasks: each has its state change, its log entry and its audit record.
fn build_write(
    admin: &ApiCaller,
    bulk: &BulkTaskAction,
    action: TaskAction,
    tasks: &[Task],
    cx: &RequestContext,
) -> WriteSet {
    let by = Initiator::Admin(admin.identity());
    let request = TransitionRequest { action, reason: Some(bulk.reason.clone()), outcome: None };
    let summary = Record { granted: Some(json!({"tasks": tasks.len()})), ..audit_summary(admin, bulk, cx) };
    let mut write = WriteSet { audit_records: vec![summary], ..WriteSet::default() };
    let mut versions = Vec::new();
    for task in tasks {
        let Ok(state) = task.next_state(action, &by, cx.now) else { continue };
        let (transition, entry) = plan_transition(task, state, &by, &request, cx);
        write.audit_records.push(match action {
            TaskAction::Revoke => Record {
                admin: Some(admin.identity()),
                requested: Some(json!({"kind": "task", "key": task.id})),
                reason: Some(bulk.reason.to_string()),
                request_id: Some(cx.request_id.clone()),
                source: cx.source_text(),
                ..with_task_fields(task, Record::new(cx.now, Event::Revocation, Outcome::Done))
            },
            TaskAction::Suspend | TaskAction::Resume | TaskAction::Complete | TaskAction::Fail | TaskAction::Expire => {
                transition_record(&by, task, &transition, cx)
            }
        });
        versions.push((task.id, task.version));
        write.state_changes.push(StateChange::TransitionTask(task.id, transition));
        write.log_entries.push(entry);
    }
    write.precondition = Some(Precondition::TaskVersions(versions));
    write
}

/// Returns the audit record of the whole selection. Each task has a record of its own in addition.
fn audit_summary(admin: &ApiCaller, bulk: &BulkTaskAction, cx: &RequestContext) -> Record {
    Record {
        admin: Some(admin.identity()),
        requested: Some(
            json!({"kind": "tasks", "verb": bulk.action.as_str(), "selection": bulk.selection.audit_details()}),
        ),
        reason: Some(bulk.reason.to_string()),
        request_id: Some(cx.request_id.clone()),
        source: cx.source_text(),
        ..Record::new(cx.now, Event::Revocation, Outcome::Done)
    }
}
