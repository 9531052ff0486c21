//! The outcome of each write of a batch: the part of `commit` that is the same on every store. An
//! adapter runs the [`GuardQuery`], [`BatchPlan::new`] decides, and the adapter applies the plan.
//! This module performs no I/O.
//!
//! Guards are evaluated write by write, as if each write were a batch of its own. A rejected write
//! leaves no trace: what was taken in advance for it (its replay guards, its idempotency key) is
//! released in the same transaction. That needs no savepoint, and costs nothing in the usual case.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    adapters::store::rows::{
        IdempotencyRow, LogHeadRow, LogRow, ReplayGuardRow, Tagged, TaskResourceRow, TaskRow, TokenRow, VersionRow,
        digest_of, tag_all, to_i64,
    },
    domain::{
        audit::Record,
        id::TaskId,
        revocation::{LogPosition, NewEntry},
        task::Transition,
        time::Timestamp,
    },
    ports::{GrantKey, IdempotentRequest, Outage, Precondition, StateChange, StoreSealer, WriteOutcome, WriteSet},
};

/// The name of the registry's version in the table `versions`.
pub(crate) const REGISTRY_VERSION: &str = "registry";
/// The name of the keys' version.
pub(crate) const KEYS_VERSION: &str = "keys";

/// The rows that the guards of a batch depend on.
#[derive(Debug)]
pub(crate) struct GuardQuery {
    /// Whether the versions are read, and locked until the end of the transaction.
    pub(crate) needs_versions: bool,
    /// Idempotency keys to take if they are free: sorted, so that two batches wait for each other
    /// in one order only.
    pub(crate) idempotency_keys: Vec<IdempotencyRow>,
    /// Replay guards to take if they are free: sorted.
    pub(crate) replay_guards: Vec<ReplayGuardRow>,
    /// Tasks whose versions are read, and locked until the end of the transaction: sorted.
    pub(crate) tasks: Vec<String>,
    /// Grants to count that have not expired at a time. A transaction that adds one holds the lock
    /// of the versions.
    pub(crate) grants_to_count: HashMap<GrantKey, Timestamp>,
}

impl GuardQuery {
    pub(crate) fn for_batch(batch: &[WriteSet]) -> Self {
        let mut keys = BTreeMap::new();
        let mut guards = BTreeMap::<String, i64>::new();
        for write in batch {
            if let Some(request) = &write.idempotency {
                let row = IdempotencyRow::new(request, None);
                keys.entry(row.digest.clone()).or_insert(row);
            }
            for row in write.replay_guards.iter().map(ReplayGuardRow::new) {
                // Whichever write of the batch gets the guard, it is kept for the longest requested
                // time.
                let keep_until = guards.entry(row.digest).or_default();
                *keep_until = row.keep_until.max(*keep_until);
            }
        }
        let preconditions = batch.iter().filter_map(|write| write.precondition.as_ref());
        let transitioned = batch.iter().flat_map(|write| &write.state_changes).filter_map(|change| match change {
            StateChange::TransitionTask(id, _) => Some(*id),
            StateChange::PutObject(_)
            | StateChange::RemoveObject(..)
            | StateChange::PutSecret(..)
            | StateChange::RemoveSecret(_)
            | StateChange::PutKey(_)
            | StateChange::RemoveKey(_)
            | StateChange::PutSealedKey(_)
            | StateChange::SealNewStore
            | StateChange::PutCheckpoint(_)
            | StateChange::PutGrant(_)
            | StateChange::RemoveGrant(_)
            | StateChange::Block(_)
            | StateChange::PutBreakGlass(_)
            | StateChange::ReviewBreakGlass(..)
            | StateChange::Unblock(_)
            | StateChange::PutTool(_)
            | StateChange::RemoveTool(..)
            | StateChange::ClearTools(_)
            | StateChange::RecordIssuer(_)
            | StateChange::RecordFile(_) => None,
        });
        let tasks = preconditions.clone().flat_map(|precondition| match precondition {
            Precondition::TaskVersion(id, _) => vec![*id],
            Precondition::TaskVersions(tasks) => tasks.iter().map(|(id, _)| *id).collect(),
            Precondition::RegistryVersion(_) | Precondition::KeysVersion(_) | Precondition::GrantCapacity(_) => {
                Vec::new()
            }
        });
        let mut grants_to_count = HashMap::<GrantKey, Timestamp>::new();
        for precondition in preconditions.clone() {
            if let Precondition::GrantCapacity(one) = precondition {
                // The earliest time counts the most grants.
                let now = grants_to_count.entry(one.key.clone()).or_insert(one.now);
                *now = one.now.min(*now);
            }
        }
        let needs_versions = preconditions.clone().any(|precondition| {
            matches!(
                precondition,
                Precondition::RegistryVersion(_) | Precondition::KeysVersion(_) | Precondition::GrantCapacity(_)
            )
        });
        Self {
            tasks: tasks.chain(transitioned).collect::<BTreeSet<_>>().iter().map(TaskId::to_string).collect(),
            needs_versions: needs_versions
                || batch
                    .iter()
                    .flat_map(|write| &write.state_changes)
                    .any(|change| version_changed_by(change).is_some()),
            idempotency_keys: keys.into_values().collect(),
            replay_guards: guards
                .into_iter()
                .map(|(digest, keep_until)| ReplayGuardRow { digest, keep_until })
                .collect(),
            grants_to_count,
        }
    }
}

/// The rows that were found, and those that were taken.
#[derive(Debug, Default)]
pub(crate) struct GuardState {
    /// The versions, if the query needs them.
    pub(crate) versions: Vec<VersionRow>,
    /// The idempotency keys that were free and are taken now.
    pub(crate) taken_keys: Vec<String>,
    /// The earlier responses under the keys that were not free.
    pub(crate) earlier_responses: Vec<IdempotencyRow>,
    /// The replay guards that were free and are taken now.
    pub(crate) taken_guards: Vec<String>,
    /// The tasks that exist.
    pub(crate) tasks: Vec<Tagged<TaskRow>>,
    /// The numbers of grants.
    pub(crate) grant_counts: HashMap<GrantKey, i64>,
}

/// The end of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TxEnd {
    /// Commit.
    Commit,
    /// Roll back: nothing happens.
    Rollback,
}

/// Returns whether the data caused the error, written or stored, and not the store. The other
/// writes of the batch may then succeed without the faulty one. `is_about_data` knows the
/// database's error codes.
pub(crate) fn is_data_error(outage: &Outage, is_about_data: fn(&str) -> bool) -> bool {
    match outage.source.downcast_ref::<sqlx::Error>() {
        // An error of this program: a row can't be serialized, or a stored one can't be parsed.
        None => true,
        Some(sqlx::Error::Database(error)) => error.code().is_some_and(|code| is_about_data(&code)),
        Some(error) => {
            matches!(error, sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. })
        }
    }
}

/// The rows that continue the log.
pub(crate) struct LogContinuation {
    /// The entries to append.
    pub(crate) rows: Vec<Tagged<LogRow>>,
    /// The position of the head before.
    pub(crate) before: LogPosition,
    /// The new head, unless it is the old one.
    pub(crate) head: Option<Tagged<LogHeadRow>>,
}

enum Verdict<'a> {
    Accept,
    Replayed,
    Conflict,
    AlreadyApplied(IdempotencyRow),
    /// An earlier write of the same batch, with this index, had the same idempotency key and is
    /// applied.
    AppliedInBatch(usize, &'a IdempotentRequest),
}

/// The changes to apply, in the order in which locks are taken.
pub(crate) struct BatchPlan<'a> {
    batch: &'a [WriteSet],
    verdicts: Vec<Verdict<'a>>,
    last_position: LogPosition,
    /// The tasks that the batch needs, as they are stored or as the batch leaves them.
    tasks: HashMap<TaskId, Tagged<TaskRow>>,
    /// Idempotency keys to release.
    pub(crate) unused_keys: Vec<String>,
    /// Replay guards to release.
    pub(crate) unused_guards: Vec<String>,
    /// Versions that change, with their new values.
    pub(crate) new_versions: Vec<VersionRow>,
}

impl<'a> BatchPlan<'a> {
    /// Decides the outcome of each write. When several guards of a write fail, `Replayed` takes
    /// precedence over `AlreadyApplied`, and that over `Conflict`. The replay of a credential thus
    /// reveals nothing, and a retried request finds its first response, although its first commit
    /// invalidated its precondition.
    pub(crate) fn new(batch: &'a [WriteSet], found: GuardState) -> Result<Self, Outage> {
        let mut free_guards = found.taken_guards.into_iter().collect::<BTreeSet<_>>();
        let mut free_keys = found.taken_keys.into_iter().collect::<BTreeSet<_>>();
        let earlier_responses =
            found.earlier_responses.into_iter().map(|row| (row.digest.clone(), row)).collect::<HashMap<_, _>>();
        let mut applied_here = HashMap::<String, (usize, &'a IdempotentRequest)>::new();
        let mut versions = BTreeMap::new();
        if !found.versions.is_empty() {
            for name in [KEYS_VERSION, REGISTRY_VERSION] {
                versions.insert(name, VersionRow::find(&found.versions, name)?);
            }
        }
        let versions_read = versions.clone();
        let mut task_versions =
            found.tasks.iter().map(|row| row.unverified().read_version()).collect::<Result<BTreeMap<_, _>, _>>()?;
        let tasks = found.tasks.into_iter().map(|row| Ok((row.unverified().read_version()?.0, row)));
        let tasks = tasks.collect::<Result<HashMap<_, _>, Outage>>()?;
        let mut grant_counts = found.grant_counts;
        let mut verdicts = Vec::with_capacity(batch.len());
        for (n, write) in batch.iter().enumerate() {
            let guards = write.replay_guards.iter().map(|id| digest_of(&id.party, &id.id)).collect::<BTreeSet<_>>();
            let key = write.idempotency.as_ref().map(|request| (digest_of(&request.caller, &request.key), request));
            if !guards.is_subset(&free_guards) {
                verdicts.push(Verdict::Replayed);
                continue;
            }
            if let Some((key, _)) = &key {
                if let Some(row) = earlier_responses.get(key) {
                    verdicts.push(Verdict::AlreadyApplied(row.clone()));
                    continue;
                }
                if let Some((first, request)) = applied_here.get(key) {
                    verdicts.push(Verdict::AppliedInBatch(*first, request));
                    continue;
                }
                if !free_keys.contains(key) {
                    let source = "an idempotency key was deleted while it was looked up; retry the request";
                    return Err(Outage { operation: "look up an idempotency key", source: source.into() });
                }
            }
            let holds = match &write.precondition {
                None => true,
                Some(Precondition::RegistryVersion(version)) => versions.get(REGISTRY_VERSION) == Some(version),
                Some(Precondition::GrantCapacity(capacity)) => {
                    let fits = grant_counts.get(&capacity.key).is_some_and(|count| *count < i64::from(capacity.limit));
                    versions.get(REGISTRY_VERSION) == Some(&capacity.registry_version) && fits
                }
                Some(Precondition::KeysVersion(version)) => versions.get(KEYS_VERSION) == Some(version),
                Some(Precondition::TaskVersion(id, version)) => task_versions.get(id) == Some(version),
                Some(Precondition::TaskVersions(tasks)) => {
                    tasks.iter().all(|(id, version)| task_versions.get(id) == Some(version))
                }
            };
            if !holds {
                verdicts.push(Verdict::Conflict);
                continue;
            }
            free_guards.retain(|id| !guards.contains(id));
            if let Some((key, request)) = key {
                free_keys.remove(&key);
                applied_here.insert(key, (n, request));
            }
            if let Some(Precondition::GrantCapacity(capacity)) = &write.precondition {
                grant_counts.entry(capacity.key.clone()).and_modify(|count| *count = count.saturating_add(1));
            }
            for name in write.state_changes.iter().filter_map(version_changed_by).collect::<BTreeSet<_>>() {
                versions.entry(name).and_modify(|version| *version = version.saturating_add(1));
            }
            for change in &write.state_changes {
                if let StateChange::TransitionTask(id, _) = change {
                    task_versions.entry(*id).and_modify(|version| *version = version.saturating_add(1));
                }
            }
            verdicts.push(Verdict::Accept);
        }
        let changed = versions.into_iter().filter(|(name, version)| versions_read.get(name) != Some(version));
        Ok(Self {
            batch,
            verdicts,
            last_position: LogPosition::default(),
            tasks,
            unused_keys: free_keys.into_iter().collect(),
            unused_guards: free_guards.into_iter().collect(),
            new_versions: changed.map(|(name, v)| VersionRow { name: name.to_owned(), version: to_i64(v) }).collect(),
        })
    }

    /// Returns whether no write is applied.
    pub(crate) fn is_empty(&self) -> bool {
        self.accepted_writes().next().is_none()
    }

    /// Returns whether the batch changes the registry.
    pub(crate) fn changes_registry(&self) -> bool {
        self.new_versions.iter().any(|row| row.name == REGISTRY_VERSION)
    }

    /// Returns whether the batch changes the keys.
    pub(crate) fn changes_keys(&self) -> bool {
        self.new_versions.iter().any(|row| row.name == KEYS_VERSION)
    }

    /// Returns the tasks to insert.
    pub(crate) fn task_rows(&self, sealer: &dyn StoreSealer) -> Result<Vec<Tagged<TaskRow>>, Outage> {
        tag_all(self.accepted_writes().filter_map(|write| write.task.as_ref()).map(TaskRow::new), sealer)
    }

    /// Returns the row of a task after a transition, or nothing if the task does not exist.
    pub(crate) fn move_task(
        &mut self,
        id: TaskId,
        transition: &Transition,
        sealer: &dyn StoreSealer,
    ) -> Result<Option<&Tagged<TaskRow>>, Outage> {
        let Some(row) = self.tasks.remove(&id) else { return Ok(None) };
        // A new tag must not vouch for a row that was changed outside this program.
        let moved = Tagged::new(row.verify(sealer)?.after_transition(transition)?, sealer)?;
        Ok(Some(self.tasks.entry(id).or_insert(moved)))
    }

    /// Returns the resources of the tasks to insert.
    pub(crate) fn task_resource_rows(&self) -> Vec<TaskResourceRow> {
        self.accepted_writes().filter_map(|write| write.task.as_ref()).flat_map(TaskResourceRow::for_task).collect()
    }

    /// Returns the token records to insert.
    pub(crate) fn token_rows(&self, sealer: &dyn StoreSealer) -> Result<Vec<Tagged<TokenRow>>, Outage> {
        tag_all(self.accepted_writes().filter_map(|write| write.token.as_ref()).map(TokenRow::new), sealer)
    }

    /// Returns the state changes, in order.
    pub(crate) fn state_changes(&self) -> impl Iterator<Item = &'a StateChange> {
        self.accepted_writes().flat_map(|write| &write.state_changes)
    }

    /// Returns the number of log entries to append.
    pub(crate) fn log_entry_count(&self) -> u64 {
        self.accepted_writes().map(|write| write.log_entries.len() as u64).sum()
    }

    /// Returns whether the batch seals a new store.
    pub(crate) fn seals_new_store(&self) -> bool {
        self.state_changes().any(|change| matches!(change, StateChange::SealNewStore))
    }

    /// Appends the log entries to the log with this head: verifies the head, and assigns
    /// consecutive positions to the entries, each of which names the tag of the one before it.
    pub(crate) fn continue_log(
        &mut self,
        head: Tagged<LogHeadRow>,
        sealer: &dyn StoreSealer,
    ) -> Result<LogContinuation, Outage> {
        let is_new = self.seals_new_store() && LogHeadRow::is_new(&head);
        let before = if is_new { head.unverified().clone() } else { head.verify(sealer)? };
        self.last_position = LogPosition::new(before.position().number().saturating_add(self.log_entry_count()));
        let mut link = before.link.clone();
        let mut rows = Vec::new();
        for (entries, first) in self.log_positions().into_iter().flatten() {
            for (seq, entry) in (first..).zip(entries) {
                let row = Tagged::new(LogRow::new(entry, LogPosition::new(seq), &link), sealer)?;
                row.tag().clone_into(&mut link);
                rows.push(row);
            }
        }
        let version = |name: &str, unchanged: i64| {
            let changed = self.new_versions.iter().find(|row| row.name == name);
            changed.map_or(unchanged, |row| row.version)
        };
        let after = LogHeadRow {
            seq: to_i64(self.last_position.number()),
            link,
            registry_version: version(REGISTRY_VERSION, before.registry_version),
            keys_version: version(KEYS_VERSION, before.keys_version),
        };
        let head_before = before.position();
        let is_changed = is_new || after != before;
        let head = is_changed.then(|| Tagged::new(after, sealer)).transpose()?;
        Ok(LogContinuation { rows, before: head_before, head })
    }

    /// Returns the responses to store for retries.
    pub(crate) fn idempotency_rows(&self, sealer: &dyn StoreSealer) -> Result<Vec<Tagged<IdempotencyRow>>, Outage> {
        let positions = self.log_positions();
        let requests = self.batch.iter().zip(&positions).filter(|(_, position)| position.is_some());
        let rows = requests
            .filter_map(|(write, position)| write.idempotency.as_ref().map(|request| (request, position)))
            .map(|(request, position)| Ok(IdempotencyRow::new(request, position.and_then(last_position))));
        tag_all(rows, sealer)
    }

    /// Returns the audit records, in order.
    pub(crate) fn audit_records(&self) -> impl Iterator<Item = &'a Record> {
        self.accepted_writes().flat_map(|write| &write.audit_records)
    }

    /// Returns the outcome of each write once the transaction is durable.
    pub(crate) fn outcomes(&self) -> Result<Vec<WriteOutcome>, Outage> {
        let seqs =
            self.log_positions().into_iter().map(|position| position.and_then(last_position)).collect::<Vec<_>>();
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

    /// Returns, for every applied write, its log entries and the position of the first.
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

/// Returns the name of the version that a change increments.
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
        | StateChange::ClearTools(_)
        | StateChange::RecordIssuer(_)
        | StateChange::RecordFile(_) => Some(REGISTRY_VERSION),
        StateChange::PutKey(_) | StateChange::RemoveKey(_) | StateChange::PutSealedKey(_) => Some(KEYS_VERSION),
        StateChange::SealNewStore
        | StateChange::PutCheckpoint(_)
        | StateChange::PutGrant(_)
        | StateChange::RemoveGrant(..)
        | StateChange::PutBreakGlass(_)
        | StateChange::ReviewBreakGlass(..)
        | StateChange::TransitionTask(..) => None,
    }
}
