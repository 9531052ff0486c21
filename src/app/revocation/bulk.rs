//! Many tasks at once: first a dry run, which says what would happen and gives a confirmation; then, with it, the act
//! itself, in one transaction.
//!
//! The confirmation is a text that only we can mark. It binds the admin, the act, the selection, the moment up to which
//! tasks were opened, which tasks were shown, and its own end. Nothing has to be stored for it.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use crate::{
    app::{
        AdminAction, ApiCaller, ConflictError, Error, RequestContext, RequestError, Service, TransitionRequest,
        registry::objects::MAX_COMMIT_ATTEMPTS,
        revocation::{
            admin::{IDEMPOTENCY_RETENTION, MISSING_SEQ},
            dry_run::DryRun,
        },
        tasks::lifecycle::{plan_transition, transition_record, with_task_fields},
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
        IdempotentRequest, Outage, PageRequest, Precondition, StateChange, TaskFilter, TokenFilter, WriteOutcome,
        WriteSet,
    },
};

/// The most tasks of one selection: they are one transaction.
pub const MAX_TASKS: usize = 1000;
/// How long a confirmation is good.
const CONFIRMATION_LIFETIME: Lifetime = Lifetime::minutes(5);

/// Tasks that something is done to together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Ids(BTreeSet<TaskId>),
    /// All that fit.
    Matching(TaskFilter),
}

impl Selection {
    /// For records and for what is confirmed: the same text for the same selection.
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

/// What an admin wants to do to many tasks.
#[derive(Debug)]
pub struct BulkTaskAction {
    /// Which.
    pub selection: Selection,
    /// What.
    pub action: AdminAction,
    /// Why.
    pub reason: Reason,
    /// What the dry run gave.
    pub confirmation: Option<String>,
}

/// It is durable.
#[derive(Debug, PartialEq, Eq)]
pub struct BulkReceipt {
    /// The place of the last entry in the log.
    pub seq: LogPosition,
    /// How many tasks it was.
    pub tasks: u64,
    /// When.
    pub at: Timestamp,
    /// How far it got.
    pub propagation: Propagation,
}

impl BulkTaskAction {
    fn task_action(&self) -> Result<TaskAction, RequestError> {
        match self.action {
            AdminAction::Revoke => Ok(TaskAction::Revoke),
            AdminAction::Suspend => Ok(TaskAction::Suspend),
            AdminAction::Resume => Ok(TaskAction::Resume),
            AdminAction::Block | AdminAction::Unblock => {
                Err(RequestError::InvalidParameter("verb", "tasks are not disabled or enabled"))
            }
        }
    }
}

/// What a confirmation says, beside what the request says again.
#[derive(Clone, Debug)]
struct Confirmation {
    opened_before: Timestamp,
    digest: SelectionDigest,
    expires: Timestamp,
    /// No two are the same: what was done by one does not stand for what another one is for.
    nonce: String,
}

impl Confirmation {
    fn to_text(&self) -> String {
        format!("{}.{}.{}.{}", self.opened_before.unix(), self.digest.to_text(), self.expires.unix(), self.nonce)
    }

    /// Reads it, with the mark on it. Whose it is shows in the mark.
    fn parse(confirmation: &str) -> Option<(Self, Vec<u8>)> {
        let parts = confirmation.split('.').collect::<Vec<_>>();
        let [until, shown, expires, once, mark] = *parts.as_slice() else { return None };
        let time = |text: &str| text.parse().ok().map(Timestamp::from_unix);
        let (until, shown, expires) = (time(until)?, SelectionDigest::parse(shown)?, time(expires)?);
        Some((Self { opened_before: until, digest: shown, expires, nonce: once.to_owned() }, decode_base64url(mark)?))
    }
}

impl Service {
    /// What the act would do now; nothing happens.
    pub async fn dry_run_tasks(
        &self,
        admin: &ApiCaller,
        bulk: &BulkTaskAction,
        cx: &RequestContext,
    ) -> Result<DryRun, Error> {
        // Tasks of this second are in; those that are opened while somebody thinks it over are not.
        let until = cx.now.saturating_add(Lifetime::seconds(1));
        let tasks = self.select_tasks(admin, bulk, until, cx).await?;
        let act = bulk.task_action()?;
        let verb = match act {
            TaskAction::Suspend => LogAction::Suspend,
            TaskAction::Resume => LogAction::Resume,
            TaskAction::Revoke | TaskAction::Complete | TaskAction::Fail | TaskAction::Expire => LogAction::Revoke,
        };
        let targets = tasks.iter().map(|task| (verb, Target::Task(task.id))).collect::<Vec<_>>();
        let one = match &tasks[..] {
            [task] => TokenFilter { task: Some(task.id), ..TokenFilter::default() },
            _ => TokenFilter::default(),
        };
        let mut dry_run = self.find_affected_tokens(admin, &targets, one, cx).await?;
        dry_run.add_tasks(tasks.iter().map(|task| task.id));
        let (shown, once) = (SelectionDigest::from_tasks(act, &tasks), self.inner.ports.entropy.new_uuid().to_string());
        let confirmed = Confirmation {
            opened_before: until,
            digest: shown,
            expires: cx.now.saturating_add(CONFIRMATION_LIFETIME),
            nonce: once,
        };
        let text = confirmed.to_text();
        let mark = self.inner.ports.pepper.mac(&confirmation_mac_input(admin, bulk, &text));
        dry_run.confirmation = Some((format!("{text}.{}", encode_base64url(&mark)), confirmed.expires));
        Ok(dry_run)
    }

    /// Does it. Durable, with the audit records, and known everywhere before this returns, or after so long. The confirmation
    /// is its idempotency key.
    pub async fn transition_tasks(
        &self,
        admin: &ApiCaller,
        bulk: &BulkTaskAction,
        max_wait: Option<Duration>,
        cx: &RequestContext,
    ) -> Result<BulkReceipt, Error> {
        let refused = |conflict| self.record_refusal(audit_summary(admin, bulk, Outcome::Done, cx), conflict);
        let confirmation = bulk
            .confirmation
            .as_deref()
            .ok_or_else(|| refused(ConflictError::ConfirmationRequired(CONFIRMATION_MISSING)))?;
        let (confirmed, mark) = Confirmation::parse(confirmation)
            .ok_or_else(|| refused(ConflictError::ConfirmationRequired(CONFIRMATION_MISMATCH)))?;
        if !self.inner.ports.pepper.verify_mac(&confirmation_mac_input(admin, bulk, &confirmed.to_text()), &mark) {
            return Err(refused(ConflictError::ConfirmationRequired(CONFIRMATION_MISMATCH)));
        }
        let request = IdempotentRequest {
            caller: admin.identity(),
            // The mark stands for all of it, however many were shown.
            key: format!("confirmation {}", encode_base64url(&mark)),
            fingerprint: bulk.reason.to_string(),
            response: String::new(),
            keep_until: cx.now.saturating_add(IDEMPOTENCY_RETENTION),
        };
        if let Some(before) = self.store().find_idempotent_response(&request.caller, &request.key).await? {
            let (tasks, at) = parse_replayed_receipt(&request, &before).map_err(refused)?;
            // Who hears the first answer again may not have heard it then: it holds everywhere now as well.
            let propagation = match before {
                WriteOutcome::AlreadyApplied { seq: Some(seq), .. } => {
                    self.inner.writer.await_propagation(seq, max_wait).await?
                }
                _ => self.inner.writer.await_head_propagation(max_wait).await?,
            };
            return Ok(BulkReceipt { seq: propagation.seq, tasks, at, propagation });
        }
        if confirmed.expires.has_passed(cx.now) {
            return Err(refused(ConflictError::ConfirmationRequired(
                "the confirmation has expired: ask with `dry_run` again",
            )));
        }
        let act = bulk.task_action()?;
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let matching = self.select_tasks(admin, bulk, confirmed.opened_before, cx).await?;
            let (tasks, others) =
                matching.into_iter().partition::<Vec<_>, _>(|task| confirmed.digest.contains(act, task));
            // Some may have ended meanwhile, which is no harm; what was not shown is not touched. One that has never turned
            // was opened since. Any other may be what is meant, and its admin has not seen it.
            if others.iter().any(|task| task.version > 0) {
                return Err(refused(ConflictError::ConfirmationRequired(SELECTION_CHANGED)));
            }
            let write = build_write(admin, bulk, &tasks, &request, cx)?;
            let (written, propagation) = self.inner.writer.commit_and_propagate(write, max_wait).await?;
            let (tasks, at) = match written {
                WriteOutcome::Committed { .. } => (tasks.len() as u64, cx.now),
                before @ WriteOutcome::AlreadyApplied { .. } => {
                    parse_replayed_receipt(&request, &before).map_err(refused)?
                }
                WriteOutcome::Conflict => continue,
                WriteOutcome::Replayed => {
                    return Err(Outage::during("revoke")("the store answered a question that was not asked").into());
                }
            };
            let propagation = propagation.ok_or_else(|| Outage::during("revoke")(MISSING_SEQ))?;
            return Ok(BulkReceipt { seq: propagation.seq, tasks, at, propagation });
        }
        Err(refused(ConflictError::ConcurrentUpdate))
    }

    /// The tasks of a selection that the act can be done to, opened before `until`.
    async fn select_tasks(
        &self,
        admin: &ApiCaller,
        bulk: &BulkTaskAction,
        until: Timestamp,
        cx: &RequestContext,
    ) -> Result<Vec<Task>, Error> {
        let (act, by) = (bulk.task_action()?, Initiator::Admin(admin.identity()));
        let mut found = Vec::new();
        match &bulk.selection {
            Selection::Ids(ids) => {
                for id in ids {
                    found.push(self.store().find_task(*id).await?.ok_or(ConflictError::NotFound("task"))?);
                }
            }
            Selection::Matching(filter) => {
                let until = filter.created_before.map_or(until, |asked| asked.min(until));
                // Of the two states that are not final, what is held back or let go is in one: then that is enough.
                let state = filter.state.or(match act {
                    TaskAction::Suspend => Some(TaskState::Active),
                    TaskAction::Resume => Some(TaskState::Suspended),
                    TaskAction::Revoke | TaskAction::Complete | TaskAction::Fail | TaskAction::Expire => None,
                });
                let filter = TaskFilter { state, only_open: true, created_before: Some(until), ..filter.clone() };
                let page = self.store().list_tasks(&filter, &PageRequest { cursor: None, limit: 1000 }).await?;
                if page.next.is_some() {
                    return Err(RequestError::InvalidParameter("kind", TOO_MANY_TASKS).into());
                }
                found = page.items;
            }
        }
        found.retain(|task| task.next_state(act, &by, cx.now).is_ok());
        if found.len() > MAX_TASKS {
            Err(RequestError::InvalidParameter("kind", TOO_MANY_TASKS).into())
        } else {
            Ok(found)
        }
    }
}

const TOO_MANY_TASKS: &str =
    "more than 1000 tasks fit: narrow the selection, or revoke by agent, requester, resource or issuer";
const SELECTION_CHANGED: &str =
    "more tasks fit by now than the dry run showed, or they are not as it showed them: ask with `dry_run` again";
const CONFIRMATION_MISSING: &str = "a selection needs the `confirmation` that the same request with `dry_run` gives";
const CONFIRMATION_MISMATCH: &str = "the confirmation is not for this request of this admin: ask with `dry_run` again";

/// What a confirmation is for, as one text.
fn confirmation_mac_input(admin: &ApiCaller, bulk: &BulkTaskAction, confirmed: &str) -> String {
    json!(["confirmation", admin.identity(), bulk.action.as_str(), bulk.selection.audit_details(), confirmed])
        .to_string()
}

fn build_write(
    admin: &ApiCaller,
    bulk: &BulkTaskAction,
    tasks: &[Task],
    request: &IdempotentRequest,
    cx: &RequestContext,
) -> Result<WriteSet, RequestError> {
    let (act, by) = (bulk.task_action()?, Initiator::Admin(admin.identity()));
    let requested = TransitionRequest { action: act, reason: Some(bulk.reason.clone()), outcome: None };
    let (mut log, mut changes, mut expected) = (Vec::new(), Vec::new(), Vec::new());
    let count = json!({"tasks": tasks.len()});
    let mut audit = vec![Record { granted: Some(count.clone()), ..audit_summary(admin, bulk, Outcome::Done, cx) }];
    for task in tasks {
        let Ok(state) = task.next_state(act, &by, cx.now) else { continue };
        let (transition, entry) = plan_transition(task, state, &by, &requested, cx);
        audit.push(match act {
            TaskAction::Revoke => Record {
                admin: Some(admin.identity()),
                requested: Some(json!({"kind": "task", "key": task.id})),
                reason: Some(bulk.reason.to_string()),
                request_id: Some(cx.request_id.clone()),
                ..with_task_fields(task, Record::new(cx.now, Event::Revocation, Outcome::Done))
            },
            TaskAction::Suspend | TaskAction::Resume | TaskAction::Complete | TaskAction::Fail | TaskAction::Expire => {
                transition_record(&by, task, &transition, cx)
            }
        });
        expected.push((task.id, task.version));
        changes.push(StateChange::TransitionTask(task.id, transition));
        log.push(entry);
    }
    let answer = json!({"tasks": tasks.len(), "at": cx.now}).to_string();
    let idempotency = Some(IdempotentRequest { response: answer, ..request.clone() });
    Ok(WriteSet {
        precondition: Some(Precondition::TaskVersions(expected)),
        idempotency,
        state_changes: changes,
        log_entries: log,
        audit_records: audit,
        ..WriteSet::default()
    })
}

fn parse_replayed_receipt(
    request: &IdempotentRequest,
    before: &WriteOutcome,
) -> Result<(u64, Timestamp), ConflictError> {
    let WriteOutcome::AlreadyApplied { fingerprint, response: answer, .. } = before else {
        return Err(ConflictError::IdempotencyKeyReused);
    };
    if *fingerprint != request.fingerprint {
        return Err(ConflictError::IdempotencyKeyReused);
    }
    let answer = serde_json::from_str::<Value>(answer).unwrap_or_default();
    let tasks = answer.get("tasks").and_then(Value::as_u64).unwrap_or_default();
    let at = answer.get("at").and_then(Value::as_i64).unwrap_or_default();
    Ok((tasks, Timestamp::from_unix(at)))
}

/// The record of the whole; each task has its own besides.
fn audit_summary(admin: &ApiCaller, bulk: &BulkTaskAction, outcome: Outcome, cx: &RequestContext) -> Record {
    Record {
        admin: Some(admin.identity()),
        requested: Some(
            json!({"kind": "tasks", "verb": bulk.action.as_str(), "selection": bulk.selection.audit_details()}),
        ),
        reason: Some(bulk.reason.to_string()),
        request_id: Some(cx.request_id.clone()),
        ..Record::new(cx.now, Event::Revocation, outcome)
    }
}
