//! The end of tasks whose tokens are already dead: at the deadline, after a removal, after the
//! revocation of a party, after a withdrawn grant.
//!
//! No token outlives its task, its agent's registration, the revocation of a party or its grant.
//! The final state therefore needs no log entry, and any number of replicas can run this at once:
//! each task is ended, and recorded, by one of them.

use futures_util::future::try_join_all;

use crate::{
    app::{
        Error, RequestContext, Service, TransitionRequest,
        replication::propagation::UnloggedWrite,
        tasks::transition::{build_transition, transition_change, transition_record},
    },
    domain::{
        settings::{MAX_CLOCK_SKEW, TASK_LIFETIME_CAP},
        task::{Initiator, Task, TaskAction},
    },
    ports::Outage,
};

/// How many tasks are read at a time. If the write queue has room for them, they share a commit.
const EXPIRY_PAGE_SIZE: u32 = 64;
/// How many pages one run ends before it leaves the rest to the next run.
pub(in crate::app) const MAX_EXPIRY_ROUNDS: usize = 1000;

impl Service {
    /// Ends tasks whose deadline has passed.
    pub(in crate::app) async fn expire_tasks(&self, cx: &RequestContext) -> Result<(), Error> {
        self.end_tasks(
            |limit| self.store().list_overdue_tasks(cx.now, limit),
            |_| (TaskAction::Expire, Initiator::Deadline),
            MAX_EXPIRY_ROUNDS,
            cx,
        )
        .await
    }

    /// Ends tasks whose agent, or whose requester's issuer, was removed: no exchange can join them.
    pub(in crate::app) async fn end_orphaned_tasks(&self, cx: &RequestContext) -> Result<(), Error> {
        let end = |task: &Task| {
            let is_overdue = task.deadline.has_passed(cx.now);
            if is_overdue {
                (TaskAction::Expire, Initiator::Deadline)
            } else {
                (TaskAction::Revoke, Initiator::Removal)
            }
        };
        self.end_tasks(|limit| self.store().list_orphaned_tasks(limit), end, MAX_EXPIRY_ROUNDS, cx).await
    }

    /// Ends tasks of revoked parties, at most `max_pages` of them. No exchange can join them, and
    /// the maintenance job ends the rest.
    pub(in crate::app) async fn end_tasks_of_revoked_parties(
        &self,
        max_pages: usize,
        cx: &RequestContext,
    ) -> Result<(), Error> {
        let since = cx.now.saturating_sub(TASK_LIFETIME_CAP).saturating_sub(MAX_CLOCK_SKEW);
        let end = |task: &Task| {
            let is_overdue = task.deadline.has_passed(cx.now);
            if is_overdue {
                (TaskAction::Expire, Initiator::Deadline)
            } else {
                (TaskAction::Revoke, Initiator::Revocation)
            }
        };
        self.end_tasks(|limit| self.store().list_tasks_of_revoked_parties(since, limit), end, max_pages, cx).await
    }

    /// Ends tasks whose grant was withdrawn.
    pub(in crate::app) async fn end_tasks_without_grant(&self, cx: &RequestContext) -> Result<(), Error> {
        let end = |task: &Task| match task.grant {
            Some(grant) if !task.deadline.has_passed(cx.now) => (TaskAction::Revoke, Initiator::Grant(grant)),
            Some(_) | None => (TaskAction::Expire, Initiator::Deadline),
        };
        self.end_tasks(|limit| self.store().list_tasks_without_grant(limit), end, MAX_EXPIRY_ROUNDS, cx).await
    }

    /// Ends the tasks that `list` returns, page by page, each by the action and the initiator that
    /// `end` returns.
    async fn end_tasks<F>(
        &self,
        list: impl Fn(u32) -> F,
        end: impl Fn(&Task) -> (TaskAction, Initiator),
        max_pages: usize,
        cx: &RequestContext,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<Vec<Task>, Outage>>,
    {
        // Leaves most of the write queue to requests.
        let max_concurrent = (self.settings().commit_queue.standard / 8).max(1);
        for _ in 0..max_pages {
            let tasks = list(EXPIRY_PAGE_SIZE).await?;
            let is_last = tasks.len() < usize::try_from(EXPIRY_PAGE_SIZE).unwrap_or(usize::MAX);
            let writes = tasks.iter().filter_map(|task| {
                let (action, by) = end(task);
                let state = task.next_state(action, &by, cx.now).ok()?;
                let request = TransitionRequest { action, reason: None, outcome: None };
                let transition = build_transition(state, &by, &request, cx);
                let record = transition_record(&by, task, &transition, cx);
                let (precondition, change) = transition_change(task, transition);
                Some(UnloggedWrite::new(precondition, None, change, record))
            });
            let mut writes = writes.collect::<Vec<_>>();
            while !writes.is_empty() {
                let chunk = writes.drain(..max_concurrent.min(writes.len()));
                // A conflict means that another writer changed the task. The next run looks at it
                // again.
                try_join_all(chunk.map(|write| self.inner.writer.commit_unlogged(write))).await?;
            }
            if is_last {
                break;
            }
        }
        Ok(())
    }
}
