//! Tasks.

use async_trait::async_trait;

use super::{ListError, Page, PageRequest};
use crate::{
    domain::{
        id::{ClientId, TaskId},
        task::{Task, TaskState},
        time::Timestamp,
        uri::{IssuerUrl, ResourceUri},
    },
    ports::Outage,
};

/// A selection of tasks. All given conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// The requester: issuer and subject.
    pub requester: Option<(IssuerUrl, String)>,
    /// The agent that opened the task.
    pub agent: Option<ClientId>,
    /// The state.
    pub state: Option<TaskState>,
    /// The task is not in a final state. Both such states are read at once, so a task that moves
    /// between them is found.
    pub only_open: bool,
    /// The task's authority includes this resource.
    pub resource: Option<ResourceUri>,
    /// The task was opened at this time or later.
    pub created_from: Option<Timestamp>,
    /// The task was opened before this time.
    pub created_before: Option<Timestamp>,
}

/// The number of live tasks and tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveCounts {
    /// Tasks that are not in a final state.
    pub tasks: u64,
    /// Tokens that are not expired. Some may be revoked.
    pub tokens: u64,
}

/// Reads tasks.
#[async_trait]
pub trait TaskStore: Send + Sync {
    /// Returns one task.
    async fn find_task(&self, id: TaskId) -> Result<Option<Task>, Outage>;

    /// Lists tasks, newest first.
    async fn list_tasks(&self, filter: &TaskFilter, page: &PageRequest) -> Result<Page<Task>, ListError>;

    /// Returns the tasks whose deadline has passed at `now` and which are not in a final state,
    /// longest overdue first, at most `limit`.
    async fn list_overdue_tasks(&self, now: Timestamp, limit: u32) -> Result<Vec<Task>, Outage>;

    /// Counts the tasks that are not in a final state, and the tokens that expire after `now`.
    /// Counts at most `limit` of each, among the tokens that were issued since `issued_since`.
    async fn count_live(&self, now: Timestamp, issued_since: Timestamp, limit: u32) -> Result<LiveCounts, Outage>;

    /// Returns the tasks that are not in a final state and whose grant was removed, at most
    /// `limit`.
    async fn list_tasks_without_grant(&self, limit: u32) -> Result<Vec<Task>, Outage>;

    /// Returns the tasks that are not in a final state and whose agent, or whose requester's
    /// issuer, is no longer registered or was registered anew under the same name; at most `limit`.
    async fn list_orphaned_tasks(&self, limit: u32) -> Result<Vec<Task>, Outage>;

    /// Returns whether the requester, their issuer or the root agent of a task was revoked since
    /// the task was opened: the log has such an entry after the task's `rev`.
    async fn is_party_revoked(&self, task: &Task) -> Result<bool, Outage>;

    /// Returns the tasks that are not in a final state and of which a party was revoked since they
    /// were opened; at most `limit`. Entries that are older than `since` are not considered.
    async fn list_tasks_of_revoked_parties(&self, since: Timestamp, limit: u32) -> Result<Vec<Task>, Outage>;
}
