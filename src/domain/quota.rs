//! Quotas: what they limit, and the error of an exchange that would exceed one.

use thiserror::Error;

use crate::domain::{
    id::{ClientId, TaskId},
    requester::Requester,
};

/// What a quota limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum QuotaKey {
    /// The open tasks that an agent opened.
    OpenTasksOfAgent(ClientId),
    /// The open tasks of a requester.
    OpenTasksOfRequester(Requester),
    /// The tokens of a task that have not expired.
    LiveTokensOfTask(TaskId),
}

/// A quota is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{owner} has {limit} {items}, which is the quota ([quotas] {name}); {remedy}")]
pub struct QuotaExceeded {
    /// The key of the quota in `[quotas]`.
    pub name: &'static str,
    /// The quota.
    pub limit: u32,
    owner: &'static str,
    items: &'static str,
    remedy: &'static str,
}

impl QuotaExceeded {
    /// Returns the error for a quota that is used up.
    #[must_use]
    pub fn new(key: &QuotaKey, limit: u32) -> Self {
        let (name, owner, items, remedy) = match key {
            QuotaKey::OpenTasksOfAgent(_) => {
                ("open_tasks_per_agent", "the agent", "open tasks", "complete tasks that are done, and retry")
            }
            QuotaKey::OpenTasksOfRequester(_) => {
                ("open_tasks_per_requester", "the requester", "open tasks", "complete tasks that are done, and retry")
            }
            QuotaKey::LiveTokensOfTask(_) => (
                "live_tokens_per_task",
                "the task",
                "tokens that have not expired",
                "use the tokens that the task has, and retry when some have expired",
            ),
        };
        Self { name, limit, owner, items, remedy }
    }
}
