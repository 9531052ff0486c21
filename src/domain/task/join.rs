//! Joining an existing task.

use thiserror::Error;

use super::{Task, TaskState};
use crate::domain::{id::ClientId, requester::Requester, time::Timestamp};

/// Why an exchange can't join a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum JoinError {
    /// There is none with this id, or it is somebody else's: the two can't be told apart from outside.
    #[error("there is no such task for this requester and agent")]
    UnknownTask,
    /// It is suspended.
    #[error("the task is suspended: it can be joined again when it is resumed")]
    Suspended,
    /// It was ended or its deadline has passed.
    #[error("the task has ended")]
    Ended,
}

impl Task {
    /// Whether it is this requester's, opened by this agent.
    #[must_use]
    pub fn belongs_to(&self, requester: &Requester, agent: &ClientId) -> bool {
        self.requester == *requester && self.root_agent == *agent
    }

    /// Whether an exchange may join: same requester, same root agent, active, before its deadline.
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
