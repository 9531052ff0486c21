//! The store: what survives. Everything that changes it goes through [`Store::commit`], in units that happen wholly or
//! not at all; no transaction handle leaves an adapter.

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use thiserror::Error;

use super::{
    AuditFilter, AuditRow, Ear, GrantFilter, Having, ListFault, ListedAfter, Outage, Page, Paged, TaskFilter,
    TokenFilter,
};
use crate::domain::{
    audit::{Head, Record, Writer},
    authority::Authority,
    break_glass::{BreakGlass, Review, ReviewState},
    grant::Grant,
    id::{ClientId, GrantId, KeyId, TaskId, TokenId, ToolName},
    keys::KeyDates,
    registry::{Entry, Kind, KnownTools, OwnedTag, Registered, ShutOut, Who},
    replica::{Beat, ReplicaId},
    revocation::{LogEntry, Names, NewEntry, Seq},
    status_list::{Shard, StatusPlace},
    task::{Requester, Task, Turn},
    time::Timestamp,
    token::TokenKind,
    tool::ToolRecord,
};

/// A thing that may be used once, such as the `jti` of a client assertion. All replicas share the memory of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OneTimeId {
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
    pub rev: Seq,
    /// Its place in the status lists.
    pub status: Option<StatusPlace>,
}

impl TokenRecord {
    /// The names under which the token can be taken back, but for one: the record does not have the agent that a hand-over
    /// token is for, and such a token has no place in a status list. For showing what a token is worth, there too; what
    /// decides here is what the token itself says.
    #[must_use]
    pub fn names(&self) -> Names {
        Names {
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
    pub dates: KeyDates,
    /// The public JWK, as JSON text.
    pub public_jwk: String,
    /// The private key (PKCS#8), AES-256-GCM under the key-encryption key, bound to its table, row and column.
    pub sealed: Vec<u8>,
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredKey").field("dates", &self.dates).finish_non_exhaustive()
    }
}

/// Room for one more grant: the registry is still at this version, and of such grants fewer than so many are not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The version.
    pub registry: u64,
    /// Such grants: of whom, to whom, for an emergency or not.
    pub like: Like,
    /// When it is to be made.
    pub now: Timestamp,
    /// How many there may be then.
    pub most: u32,
}

/// What grants have in common that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Like {
    /// For whom.
    pub requester: Requester,
    /// Who.
    pub agent: ClientId,
    /// Whether they are for an emergency.
    pub break_glass: bool,
}

/// A state of the store that a change builds on. If it moved on in between, the change does not happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The registry is still at this version.
    Registry(u64),
    /// There is room for a grant.
    Room(Box<Room>),
    /// The keys are still at this version.
    Keys(u64),
    /// The task is there, and its state has changed so many times.
    Task(TaskId, u64),
    /// All of these are there, and each one's state has changed so many times.
    Tasks(Vec<(TaskId, u64)>),
}

/// One change beside issuing: rare, so carried out one after the other.
#[derive(Clone, Debug)]
pub enum Change {
    /// Put an object, new or in place of the old one.
    PutObject(Box<Entry>),
    /// Remove an object, its secret, what is known of its tools, and the grants to it, or of those for whom it vouches.
    RemoveObject(Kind, String),
    /// Put the tag of a client's secret.
    PutSecret(ClientId, OwnedTag),
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
    PutBreakGlass(Box<BreakGlass>),
    /// Sign off what was done with a grant for an emergency. A review that is there stays.
    Review(GrantId, Review),
    /// Shut somebody out, or in another way than before.
    ShutOut(ShutOut),
    /// Let somebody in again.
    LetIn(Who),
    /// Bring a task to another state: [`Task::turns`] goes on by one.
    TurnTask(TaskId, Turn),
    /// Put what is known of a tool, new or in place of the old.
    PutTool(Box<ToolRecord>),
    /// Forget a tool of a resource.
    RemoveTool(ClientId, ToolName),
    /// Forget all tools of a resource.
    ForgetTools(ClientId),
}

/// A request that may come again, by its `Idempotency-Key`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// Who sent it: two callers' keys don't meet.
    pub caller: String,
    /// The key.
    pub key: String,
    /// A digest of the request, so that a key is not used for another one.
    pub fingerprint: String,
    /// What is answered (JSON text), but for the place in the log that only the commit knows.
    pub answer: String,
    /// When it may be forgotten.
    pub keep_until: Timestamp,
}

/// What happens together or not at all.
#[derive(Clone, Debug, Default)]
pub struct Write {
    /// A one-time id: if it was used before, nothing happens.
    pub once: Vec<OneTimeId>,
    /// What the change builds on: if it moved on, nothing happens.
    pub expected: Option<Expected>,
    /// A request that may come again: if it came before, nothing happens.
    pub idempotency: Option<Idempotency>,
    /// A task that is opened.
    pub task: Option<Task>,
    /// A token that is issued.
    pub token: Option<TokenRecord>,
    /// Rare changes. A change of the registry or the keys moves their version on.
    pub changes: Vec<Change>,
    /// Entries of the revocation log, in this order.
    pub log: Vec<NewEntry>,
    /// Audit records, in this order, at the end of the writer's chain.
    pub audit: Vec<Record>,
}

impl Write {
    /// Whether others may have to be waited for, who hold what it needs until they have committed: a version, a task, the
    /// head of the log, a request that came twice. To issue a token needs nothing that others hold.
    #[must_use]
    pub fn may_wait(&self) -> bool {
        self.expected.is_some() || self.idempotency.is_some() || !self.changes.is_empty() || !self.log.is_empty()
    }
}

/// What became of a [`Write`]. When several things speak against one, `Replayed` goes before `Before`, and that before
/// `Moved`: who replays a credential learns nothing, and a request that comes again gets its first answer, although what
/// it builds on has moved on since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is durable. `seq` is the place of its last log entry, if it had any.
    Done {
        /// The place of the last entry.
        seq: Option<Seq>,
    },
    /// Nothing happened: a one-time id was used before.
    Replayed,
    /// Nothing happened: what it builds on has moved on.
    Moved,
    /// Nothing happened now: it happened before, with this fingerprint and this answer.
    Before {
        /// The digest of the request of then.
        fingerprint: String,
        /// The answer of then.
        answer: String,
        /// The place of the last log entry of then.
        seq: Option<Seq>,
    },
}

/// Why a batch was not committed, as far as that is known.
#[derive(Debug, Error)]
pub enum CommitFault {
    /// Nothing of it happened, for certain: something in it was refused, and all was rolled back. Its parts may be tried
    /// again.
    #[error("nothing was committed: {0}")]
    Refused(Outage),
    /// Nothing is known about any of it: it may have happened.
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl From<CommitFault> for Outage {
    fn from(fault: CommitFault) -> Self {
        match fault {
            CommitFault::Refused(outage) | CommitFault::Outage(outage) => outage,
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
    pub since: Registered,
    /// The tags of client secrets.
    pub tags: BTreeMap<ClientId, OwnedTag>,
    /// What is known of tools.
    pub tools: KnownTools,
    /// Who is shut out by an admin.
    pub shut_out: Vec<ShutOut>,
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
pub struct Swept {
    /// One-time ids.
    pub once: u64,
    /// Idempotency keys.
    pub idempotency: u64,
    /// Signing keys that are gone.
    pub keys: u64,
    /// Shards of status lists.
    pub shards: u64,
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
    async fn commit(&self, writer: Writer, batch: &[Write]) -> Result<Vec<Written>, CommitFault>;

    /// The place of the last entry in the revocation log.
    async fn head(&self) -> Result<Seq, Outage>;

    /// Log entries after `seq` that may still end something at `now`, in order, at most `limit`: all of them, if `now` is
    /// the first second there is. Otherwise what is forgotten costs nothing to pass over, but for what was in the very hour
    /// of `now`.
    async fn log_after(&self, seq: Seq, now: Timestamp, limit: u32) -> Result<Vec<LogEntry>, Outage>;

    /// The registry at this moment.
    async fn registry(&self) -> Result<StoredRegistry, Outage>;

    /// Everything that is known of the tools of a resource, by name.
    async fn tools(&self, resource: &ClientId) -> Result<Vec<ToolRecord>, Outage>;

    /// The keys at this moment.
    async fn keys(&self) -> Result<StoredKeys, Outage>;

    /// One task.
    async fn task(&self, id: TaskId) -> Result<Option<Task>, Outage>;

    /// Tasks whose deadline has passed at `now` and which are in no final state, longest overdue first, at most `limit`.
    async fn tasks_due(&self, now: Timestamp, limit: u32) -> Result<Vec<Task>, Outage>;

    /// Tasks, newest first.
    async fn tasks(&self, filter: &TaskFilter, page: &Page) -> Result<Paged<Task>, ListFault>;

    /// One token's record.
    async fn token(&self, id: TokenId) -> Result<Option<TokenRecord>, Outage>;

    /// Tokens, newest first.
    async fn tokens(&self, filter: &TokenFilter, page: &Page) -> Result<Paged<TokenRecord>, ListFault>;

    /// Tokens with a place in a status list that had not ended at `alive_at` and have this in common, and maybe more, in
    /// the order in which they were issued.
    async fn listed_tokens(
        &self,
        having: &Having,
        alive_at: Timestamp,
        after: ListedAfter,
        limit: u32,
    ) -> Result<Vec<TokenRecord>, Outage>;

    /// Takes the next block of a shard's numbers, durable before this returns: nobody else ever gets it. Counts from 0.
    async fn take_status_block(&self, shard: Shard) -> Result<u64, Outage>;

    /// The shards that end after `now`, each with how many of its blocks were taken.
    async fn status_shards(&self, now: Timestamp) -> Result<Vec<(Shard, u64)>, Outage>;

    /// Tasks in no final state whose grant was withdrawn, at most `limit`.
    async fn tasks_without_grant(&self, limit: u32) -> Result<Vec<Task>, Outage>;

    /// Tasks in no final state whose agent, or whose requester's issuer, is not registered any more, or is another one of the
    /// same name by now; at most `limit`.
    async fn tasks_of_removed(&self, limit: u32) -> Result<Vec<Task>, Outage>;

    /// One grant, over or not.
    async fn grant(&self, id: GrantId) -> Result<Option<Grant>, Outage>;

    /// One grant for an emergency, also when it is over or withdrawn.
    async fn break_glass(&self, id: GrantId) -> Result<Option<BreakGlass>, Outage>;

    /// Grants for an emergency, newest first.
    async fn break_glass_list(&self, review: Option<ReviewState>, page: &Page) -> Result<Paged<BreakGlass>, ListFault>;

    /// The grants of a requester to an agent that are not over at `now`, those that last longest first, at most `limit`.
    async fn grants_between(
        &self,
        requester: &Requester,
        agent: &ClientId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<Grant>, Outage>;

    /// Grants, over or not, newest first.
    async fn grants(&self, filter: &GrantFilter, page: &Page) -> Result<Paged<Grant>, ListFault>;

    /// Revocations as an admin wants to see them: newest first, forgotten ones too, without registry and key changes.
    async fn revocations(&self, page: &Page) -> Result<Paged<LogEntry>, ListFault>;

    /// What became of the request with this idempotency key, if there was one: always [`Written::Before`].
    async fn answered(&self, caller: &str, key: &str) -> Result<Option<Written>, Outage>;

    /// Audit records, newest first.
    async fn audit(&self, filter: &AuditFilter, page: &Page) -> Result<Paged<AuditRow>, ListFault>;

    /// All writers' heads.
    async fn audit_heads(&self) -> Result<Vec<(Writer, Head)>, Outage>;

    /// A writer's chain after record `n`, in order of `n`, at most `limit` rows.
    async fn audit_chain(&self, writer: Writer, n: u64, limit: u32) -> Result<Vec<AuditRow>, Outage>;

    /// Records a renewal of a replica's lease, durable before this returns. One that comes after a later one of the same
    /// replica changes nothing, and is an outage: nobody will wait for it. `is_news`: it acknowledges more than the one
    /// before, and those who listen hear of it.
    async fn renew(&self, beat: &Beat, is_news: bool) -> Result<(), Outage>;

    /// The last renewal of every replica that is there, longest running first.
    async fn replicas(&self) -> Result<Vec<Beat>, Outage>;

    /// Removes a replica, unless it has renewed its lease after the renewal with this number. Returns whether it was there.
    async fn remove_replica(&self, id: ReplicaId, number: u64) -> Result<bool, Outage>;

    /// Listens for what others write from now on.
    async fn listen(&self) -> Result<Box<dyn Ear>, Outage>;

    /// Drops what nobody can ask for any more at `now`.
    async fn sweep(&self, now: Timestamp) -> Result<Swept, Outage>;

    /// Whether the store can be reached and has the schema that this program knows.
    async fn ping(&self) -> Result<(), Outage>;
}

/// The names of a key's parts, used as additional data where its private part is sealed.
#[must_use]
pub fn sealed_as(kid: &KeyId) -> String {
    format!("signing_keys|{kid}|sealed")
}
