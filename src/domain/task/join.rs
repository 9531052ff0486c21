//! Joining an existing task.

use thiserror::Error;

use super::{Task, TaskState};
use crate::domain::{id::ClientId, requester::Requester, time::Timestamp};

/// Why an exchange can't join a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JoinError {
    /// The task does not exist or belongs to another requester or agent. A client can't distinguish
    /// the two.
    #[error("no such task of this requester and agent")]
    UnknownTask,
    /// The task is suspended.
    #[error("the task is suspended; resume it before joining")]
    Suspended,
    /// The task was ended, or its deadline has passed.
    #[error("the task has ended; open a new one without `task_id`")]
    Ended,
}

impl Task {
    /// Returns whether the task belongs to this requester and was opened by this agent.
    #[must_use]
    pub fn belongs_to(&self, requester: &Requester, agent: &ClientId) -> bool {
        self.requester == *requester && self.root_agent == *agent
    }

    /// Checks whether an exchange may join: same requester, same root agent, active, and before its
    /// deadline.
    pub fn check_joinable(&self, requester: &Requester, agent: &ClientId, now: Timestamp) -> Result<(), JoinError> {
        if !self.belongs_to(requester, agent) {
            return Err(JoinError::UnknownTask);
        }
        match self.state_at(now) {
            TaskState::Active => Ok(()),
            TaskState::Suspended => Err(JoinError::Suspended),
            TaskState::Completed | TaskState::Failed | TaskState::Expired | TaskState::Revoked => Err(JoinError::Ended),
        }
    }
}
