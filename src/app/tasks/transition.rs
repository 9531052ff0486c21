//! State transitions of tasks: the write, the log entry and the audit record of one transition.

use serde_json::json;

use crate::{
    app::RequestContext,
    domain::{
        audit::{Event, Outcome, Record},
        id::{OutcomeText, Reason},
        replication::Propagation,
        revocation::{LogAction, NewEntry, Target, retain_until},
        task::{Initiator, Task, TaskAction, TaskState, Transition},
    },
    ports::{Precondition, StateChange},
};

/// A requested transition.
#[derive(Clone, Debug)]
pub struct TransitionRequest {
    /// The action on the task.
    pub action: TaskAction,
    /// Why the action is taken.
    pub reason: Option<Reason>,
    /// The result of the work.
    pub outcome: Option<OutcomeText>,
}

/// A durable transition.
#[derive(Debug)]
pub struct TransitionOutcome {
    /// The task after the transition.
    pub task: Task,
    /// The position of the log entry, and how far it is propagated.
    pub propagation: Propagation,
}

/// Plans a transition to `state`: the transition that the task stores, and the entry of the
/// revocation log.
pub(in crate::app) fn plan_transition(
    task: &Task,
    state: TaskState,
    by: &Initiator,
    request: &TransitionRequest,
    cx: &RequestContext,
) -> (Transition, NewEntry) {
    let reason = request.reason.as_ref();
    let entry = NewEntry {
        verb: LogAction::from(request.action),
        target: Target::Task(task.id),
        reason: reason.map_or_else(|| request.action.past_participle().to_owned(), ToString::to_string),
        by: by.to_string(),
        at: cx.now,
        // No token outlives its task, so all entries about a task are forgotten together.
        forget_after: retain_until(task.deadline, cx.now),
    };
    (build_transition(state, by, request, cx), entry)
}

pub(super) fn build_transition(
    state: TaskState,
    by: &Initiator,
    request: &TransitionRequest,
    cx: &RequestContext,
) -> Transition {
    let TransitionRequest { reason, outcome, .. } = request.clone();
    Transition { state, at: cx.now, by: by.to_string(), reason, outcome }
}

/// Returns the task after the transition.
pub(super) fn apply_transition(task: Task, transition: Transition) -> Task {
    Task { state: transition.state, version: task.version.saturating_add(1), last_transition: Some(transition), ..task }
}

/// Returns the state change, and the task version that it builds on.
pub(super) fn transition_change(task: &Task, transition: Transition) -> (Precondition, StateChange) {
    (Precondition::TaskVersion(task.id, task.version), StateChange::TransitionTask(task.id, transition))
}

/// Returns the audit record of a transition.
pub(in crate::app) fn transition_record(
    by: &Initiator,
    task: &Task,
    transition: &Transition,
    cx: &RequestContext,
) -> Record {
    let (client, admin, by) = match by {
        Initiator::Agent(id) => (Some(id.clone()), None, None),
        Initiator::Admin(name) => (None, Some(name.clone()), None),
        Initiator::Requester(_) | Initiator::Grant(_) | Initiator::Removal | Initiator::Revocation => {
            (None, None, Some(by.to_string()))
        }
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
        source: cx.source_text(),
        ..with_task_fields(task, Record::new(cx.now, Event::TaskTransition, Outcome::Done))
    }
}

/// Returns the audit record of a transition that was not made.
pub(super) fn refused_transition_record(
    by: &Initiator,
    task: &Task,
    request: &TransitionRequest,
    cx: &RequestContext,
) -> Record {
    Record {
        requested: Some(json!({"verb": request.action})),
        granted: None,
        ..transition_record(by, task, &build_transition(task.state, by, request, cx), cx)
    }
}

/// Adds the fields that every record about a task has.
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
