//! Tasks, their transitions, their trail and call reports.

use serde::Serialize;

use crate::{
    app::{CallReceipt, TaskTrail, TrailEntry, TransitionOutcome},
    domain::{
        audit::Record,
        authority::Authority,
        id::{CallId, ClientId, GrantId, TaskId, TokenId},
        task::{Requester, Task, TaskState, Transition, call_report::CallReport},
        time::Timestamp,
    },
    http::views::PropagationView,
};

/// A requester.
#[derive(Serialize)]
pub(in crate::http) struct RequesterView {
    issuer: String,
    subject: String,
}

impl From<&Requester> for RequesterView {
    fn from(requester: &Requester) -> Self {
        Self { issuer: requester.issuer.to_string(), subject: requester.subject.to_string() }
    }
}

/// A task.
#[derive(Serialize)]
pub(in crate::http) struct TaskView {
    id: TaskId,
    requester: RequesterView,
    root_agent: ClientId,
    purpose: String,
    authorization_details: Authority,
    authority_hash: String,
    state: TaskState,
    created: String,
    deadline: String,
    /// The grant that the task depends on; null if it depends on none.
    grant: Option<GrantId>,
    /// The last change of the state; null if the state has not changed.
    last_transition: Option<TransitionView>,
}

impl TaskView {
    pub(in crate::http) fn new(task: Task, now: Timestamp) -> Self {
        Self {
            state: task.state_at(now),
            id: task.id,
            requester: (&task.requester).into(),
            root_agent: task.root_agent,
            purpose: task.purpose.into(),
            authority_hash: task.authority.hash(),
            authorization_details: task.authority,
            created: task.created_at.to_rfc3339(),
            deadline: task.deadline.to_rfc3339(),
            grant: task.grant,
            last_transition: task.last_transition.map(Into::into),
        }
    }
}

/// A task after a change of its state, and the propagation of that change.
#[derive(Serialize)]
pub(in crate::http) struct TransitionedTaskView {
    #[serde(flatten)]
    task: TaskView,
    #[serde(flatten)]
    propagation: PropagationView,
}

impl TransitionedTaskView {
    pub(in crate::http) fn new(TransitionOutcome { task, propagation }: TransitionOutcome, now: Timestamp) -> Self {
        Self { task: TaskView::new(task, now), propagation: (&propagation).into() }
    }
}

/// A change of the state of a task.
#[derive(Serialize)]
pub(in crate::http) struct TransitionView {
    state: TaskState,
    at: String,
    by: String,
    reason: Option<String>,
    outcome: Option<String>,
}

impl From<Transition> for TransitionView {
    fn from(transition: Transition) -> Self {
        Self {
            state: transition.state,
            at: transition.at.to_rfc3339(),
            by: transition.by,
            reason: transition.reason.map(Into::into),
            outcome: transition.outcome.map(Into::into),
        }
    }
}

/// A recorded call report.
#[derive(Serialize)]
pub(in crate::http) struct CallReceiptView {
    id: CallId,
    jti: TokenId,
    at: String,
    named_by_token: bool,
}

impl CallReceiptView {
    pub(in crate::http) fn new(report: &CallReport, receipt: &CallReceipt) -> Self {
        let (at, named_by_token) = (receipt.at.to_rfc3339(), receipt.named_by_token);
        Self { id: report.id.clone(), jti: report.jti, at, named_by_token }
    }
}

/// A task and its trail, oldest entry first.
#[derive(Serialize)]
pub(in crate::http) struct TrailView {
    task: TaskView,
    steps: Vec<TrailEntryView>,
    /// Whether older steps are omitted.
    more: bool,
    /// The value of `after` for the omitted steps.
    next: Option<String>,
}

impl TrailView {
    pub(in crate::http) fn new(trail: TaskTrail, now: Timestamp) -> Self {
        let steps = trail.entries.into_iter().map(Into::into).collect();
        Self { task: TaskView::new(trail.task, now), steps, more: trail.next.is_some(), next: trail.next }
    }
}

/// A step of the trail: its category, its description, and the record; null if the stored record
/// was edited.
#[derive(Serialize)]
pub(in crate::http) struct TrailEntryView {
    at: String,
    kind: &'static str,
    text: String,
    record: Option<Box<Record>>,
}

impl From<TrailEntry> for TrailEntryView {
    fn from(entry: TrailEntry) -> Self {
        let (at, kind, text) = (entry.at().to_rfc3339(), entry.category(), entry.describe());
        let record = match entry {
            TrailEntry::Record(record) => Some(record),
            TrailEntry::Edited(_) => None,
        };
        Self { at, kind, text, record }
    }
}
