//! A task: one delegated piece of work. Its id is the `txn` claim of every token that was issued for it.

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
    revocation::LogPosition,
    time::Timestamp,
};

/// One delegated piece of work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The `txn` claim.
    pub id: TaskId,
    /// On whose behalf.
    pub requester: Requester,
    /// The agent that opened it.
    pub root_agent: ClientId,
    /// What it is for.
    pub purpose: Purpose,
    /// What was approved for it, at every resource that it is about.
    pub authority: Authority,
    /// Where it is in its life.
    pub state: TaskState,
    /// When it was opened.
    pub created_at: Timestamp,
    /// When it ends by itself; no token of it lives longer.
    pub deadline: Timestamp,
    /// The grant that it rests on: when that is withdrawn, the task is over.
    pub grant: Option<GrantId>,
    /// How often its state has changed: what a change builds on.
    pub version: u64,
    /// The last change; none since it was opened.
    pub last_transition: Option<Transition>,
    /// Where the log stood when it was opened. It is no task of an agent, or an issuer, that was registered after that.
    pub rev: LogPosition,
}
