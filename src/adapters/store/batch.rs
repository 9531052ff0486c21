//! What becomes of each write of a batch: the part of `commit` that is the same in every store. An adapter asks its
//! tables what [`Asked`] says, [`Plan::of`] judges, and the adapter carries the plan out. No I/O here.
//!
//! Guards are judged one write after the other, as if each were a batch of its own. A write whose guards say no leaves
//! no trace, so what was taken in advance for it (its one-time ids, its idempotency key) is given back in the same
//! transaction: that needs no savepoint, and costs nothing when all is well.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    adapters::store::rows::{
        IdempotencyRow, LogRow, ReplayGuardRow, TaskRow, TaskVersionRow, TokenRow, VersionRow, digest_of, to_i64,
    },
    domain::{
        audit::Record,
        id::TaskId,
        revocation::{LogPosition, NewEntry},
        time::Timestamp,
    },
    ports::{GrantKey, IdempotentRequest, Outage, Precondition, StateChange, WriteOutcome, WriteSet},
};

/// The version of the registry, in the table `versions`.
pub(crate) const REGISTRY_VERSION: &str = "registry";
/// The version of the keys.
pub(crate) const KEYS_VERSION: &str = "keys";

/// What the guards of a batch need from the tables.
#[derive(Debug)]
pub(crate) struct GuardQuery {
    /// Whether the versions are to be read, and locked until the end.
    pub(crate) needs_versions: bool,
    /// Idempotency keys to be taken, if they are free: sorted, so that two batches wait for each other in one order only.
    pub(crate) idempotency_keys: Vec<IdempotencyRow>,
    /// One-time ids to be taken, if they are free: sorted.
    pub(crate) replay_guards: Vec<ReplayGuardRow>,
    /// Tasks whose turns are to be read, and locked until the end: sorted.
    pub(crate) tasks: Vec<String>,
    /// Grants to be counted that are not over at a time. Whoever adds one holds the lock of the versions.
    pub(crate) grants_to_count: HashMap<GrantKey, Timestamp>,
}

impl GuardQuery {
    pub(crate) fn for_batch(batch: &[WriteSet]) -> Self {
        let mut keys = BTreeMap::new();
        let mut once = BTreeMap::<String, i64>::new();
        for write in batch {
            if let Some(request) = &write.idempotency {
                let row = IdempotencyRow::new(request, None);
                keys.entry(row.digest.clone()).or_insert(row);
            }
            for row in write.replay_guards.iter().map(ReplayGuardRow::new) {
                // Whoever of the batch gets it, it is kept as long as any of them asked.
                let keep_until = once.entry(row.digest).or_default();
                *keep_until = row.keep_until.max(*keep_until);
            }
        }
        let expected = batch.iter().filter_map(|write| write.precondition.as_ref());
        let turned = batch.iter().flat_map(|write| &write.state_changes).filter_map(|change| match change {
            StateChange::TransitionTask(id, _) => Some(*id),
            StateChange::PutObject(_)
            | StateChange::RemoveObject(..)
            | StateChange::PutSecret(..)
            | StateChange::RemoveSecret(_)
            | StateChange::PutKey(_)
            | StateChange::RemoveKey(_)
            | StateChange::PutGrant(_)
            | StateChange::RemoveGrant(_)
            | StateChange::Block(_)
            | StateChange::PutBreakGlass(_)
            | StateChange::ReviewBreakGlass(..)
            | StateChange::Unblock(_)
            | StateChange::PutTool(_)
            | StateChange::RemoveTool(..)
            | StateChange::ClearTools(_) => None,
        });
        let tasks = expected.clone().flat_map(|expected| match expected {
            Precondition::TaskVersion(id, _) => vec![*id],
            Precondition::TaskVersions(tasks) => tasks.iter().map(|(id, _)| *id).collect(),
            Precondition::RegistryVersion(_) | Precondition::KeysVersion(_) | Precondition::GrantCapacity(_) => {
                Vec::new()
            }
        });
        let mut room = HashMap::<GrantKey, Timestamp>::new();
        for expected in expected.clone() {
            if let Precondition::GrantCapacity(one) = expected {
                // Whoever asks as of the earliest time counts the most.
                let now = room.entry(one.key.clone()).or_insert(one.now);
                *now = one.now.min(*now);
            }
        }
        let builds_on_version = expected.clone().any(|expected| {
            matches!(
                expected,
                Precondition::RegistryVersion(_) | Precondition::KeysVersion(_) | Precondition::GrantCapacity(_)
            )
        });
        Self {
            tasks: tasks.chain(turned).collect::<BTreeSet<_>>().iter().map(TaskId::to_string).collect(),
            needs_versions: builds_on_version
                || batch
                    .iter()
                    .flat_map(|write| &write.state_changes)
                    .any(|change| version_changed_by(change).is_some()),
            idempotency_keys: keys.into_values().collect(),
            replay_guards: once.into_iter().map(|(digest, keep_until)| ReplayGuardRow { digest, keep_until }).collect(),
            grants_to_count: room,
        }
    }
}

/// What the tables said.
#[derive(Debug, Default)]
pub(crate) struct GuardState {
    /// The versions, if they were asked for.
    pub(crate) versions: Vec<VersionRow>,
    /// The idempotency keys that were free, and are taken now.
    pub(crate) taken_keys: Vec<String>,
    /// What was answered under those that were not.
    pub(crate) earlier_responses: Vec<IdempotencyRow>,
    /// The one-time ids that were free, and are taken now.
    pub(crate) taken_guards: Vec<String>,
    /// The tasks that are there, with their turns.
    pub(crate) task_versions: Vec<TaskVersionRow>,
    /// How many grants there are.
    pub(crate) grant_counts: HashMap<GrantKey, i64>,
}

/// How the transaction is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TxEnd {
    /// It is committed.
    Commit,
    /// It is rolled back: nothing in it happens.
    Rollback,
}

/// Whether the fault is in what was to be written, or in what is stored about it, and not in the store: then the other
/// writes of the batch may well go through without the one that has it. `is_about_data` knows the database's codes.
pub(crate) fn is_data_error(outage: &Outage, is_about_data: fn(&str) -> bool) -> bool {
    match outage.source.downcast_ref::<sqlx::Error>() {
        // Our own: rows that can't be written as text, stored ones that can't be read.
        None => true,
        Some(sqlx::Error::Database(said)) => said.code().is_some_and(|code| is_about_data(&code)),
        Some(fault) => {
            matches!(fault, sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })
        }
    }
}

enum Verdict<'a> {
    Accept,
    Replayed,
    Conflict,
    AlreadyApplied(IdempotencyRow),
    /// The write at this place of the same batch had the same idempotency key, and is done.
    AppliedInBatch(usize, &'a IdempotentRequest),
}

/// What is to be done, in the order in which locks are taken.
pub(crate) struct BatchPlan<'a> {
    batch: &'a [WriteSet],
    verdicts: Vec<Verdict<'a>>,
    last_position: LogPosition,
    /// Idempotency keys to be given back.
    pub(crate) unused_keys: Vec<String>,
    /// One-time ids to be given back.
    pub(crate) unused_guards: Vec<String>,
    /// Versions that move on, with what they move on to.
    pub(crate) new_versions: Vec<VersionRow>,
}

impl<'a> BatchPlan<'a> {
    /// Judges the writes. When several guards of one say no, the answer is `Replayed` before `Before` before `Moved`:
    /// who replays a credential learns nothing, and a request that comes again finds its first answer, although what
    /// it builds on was moved by itself.
    pub(crate) fn new(batch: &'a [WriteSet], found: GuardState) -> Result<Self, Outage> {
        let mut free_once = found.taken_guards.into_iter().collect::<BTreeSet<_>>();
        let mut free_keys = found.taken_keys.into_iter().collect::<BTreeSet<_>>();
        let before =
            found.earlier_responses.into_iter().map(|row| (row.digest.clone(), row)).collect::<HashMap<_, _>>();
        let mut answered_here = HashMap::<String, (usize, &'a IdempotentRequest)>::new();
        let mut versions = BTreeMap::new();
        if !found.versions.is_empty() {
            for name in [KEYS_VERSION, REGISTRY_VERSION] {
                versions.insert(name, VersionRow::find(&found.versions, name)?);
            }
        }
        let read = versions.clone();
        let mut turns = found.task_versions.iter().map(TaskVersionRow::read).collect::<Result<BTreeMap<_, _>, _>>()?;
        let mut grants = found.grant_counts;
        let mut verdicts = Vec::with_capacity(batch.len());
        for (n, write) in batch.iter().enumerate() {
            let once = write.replay_guards.iter().map(|id| digest_of(&id.party, &id.id)).collect::<BTreeSet<_>>();
            let key = write.idempotency.as_ref().map(|request| (digest_of(&request.caller, &request.key), request));
            if !once.is_subset(&free_once) {
                verdicts.push(Verdict::Replayed);
                continue;
            }
            if let Some((key, _)) = &key {
                if let Some(row) = before.get(key) {
                    verdicts.push(Verdict::AlreadyApplied(row.clone()));
                    continue;
                }
                if let Some((first, request)) = answered_here.get(key) {
                    verdicts.push(Verdict::AppliedInBatch(*first, request));
                    continue;
                }
                if !free_keys.contains(key) {
                    let source = "an idempotency key was swept while it was looked up; ask again";
                    return Err(Outage { operation: "look up an idempotency key", source: source.into() });
                }
            }
            let stands = match &write.precondition {
                None => true,
                Some(Precondition::RegistryVersion(version)) => versions.get(REGISTRY_VERSION) == Some(version),
                Some(Precondition::GrantCapacity(room)) => {
                    let is_room = grants.get(&room.key).is_some_and(|many| *many < i64::from(room.limit));
                    versions.get(REGISTRY_VERSION) == Some(&room.registry_version) && is_room
                }
                Some(Precondition::KeysVersion(version)) => versions.get(KEYS_VERSION) == Some(version),
                Some(Precondition::TaskVersion(id, version)) => turns.get(id) == Some(version),
                Some(Precondition::TaskVersions(tasks)) => {
                    tasks.iter().all(|(id, version)| turns.get(id) == Some(version))
                }
            };
            if !stands {
                verdicts.push(Verdict::Conflict);
                continue;
            }
            free_once.retain(|id| !once.contains(id));
            if let Some((key, request)) = key {
                free_keys.remove(&key);
                answered_here.insert(key, (n, request));
            }
            if let Some(Precondition::GrantCapacity(room)) = &write.precondition {
                grants.entry(room.key.clone()).and_modify(|many| *many = many.saturating_add(1));
            }
            for name in write.state_changes.iter().filter_map(version_changed_by).collect::<BTreeSet<_>>() {
                versions.entry(name).and_modify(|version| *version = version.saturating_add(1));
            }
            for change in &write.state_changes {
                if let StateChange::TransitionTask(id, _) = change {
                    turns.entry(*id).and_modify(|turns| *turns = turns.saturating_add(1));
                }
            }
            verdicts.push(Verdict::Accept);
        }
        let moved = versions.into_iter().filter(|(name, version)| read.get(name) != Some(version));
        Ok(Self {
            batch,
            verdicts,
            last_position: LogPosition::default(),
            unused_keys: free_keys.into_iter().collect(),
            unused_guards: free_once.into_iter().collect(),
            new_versions: moved.map(|(name, v)| VersionRow { name: name.to_owned(), version: to_i64(v) }).collect(),
        })
    }

    /// Whether nothing happens at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.accepted_writes().next().is_none()
    }

    /// Tasks to be opened.
    pub(crate) fn task_rows(&self) -> Result<Vec<TaskRow>, Outage> {
        self.accepted_writes().filter_map(|write| write.task.as_ref()).map(TaskRow::new).collect()
    }

    /// Tokens to be recorded.
    pub(crate) fn token_rows(&self) -> Result<Vec<TokenRow>, Outage> {
        self.accepted_writes().filter_map(|write| write.token.as_ref()).map(TokenRow::new).collect()
    }

    /// Rare changes, in their order.
    pub(crate) fn state_changes(&self) -> impl Iterator<Item = &'a StateChange> {
        self.accepted_writes().flat_map(|write| &write.state_changes)
    }

    /// How many places of the log are wanted.
    pub(crate) fn log_entry_count(&self) -> u64 {
        self.accepted_writes().map(|write| write.log_entries.len() as u64).sum()
    }

    /// Gives the entries their places: the last ones up to `last`, where the head of the log is now.
    pub(crate) fn log_rows(&mut self, last: LogPosition) -> Vec<LogRow> {
        self.last_position = last;
        self.log_positions()
            .iter()
            .flatten()
            .flat_map(|(entries, first)| (*first..).zip(entries.iter()))
            .map(|(seq, entry)| LogRow::new(entry, LogPosition::new(seq)))
            .collect()
    }

    /// What to answer when a request comes again.
    pub(crate) fn idempotency_rows(&self) -> Vec<IdempotencyRow> {
        let places = self.log_positions();
        let requests = self.batch.iter().zip(&places).filter(|(_, place)| place.is_some());
        requests
            .filter_map(|(write, place)| write.idempotency.as_ref().map(|request| (request, place)))
            .map(|(request, place)| IdempotencyRow::new(request, place.and_then(last_position)))
            .collect()
    }

    /// Audit records, in their order.
    pub(crate) fn audit_records(&self) -> impl Iterator<Item = &'a Record> {
        self.accepted_writes().flat_map(|write| &write.audit_records)
    }

    /// What becomes of each write, when it is durable.
    pub(crate) fn outcomes(&self) -> Result<Vec<WriteOutcome>, Outage> {
        let seqs = self.log_positions().into_iter().map(|place| place.and_then(last_position)).collect::<Vec<_>>();
        let seq_of = |n: usize| seqs.get(n).copied().flatten();
        let verdicts = self.verdicts.iter().zip(&seqs);
        verdicts
            .map(|(verdict, seq)| match verdict {
                Verdict::Accept => Ok(WriteOutcome::Committed { seq: *seq }),
                Verdict::Replayed => Ok(WriteOutcome::Replayed),
                Verdict::Conflict => Ok(WriteOutcome::Conflict),
                Verdict::AlreadyApplied(row) => row.clone().read(),
                Verdict::AppliedInBatch(first, request) => IdempotencyRow::new(request, seq_of(*first)).read(),
            })
            .collect()
    }

    fn accepted_writes(&self) -> impl Iterator<Item = &'a WriteSet> {
        let pairs = self.batch.iter().zip(&self.verdicts);
        pairs.filter(|(_, verdict)| matches!(verdict, Verdict::Accept)).map(|(write, _)| write)
    }

    /// For every write that happens: its entries and the place of the first one.
    fn log_positions(&self) -> Vec<Option<(&'a [NewEntry], u64)>> {
        let mut next = self.last_position.number().saturating_sub(self.log_entry_count()).saturating_add(1);
        let pairs = self.batch.iter().zip(&self.verdicts);
        pairs
            .map(|(write, verdict)| {
                matches!(verdict, Verdict::Accept).then(|| {
                    let first = next;
                    next = next.saturating_add(write.log_entries.len() as u64);
                    (write.log_entries.as_slice(), first)
                })
            })
            .collect()
    }
}

fn last_position((entries, first): (&[NewEntry], u64)) -> Option<LogPosition> {
    let beyond_first = (entries.len() as u64).checked_sub(1)?;
    Some(LogPosition::new(first.saturating_add(beyond_first)))
}

/// Which version a change moves on.
fn version_changed_by(change: &StateChange) -> Option<&'static str> {
    match change {
        StateChange::PutObject(_)
        | StateChange::RemoveObject(..)
        | StateChange::PutSecret(..)
        | StateChange::RemoveSecret(_)
        | StateChange::Block(_)
        | StateChange::Unblock(_)
        | StateChange::PutTool(_)
        | StateChange::RemoveTool(..)
        | StateChange::ClearTools(_) => Some(REGISTRY_VERSION),
        StateChange::PutKey(_) | StateChange::RemoveKey(_) => Some(KEYS_VERSION),
        StateChange::PutGrant(_)
        | StateChange::RemoveGrant(..)
        | StateChange::PutBreakGlass(_)
        | StateChange::ReviewBreakGlass(..)
        | StateChange::TransitionTask(..) => None,
    }
}
