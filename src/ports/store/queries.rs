//! Lists that a store gives: in pages, by filters.

use thiserror::Error;

use crate::domain::{
    audit::{Event, Outcome, SearchColumns, WriterId},
    id::{ClientId, GrantId, RequestId, TaskId, TokenId},
    task::TaskState,
    time::Timestamp,
    uri::{IssuerUrl, ResourceUri},
};
use crate::ports::Outage;

/// A page of a list: what comes after a place, at most so many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// The `next` of the page before.
    pub cursor: Option<String>,
    /// 1 to 1000.
    pub limit: u32,
}

/// Why a page of a list can't be had.
#[derive(Debug, Error)]
pub enum ListError {
    /// What was given as `after` is not the `next` of a page of this list: the caller's mistake.
    #[error("`after` is not the `next` of a page of this list")]
    InvalidCursor,
    /// The list could not be read.
    #[error(transparent)]
    Outage(#[from] Outage),
}

/// One page, and where the next one begins, if there may be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
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
    pub unexpired_at: Option<Timestamp>,
    /// Issued at this time or later.
    pub issued_from: Option<Timestamp>,
}

/// What tokens have in common that are looked for, to see what has become of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSelector {
    /// They are these, or of a task of one of them.
    Tokens(Vec<TokenId>),
    /// They are of these tasks.
    Tasks(Vec<TaskId>),
    /// They rest on these grants.
    Grants(Vec<GrantId>),
    /// They are in the name of these: issuer and subject.
    Requesters(Vec<(String, String)>),
    /// They are of a task in which one of these got a token that had not ended.
    Agents(Vec<ClientId>),
    /// Their `aud` is one of these.
    Audiences(Vec<String>),
    /// They are in the name of somebody whom one of these vouches for.
    Issuers(Vec<IssuerUrl>),
}

/// Where to go on among tokens in the order of their issue; from the first, by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenCursor {
    /// When the last one was issued.
    pub issued: Timestamp,
    /// Which it was.
    pub id: TokenId,
}

impl Default for TokenCursor {
    fn default() -> Self {
        Self { issued: Timestamp::EPOCH, id: TokenId::new(uuid::Uuid::nil()) }
    }
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
    /// In no final state. Both that are not are looked for at once: a task that goes from one to the other is found.
    pub only_open: bool,
    /// Approved for something at this resource.
    pub resource: Option<ResourceUri>,
    /// Opened at this time or later.
    pub created_from: Option<Timestamp>,
    /// Opened before this time.
    pub created_before: Option<Timestamp>,
}

/// Which grants to list. All of what is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantFilter {
    /// Of this requester.
    pub requester: Option<(IssuerUrl, String)>,
    /// To this agent.
    pub agent: Option<ClientId>,
}

/// Which audit records to list. All of what is given must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// About this task.
    pub task: Option<TaskId>,
    /// In this requester's name.
    pub requester: Option<(IssuerUrl, String)>,
    /// In whose chain of agents this one acts, wherever, or whose client it is; as [`searchable`] has it.
    ///
    /// [`searchable`]: crate::domain::audit::searchable
    pub agent: Option<String>,
    /// About this token.
    pub token: Option<TokenId>,
    /// About this resource, or whatever else; as [`searchable`](crate::domain::audit::searchable) has it.
    pub resource: Option<String>,
    /// Of this request.
    pub request_id: Option<RequestId>,
    /// Of what happened.
    pub event: Option<Event>,
    /// Of how it ended.
    pub outcome: Option<Outcome>,
    /// At this time or later.
    pub occurred_from: Option<Timestamp>,
    /// Before this time.
    pub occurred_before: Option<Timestamp>,
}

/// An audit row as it lies in the store, read for verification: nothing in it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Whose chain.
    pub writer: WriterId,
    /// Its number there.
    pub n: u64,
    /// The text.
    pub body: String,
    /// The hash that was stored with it.
    pub hash: String,
    /// The search columns, as a record that has only these would fill them.
    pub columns: SearchColumns,
}
