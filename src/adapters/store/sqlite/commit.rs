//! Writes. A batch is one transaction, and transactions run one at a time: `BEGIN IMMEDIATE` takes
//! the file's only write lock. The statements are in the order that PostgreSQL needs.

use sqlx::{Connection, SqliteConnection, query, query_as, query_scalar};

use super::{lane::Lane, read, sql};
use crate::{
    adapters::store::{
        batch::{
            BatchPlan, GuardQuery, GuardState, KEYS_VERSION, LogContinuation, REGISTRY_VERSION, TxEnd, is_data_error,
        },
        lane::on,
        rows::{
            AppliedFileRow, AuditHeadRow, AuditRecordRow, BlockRow, BreakGlassRow, GrantRow, IdempotencyRow, KeyRow,
            LogHeadRow, ObjectRow, Tagged, TaskRow, ToolRow, VersionRow, to_i64, to_json,
        },
        store_sealer::SealerCell,
    },
    domain::{
        audit::{Head, SearchColumns, WriterId},
        grants::{Grant, break_glass::Review},
        id::{GrantId, TaskId},
        registry::{ObjectKind, StoredSecretTag},
        revocation::LogPosition,
        settings::RetentionCutoffs,
        status_list::SHARD_RETENTION,
        task::Requester,
        time::Timestamp,
    },
    ports::{CommitError, GcStats, Outage, RequesterRows, StateChange, StoreSealer, WriteOutcome, WriteSet},
};

const OP_APPEND: &str = "append to the log";

pub(super) async fn commit(
    connection: &mut SqliteConnection,
    sealer: &SealerCell,
    writer: WriterId,
    batch: &[WriteSet],
) -> Result<Vec<WriteOutcome>, CommitError> {
    let mut tx = connection.begin_with(sql::BEGIN).await.map_err(Outage::during("begin to commit"))?;
    match apply_batch(&mut tx, sealer, writer, batch).await {
        Ok((outcomes, TxEnd::Commit)) => {
            tx.commit().await.map_err(Outage::during("commit"))?;
            Ok(outcomes)
        }
        Ok((outcomes, TxEnd::Rollback)) => {
            tx.rollback().await.map_err(Outage::during("roll back"))?;
            Ok(outcomes)
        }
        // The error came before the commit was requested.
        Err(outage) if is_data_error(&outage, sql::is_data_error_code) => {
            tx.rollback().await.map_err(Outage::during("roll back"))?;
            Err(CommitError::RolledBack(outage))
        }
        Err(outage) => Err(outage.into()),
    }
}

/// Applies the batch up to the end of the transaction. Returns the outcomes, valid if the
/// transaction ends as returned.
async fn apply_batch(
    tx: &mut SqliteConnection,
    sealer: &SealerCell,
    writer: WriterId,
    batch: &[WriteSet],
) -> Result<(Vec<WriteOutcome>, TxEnd), Outage> {
    let tagger = sealer.get()?;
    let found = query_guards(tx, &GuardQuery::for_batch(batch), &*tagger).await?;
    let mut plan = BatchPlan::new(batch, found)?;
    if plan.is_empty() {
        // Nothing is outcomes, so the rollback also releases what was taken in advance.
        return Ok((plan.outcomes()?, TxEnd::Rollback));
    }
    verify_sealed(tx, sealer, &plan).await?;
    release_unused(tx, &plan).await?;
    let needs_log_lock = plan.log_entry_count() > 0 || plan.state_changes().next().is_some();
    if needs_log_lock {
        let advance = query_as(sql::ADVANCE_LOG_HEAD).bind(to_i64(plan.log_entry_count()));
        let head = advance.fetch_one(&mut *tx).await.map_err(Outage::during("allocate log positions"))?;
        let log = plan.continue_log(head, &*tagger)?;
        append_log(tx, &log).await?;
        for change in plan.state_changes().collect::<Vec<_>>() {
            match change {
                StateChange::TransitionTask(id, transition) => {
                    if let Some(row) = plan.move_task(*id, transition, &*tagger)? {
                        update_task(tx, *id, row).await?;
                    }
                }
                StateChange::ReviewBreakGlass(id, review) => review_break_glass(tx, *id, review, &*tagger).await?,
                change => apply_change(tx, change, log.before, &*tagger).await?,
            }
        }
        seal_changes(tx, sealer, &plan).await?;
    }
    execute_rows(tx, sql::INSERT_TASKS, &plan.task_rows(&*tagger)?, "open tasks").await?;
    execute_rows(tx, sql::INSERT_TASK_RESOURCES, &plan.task_resource_rows(), "open tasks").await?;
    execute_rows(tx, sql::INSERT_TOKENS, &plan.token_rows(&*tagger)?, "record tokens").await?;
    execute_rows(tx, sql::STORE_RESPONSES, &plan.idempotency_rows(&*tagger)?, "store a response").await?;
    append_audit(tx, sealer, writer, &plan).await?;
    Ok((plan.outcomes()?, TxEnd::Commit))
}

/// Reads the rows that the batch's guards depend on, and takes the keys and guards that are free.
async fn query_guards(
    tx: &mut SqliteConnection,
    needed: &GuardQuery,
    sealer: &dyn StoreSealer,
) -> Result<GuardState, Outage> {
    let mut found = GuardState::default();
    if needed.needs_versions {
        let versions = query_as(sql::LOCK_VERSIONS);
        found.versions = versions.fetch_all(&mut *tx).await.map_err(Outage::during("read the versions"))?;
    }
    if !needed.idempotency_keys.is_empty() {
        let operation = "look up idempotency keys";
        let take = query_scalar(sql::TAKE_IDEMPOTENCY_KEYS).bind(to_json(&needed.idempotency_keys)?);
        found.taken_keys = take.fetch_all(&mut *tx).await.map_err(Outage::during(operation))?;
        let taken_before = needed
            .idempotency_keys
            .iter()
            .filter(|row| !found.taken_keys.contains(&row.digest))
            .cloned()
            .collect::<Vec<_>>();
        if !taken_before.is_empty() {
            let earlier = query_as(sql::EARLIER_RESPONSES).bind(to_json::<IdempotencyRow>(&taken_before)?);
            let earlier: Vec<Tagged<IdempotencyRow>> =
                earlier.fetch_all(&mut *tx).await.map_err(Outage::during(operation))?;
            found.earlier_responses = earlier.into_iter().map(|row| row.verify(sealer)).collect::<Result<_, _>>()?;
        }
    }
    if !needed.replay_guards.is_empty() {
        let take = query_scalar(sql::TAKE_REPLAY_GUARDS).bind(to_json(&needed.replay_guards)?);
        found.taken_guards = take.fetch_all(&mut *tx).await.map_err(Outage::during("take replay guards"))?;
    }
    if !needed.tasks.is_empty() {
        let lock = query_as(sql::LOCK_TASKS).bind(to_json(&needed.tasks)?);
        found.tasks = lock.fetch_all(&mut *tx).await.map_err(Outage::during("look up tasks"))?;
    }
    for (key, now) in &needed.grants_to_count {
        let Requester { issuer, subject } = &key.requester;
        let count = query_scalar(sql::COUNT_GRANTS).bind(issuer.as_str()).bind(subject.as_str());
        let count = count.bind(key.agent.as_str()).bind(key.break_glass).bind(now.unix());
        let count = count.fetch_one(&mut *tx).await.map_err(Outage::during("count grants"))?;
        found.grant_counts.insert(key.clone(), count);
    }
    Ok(found)
}

/// Releases what was taken for writes that are not applied, and updates the versions that the
/// others change.
async fn release_unused(tx: &mut SqliteConnection, plan: &BatchPlan<'_>) -> Result<(), Outage> {
    execute_rows(tx, sql::RELEASE_IDEMPOTENCY_KEYS, &plan.unused_keys, "release idempotency keys").await?;
    execute_rows(tx, sql::RELEASE_REPLAY_GUARDS, &plan.unused_guards, "release replay guards").await?;
    for VersionRow { name, version } in &plan.new_versions {
        let update = query(sql::UPDATE_VERSION).bind(name).bind(version);
        update.execute(&mut *tx).await.map_err(Outage::during("update a version"))?;
    }
    Ok(())
}

/// Appends the audit records to the writer's chain.
async fn append_audit(
    tx: &mut SqliteConnection,
    sealer: &SealerCell,
    writer: WriterId,
    plan: &BatchPlan<'_>,
) -> Result<(), Outage> {
    if plan.audit_records().next().is_none() {
        return Ok(());
    }
    let operation = "write the audit trail";
    let mut head = chain_head(tx, writer).await?;
    if head.is_none() {
        let insert = query(sql::INSERT_WRITER).bind(writer.0.to_string());
        insert.execute(&mut *tx).await.map_err(Outage::during(operation))?;
        head = chain_head(tx, writer).await?;
    }
    let mut head = head.unwrap_or_else(Head::empty);
    let (rows, actors) = AuditRecordRow::link(writer, &mut head, plan.audit_records(), &*sealer.get()?)?;
    execute_rows(tx, sql::INSERT_AUDIT, &rows, operation).await?;
    execute_rows(tx, sql::INSERT_AUDIT_AGENTS, &actors, operation).await?;
    let update = query(sql::UPDATE_WRITER).bind(writer.0.to_string()).bind(to_i64(head.n)).bind(head.hash);
    update.execute(&mut *tx).await.map_err(Outage::during(operation))?;
    Ok(())
}

async fn chain_head(tx: &mut SqliteConnection, writer: WriterId) -> Result<Option<Head>, Outage> {
    let lock = query_as(sql::LOCK_WRITER).bind(writer.0.to_string());
    let row: Option<AuditHeadRow> = lock.fetch_optional(tx).await.map_err(Outage::during("write the audit trail"))?;
    row.map(|row| row.read().map(|(_, head)| head)).transpose()
}

/// Appends the entries to the log, and sets its head.
async fn append_log(tx: &mut SqliteConnection, log: &LogContinuation) -> Result<(), Outage> {
    execute_rows(tx, sql::INSERT_LOG, &log.rows, OP_APPEND).await?;
    if let Some(head) = &log.head {
        let LogHeadRow { seq: _, link, registry_version, keys_version } = head.unverified();
        let set = query(sql::SET_LOG_HEAD).bind(link).bind(registry_version).bind(keys_version).bind(head.tag());
        set.execute(tx).await.map_err(Outage::during(OP_APPEND))?;
    }
    Ok(())
}

/// Verifies what this batch will seal anew: a new seal must not vouch for rows that were changed
/// outside this program.
async fn verify_sealed(tx: &mut SqliteConnection, sealer: &SealerCell, plan: &BatchPlan<'_>) -> Result<(), Outage> {
    if plan.seals_new_store() {
        return Ok(());
    }
    if plan.changes_registry() {
        read::read_registry(tx, sealer).await?;
    }
    if plan.changes_keys() {
        sealer.get()?.verify_keys(&read::read_keys(tx).await?)?;
    }
    Ok(())
}

/// Seals the registry and the keys as this batch leaves them. The lock on the versions keeps others
/// from changing them until the commit.
async fn seal_changes(tx: &mut SqliteConnection, sealer: &SealerCell, plan: &BatchPlan<'_>) -> Result<(), Outage> {
    if plan.changes_registry() || plan.seals_new_store() {
        let operation = "seal the registry";
        let rows = read::read_registry_rows(tx).await.map_err(Outage::during(operation))?;
        let versions: Vec<VersionRow> =
            query_as(sql::VERSIONS).fetch_all(&mut *tx).await.map_err(Outage::during(operation))?;
        let version = VersionRow::find(&versions, REGISTRY_VERSION)?;
        set_seal(tx, REGISTRY_VERSION, sealer.get()?.seal_registry(version, &rows.digest()?)?).await?;
    }
    if plan.changes_keys() || plan.seals_new_store() {
        seal_keys(tx, sealer).await?;
    }
    Ok(())
}

async fn seal_keys(tx: &mut SqliteConnection, sealer: &SealerCell) -> Result<(), Outage> {
    let seal = sealer.get()?.seal_keys(&read::read_keys(tx).await?)?;
    set_seal(tx, KEYS_VERSION, seal).await
}

async fn set_seal(tx: &mut SqliteConnection, name: &str, seal: String) -> Result<(), Outage> {
    let set = query(sql::SET_SEAL).bind(name).bind(seal);
    set.execute(tx).await.map_err(Outage::during("seal what was changed"))?;
    Ok(())
}

/// Applies one state change. `head` is the head of the log before this batch.
async fn apply_change(
    tx: &mut SqliteConnection,
    change: &StateChange,
    head: LogPosition,
    sealer: &dyn StoreSealer,
) -> Result<(), Outage> {
    let done = match change {
        StateChange::PutObject(entry) => {
            let row = ObjectRow::new(entry, head)?;
            let put = query(sql::PUT_OBJECT).bind(row.kind).bind(row.id).bind(row.body).bind(row.owner);
            put.bind(row.registered_seq).execute(tx).await
        }
        StateChange::RemoveObject(kind, id) => {
            let secret = query(sql::REMOVE_SECRET).bind(id).execute(&mut *tx).await;
            secret.map_err(Outage::during("remove a secret"))?;
            let dependents = match kind {
                ObjectKind::Agent => Some(sql::REMOVE_GRANTS_TO_AGENT),
                ObjectKind::Issuer => Some(sql::REMOVE_GRANTS_OF_ISSUER),
                ObjectKind::Resource => Some(sql::REMOVE_TOOLS),
                ObjectKind::Admin => None,
            };
            if let Some(dependents) = dependents {
                let removed = query(dependents).bind(id).execute(&mut *tx).await;
                removed.map_err(Outage::during("remove the dependents of an object"))?;
            }
            query(sql::REMOVE_OBJECT).bind(kind.as_str()).bind(id).execute(tx).await
        }
        StateChange::PutSecret(client, StoredSecretTag { tag, source: owner }) => {
            let put = query(sql::PUT_SECRET).bind(client.as_str()).bind(tag.as_bytes());
            put.bind(owner.as_str()).execute(tx).await
        }
        StateChange::RemoveSecret(client) => query(sql::REMOVE_SECRET).bind(client.as_str()).execute(tx).await,
        StateChange::PutKey(key) => {
            let row = KeyRow::new(key);
            let put = query(sql::PUT_KEY).bind(row.kid).bind(row.algorithm).bind(row.created).bind(row.activates);
            put.bind(row.retires).bind(row.gone).bind(row.public_jwk).bind(row.sealed).execute(tx).await
        }
        StateChange::RemoveKey(kid) => query(sql::REMOVE_KEY).bind(kid.as_str()).execute(tx).await,
        StateChange::PutSealedKey(key) => {
            let put = query(sql::PUT_SEALED_KEY).bind(key.name.purpose.as_str()).bind(to_i64(key.name.epoch));
            put.bind(key.created_at.unix()).bind(&key.sealed[..]).execute(tx).await
        }
        StateChange::PutCheckpoint(checkpoint) => {
            query(sql::PUT_CHECKPOINT).bind(to_i64(checkpoint.number)).bind(&checkpoint.text).execute(tx).await
        }
        StateChange::PutGrant(grant) => return put_grant(tx, grant, sealer).await,
        StateChange::RemoveGrant(id) => query(sql::REMOVE_GRANT).bind(id.to_string()).execute(tx).await,
        StateChange::PutTool(record) => {
            let row = ToolRow::new(record);
            let put = query(sql::PUT_TOOL).bind(row.resource).bind(row.tool).bind(row.accepted);
            let put = put.bind(row.accepted_definition).bind(row.accepted_at).bind(row.accepted_by);
            put.bind(row.observed).bind(row.observed_definition).bind(row.observed_at).execute(tx).await
        }
        StateChange::RemoveTool(resource, tool) => {
            query(sql::REMOVE_TOOL).bind(resource.as_str()).bind(tool.as_str()).execute(tx).await
        }
        StateChange::ClearTools(resource) => query(sql::REMOVE_TOOLS).bind(resource.as_str()).execute(tx).await,
        StateChange::PutBreakGlass(break_glass) => {
            put_grant(&mut *tx, &break_glass.grant, sealer).await?;
            let tagged = Tagged::new(BreakGlassRow::new(break_glass)?, sealer)?;
            let (row, tag) = (tagged.unverified().clone(), tagged.tag());
            let put = query(sql::PUT_BREAK_GLASS).bind(break_glass.grant.id.to_string()).bind(row.requester_issuer);
            let put = put.bind(row.requester_subject).bind(row.agent).bind(row.authority).bind(row.until);
            put.bind(row.actor).bind(row.occurred_at).bind(row.reason).bind(tag).execute(tx).await
        }
        StateChange::Block(one) => {
            let row = BlockRow::new(one);
            let put = query(sql::PUT_BLOCK).bind(row.kind).bind(row.id).bind(row.block_kind).bind(row.reason);
            put.bind(row.actor).bind(row.occurred_at).execute(tx).await
        }
        StateChange::Unblock(subject) => {
            query(sql::REMOVE_BLOCK).bind(subject.kind()).bind(subject.id()).execute(tx).await
        }
        StateChange::RecordIssuer(issuer) => query(sql::RECORD_ISSUER).bind(issuer.as_str()).execute(tx).await,
        StateChange::RecordFile(file) => {
            let row = AppliedFileRow::new(file);
            let record = query(sql::RECORD_FILE).bind(row.number).bind(row.digest).bind(row.generation);
            record.bind(row.actor).bind(row.occurred_at).execute(tx).await
        }
        // The caller applies the first two, which need the stored row, and seals the store when all
        // changes are applied.
        StateChange::TransitionTask(..) | StateChange::ReviewBreakGlass(..) | StateChange::SealNewStore => {
            return Ok(());
        }
    };
    done.map_err(Outage::during("apply a state change"))?;
    Ok(())
}

async fn put_grant(tx: &mut SqliteConnection, grant: &Grant, sealer: &dyn StoreSealer) -> Result<(), Outage> {
    let tagged = Tagged::new(GrantRow::new(grant)?, sealer)?;
    let (row, tag) = (tagged.unverified().clone(), tagged.tag());
    let put = query(sql::PUT_GRANT).bind(grant.id.to_string()).bind(row.requester_issuer).bind(row.requester_subject);
    let put = put.bind(row.agent).bind(row.authority).bind(row.until).bind(row.actor).bind(row.occurred_at);
    let put = put.bind(row.break_glass).bind(tag);
    put.execute(tx).await.map_err(Outage::during("record a grant"))?;
    Ok(())
}

async fn update_task(tx: &mut SqliteConnection, id: TaskId, task: &Tagged<TaskRow>) -> Result<(), Outage> {
    let TaskRow { state, version, last_transition, .. } = task.unverified();
    let update = query(sql::TRANSITION_TASK).bind(id.to_string()).bind(state).bind(version).bind(last_transition);
    update.bind(task.tag()).execute(tx).await.map_err(Outage::during("move a task to another state"))?;
    Ok(())
}

async fn review_break_glass(
    tx: &mut SqliteConnection,
    id: GrantId,
    review: &Review,
    sealer: &dyn StoreSealer,
) -> Result<(), Outage> {
    let operation = "record a review";
    let find = query_as(sql::FIND_BREAK_GLASS).bind(id.to_string());
    let row: Option<Tagged<BreakGlassRow>> = find.fetch_optional(&mut *tx).await.map_err(Outage::during(operation))?;
    let Some(row) = row else { return Ok(()) };
    let row = Tagged::new(row.verify(sealer)?.after_review(review), sealer)?;
    let put = query(sql::REVIEW_BREAK_GLASS).bind(id.to_string()).bind(&review.by).bind(review.at.unix());
    let put = put.bind(review.note.as_str()).bind(row.tag());
    put.execute(tx).await.map_err(Outage::during(operation))?;
    Ok(())
}

/// Runs one statement for all rows, or none if there are no rows.
async fn execute_rows<T: serde::Serialize>(
    tx: &mut SqliteConnection,
    statement: &'static str,
    rows: &[T],
    operation: &'static str,
) -> Result<(), Outage> {
    if !rows.is_empty() {
        query(statement).bind(to_json(rows)?).execute(tx).await.map_err(Outage::during(operation))?;
    }
    Ok(())
}

/// The number of batches of tokens, and of tasks, that one garbage collection deletes.
const MAX_BATCHES: usize = 200;

pub(super) async fn collect_garbage(
    lane: &Lane,
    sealer: &SealerCell,
    now: Timestamp,
    cutoffs: &RetentionCutoffs,
) -> Result<GcStats, Outage> {
    let RetentionCutoffs { tokens, tasks, idempotency, one_time_ids } = *cutoffs;
    Ok(GcStats {
        replay_guards: delete_expired(lane, sql::DELETE_EXPIRED_REPLAY_GUARDS, now.min(one_time_ids)).await?,
        idempotency_records: delete_expired(lane, sql::DELETE_EXPIRED_IDEMPOTENCY_KEYS, now.min(idempotency)).await?,
        signing_keys: on!(lane, delete_expired_keys(sealer, now))?,
        // A shard that is created anew would allocate indexes twice, so it is deleted long after
        // its end.
        status_shards: delete_expired(lane, sql::DELETE_EXPIRED_STATUS_SHARDS, now.saturating_sub(SHARD_RETENTION))
            .await?,
        tokens: delete_old_tokens(lane, tokens).await?,
        tasks: delete_old_tasks(lane, None, tasks).await?,
    })
}

/// Deletes the signing keys that are not published any more, and seals the others.
async fn delete_expired_keys(
    connection: &mut SqliteConnection,
    sealer: &SealerCell,
    now: Timestamp,
) -> Result<u64, Outage> {
    let operation = "delete expired signing keys";
    let has_expired = query_scalar::<_, bool>(sql::HAS_EXPIRED_SIGNING_KEYS).bind(now.unix());
    if !has_expired.fetch_one(&mut *connection).await.map_err(Outage::during(operation))? {
        return Ok(0);
    }
    let mut tx = connection.begin_with(sql::BEGIN).await.map_err(Outage::during(operation))?;
    query(sql::LOCK_VERSIONS).execute(&mut *tx).await.map_err(Outage::during(operation))?;
    sealer.get()?.verify_keys(&read::read_keys(&mut tx).await?)?;
    let deleted = query(sql::DELETE_EXPIRED_SIGNING_KEYS).bind(now.unix()).execute(&mut *tx).await;
    let deleted = deleted.map_err(Outage::during(operation))?.rows_affected();
    seal_keys(&mut tx, sealer).await?;
    tx.commit().await.map_err(Outage::during(operation))?;
    Ok(deleted)
}

/// Deletes a limited number of batches of tokens.
async fn delete_old_tokens(lane: &Lane, cutoff: Timestamp) -> Result<u64, Outage> {
    let mut deleted = 0;
    for _ in 0..MAX_BATCHES {
        match on!(lane, delete_part(sql::DELETE_OLD_TOKENS, cutoff))? {
            0 => break,
            more => deleted += more,
        }
    }
    Ok(deleted)
}

/// Deletes a limited number of batches of tasks: those of a requester, or all.
async fn delete_old_tasks(lane: &Lane, requester: Option<&Requester>, cutoff: Timestamp) -> Result<u64, Outage> {
    let mut deleted = 0;
    for _ in 0..MAX_BATCHES {
        match on!(lane, delete_task_batch(requester, cutoff))? {
            0 => break,
            more => deleted += more,
        }
    }
    Ok(deleted)
}

async fn delete_task_batch(
    connection: &mut SqliteConnection,
    requester: Option<&Requester>,
    cutoff: Timestamp,
) -> Result<u64, Outage> {
    let operation = "delete old tasks";
    let mut tx = connection.begin_with(sql::BEGIN).await.map_err(Outage::during(operation))?;
    let select = match requester {
        None => query_scalar(sql::OLD_TASKS),
        Some(Requester { issuer, subject }) => {
            query_scalar(sql::OLD_TASKS_OF_REQUESTER).bind(issuer.as_str()).bind(subject.as_str())
        }
    };
    let ids: Vec<String> = select.bind(cutoff.unix()).fetch_all(&mut *tx).await.map_err(Outage::during(operation))?;
    let mut deleted = 0;
    if !ids.is_empty() {
        for statement in [sql::DELETE_RESOURCES_OF_TASKS, sql::DELETE_TASKS] {
            let delete = query(statement).bind(to_json(&ids)?);
            deleted = delete.execute(&mut *tx).await.map_err(Outage::during(operation))?.rows_affected();
        }
    }
    tx.commit().await.map_err(Outage::during(operation))?;
    Ok(deleted)
}

/// Deletes rows part by part. The connection is free for other calls between two parts.
async fn delete_expired(lane: &Lane, statement: &'static str, now: Timestamp) -> Result<u64, Outage> {
    let mut deleted = 0;
    loop {
        match on!(lane, delete_part(statement, now))? {
            0 => return Ok(deleted),
            more => deleted += more,
        }
    }
}

async fn delete_part(
    connection: &mut SqliteConnection,
    statement: &'static str,
    now: Timestamp,
) -> Result<u64, Outage> {
    let done = query(statement).bind(now.unix()).execute(connection).await;
    done.map(|done| done.rows_affected()).map_err(Outage::during("collect garbage"))
}

/// Deletes the first records of a chain, up to a number, in one transaction.
pub(super) async fn delete_audit_records(
    connection: &mut SqliteConnection,
    writer: WriterId,
    through: u64,
    limit: u32,
) -> Result<u64, Outage> {
    let operation = "delete audit records";
    let mut tx = connection.begin_with(sql::BEGIN).await.map_err(Outage::during(operation))?;
    let mut deleted = 0;
    for statement in [sql::PRUNE_AUDIT_AGENTS, sql::PRUNE_AUDIT] {
        let delete = query(statement).bind(writer.0.to_string()).bind(to_i64(through)).bind(i64::from(limit));
        deleted = delete.execute(&mut *tx).await.map_err(Outage::during(operation))?.rows_affected();
    }
    tx.commit().await.map_err(Outage::during(operation))?;
    Ok(deleted)
}

/// Replaces the personal values of a record, and their copies.
pub(super) async fn replace_personal_values(
    connection: &mut SqliteConnection,
    writer: WriterId,
    n: u64,
    personal: &str,
    columns: &SearchColumns,
) -> Result<(), Outage> {
    let update = query(sql::REPLACE_PERSONAL_VALUES).bind(writer.0.to_string()).bind(to_i64(n)).bind(personal);
    let update = update.bind(&columns.requester_issuer).bind(&columns.requester_subject).bind(&columns.resource);
    update.execute(connection).await.map(|_| ()).map_err(Outage::during("replace personal values"))
}

/// Deletes what is stored about a requester and has ended.
pub(super) async fn delete_requester_rows(
    lane: &Lane,
    requester: &Requester,
    cutoff: Timestamp,
) -> Result<RequesterRows, Outage> {
    Ok(RequesterRows {
        tokens: delete_of_requester(lane, sql::DELETE_TOKENS_OF_REQUESTER, requester, cutoff).await?,
        tasks: delete_old_tasks(lane, Some(requester), cutoff).await?,
        // Before the grants: a break-glass grant without its row in `grants` counts as withdrawn.
        break_glass: delete_of_requester(lane, sql::DELETE_BREAK_GLASS_OF_REQUESTER, requester, cutoff).await?,
        grants: delete_of_requester(lane, sql::DELETE_GRANTS_OF_REQUESTER, requester, cutoff).await?,
    })
}

/// Deletes rows of a requester in batches, up to a limited number of them.
async fn delete_of_requester(
    lane: &Lane,
    statement: &'static str,
    requester: &Requester,
    cutoff: Timestamp,
) -> Result<u64, Outage> {
    let mut deleted = 0;
    for _ in 0..MAX_BATCHES {
        match on!(lane, delete_part_of_requester(statement, requester, cutoff))? {
            0 => break,
            more => deleted += more,
        }
    }
    Ok(deleted)
}

async fn delete_part_of_requester(
    connection: &mut SqliteConnection,
    statement: &'static str,
    requester: &Requester,
    cutoff: Timestamp,
) -> Result<u64, Outage> {
    let delete = query(statement).bind(requester.issuer.as_str()).bind(requester.subject.as_str()).bind(cutoff.unix());
    let done = delete.execute(connection).await;
    done.map(|done| done.rows_affected()).map_err(Outage::during("delete the rows of a requester"))
}

/// Writes a value of a few kilobytes.
pub(super) async fn probe_write(connection: &mut SqliteConnection, number: u64) -> Result<(), Outage> {
    let probe = query(sql::WRITE_PROBE).bind(to_i64(number));
    probe.execute(connection).await.map(|_| ()).map_err(Outage::during("probe a write"))
}
