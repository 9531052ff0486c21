//! Lists that a store gives: in pages, by filters.

use thiserror::Error;

use crate::domain::{
    audit::{Record, Writer},
    id::{ClientId, TaskId},
    task::TaskState,
    time::Timestamp,
    uri::{IssuerUrl, ResourceUri},
};

/// A page of a list: what comes after a place, at most so many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The `next` of the page before.
    pub after: Option<String>,
    /// 1 to 1000.
    pub limit: u32,
}

/// What was given as `after` is not the `next` of a page of this list: the `source` of an [`Outage`] that the caller
/// brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("`after` is not the `next` of a page of this list")]
pub struct InvalidCursor;

/// One page, and where the next one begins, if there may be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paged<T> {
    /// The items.
    pub items: Vec<T>,
    /// What to give as `after` for the next page.
    pub next: Option<String>,
}

/// Which tokens to list. All of what is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFilter {
    /// Of this task.
    pub task: Option<TaskId>,
    /// In this requester's name.
    pub requester: Option<(IssuerUrl, String)>,
    /// That this client got.
    pub client: Option<ClientId>,
    /// With this `aud`.
    pub audience: Option<String>,
    /// Not expired then.
    pub alive_at: Option<Timestamp>,
}

/// Which tasks to list. All of what is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// In this requester's name.
    pub requester: Option<(IssuerUrl, String)>,
    /// That this agent opened.
    pub agent: Option<ClientId>,
    /// In this state.
    pub state: Option<TaskState>,
    /// Approved for something at this resource.
    pub resource: Option<ResourceUri>,
    /// Opened at this time or later.
    pub from: Option<Timestamp>,
    /// Opened before this time.
    pub until: Option<Timestamp>,
}

/// Which audit records to list. All of what is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// About this task.
    pub task: Option<TaskId>,
    /// In this requester's name.
    pub requester: Option<(IssuerUrl, String)>,
    /// Whose client or current agent is this.
    pub agent: Option<String>,
    /// At this time or later.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub until: Option<Timestamp>,
}

/// An audit row as it lies in the store, read for verification: nothing in it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Whose chain.
    pub writer: Writer,
    /// Its number there.
    pub n: u64,
    /// The text.
    pub body: String,
    /// The hash that was stored with it.
    pub hash: String,
    /// The search columns, as a record that has only these would fill them.
    pub columns: AuditColumns,
}

/// What searches in the audit trail look at: copies of parts of the record's text, made fit for an index where strangers
/// wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditColumns {
    /// When.
    pub at: Timestamp,
    /// The requester's issuer.
    pub requester_issuer: Option<String>,
    /// The requester's subject.
    pub requester_subject: Option<String>,
    /// The current agent.
    pub agent: Option<String>,
    /// The client that called.
    pub client: Option<String>,
    /// The task.
    pub task: Option<String>,
}

impl AuditColumns {
    /// The columns of a record.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        Self {
            at: record.at,
            requester_issuer: record.requester.as_ref().map(|r| r.issuer.to_string()),
            requester_subject: record.requester.as_ref().map(|r| r.subject.to_string()),
            // Who acts may be named by another issuer, as it likes.
            agent: record.agents.first().map(|agent| agent.replace('\0', "\u{fffd}").chars().take(255).collect()),
            client: record.client.as_ref().map(ToString::to_string),
            task: record.task.map(|id| id.to_string()),
        }
    }
}
