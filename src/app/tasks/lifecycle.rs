//! The lifecycle of tasks: read, list, suspend, resume, complete, fail.
//!
//! A transition is one write: the new state, on the condition that the old one is unchanged, the
//! entry of the revocation log, and the audit record.

use std::time::Duration;

use serde_json::json;

use crate::{
    app::{
        ApiCaller, AuthError, ConflictError, Error, LogicError, RequestContext, RequestError, RequesterCaller, Service,
        TransitionOutcome, TransitionRequest,
        commit::{
            idempotency::{Idempotent, Replay},
            retry::{Completion, Decision},
        },
        revocation::evidence::ends_evidence,
        tasks::transition::{
            apply_transition, plan_transition, refused_transition_record, transition_change, transition_record,
        },
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::TaskId,
        registry::{ObjectKind, Registry, client::Client},
        task::{Initiator, Requester, Task, TaskAction, Transition, TransitionError},
    },
    ports::{EvidenceSelector, Page, PageRequest, TaskFilter, TokenFilter, WriteSet},
};

impl Service {
    /// Returns one task, to an agent that takes part in it. Every other caller gets `NotFound`.
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
        let own_tokens = TokenFilter { task: Some(id), client: Some(agent.clone()), ..TokenFilter::default() };
        let newest = self.store().list_tokens(&own_tokens, &PageRequest { cursor: None, limit: 1 }).await?.items;
        let takes_part = newest.iter().any(|token| registry.existed_at(ObjectKind::Agent, agent.as_str(), token.rev));
        if takes_part { Ok(task) } else { Err(ConflictError::NotFound("task").into()) }
    }

    /// Makes a transition for the agent that opened the task. An agent that received a part of the
    /// task can only read it. Returns when no replica answers by the old state any more, or when
    /// `max_wait` is over.
    pub async fn transition_own_task(
        &self,
        caller: &ApiCaller,
        id: TaskId,
        request: &TransitionRequest,
        key: Option<String>,
        max_wait: Option<Duration>,
        cx: &RequestContext,
    ) -> Result<TransitionOutcome, Error> {
        let task = self.read_own_task(caller, id).await?;
        let agent = caller.client().id();
        if task.root_agent != *agent {
            return Err(AuthError::ClientNotAllowed.into());
        }
        self.transition_task(&Initiator::Agent(agent.clone()), task, request, key, max_wait, cx).await
    }

    /// Lists the tasks that an agent opened, newest first, so that an agent can continue after a
    /// restart.
    pub async fn list_opened_tasks(
        &self,
        caller: &ApiCaller,
        filter: TaskFilter,
        page: &PageRequest,
    ) -> Result<Page<Task>, Error> {
        let Client::Agent(agent) = caller.client().client()? else {
            return Err(AuthError::ClientNotAllowed.into());
        };
        if filter.agent.as_ref().is_some_and(|requested| *requested != agent.id) {
            return Err(RequestError::InvalidParameter("agent", "must be the id of the calling agent").into());
        }
        let filter = TaskFilter { agent: Some(agent.id.clone()), ..filter };
        Ok(exclude_orphans(self.store().list_tasks(&filter, page).await?, &caller.client().snapshot().registry))
    }

    /// Lists a requester's own tasks, newest first.
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

    /// Returns one of a requester's own tasks. The task of another requester gives the same answer
    /// as a missing one.
    pub async fn read_requested_task(&self, caller: &RequesterCaller, id: TaskId) -> Result<Task, Error> {
        let is_own =
            |task: &Task| task.requester == *caller.requester() && caller.snapshot().registry.is_current_task(task);
        let task = self.store().find_task(id).await?.filter(is_own);
        Ok(task.ok_or(ConflictError::NotFound("task"))?)
    }

    /// Makes a transition for the requester of the task. Returns when no replica answers by the old
    /// state any more, or when `max_wait` is over.
    pub async fn transition_requested_task(
        &self,
        caller: &RequesterCaller,
        id: TaskId,
        request: &TransitionRequest,
        key: Option<String>,
        max_wait: Option<Duration>,
        cx: &RequestContext,
    ) -> Result<TransitionOutcome, Error> {
        let task = self.read_requested_task(caller, id).await?;
        self.transition_task(&Initiator::Requester(caller.requester().clone()), task, request, key, max_wait, cx).await
    }

    /// Makes a transition for an admin. Returns when no replica answers by the old state any more,
    /// or when `max_wait` is over.
    pub async fn transition_any_task(
        &self,
        admin: &ApiCaller,
        id: TaskId,
        request: &TransitionRequest,
        key: Option<String>,
        max_wait: Option<Duration>,
        cx: &RequestContext,
    ) -> Result<TransitionOutcome, Error> {
        let Some(task) = self.reserved_store().find_task(id).await? else {
            let record = Record {
                admin: Some(admin.identity()),
                task: Some(id),
                requested: Some(json!({"verb": request.action})),
                request_id: Some(cx.request_id.clone()),
                source: cx.source_text(),
                ..Record::new(cx.now, Event::TaskTransition, Outcome::Done)
            };
            return Err(self.record_refusal_after_barrier(record, ConflictError::NotFound("task")).await);
        };
        self.transition_task(&Initiator::Admin(admin.identity()), task, request, key, max_wait, cx).await
    }

    async fn transition_task(
        &self,
        by: &Initiator,
        task: Task,
        request: &TransitionRequest,
        key: Option<String>,
        max_wait: Option<Duration>,
        cx: &RequestContext,
    ) -> Result<TransitionOutcome, Error> {
        validate_texts(request)?;
        let fingerprint = json!(["transition", task.id, request.action, request.reason, request.outcome]).to_string();
        let idempotent = Idempotent::<(u64, Transition)>::new(by.to_string(), key, fingerprint, cx);
        let (idempotent, known) = (&idempotent, &task);
        let completion = self.commit_with_retry(idempotent, max_wait, |attempt| async move {
            let task = if attempt == 0 { known.clone() } else { self.read_task(known.id).await? };
            let state = task.next_state(request.action, by, cx.now).map_err(ConflictError::IllegalTransition)?;
            let (transition, entry) = plan_transition(&task, state, by, request, cx);
            let mut log_entries = Vec::new();
            if ends_evidence(request.action, by) {
                let selector = EvidenceSelector::Tasks(vec![task.id]);
                let reason = request.reason.as_ref().map_or("the task was ended", |reason| reason.as_str());
                log_entries = self.end_evidence_for_agents(&selector, &by.to_string(), reason, cx).await?;
            }
            log_entries.push(entry);
            let record = transition_record(by, &task, &transition, cx);
            let (precondition, change) = transition_change(&task, transition.clone());
            let write = WriteSet {
                precondition: Some(precondition),
                idempotency: idempotent.storing(&(task.version.saturating_add(1), transition.clone()))?,
                state_changes: vec![change],
                log_entries,
                audit_records: vec![record],
                ..WriteSet::default()
            };
            Ok(Decision::Write(Box::new(write), apply_transition(task, transition)))
        });
        let (task, propagation) = match completion.await? {
            Completion::Done(task, propagation) => (task, propagation),
            Completion::Replayed(Replay { response: (version, transition), propagation }) => {
                (Task { version, ..apply_transition(task, transition) }, propagation)
            }
            Completion::Refused(ConflictError::IllegalTransition(refusal)) => {
                return Err(self.refuse_transition(by, &task, request, refusal, cx).await);
            }
            Completion::Refused(conflict) => {
                return Err(self.record_refusal(refused_transition_record(by, &task, request, cx), conflict).await);
            }
        };
        Ok(TransitionOutcome { task, propagation: propagation.ok_or(LogicError::MissingLogPosition)? })
    }

    /// Records a refused transition. The answer reports the state of the task, so every replica
    /// must have applied that state before the answer is sent.
    async fn refuse_transition(
        &self,
        by: &Initiator,
        task: &Task,
        request: &TransitionRequest,
        refusal: TransitionError,
        cx: &RequestContext,
    ) -> Error {
        let record = Record {
            outcome: Outcome::Refused,
            reason: Some(refusal.to_string()),
            ..refused_transition_record(by, task, request, cx)
        };
        // An agent or a requester can repeat the request at will.
        let records = if record.admin.is_some() { vec![record] } else { self.inner.refusals.sample(record) };
        let recorded = self.commit_records(records).await;
        match recorded.and(self.inner.writer.await_barrier().await) {
            Ok(()) => ConflictError::IllegalTransition(refusal).into(),
            Err(outage) => outage.into(),
        }
    }
}

/// Leaves out tasks of agents and issuers that were removed and whose names are registered again.
fn exclude_orphans(Page { items, next }: Page<Task>, registry: &Registry) -> Page<Task> {
    Page { items: items.into_iter().filter(|task| registry.is_current_task(task)).collect(), next }
}

fn validate_texts(request: &TransitionRequest) -> Result<(), RequestError> {
    let needs_reason = matches!(request.action, TaskAction::Suspend | TaskAction::Fail);
    if needs_reason && request.reason.is_none() {
        return Err(RequestError::MissingParameter("reason"));
    }
    if request.outcome.is_some() && !matches!(request.action, TaskAction::Complete | TaskAction::Fail) {
        return Err(RequestError::InvalidParameter("outcome", "allowed only for `complete` and `fail`"));
    }
    Ok(())
}
