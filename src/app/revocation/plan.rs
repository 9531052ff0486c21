//! Plans of revocations: the log entries, state changes and audit record of one action.

use crate::{
    app::{
        ApiCaller, ConflictError, Error, RequestContext, RequestError, Revocation, RevocationTarget, Service,
        TransitionRequest,
        tasks::transition::{plan_transition, transition_record, with_task_fields},
    },
    domain::{
        audit::{Event, Outcome, Record},
        id::TaskId,
        registry::Block,
        revocation::{LogAction, NewEntry, Target, latest_possible_expiry, retain_until},
        settings::TASK_LIFETIME_CAP,
        task::{Initiator, TaskAction, Transition},
        time::Timestamp,
        uri::ResourceUri,
    },
    ports::{ErrorChain, EvidenceSelector, Outage, Precondition, StateChange},
};

/// What a revocation writes, except for the admin and the reason in its audit record.
pub(super) struct RevocationPlan {
    /// The target that the response names.
    pub(super) target: Target,
    /// The entries of the revocation log.
    pub(super) log_entries: Vec<NewEntry>,
    /// The state that the plan builds on.
    pub(super) precondition: Option<Precondition>,
    /// The state changes that go with the entries.
    pub(super) state_changes: Vec<StateChange>,
    /// The block that the plan lifts.
    pub(super) lifted: Option<Box<Block>>,
    /// The audit record.
    pub(super) audit_record: Box<Record>,
}

impl RevocationPlan {
    /// Adds entries that follow from the plan. They come first, since the response names the
    /// position of the last entry.
    pub(super) fn prepend_entries(&mut self, entries: Vec<NewEntry>) {
        self.log_entries.splice(0..0, entries);
    }
}

impl Service {
    /// Plans the end of everything that the target covers. The target of a past registration can
    /// still be revoked.
    pub(super) async fn plan_revoke(
        &self,
        admin: &ApiCaller,
        revocation: &Revocation,
        cx: &RequestContext,
    ) -> Result<RevocationPlan, Error> {
        let record = Record::new(cx.now, Event::Revocation, Outcome::Done);
        let latest_expiry = latest_possible_expiry(cx.now);
        let plan = |target: Target, forget_after: Timestamp, audit_record: Record| RevocationPlan {
            log_entries: vec![NewEntry {
                verb: LogAction::Revoke,
                target: target.clone(),
                reason: revocation.reason.to_string(),
                by: admin.identity(),
                at: cx.now,
                forget_after,
            }],
            target,
            precondition: None,
            state_changes: Vec::new(),
            lifted: None,
            audit_record: Box::new(audit_record),
        };
        let at_resource = |uri: &ResourceUri| {
            let record = Record { resource: Some(uri.to_string()), ..record.clone() };
            plan(Target::Resource(uri.clone()), latest_expiry, record)
        };
        Ok(match &revocation.target {
            RevocationTarget::Token(id) => {
                let found = self.reserved_store().find_token(*id).await;
                let Some(token) = row_to_end(found, "token")? else {
                    let record = Record { token: Some(*id), ..record };
                    return Ok(plan(Target::Token(*id), latest_expiry, record));
                };
                // An API token has no agents: it belongs to its client.
                let agents = if token.agents.is_empty() { vec![token.client] } else { token.agents };
                let record = Record {
                    token: Some(*id),
                    task: token.task,
                    requester: token.requester,
                    agents: agents.iter().map(ToString::to_string).collect(),
                    resource: Some(token.audience),
                    ..record
                };
                plan(Target::Token(*id), retain_until(token.expires, cx.now), record)
            }
            RevocationTarget::Task(id) => {
                let by = Initiator::Admin(admin.identity());
                let (name, selector) = (by.to_string(), EvidenceSelector::Tasks(vec![*id]));
                let evidence = self.end_evidence_for_agents(&selector, &name, revocation.reason.as_str(), cx).await?;
                let found = self.reserved_store().find_task(*id).await;
                let Some(task) = row_to_end(found, "task")? else {
                    let record = Record { task: Some(*id), ..record };
                    let deadline = cx.now.saturating_add(TASK_LIFETIME_CAP);
                    let mut plan = plan(Target::Task(*id), retain_until(deadline, cx.now), record);
                    plan.prepend_entries(evidence);
                    return Ok(plan);
                };
                let record = with_task_fields(&task, record.clone());
                let mut plan = plan(Target::Task(*id), retain_until(task.deadline, cx.now), record);
                plan.prepend_entries(evidence);
                match task.next_state(TaskAction::Revoke, &by, cx.now) {
                    Ok(state) => {
                        let reason = Some(revocation.reason.clone());
                        let transition = Transition { state, at: cx.now, by: by.to_string(), reason, outcome: None };
                        RevocationPlan {
                            precondition: Some(Precondition::TaskVersion(*id, task.version)),
                            state_changes: vec![StateChange::TransitionTask(*id, transition)],
                            ..plan
                        }
                    }
                    // The task has ended and keeps its state. Its revocation is not an error and
                    // never refused.
                    Err(_) => plan,
                }
            }
            RevocationTarget::Requester(requester) => {
                let record = Record { requester: Some(requester.clone()), ..record };
                let mut plan = plan(Target::for_requester(requester), latest_expiry, record);
                let (by, reason) = (admin.identity(), revocation.reason.as_str());
                plan.prepend_entries(self.end_evidence_of_requester(requester, &by, reason, cx).await?);
                plan
            }
            RevocationTarget::Agent(id) => {
                let record = Record { agents: vec![id.to_string()], ..record };
                plan(Target::Agent(id.clone()), latest_expiry, record)
            }
            RevocationTarget::AllAgents => {
                let text = "all agents can be suspended and resumed only; revoke or block them one by one";
                return Err(RequestError::InvalidParameter("verb", text).into());
            }
            RevocationTarget::Resource(id) => {
                let registry = &admin.client().snapshot().registry;
                at_resource(&registry.resource(id).ok_or(ConflictError::NotFound("resource"))?.uri)
            }
            // Tokens have the canonical URI of a resource, whatever alias named it.
            RevocationTarget::ResourceAt(uri) => at_resource(&admin.client().snapshot().registry.canonical_uri(uri)),
            RevocationTarget::Issuer(url) => plan(Target::Issuer(url.clone()), latest_expiry, record),
        })
    }

    /// Plans the suspension or resumption of a task. The state machine of tasks decides whether it
    /// is allowed.
    pub(super) async fn plan_task_transition(
        &self,
        admin: &ApiCaller,
        id: TaskId,
        action: TaskAction,
        revocation: &Revocation,
        cx: &RequestContext,
    ) -> Result<RevocationPlan, Error> {
        let task = self.reserved_store().find_task(id).await?.ok_or(ConflictError::NotFound("task"))?;
        let by = Initiator::Admin(admin.identity());
        let state = task.next_state(action, &by, cx.now).map_err(ConflictError::IllegalTransition)?;
        let request = TransitionRequest { action, reason: Some(revocation.reason.clone()), outcome: None };
        let (transition, entry) = plan_transition(&task, state, &by, &request, cx);
        Ok(RevocationPlan {
            target: Target::Task(id),
            log_entries: vec![entry],
            precondition: Some(Precondition::TaskVersion(id, task.version)),
            audit_record: Box::new(transition_record(&by, &task, &transition, cx)),
            state_changes: vec![StateChange::TransitionTask(id, transition)],
            lifted: None,
        })
    }
}

/// Returns the row of what is to be ended, or `None` if it was changed outside the program: to end
/// something, its row need not be trusted.
fn row_to_end<T>(found: Result<Option<T>, Outage>, what: &'static str) -> Result<Option<T>, Error> {
    match found {
        Ok(Some(row)) => Ok(Some(row)),
        Ok(None) => Err(ConflictError::NotFound(what).into()),
        Err(outage) if outage.tampering().is_some() => {
            tracing::error!(error = %ErrorChain(&outage), "a {what} is ended without its row");
            Ok(None)
        }
        Err(outage) => Err(outage.into()),
    }
}
