//! The store: what survives. Everything that changes it goes through [`Store::commit`], in units that happen wholly or
//! not at all; no transaction handle leaves an adapter.

pub(super) mod change_listener;
pub(super) mod queries;

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use thiserror::Error;

use super::{
    AuditFilter, AuditRow, ChangeListener, GrantFilter, ListError, Outage, Page, PageRequest, TaskFilter, TokenCursor,
    TokenFilter, TokenSelector,
};
use crate::domain::{
    audit::{Head, Record, WriterId},
    authority::Authority,
    grants::{
        Grant,
        break_glass::{BreakGlassGrant, Review, ReviewState},
    },
    id::{ClientId, GrantId, KeyId, TaskId, TokenId, ToolName},
    keys::KeySchedule,
    registry::{
        Block, BlockSubject, Entry, KnownTools, ObjectKind, RegistrationPositions, StoredSecretTag, tool::ToolRecord,
    },
    replication::{Heartbeat, ReplicaId},
    revocation::{LogEntry, LogPosition, NewEntry, RevocationKeys},
    status_list::{Shard, StatusIndex},
    task::{Requester, Task, Transition},
    time::Timestamp,
    token::TokenKind,
};

/// A thing that may be used once, such as the `jti` of a client assertion. All replicas share the memory of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplayGuard {
    /// Whose: ids of different parties don't meet.
    pub party: String,
    /// The id.
    pub id: String,
    /// When it may be forgotten.
    pub keep_until: Timestamp,
}

/// The record of an issued token: everything but the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its `jti`.
    pub id: TokenId,
    /// Its kind.
    pub kind: TokenKind,
    /// Its task; an API token has none.
    pub task: Option<TaskId>,
    /// The recorded grant that it rests on.
    pub grant: Option<GrantId>,
    /// Whether that grant is for an emergency.
    pub break_glass: bool,
    /// In whose name; an API token is in nobody's.
    pub requester: Option<Requester>,
    /// The client that got it.
    pub client: ClientId,
    /// The agents of ours that act, the current one first.
    pub agents: Vec<ClientId>,
    /// Its `aud`.
    pub audience: String,
    /// The tokens it was derived from, oldest first.
    pub lineage: Vec<TokenId>,
    /// What may be done with it.
    pub authority: Authority,
    /// When it was issued.
    pub issued: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// The position of the log that its issuer had applied.
    pub rev: LogPosition,
    /// Its place in the status lists.
    pub status_index: Option<StatusIndex>,
}

impl TokenRecord {
    /// The names under which the token can be taken back, but for one: the record does not have the agent that a hand-over
    /// token is for, and such a token has no place in a status list. For showing what a token is worth, there too; what
    /// decides here is what the token itself says.
    #[must_use]
    pub fn revocation_keys(&self) -> RevocationKeys {
        RevocationKeys {
            token: self.id,
            lineage: self.lineage.clone(),
            task: self.task,
            grant: self.grant,
            requester: self.requester.clone(),
            agents: self.agents.iter().cloned().chain([self.client.clone()]).collect(),
            resources: self.authority.iter().map(|permission| permission.resource.clone()).collect(),
            rev: self.rev,
        }
    }
}

/// A signing key as it is stored: its dates, its public JWK, its private part encrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Name, algorithm and dates.
    pub schedule: KeySchedule,
    /// The public JWK, as JSON text.
    pub public_jwk: String,
    /// The private key (PKCS#8), AES-256-GCM under the key-encryption key, bound to its table, row and column.
    pub sealed_private_key: Vec<u8>,
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredKey").field("dates", &self.schedule).finish_non_exhaustive()
    }
}

/// Room for one more grant: the registry is still at this version, and of such grants fewer than so many are not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantCapacity {
    /// The version.
    pub registry_version: u64,
    /// Such grants: of whom, to whom, for an emergency or not.
    pub key: GrantKey,
    /// When it is to be made.
    pub now: Timestamp,
    /// How many there may be then.
    pub limit: u32,
}

/// What grants have in common that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GrantKey {
    /// For whom.
    pub requester: Requester,
    /// Who.
    pub agent: ClientId,
    /// Whether they are for an emergency.
    pub break_glass: bool,
}

/// A state of the store that a change builds on. If it moved on in between, the change does not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The registry is still at this version.
    RegistryVersion(u64),
    /// There is room for a grant.
    GrantCapacity(Box<GrantCapacity>),
    /// The keys are still at this version.
    KeysVersion(u64),
    /// The task is there, and its state has changed so many times.
    TaskVersion(TaskId, u64),
    /// All of these are there, and each one's state has changed so many times.
    TaskVersions(Vec<(TaskId, u64)>),
}

/// One change beside issuing: rare, so carried out one after the other.
#[derive(Clone, Debug)]
pub enum StateChange {
    /// Put an object, new or in place of the old one.
    PutObject(Box<Entry>),
    /// Remove an object, its secret, what is known of its tools, and the grants to it, or of those for whom it vouches.
    RemoveObject(ObjectKind, String),
    /// Put the tag of a client's secret.
    PutSecret(ClientId, StoredSecretTag),
    /// Remove the tag of a client's secret.
    RemoveSecret(ClientId),
    /// Put a key, new or with new dates.
    PutKey(StoredKey),
    /// Remove a key, whatever it signed.
    RemoveKey(KeyId),
    /// Record a grant.
    PutGrant(Box<Grant>),
    /// Withdraw a grant.
    RemoveGrant(GrantId),
    /// Record a grant for an emergency: it is a grant, and is kept to be reviewed.
    PutBreakGlass(Box<BreakGlassGrant>),
    /// Sign off what was done with a grant for an emergency. A review that is there stays.
    ReviewBreakGlass(GrantId, Review),
    /// Shut somebody out, or in another way than before.
    Block(Block),
    /// Let somebody in again.
    Unblock(BlockSubject),
    /// Bring a task to another state: [`Task::turns`] goes on by one.
    TransitionTask(TaskId, Transition),
    /// Put what is known of a tool, new or in place of the old.
    PutTool(Box<ToolRecord>),
    /// Forget a tool of a resource.
    RemoveTool(ClientId, ToolName),
    /// Forget all tools of a resource.
    ClearTools(ClientId),
}

/// A request that may come again, by its `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotentRequest {
    /// Who sent it: two callers' keys don't meet.
    pub caller: String,
    /// The key.
    pub key: String,
    /// A digest of the request, so that a key is not used for another one.
    pub fingerprint: String,
    /// What is answered (JSON text), but for the place in the log that only the commit knows.
    pub response: String,
    /// When it may be forgotten.
    pub keep_until: Timestamp,
}

/// What happens together or not at all.
#[derive(Clone, Debug, Default)]
pub struct WriteSet {
    /// A one-time id: if it was used before, nothing happens.
    pub replay_guards: Vec<ReplayGuard>,
    /// What the change builds on: if it moved on, nothing happens.
    pub precondition: Option<Precondition>,
    /// A request that may come again: if it came before, nothing happens.
    pub idempotency: Option<IdempotentRequest>,
    /// A task that is opened.
    pub task: Option<Task>,
    /// A token that is issued.
    pub token: Option<TokenRecord>,
    /// Rare changes. A change of the registry or the keys moves their version on.
    pub state_changes: Vec<StateChange>,
    /// Entries of the revocation log, in this order.
    pub log_entries: Vec<NewEntry>,
    /// Audit records, in this order, at the end of the writer's chain.
    pub audit_records: Vec<Record>,
}

impl WriteSet {
    /// Whether others may have to be waited for, who hold what it needs until they have committed: a version, a task, the
    /// head of the log, a request that came twice. To issue a token needs nothing that others hold.
    #[must_use]
    pub fn may_contend(&self) -> bool {
        self.precondition.is_some()
            || self.idempotency.is_some()
            || !self.state_changes.is_empty()
            || !self.log_entries.is_empty()
    }
}

/// What became of a [`Write`]. When several things speak against one, `Replayed` goes before `Before`, and that before
/// `Moved`: who replays a credential learns nothing, and a request that comes again gets its first answer, although what
/// it builds on has moved on since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is durable. `seq` is the place of its last log entry, if it had any.
    Committed {
        /// The place of the last entry.
        seq: Option<LogPosition>,
    },
    /// Nothing happened: a one-time id was used before.
    Replayed,
    /// Nothing happened: what it builds on has moved on.
    Conflict,
    /// Nothing happened now: it happened before, with this fingerprint and this answer.
    AlreadyApplied {
        /// The digest of the request of then.
        fingerprint: String,
        /// The answer of then.
        response: String,
        /// The place of the last log entry of then.
        seq: Option<LogPosition>,
    },
}

/// Why a batch was not committed, as far as that is known.
#[derive(Debug, Error)]
pub enum CommitError {
    /// Nothing of it happened, for certain: something in it was refused, and all was rolled back. Its parts may be tried
    /// again.
    #[error("nothing was committed: {0}")]
    RolledBack(Outage),
    /// Nothing is known about any of it: it may have happened.
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<CommitError> for Outage {
    fn from(fault: CommitError) -> Self {
        match fault {
            CommitError::RolledBack(outage) | CommitError::Outage(outage) => outage,
        }
    }
}

/// The stored registry: objects, tags of secrets, who is shut out, digests of tools, and the version they are at, read at one moment.
#[derive(Debug)]
pub struct StoredRegistry {
    /// Moves on with every change.
    pub version: u64,
    /// The objects.
    pub entries: Vec<Entry>,
    /// From where on each of them is the one that it is.
    pub registration_positions: RegistrationPositions,
    /// The tags of client secrets.
    pub secret_tags: BTreeMap<ClientId, StoredSecretTag>,
    /// What is known of tools.
    pub known_tools: KnownTools,
    /// Who is shut out by an admin.
    pub blocks: Vec<Block>,
}

/// The stored keys and the version they are at, read at one moment.
#[derive(Debug)]
pub struct StoredKeys {
    /// Moves on with every change.
    pub version: u64,
    /// The keys, gone ones too until they are swept.
    pub keys: Vec<StoredKey>,
}

/// What a sweep dropped, by what it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcStats {
    /// One-time ids.
    pub replay_guards: u64,
    /// Idempotency keys.
    pub idempotency_records: u64,
    /// Signing keys that are gone.
    pub signing_keys: u64,
    /// Shards of status lists.
    pub status_shards: u64,
}

/// The store. Two adapters implement it, and one suite holds both to this text.
///
/// Reads see everything whose [`commit`](Self::commit) returned before they began. Time comes from the caller: no
/// adapter judges by the database's clock.
#[async_trait]
pub trait Store: Send + Sync {
    /// Carries out writes in one transaction, each one wholly or not at all; the answers are in the order of the batch.
    /// What an error says of them is in [`CommitFault`]: that none happened, or that they may have.
    ///
    /// Two writes with the same one-time id, here or at another replica: exactly one is done. Log entries get the next
    /// places, without gaps, in the order in which transactions commit. Records go to the end of `writer`'s chain.
    async fn commit(&self, writer: WriterId, batch: &[WriteSet]) -> Result<Vec<WriteOutcome>, CommitError>;

    /// The place of the last entry in the revocation log.
    async fn read_log_head(&self) -> Result<LogPosition, Outage>;

    /// Log entries after `seq` that may still end something at `now`, in order, at most `limit`: all of them, if `now` is
    /// the first second there is. Otherwise what is forgotten costs nothing to pass over, but for what was in the very hour
    /// of `now`.
    async fn read_log_after(&self, seq: LogPosition, now: Timestamp, limit: u32) -> Result<Vec<LogEntry>, Outage>;

    /// The registry at this moment.
    async fn load_registry(&self) -> Result<StoredRegistry, Outage>;

    /// Everything that is known of the tools of a resource, by name.
    async fn list_tools(&self, resource: &ClientId) -> Result<Vec<ToolRecord>, Outage>;

    /// The keys at this moment.
    async fn load_keys(&self) -> Result<StoredKeys, Outage>;

    /// One task.
    async fn find_task(&self, id: TaskId) -> Result<Option<Task>, Outage>;

    /// Tasks whose deadline has passed at `now` and which are in no final state, longest overdue first, at most `limit`.
    async fn list_overdue_tasks(&self, now: Timestamp, limit: u32) -> Result<Vec<Task>, Outage>;

    /// Tasks, newest first.
    async fn list_tasks(&self, filter: &TaskFilter, page: &PageRequest) -> Result<Page<Task>, ListError>;

    /// One token's record.
    async fn find_token(&self, id: TokenId) -> Result<Option<TokenRecord>, Outage>;

    /// Tokens, newest first.
    async fn list_tokens(&self, filter: &TokenFilter, page: &PageRequest) -> Result<Page<TokenRecord>, ListError>;

    /// Tokens with a place in a status list that had not ended at `alive_at` and have this in common, and maybe more, in
    /// the order in which they were issued.
    async fn list_tokens_with_status(
        &self,
        having: &TokenSelector,
        alive_at: Timestamp,
        after: TokenCursor,
        limit: u32,
    ) -> Result<Vec<TokenRecord>, Outage>;

    /// Takes the next block of a shard's numbers, durable before this returns: nobody else ever gets it. Counts from 0.
    async fn allocate_status_block(&self, shard: Shard) -> Result<u64, Outage>;

    /// The shards that end after `now`, each with how many of its blocks were taken.
    async fn list_status_shards(&self, now: Timestamp) -> Result<Vec<(Shard, u64)>, Outage>;

    /// Tasks in no final state whose grant was withdrawn, at most `limit`.
    async fn list_tasks_without_grant(&self, limit: u32) -> Result<Vec<Task>, Outage>;

    /// Tasks in no final state whose agent, or whose requester's issuer, is not registered any more, or is another one of the
    /// same name by now; at most `limit`.
    async fn list_orphaned_tasks(&self, limit: u32) -> Result<Vec<Task>, Outage>;

    /// One grant, over or not.
    async fn find_grant(&self, id: GrantId) -> Result<Option<Grant>, Outage>;

    /// One grant for an emergency, also when it is over or withdrawn.
    async fn find_break_glass(&self, id: GrantId) -> Result<Option<BreakGlassGrant>, Outage>;

    /// Grants for an emergency, newest first.
    async fn list_break_glass(
        &self,
        review: Option<ReviewState>,
        page: &PageRequest,
    ) -> Result<Page<BreakGlassGrant>, ListError>;

    /// The grants of a requester to an agent that are not over at `now`, those that last longest first, at most `limit`.
    async fn list_live_grants(
        &self,
        requester: &Requester,
        agent: &ClientId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Grant>, Outage>;

    /// Grants, over or not, newest first.
    async fn list_grants(&self, filter: &GrantFilter, page: &PageRequest) -> Result<Page<Grant>, ListError>;

    /// Revocations as an admin wants to see them: newest first, forgotten ones too, without registry and key changes.
    async fn list_revocations(&self, page: &PageRequest) -> Result<Page<LogEntry>, ListError>;

    /// What became of the request with this idempotency key, if there was one: always [`Written::Before`].
    async fn find_idempotent_response(&self, caller: &str, key: &str) -> Result<Option<WriteOutcome>, Outage>;

    /// Audit records, newest first.
    async fn list_audit_records(&self, filter: &AuditFilter, page: &PageRequest) -> Result<Page<AuditRow>, ListError>;

    /// All writers' heads.
    async fn list_audit_heads(&self) -> Result<Vec<(WriterId, Head)>, Outage>;

    /// A writer's chain after record `n`, in order of `n`, at most `limit` rows.
    async fn read_audit_chain(&self, writer: WriterId, n: u64, limit: u32) -> Result<Vec<AuditRow>, Outage>;

    /// Records a renewal of a replica's lease, durable before this returns. One that comes after a later one of the same
    /// replica changes nothing, and is an outage: nobody will wait for it. `is_news`: it acknowledges more than the one
    /// before, and those who listen hear of it.
    async fn record_heartbeat(&self, beat: &Heartbeat, is_news: bool) -> Result<(), Outage>;

    /// The last renewal of every replica that is there, longest running first.
    async fn list_replicas(&self) -> Result<Vec<Heartbeat>, Outage>;

    /// Removes a replica, unless it has renewed its lease after the renewal with this number. Returns whether it was there.
    async fn deregister_replica(&self, id: ReplicaId, number: u64) -> Result<bool, Outage>;

    /// Listens for what others write from now on.
    async fn listen(&self) -> Result<Box<dyn ChangeListener>, Outage>;

    /// Drops what nobody can ask for any more at `now`.
    async fn collect_garbage(&self, now: Timestamp) -> Result<GcStats, Outage>;

    /// Whether the store can be reached and has the schema that this program knows.
    async fn ping(&self) -> Result<(), Outage>;
}

/// The names of a key's parts, used as additional data where its private part is sealed.
#[must_use]
pub fn signing_key_aad(kid: &KeyId) -> String {
    format!("signing_keys|{kid}|sealed")
}
