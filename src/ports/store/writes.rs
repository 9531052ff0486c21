//! Atomic writes: what a write consists of, what it depends on, and what became of it.

use async_trait::async_trait;
use thiserror::Error;

use super::{StoredKey, TokenRecord};
use crate::{
    domain::{
        audit::{Record, WriterId, checkpoint::SignedCheckpoint},
        configuration::AppliedFile,
        grants::{
            Grant,
            break_glass::{BreakGlassGrant, Review},
        },
        id::{ClientId, GrantId, KeyId, TaskId, ToolName},
        registry::{Block, BlockSubject, Entry, ObjectKind, StoredSecretTag, tool::ToolRecord},
        revocation::{LogPosition, NewEntry},
        sealed_key::StoredSealedKey,
        task::{Requester, Task, Transition},
        time::Timestamp,
        uri::IssuerUrl,
    },
    ports::Outage,
};

/// An identifier that may be used once, such as the `jti` of a client assertion. All replicas share
/// the record of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayGuard {
    /// The party that chose the identifier. Identifiers of different parties are independent.
    pub party: String,
    /// The identifier.
    pub id: String,
    /// The time from which on the record may be deleted.
    pub keep_until: Timestamp,
}

/// A limit on the number of live grants, checked at one version of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantCapacity {
    /// The version of the registry.
    pub registry_version: u64,
    /// The grants that are counted.
    pub key: GrantKey,
    /// The time of the new grant. Grants that have ended by then are not counted.
    pub now: Timestamp,
    /// The maximum, the new grant included.
    pub limit: u32,
}

/// The properties by which grants are counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrantKey {
    /// The requester.
    pub requester: Requester,
    /// The agent.
    pub agent: ClientId,
    /// Whether break-glass grants are counted, or the others.
    pub break_glass: bool,
}

/// A version of state that a write depends on (optimistic concurrency). The write has no effect if
/// the state has changed since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The registry is at this version.
    RegistryVersion(u64),
    /// Another grant fits under the limit.
    GrantCapacity(Box<GrantCapacity>),
    /// The keys are at this version.
    KeysVersion(u64),
    /// The task exists and is at this version.
    TaskVersion(TaskId, u64),
    /// All these tasks exist, each at its version.
    TaskVersions(Vec<(TaskId, u64)>),
}

/// A change other than the issue of a token. Such changes are rare, so they are applied one by one.
#[derive(Clone, Debug)]
pub enum StateChange {
    /// Inserts or replaces an object.
    PutObject(Box<Entry>),
    /// Removes an object, its secret and the records of its tools. Removes the grants to an agent,
    /// and the grants of an issuer's requesters.
    RemoveObject(ObjectKind, String),
    /// Inserts or replaces the tag of a client's secret.
    PutSecret(ClientId, StoredSecretTag),
    /// Removes the tag of a client's secret.
    RemoveSecret(ClientId),
    /// Inserts a key, or changes its schedule.
    PutKey(StoredKey),
    /// Removes a key, regardless of what it signed.
    RemoveKey(KeyId),
    /// Inserts a key for another purpose, or replaces its sealed form.
    PutSealedKey(StoredSealedKey),
    /// Seals a new store: its registry and its log, which are empty, and its first keys.
    SealNewStore,
    /// Inserts a checkpoint of the audit trail.
    PutCheckpoint(SignedCheckpoint),
    /// Inserts a grant.
    PutGrant(Box<Grant>),
    /// Removes a grant.
    RemoveGrant(GrantId),
    /// Inserts a break-glass grant. It is a grant, with a record of its own that is kept for
    /// review.
    PutBreakGlass(Box<BreakGlassGrant>),
    /// Records the review of a break-glass grant. An existing review stays.
    ReviewBreakGlass(GrantId, Review),
    /// Blocks a party, or changes its kind of block.
    Block(Block),
    /// Unblocks a party.
    Unblock(BlockSubject),
    /// Moves a task to another state and increments its version.
    TransitionTask(TaskId, Transition),
    /// Inserts or replaces the record of a tool.
    PutTool(Box<ToolRecord>),
    /// Removes the record of one tool of a resource.
    RemoveTool(ClientId, ToolName),
    /// Removes the records of all tools of a resource.
    ClearTools(ClientId),
    /// Records the issuer of the store.
    RecordIssuer(IssuerUrl),
    /// Records that a configuration file was applied.
    RecordFile(AppliedFile),
}

/// A request that may be retried, identified by its `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotentRequest {
    /// The caller. Keys of different callers are independent.
    pub caller: String,
    /// The key.
    pub key: String,
    /// A digest of the request, so that the key can't be reused for a different one.
    pub fingerprint: String,
    /// The response (JSON text), without the log position, which only the commit determines.
    pub response: String,
    /// The time from which on the record may be deleted.
    pub keep_until: Timestamp,
}

/// A unit of work that happens wholly or not at all.
#[derive(Clone, Debug, Default)]
pub struct WriteSet {
    /// Identifiers that are used up. If one was used before, nothing happens.
    pub replay_guards: Vec<ReplayGuard>,
    /// The state that the write depends on. If the state has changed, nothing happens.
    pub precondition: Option<Precondition>,
    /// The idempotent request. If it was committed before, nothing happens.
    pub idempotency: Option<IdempotentRequest>,
    /// A task to open.
    pub task: Option<Task>,
    /// The record of a token to issue.
    pub token: Option<TokenRecord>,
    /// Further changes. A change of the registry or of the keys increments that version.
    pub state_changes: Vec<StateChange>,
    /// Entries to append to the revocation log, in this order.
    pub log_entries: Vec<NewEntry>,
    /// Audit records to append to the writer's chain, in this order.
    pub audit_records: Vec<Record>,
}

impl WriteSet {
    /// Returns whether the write may wait for locks that another transaction holds until its
    /// commit: a version, a task, the head of the log, an idempotency key. The issue of a token
    /// needs none of these.
    #[must_use]
    pub fn may_contend(&self) -> bool {
        self.precondition.is_some()
            || self.idempotency.is_some()
            || !self.state_changes.is_empty()
            || !self.log_entries.is_empty()
    }

    /// Returns whether the write has precedence over the writes of clients: an admin asked for it,
    /// or it takes something away and was not asked for by a client. A client that revokes its own
    /// tokens has no precedence, since it can do so at will.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        let takes_away = !self.log_entries.is_empty();
        let is_by_client = self.log_entries.iter().any(|entry| entry.by.starts_with("client:"));
        let is_by_admin = self.audit_records.iter().any(|record| record.admin.is_some());
        is_by_admin || (takes_away && !is_by_client)
    }
}

/// The outcome of a [`WriteSet`].
///
/// When several outcomes apply, `Replayed` takes precedence over `AlreadyApplied`, and that over
/// `Conflict`. The replay of a credential thus reveals nothing, and a retried request gets its
/// first response although its precondition has changed since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The write is durable.
    Committed {
        /// The position of the write's last log entry, if it had any.
        seq: Option<LogPosition>,
    },
    /// Nothing happened: a replay guard was used before.
    Replayed,
    /// Nothing happened: the precondition does not hold.
    Conflict,
    /// Nothing happened now: the idempotent request was committed before.
    AlreadyApplied {
        /// The digest of the first request.
        fingerprint: String,
        /// The response to the first request.
        response: String,
        /// The position of the first request's last log entry, if it had any.
        seq: Option<LogPosition>,
    },
}

/// A reason why a batch was not committed, with what is known about its effect.
#[derive(Debug, Error)]
pub enum CommitError {
    /// Nothing happened: a part of the batch was rejected and all of it was rolled back. The parts
    /// may be retried.
    #[error("nothing was committed: {0}")]
    RolledBack(Outage),
    /// The effect is unknown: the batch may have been committed.
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<CommitError> for Outage {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::RolledBack(outage) | CommitError::Outage(outage) => outage,
        }
    }
}

/// Commits writes.
#[async_trait]
pub trait WriteStore: Send + Sync {
    /// Applies a batch of writes in one transaction, each one wholly or not at all. The outcomes
    /// are in the order of the batch. A [`CommitError`] says whether the batch was rolled back or
    /// its effect is unknown.
    ///
    /// Of two writes with the same replay guard, on any replica, exactly one is applied. Log
    /// entries get consecutive positions in the order in which transactions commit. Audit records
    /// go to the end of `writer`'s chain.
    async fn commit(&self, writer: WriterId, batch: &[WriteSet]) -> Result<Vec<WriteOutcome>, CommitError>;

    /// Returns the outcome of the request with this idempotency key, if there was one. It is always
    /// [`WriteOutcome::AlreadyApplied`].
    async fn find_idempotent_response(&self, caller: &str, key: &str) -> Result<Option<WriteOutcome>, Outage>;

    /// Writes a few kilobytes that mean nothing, to find out whether writes succeed. `number`
    /// changes from probe to probe.
    async fn probe_write(&self, number: u64) -> Result<(), Outage>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::{Event, Outcome};

    #[test]
    fn only_clients_have_no_precedence() {
        let entry = |by: &str| NewEntry::registry_changed(by.into(), Timestamp::EPOCH);
        let record = |admin: Option<&str>| Record {
            admin: admin.map(str::to_owned),
            ..Record::new(Timestamp::EPOCH, Event::Revocation, Outcome::Done)
        };
        let write = |entries: &[&str], admin| WriteSet {
            log_entries: entries.iter().map(|by| entry(by)).collect(),
            audit_records: vec![record(admin)],
            ..WriteSet::default()
        };
        for (entries, admin, is_urgent) in [
            (&[][..], None, false),
            (&[], Some("admin:ops"), true),
            (&["admin:ops"], Some("admin:ops"), true),
            (&["requester:https://login.example.com alice"], None, true),
            (&["config"], None, true),
            (&["client:planner"], None, false),
            (&["admin:ops", "client:planner"], None, false),
            (&["client:planner"], Some("admin:ops"), true),
        ] {
            assert_eq!(write(entries, admin).is_urgent(), is_urgent, "{entries:?} {admin:?}");
        }
        assert!(!WriteSet::default().is_urgent());
    }
}
