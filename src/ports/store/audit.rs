//! The audit trail.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{ListError, Page, PageRequest};
use crate::{
    domain::{
        audit::{
            ChainedText, Event, Head, Outcome, Seal, SearchColumns, WriterId,
            checkpoint::{RegistryState, SignedCheckpoint},
        },
        id::{RequestId, TaskId, TokenId},
        revocation::LogPosition,
        time::Timestamp,
        uri::IssuerUrl,
    },
    ports::Outage,
};

/// A selection of audit records. All given conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// The task.
    pub task: Option<TaskId>,
    /// The requester: issuer and subject.
    pub requester: Option<(IssuerUrl, String)>,
    /// An agent anywhere in the actor chain, or the client, in the form of [`SearchColumns`].
    ///
    /// [`SearchColumns`]: crate::domain::audit::SearchColumns
    pub agent: Option<String>,
    /// The token.
    pub token: Option<TokenId>,
    /// The resource, or another object, in the form of
    /// [`SearchColumns`](crate::domain::audit::SearchColumns).
    pub resource: Option<String>,
    /// The request.
    pub request_id: Option<RequestId>,
    /// The event.
    pub event: Option<Event>,
    /// The outcome.
    pub outcome: Option<Outcome>,
    /// The event occurred at this time or later.
    pub occurred_from: Option<Timestamp>,
    /// The event occurred before this time.
    pub occurred_before: Option<Timestamp>,
}

/// An audit row as it is stored, before verification. Its content is untrusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// The writer of the chain.
    pub writer: WriterId,
    /// The number of the record in the chain.
    pub n: u64,
    /// The hashed text of the record.
    pub body: String,
    /// The personal values, as JSON.
    pub personal: String,
    /// The stored hash.
    pub hash: String,
    /// The stored message authentication code.
    pub seal: Seal,
    /// The stored search columns. Verification compares them with those of the record.
    pub columns: SearchColumns,
}

impl AuditRow {
    /// Returns the parts that a verification reads.
    #[must_use]
    pub fn text(&self) -> ChainedText<'_> {
        ChainedText { n: self.n, body: &self.body, personal: &self.personal, hash: &self.hash }
    }
}

/// What a checkpoint states, read in one snapshot.
#[derive(Clone, Debug)]
pub struct AuditState {
    /// The head of every chain.
    pub writers: BTreeMap<WriterId, Head>,
    /// The position of the last log entry.
    pub log: LogPosition,
    /// The registry.
    pub registry: RegistryState,
    /// The last checkpoint.
    pub last_checkpoint: Option<SignedCheckpoint>,
}

/// Reads the audit trail.
#[async_trait]
pub trait AuditStore: Send + Sync {
    /// Lists audit records, newest first.
    async fn list_audit_records(&self, filter: &AuditFilter, page: &PageRequest) -> Result<Page<AuditRow>, ListError>;

    /// Returns the heads of all writers' chains.
    async fn list_audit_heads(&self) -> Result<Vec<(WriterId, Head)>, Outage>;

    /// Returns the records of a writer's chain after number `n`, in order, at most `limit`.
    async fn read_audit_chain(&self, writer: WriterId, n: u64, limit: u32) -> Result<Vec<AuditRow>, Outage>;

    /// Returns what a checkpoint states.
    async fn read_audit_state(&self) -> Result<AuditState, Outage>;

    /// Returns the checkpoints after a number, in order, at most `limit`.
    async fn read_checkpoints(&self, after: u64, limit: u32) -> Result<Vec<SignedCheckpoint>, Outage>;

    /// Replaces the personal values of a record, and the search columns that are copies of them.
    /// Needs the rights of the role that migrates. A record that is not stored is left alone.
    async fn replace_personal_values(
        &self,
        writer: WriterId,
        n: u64,
        personal: &str,
        columns: &SearchColumns,
    ) -> Result<(), Outage>;

    /// Deletes records of a writer's chain up to number `through`, the first ones first and at most
    /// `limit`. Returns how many were deleted. Needs the rights of the role that migrates.
    async fn delete_audit_records(&self, writer: WriterId, through: u64, limit: u32) -> Result<u64, Outage>;

    /// Lists checkpoints, newest first.
    async fn list_checkpoints(&self, page: &PageRequest) -> Result<Page<SignedCheckpoint>, ListError>;
}
