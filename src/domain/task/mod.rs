//! Tasks: delegated pieces of work. The id of a task is the `txn` claim of every token issued for
//! it.

pub mod call_report;
mod join;
pub mod selection_digest;
mod transition;

pub use join::JoinError;
pub use transition::{Initiator, TaskAction, TaskState, Transition, TransitionError};

pub use crate::domain::requester::Requester;
use crate::domain::{
    authority::Authority,
    id::{ClientId, GrantId, Purpose, TaskId},
    revocation::{LogPosition, Target},
    time::Timestamp,
};

/// A delegated piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The id: the `txn` claim.
    pub id: TaskId,
    /// The requester.
    pub requester: Requester,
    /// The agent that opened the task.
    pub root_agent: ClientId,
    /// The purpose.
    pub purpose: Purpose,
    /// The approved authority, at every resource that the task involves.
    pub authority: Authority,
    /// The stored state; see [`state_at`](Self::state_at).
    pub state: TaskState,
    /// The time at which it was opened.
    pub created_at: Timestamp,
    /// The deadline, at which it expires. No token of the task outlives it.
    pub deadline: Timestamp,
    /// The grant on which it is based. Withdrawing the grant ends the task.
    pub grant: Option<GrantId>,
    /// The number of state changes, for optimistic concurrency.
    pub version: u64,
    /// The last state change; `None` if it never changed.
    pub last_transition: Option<Transition>,
    /// The log position at which it was opened. The task does not belong to an agent or issuer that
    /// was registered later.
    pub rev: LogPosition,
}

impl Task {
    /// Returns whether revoking the target ends the task, or the tokens of the task for a resource.
    #[must_use]
    pub fn is_ended_by(&self, target: &Target) -> bool {
        match target {
            Target::Task(id) => self.id == *id,
            Target::Grant(id) => self.grant == Some(*id),
            Target::Requester(_) => Target::for_requester(&self.requester) == *target,
            Target::Agent(id) => self.root_agent == *id,
            Target::Resource(uri) => self.authority.iter().any(|permission| permission.resource == *uri),
            Target::Issuer(url) => self.requester.issuer == *url,
            Target::Delegation(agent, requester) => self.root_agent == *agent && self.requester == **requester,
            Target::Tool(..)
            | Target::BreakGlass(_)
            | Target::Token(_)
            | Target::AllAgents
            | Target::Evidence(_)
            | Target::Credentials(_)
            | Target::Registry
            | Target::Keys
            | Target::IssuerKeySet(_)
            | Target::IssuerKey(_)
            | Target::Configuration => false,
        }
    }
}
