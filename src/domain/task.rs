//! A task: one delegated piece of work. Its id is the `txn` claim of every token that was issued for it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::{
    authority::Authority,
    id::{ClientId, Purpose, Subject, TaskId},
    time::Timestamp,
    uri::IssuerUrl,
};

/// The human on whose behalf: an issuer and its subject, prefix included.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Requester {
    /// The identity provider that vouches for them.
    pub issuer: IssuerUrl,
    /// Who they are, unique among all issuers.
    pub subject: Subject,
}

/// Where a task is in its life. All but the first are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Its tokens work.
    Active,
    /// Taken back.
    Revoked,
}

impl TaskState {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Revoked => "revoked",
        }
    }
}

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
    pub created: Timestamp,
    /// When it ends by itself; no token of it lives longer.
    pub deadline: Timestamp,
}

/// Why an exchange can't join a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CannotJoin {
    /// There is none with this id, or it is somebody else's: the two can't be told apart from outside.
    #[error("there is no such task for this requester and agent")]
    NotYours,
    /// It was ended or its deadline has passed.
    #[error("the task has ended")]
    Ended,
}

impl Task {
    /// Whether an exchange may join: same requester, same root agent, active, before its deadline.
    pub fn admits(&self, requester: &Requester, agent: &ClientId, now: Timestamp) -> Result<(), CannotJoin> {
        if self.requester != *requester || self.root_agent != *agent {
            return Err(CannotJoin::NotYours);
        }
        if self.state != TaskState::Active || self.deadline.is_past(now) {
            return Err(CannotJoin::Ended);
        }
        Ok(())
    }
}
