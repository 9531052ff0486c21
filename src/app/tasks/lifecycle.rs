//! The life of a task: read, suspend, resume, complete, fail; and its end by the deadline.
//!
//! A change of state is one write: the new state, on the condition that nobody changed the old one meanwhile, the entry in
//! the revocation log, the audit record. At the deadline there is no entry: no token outlives its task.

use std::time::Duration;

use futures_util::future::try_join_all;
use serde_json::json;

use crate::{
    app::{
        ApiCaller, AuthError, ConflictError, Error, RequestContext, RequestError, RequesterCaller, Service,
        commit::idempotency, registry::objects::MAX_COMMIT_ATTEMPTS, replication::propagation::UnloggedWrite,
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::{OutcomeText, Reason, TaskId},
        registry::{ObjectKind, Registry, client::Client},
        replication::Propagation,
        revocation::{LogAction, NewEntry, Target},
        settings::MAX_CLOCK_SKEW,
        task::{Initiator, Requester, Task, TaskAction, TaskState, Transition, TransitionError},
        time::Timestamp,
    },
    ports::{
        IdempotentRequest, Outage, Page, PageRequest, Precondition, StateChange, TaskFilter, TokenFilter, WriteOutcome,
        WriteSet,
    },
};

/// How many tasks a sweep ends at a time: where the queue has room for them, together they are one commit.
const EXPIRY_PAGE_SIZE: u32 = 64;
/// How often a sweep looks for more before it leaves the rest to the next one.
const MAX_EXPIRY_ROUNDS: usize = 1000;

/// What is done to a task, and what is said about it.
#[derive(Clone, Debug)]
pub struct TransitionRequest {
    /// What is done.
    pub action: TaskAction,
    /// Why.
    pub reason: Option<Reason>,
    /// What came of the work.
    pub outcome: Option<OutcomeText>,
}

/// A task whose state was changed, and how far the word of it got.
#[derive(Debug)]
pub struct TransitionOutcome {
    /// The task as it is now.
    pub task: Task,
    /// The entry of the log, and who knows of it.
    pub propagation: Propagation,
}

impl Service {
    /// One task, for an agent that takes part in it. For everybody else there is none.
    pub async fn read_own_task(&self, caller: &ApiCaller, id: TaskId) -> Result<Task, Error> {
        let agent = match caller.client().client()? {
            Client::Agent(agent) => &agent.id,
            Client::Resource(_) | Client::Admin(_) => return Err(AuthError::ClientNotAllowed.into()),
        };
        let registry = &caller.client().snapshot().registry;
        let task = self.store().find_task(id).await?.filter(|task| registry.is_current_task(task));
        let task = task.ok_or(ConflictError::NotFound("task"))?;
        if task.root_agent == *agent {
            return Ok(task);
        }
        let its_tokens = TokenFilter { task: Some(id), client: Some(agent.clone()), ..TokenFilter::default() };
        let newest = self.store().list_tokens(&its_tokens, &PageRequest { cursor: None, limit: 1 }).await?.items;
        let takes_part = newest.iter().any(|token| registry.existed_at(ObjectKind::Agent, agent.as_str(), token.rev));
        if takes_part { Ok(task) } else { Err(ConflictError::NotFound("task").into()) }
    }

    /// Changes the state of a task for the agent that opened it. An agent that was given a part reads, and no more.
    /// Returns when no replica answers by the old state any more, or after so long.
    pub async fn transition_own_task(
        &self,
        caller: &ApiCaller,
        id: TaskId,
        requested: &TransitionRequest,
        key: Option<String>,
        max_wait: Option<Duration>,
        cx: &RequestContext,
    ) -> Result<TransitionOutcome, Error> {
        let task = self.read_own_task(caller, id).await?;
        let agent = caller.client().id();
        if task.root_agent != *agent {
            return Err(AuthError::ClientNotAllowed.into());
        }
        self.transition_task(&Initiator::Agent(agent.clone()), task, requested, key, max_wait, cx).await
    }

    /// The tasks that an agent opened, newest first: where it left off, for one that starts again.
    pub async fn list_opened_tasks(
        &self,
        caller: &ApiCaller,
        filter: TaskFilter,
        page: &PageRequest,
    ) -> Result<Page<Task>, Error> {
        let Client::Agent(agent) = caller.client().client()? else {
            return Err(AuthError::ClientNotAllowed.into());
        };
        if filter.agent.as_ref().is_some_and(|wanted| *wanted != agent.id) {
            return Err(RequestError::InvalidParameter("agent", "an agent sees the tasks that it opened itself").into());
        }
        let filter = TaskFilter { agent: Some(agent.id.clone()), ..filter };
        Ok(exclude_orphans(self.store().list_tasks(&filter, page).await?, &caller.client().snapshot().registry))
    }

    /// A requester's own tasks, newest first.
    pub async fn list_own_tasks(
        &self,
        caller: &RequesterCaller,
        filter: TaskFilter,
        page: &PageRequest,
    ) -> Result<Page<Task>, Error> {
        let Requester { issuer, subject } = caller.requester().clone();
        let filter = TaskFilter { requester: Some((issuer, subject.into())), ..filter };
        Ok(exclude_orphans(self.store().list_tasks(&filter, page).await?, &caller.snapshot().registry))
    }

    /// One of a requester's own tasks. Somebody else's can't be told from none.
    pub async fn read_requested_task(&self, caller: &RequesterCaller, id: TaskId) -> Result<Task, Error> {
        let is_theirs =
            |task: &Task| task.requester == *caller.requester() && caller.snapshot().registry.is_current_task(task);
        let task = self.store().find_task(id).await?.filter(is_theirs);
        Ok(task.ok_or(ConflictError::NotFound("task"))?)
    }

    /// Changes the state of a task for the requester in whose name it is. Returns when no replica answers by the old state
    /// any more, or after so long.
    pub async fn transition_requested_task(
        &self,
        caller: &RequesterCaller,
        id: TaskId,
        requested: &TransitionRequest,
        key: Option<String>,
        max_wait: Option<Duration>,
        cx: &RequestContext,
    ) -> Result<TransitionOutcome, Error> {
        let task = self.read_requested_task(caller, id).await?;
        self.transition_task(&Initiator::Requester(caller.requester().clone()), task, requested, key, max_wait, cx)
            .await
    }

    /// Changes the state of a task for an admin. Returns when no replica answers by the old state any more, or after so
    /// long.
    pub async fn transition_any_task(
        &self,
        admin: &ApiCaller,
        id: TaskId,
        requested: &TransitionRequest,
        key: Option<String>,
        max_wait: Option<Duration>,
        cx: &RequestContext,
    ) -> Result<TransitionOutcome, Error> {
        let Some(task) = self.store().find_task(id).await? else {
            let record = Record {
                admin: Some(admin.identity()),
                task: Some(id),
                requested: Some(json!({"act": requested.action})),
                request_id: Some(cx.request_id.clone()),
                ..Record::new(cx.now, Event::TaskTransition, Outcome::Done)
            };
            return Err(self.record_refusal_after_barrier(record, ConflictError::NotFound("task")).await);
        };
        self.transition_task(&Initiator::Admin(admin.identity()), task, requested, key, max_wait, cx).await
    }

    async fn transition_task(
        &self,
        by: &Initiator,
        mut task: Task,
        requested: &TransitionRequest,
        key: Option<String>,
        max_wait: Option<Duration>,
        cx: &RequestContext,
    ) -> Result<TransitionOutcome, Error> {
        validate_texts(requested)?;
        let fingerprint = json!(["turn", task.id, requested.action, requested.reason, requested.outcome]);
        let request = idempotency::build_idempotency(by.to_string(), key, fingerprint.to_string(), cx);
        if let Some(replayed) = self.find_replayed_transition(request.as_ref(), &task, max_wait).await? {
            return Ok(replayed);
        }
        for _ in 0..MAX_COMMIT_ATTEMPTS {
            let state = match task.next_state(requested.action, by, cx.now) {
                Ok(state) => state,
                Err(refusal) => return Err(self.refuse_transition(by, &task, requested, refusal, cx).await),
            };
            let (transition, entry) = plan_transition(&task, state, by, requested, cx);
            let record = transition_record(by, &task, &transition, cx);
            let answer = json!((task.version.saturating_add(1), &transition)).to_string();
            let idempotency = request.clone().map(|request| IdempotentRequest { response: answer, ..request });
            let (expected, change) = transition_change(&task, transition.clone());
            let (expected, changes, log, audit) = (Some(expected), vec![change], vec![entry], vec![record]);
            let write = WriteSet {
                precondition: expected,
                idempotency,
                state_changes: changes,
                log_entries: log,
                audit_records: audit,
                ..WriteSet::default()
            };
            let (written, propagation) = self.inner.writer.commit_and_propagate(write, max_wait).await?;
            let before = idempotency::read_stored_response::<(u64, Transition)>(request.as_ref(), &written)?;
            match (before, propagation) {
                (Some((turns, transition)), Some(propagation)) => {
                    return Ok(TransitionOutcome {
                        task: Task { version: turns, ..apply_transition(task, transition) },
                        propagation,
                    });
                }
                (None, Some(propagation)) => {
                    return Ok(TransitionOutcome { task: apply_transition(task, transition), propagation });
                }
                (_, None) => {}
            }
            task = self.read_task(task.id).await?;
        }
        let record = transition_record(by, &task, &build_transition(task.state, by, requested, cx), cx);
        let asked = Some(json!({"act": requested.action}));
        Err(self.record_refusal(Record { requested: asked, granted: None, ..record }, ConflictError::ConcurrentUpdate))
    }

    /// What was answered to this request the first time. Who hears it again may not have heard it then: it holds
    /// everywhere now as well.
    async fn find_replayed_transition(
        &self,
        request: Option<&IdempotentRequest>,
        task: &Task,
        max_wait: Option<Duration>,
    ) -> Result<Option<TransitionOutcome>, Error> {
        let Some(idempotency) = request else { return Ok(None) };
        let Some(before) = self.store().find_idempotent_response(&idempotency.caller, &idempotency.key).await? else {
            return Ok(None);
        };
        let answer = idempotency::read_stored_response::<(u64, Transition)>(request, &before)?;
        let (Some((turns, transition)), WriteOutcome::AlreadyApplied { seq: Some(seq), .. }) = (answer, before) else {
            return Ok(None);
        };
        let propagation = self.inner.writer.await_propagation(seq, max_wait).await?;
        Ok(Some(TransitionOutcome {
            task: Task { version: turns, ..apply_transition(task.clone(), transition) },
            propagation,
        }))
    }

    async fn refuse_transition(
        &self,
        by: &Initiator,
        task: &Task,
        requested: &TransitionRequest,
        refusal: TransitionError,
        cx: &RequestContext,
    ) -> Error {
        let record = Record {
            requested: Some(json!({"act": requested.action})),
            granted: None,
            outcome: Outcome::Refused,
            reason: Some(refusal.to_string()),
            ..transition_record(by, task, &build_transition(task.state, by, requested, cx), cx)
        };
        let recorded = self.inner.writer.commit(WriteSet { audit_records: vec![record], ..WriteSet::default() }).await;
        // The answer says which state the task is in, so that state is the one that everybody goes by.
        match recorded.and(self.inner.writer.await_barrier().await) {
            Ok(()) => ConflictError::IllegalTransition(refusal).into(),
            Err(outage) => outage.into(),
        }
    }

    /// Brings tasks past their deadline to their end. Any number of replicas may do this at once: each task is ended, and
    /// recorded, by one of them.
    pub(in crate::app) async fn expire_tasks(&self, cx: &RequestContext) -> Result<(), Error> {
        self.end_tasks(
            |limit| self.store().list_overdue_tasks(cx.now, limit),
            |_| (TaskAction::Expire, Initiator::Deadline),
            cx,
        )
        .await
    }

    /// Brings tasks to their end whose agent, or whose requester's issuer, was removed: nobody can join them any more. Any number
    /// of replicas may do this at once.
    pub(in crate::app) async fn end_orphaned_tasks(&self, cx: &RequestContext) -> Result<(), Error> {
        let how = |task: &Task| {
            let is_over = task.deadline.has_passed(cx.now);
            if is_over { (TaskAction::Expire, Initiator::Deadline) } else { (TaskAction::Revoke, Initiator::Removal) }
        };
        self.end_tasks(|limit| self.store().list_orphaned_tasks(limit), how, cx).await
    }

    /// Ends tasks whose tokens are dead by themselves: there is no entry in the log.
    pub(in crate::app) async fn end_tasks<F>(
        &self,
        due: impl Fn(u32) -> F,
        how: impl Fn(&Task) -> (TaskAction, Initiator),
        cx: &RequestContext,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<Vec<Task>, Outage>>,
    {
        // Those who are waited for need the queue more.
        let at_once = (self.settings().write_queue / 8).max(1);
        for _ in 0..MAX_EXPIRY_ROUNDS {
            let due = due(EXPIRY_PAGE_SIZE).await?;
            let is_last = due.len() < usize::try_from(EXPIRY_PAGE_SIZE).unwrap_or(usize::MAX);
            let ends = due.iter().filter_map(|task| {
                let (act, by) = how(task);
                let state = task.next_state(act, &by, cx.now).ok()?;
                let transition =
                    build_transition(state, &by, &TransitionRequest { action: act, reason: None, outcome: None }, cx);
                let record = transition_record(&by, task, &transition, cx);
                let (expected, change) = transition_change(task, transition);
                Some(UnloggedWrite { expected, idempotency: None, change, record })
            });
            let mut ends = ends.collect::<Vec<_>>();
            while !ends.is_empty() {
                let few = ends.drain(..at_once.min(ends.len()));
                // One that moved on meanwhile was ended by somebody else.
                try_join_all(few.map(|aside| self.inner.writer.commit_unlogged(aside))).await?;
            }
            if is_last {
                break;
            }
        }
        Ok(())
    }
}

/// A page without the tasks of others of the same names who were removed.
fn exclude_orphans(Page { items, next }: Page<Task>, registry: &Registry) -> Page<Task> {
    Page { items: items.into_iter().filter(|task| registry.is_current_task(task)).collect(), next }
}

fn validate_texts(requested: &TransitionRequest) -> Result<(), RequestError> {
    let needs_reason = matches!(requested.action, TaskAction::Suspend | TaskAction::Fail);
    if needs_reason && requested.reason.is_none() {
        return Err(RequestError::MissingParameter("reason"));
    }
    if requested.outcome.is_some() && !matches!(requested.action, TaskAction::Complete | TaskAction::Fail) {
        return Err(RequestError::InvalidParameter("outcome", "only what ends has one"));
    }
    Ok(())
}

/// A change of state: what the task says of it, and what the log says.
pub(in crate::app) fn plan_transition(
    task: &Task,
    state: TaskState,
    by: &Initiator,
    requested: &TransitionRequest,
    cx: &RequestContext,
) -> (Transition, NewEntry) {
    let entry = NewEntry {
        verb: match requested.action {
            TaskAction::Suspend => LogAction::Suspend,
            TaskAction::Resume => LogAction::Resume,
            TaskAction::Complete | TaskAction::Fail | TaskAction::Expire | TaskAction::Revoke => LogAction::Revoke,
        },
        target: Target::Task(task.id),
        reason: requested
            .reason
            .as_ref()
            .map_or_else(|| requested.action.past_participle().to_owned(), ToString::to_string),
        by: by.to_string(),
        at: cx.now,
        forget_after: retain_task_until(task, cx.now),
    };
    (build_transition(state, by, requested, cx), entry)
}

fn build_transition(
    state: TaskState,
    by: &Initiator,
    requested: &TransitionRequest,
    cx: &RequestContext,
) -> Transition {
    Transition {
        state,
        at: cx.now,
        by: by.to_string(),
        reason: requested.reason.clone(),
        outcome: requested.outcome.clone(),
    }
}

fn apply_transition(task: Task, transition: Transition) -> Task {
    Task { state: transition.state, version: task.version.saturating_add(1), last_transition: Some(transition), ..task }
}

/// The change, and what it builds on: that nobody changes the state in between.
fn transition_change(task: &Task, transition: Transition) -> (Precondition, StateChange) {
    (Precondition::TaskVersion(task.id, task.version), StateChange::TransitionTask(task.id, transition))
}

pub(in crate::app) fn transition_record(
    by: &Initiator,
    task: &Task,
    transition: &Transition,
    cx: &RequestContext,
) -> Record {
    let (client, admin, by) = match by {
        Initiator::Agent(id) => (Some(id.clone()), None, None),
        Initiator::Admin(name) => (None, Some(name.clone()), None),
        Initiator::Requester(_) | Initiator::Grant(_) | Initiator::Removal => (None, None, Some(by.to_string())),
        Initiator::Deadline => (None, None, None),
    };
    Record {
        client,
        admin,
        by,
        granted: Some(match &transition.outcome {
            Some(outcome) => json!({"state": transition.state, "outcome": outcome}),
            None => json!({"state": transition.state}),
        }),
        reason: transition.reason.as_ref().map(ToString::to_string),
        request_id: Some(cx.request_id.clone()),
        ..with_task_fields(task, Record::new(cx.now, Event::TaskTransition, Outcome::Done))
    }
}

/// The record with what every record about a task has.
pub(in crate::app) fn with_task_fields(task: &Task, record: Record) -> Record {
    Record {
        task: Some(task.id),
        purpose: Some(task.purpose.to_string()),
        authority_hash: Some(task.authority.hash()),
        requester: Some(task.requester.clone()),
        agents: vec![task.root_agent.to_string()],
        ..record
    }
}

/// When an entry about a task may be forgotten: no token outlives it. All entries about one task are forgotten together.
pub(in crate::app) fn retain_task_until(task: &Task, now: Timestamp) -> Timestamp {
    task.deadline.max(now).saturating_add(MAX_CLOCK_SKEW)
}
