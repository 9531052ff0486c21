//! Reads.

use sqlx::{Connection, PgConnection, query, query_as, query_scalar};
use uuid::Uuid;

use super::sql;
use crate::{
    adapters::store::{
        batch::{KEYS_VERSION, REGISTRY_VERSION},
        cursor,
        log_scan::{LogScan, read_entries},
        rows::{
            AppliedFileRow, AuditHeadRow, AuditRecordRow, CheckpointRow, EvidenceRow, GrantRow, IdempotencyRow, KeyRow,
            LogAnchorRow, LogHeadRow, LogRow, RegistryRows, SealedKeyRow, StoredBreakGlassRow, Tagged, TaskRow,
            TokenRow, ToolRow, VersionRow, WorkScan, digest_of, party_keys, read_endable, read_session, to_i64,
            to_json,
        },
        schema::AppliedMigration,
        store_sealer::SealerCell,
    },
    domain::{
        audit::{
            self, Head, WriterId,
            checkpoint::{RegistryState, SignedCheckpoint},
        },
        configuration::ConfigurationHistory,
        grants::{
            Grant,
            break_glass::{BreakGlassGrant, ReviewState},
        },
        id::{ClientId, GrantId, RequestId, TaskId, TokenId},
        quota::QuotaKey,
        registry::tool::ToolRecord,
        revocation::{LinkedEntry, LogAnchor, LogEntry, LogPosition, evidence::EvidenceDigest},
        settings::{MAX_CLOCK_SKEW, TOKEN_LIFETIME_CAP},
        task::{Requester, Task, TaskState},
        time::Timestamp,
        uri::ResourceUri,
    },
    ports::{
        AuditFilter, AuditRow, AuditState, EvidenceSelector, GrantFilter, ListError, LiveCounts, Outage, Page,
        PageRequest, RequesterRows, SeenEvidence, StoredKeys, StoredRegistry, TamperingError, TaskFilter, TokenFilter,
        TokenRecord, WriteOutcome,
    },
};

const OP_READ_SCHEMA: &str = "read the store's schema";

pub(super) async fn read_applied_migrations(connection: &mut PgConnection) -> Result<Vec<AppliedMigration>, Outage> {
    let has_schema = query_scalar::<_, bool>(sql::HAS_SCHEMA).fetch_one(&mut *connection).await;
    if !has_schema.map_err(Outage::during(OP_READ_SCHEMA))? {
        return Ok(Vec::new());
    }
    let applied = query_as(sql::APPLIED_MIGRATIONS).fetch_all(&mut *connection).await;
    applied.map_err(Outage::during(OP_READ_SCHEMA))
}

pub(super) async fn read_log_head(connection: &mut PgConnection, sealer: &SealerCell) -> Result<LogPosition, Outage> {
    Ok(read_head_row(connection, sealer).await?.position())
}

async fn read_head_row(connection: &mut PgConnection, sealer: &SealerCell) -> Result<LogHeadRow, Outage> {
    let head: Tagged<LogHeadRow> =
        query_as(sql::LOG_HEAD).fetch_one(&mut *connection).await.map_err(Outage::during("read the log's head"))?;
    head.verify(&*sealer.get()?)
}

/// Compares the versions with those that the head of the log names: an earlier registry or earlier
/// keys that were put back, seal included, do not match it.
async fn verify_versions(tx: &mut PgConnection, versions: &[VersionRow], sealer: &SealerCell) -> Result<(), Outage> {
    let head = read_head_row(tx, sealer).await?;
    for (name, attested) in [(REGISTRY_VERSION, head.registry_version), (KEYS_VERSION, head.keys_version)] {
        if to_i64(VersionRow::find(versions, name)?) != attested {
            return Err(Outage::during("verify the versions")(TamperingError::Version(name)));
        }
    }
    Ok(())
}

pub(super) async fn read_linked_log(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    seq: LogPosition,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<LinkedEntry>, Outage> {
    if now == Timestamp::EPOCH {
        let query = query_as(sql::LOG_AFTER).bind(to_i64(seq.number())).bind(now.unix()).bind(i64::from(limit));
        return read_entries(query.fetch(&mut *connection), Some(seq), &*sealer.get()?).await;
    }
    let mut page = LogScan::new(seq, limit);
    loop {
        let query = query_as(sql::RETAINED_LOG_AFTER)
            .bind(page.position)
            .bind(now.unix())
            .bind(page.remaining())
            .bind(page.width);
        let found = read_entries(query.fetch(&mut *connection), None, &*sealer.get()?).await?;
        if let Some(found) = page.add_range(found) {
            return Ok(found);
        }
    }
}

pub(super) async fn load_log_anchor(connection: &mut PgConnection, sealer: &SealerCell) -> Result<LogAnchor, Outage> {
    let row: Option<Tagged<LogAnchorRow>> = query_as(sql::LOG_ANCHOR)
        .fetch_optional(&mut *connection)
        .await
        .map_err(Outage::during("read the anchor of the log"))?;
    let anchor = row.map(|row| row.read(&*sealer.get()?, LogAnchorRow::read)).transpose()?;
    Ok(anchor.unwrap_or_default())
}

pub(super) async fn store_log_anchor(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    anchor: &LogAnchor,
) -> Result<(), Outage> {
    let row = Tagged::new(LogAnchorRow::new(anchor), &*sealer.get()?)?;
    let LogAnchorRow { seq, link, hours } = row.unverified();
    let put = query(sql::PUT_LOG_ANCHOR).bind(seq).bind(link).bind(hours).bind(row.tag());
    put.execute(&mut *connection).await.map_err(Outage::during("store an anchor of the log"))?;
    Ok(())
}

pub(super) async fn load_registry(
    connection: &mut PgConnection,
    sealer: &SealerCell,
) -> Result<StoredRegistry, Outage> {
    let operation = "read the registry";
    let mut tx = connection.begin_with(sql::BEGIN_SNAPSHOT).await.map_err(Outage::during(operation))?;
    let registry = read_registry(&mut tx, sealer).await?;
    tx.commit().await.map_err(Outage::during(operation))?;
    Ok(registry)
}

/// Reads the registry in a transaction, and verifies its seal.
pub(super) async fn read_registry(tx: &mut PgConnection, sealer: &SealerCell) -> Result<StoredRegistry, Outage> {
    let operation = "read the registry";
    let versions: Vec<VersionRow> =
        query_as(sql::VERSIONS).fetch_all(&mut *tx).await.map_err(Outage::during(operation))?;
    let seal = query_scalar(sql::SEAL).bind(REGISTRY_VERSION).fetch_one(&mut *tx).await;
    let seal = seal.map_err(Outage::during(operation))?;
    let rows = read_registry_rows(tx).await.map_err(Outage::during(operation))?;
    let registry = rows.read(VersionRow::find(&versions, REGISTRY_VERSION)?, seal, sealer)?;
    verify_versions(tx, &versions, sealer).await?;
    Ok(registry)
}

pub(super) async fn load_configuration_history(connection: &mut PgConnection) -> Result<ConfigurationHistory, Outage> {
    let operation = "read the configuration history";
    let issuer = query_scalar(sql::ISSUER).fetch_optional(&mut *connection).await.map_err(Outage::during(operation))?;
    let rows: Vec<AppliedFileRow> =
        query_as(sql::APPLIED_FILES).fetch_all(&mut *connection).await.map_err(Outage::during(operation))?;
    let applied = rows.into_iter().map(AppliedFileRow::read).collect::<Result<_, _>>()?;
    Ok(ConfigurationHistory { issuer, applied })
}

pub(super) async fn read_registry_rows(tx: &mut PgConnection) -> Result<RegistryRows, sqlx::Error> {
    Ok(RegistryRows {
        objects: query_as(sql::OBJECTS).fetch_all(&mut *tx).await?,
        secrets: query_as(sql::SECRETS).fetch_all(&mut *tx).await?,
        tools: query_as(sql::KNOWN_TOOLS).fetch_all(&mut *tx).await?,
        blocks: query_as(sql::BLOCKS).fetch_all(&mut *tx).await?,
    })
}

pub(super) async fn list_tools(connection: &mut PgConnection, resource: &ClientId) -> Result<Vec<ToolRecord>, Outage> {
    let query = query_as::<_, ToolRow>(sql::TOOLS).bind(resource.as_str());
    let rows = query.fetch_all(&mut *connection).await.map_err(Outage::during("read the tools of a resource"))?;
    rows.into_iter().map(ToolRow::read).collect()
}

/// The first keys are loaded before the store is unlocked. The keyring that unlocks it verifies
/// them.
pub(super) async fn load_keys(connection: &mut PgConnection, sealer: &SealerCell) -> Result<StoredKeys, Outage> {
    let operation = "read the keys";
    let mut tx = connection.begin_with(sql::BEGIN_SNAPSHOT).await.map_err(Outage::during(operation))?;
    let keys = read_keys(&mut tx).await?;
    if let Some(sealer_now) = sealer.find() {
        sealer_now.verify_keys(&keys)?;
        let versions: Vec<VersionRow> =
            query_as(sql::VERSIONS).fetch_all(&mut *tx).await.map_err(Outage::during(operation))?;
        verify_versions(&mut tx, &versions, sealer).await?;
    }
    tx.commit().await.map_err(Outage::during(operation))?;
    Ok(keys)
}

/// Reads the keys in a transaction, without regard to their seal.
pub(super) async fn read_keys(tx: &mut PgConnection) -> Result<StoredKeys, Outage> {
    let operation = "read the keys";
    let versions: Vec<VersionRow> =
        query_as(sql::VERSIONS).fetch_all(&mut *tx).await.map_err(Outage::during(operation))?;
    let keys: Vec<KeyRow> = query_as(sql::SIGNING_KEYS).fetch_all(&mut *tx).await.map_err(Outage::during(operation))?;
    let sealed_keys: Vec<SealedKeyRow> =
        query_as(sql::SEALED_KEYS).fetch_all(&mut *tx).await.map_err(Outage::during(operation))?;
    let seal = query_scalar(sql::SEAL).bind(KEYS_VERSION).fetch_one(&mut *tx).await;
    Ok(StoredKeys {
        version: VersionRow::find(&versions, KEYS_VERSION)?,
        keys: keys.into_iter().map(KeyRow::read).collect::<Result<_, _>>()?,
        sealed_keys: sealed_keys.into_iter().map(SealedKeyRow::read).collect::<Result<_, _>>()?,
        seal: seal.map_err(Outage::during(operation))?,
    })
}

pub(super) async fn is_unused(connection: &mut PgConnection) -> Result<bool, Outage> {
    query_scalar(sql::IS_UNUSED)
        .fetch_one(&mut *connection)
        .await
        .map_err(Outage::during("look for records in the store"))
}

pub(super) async fn find_task(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    id: TaskId,
) -> Result<Option<Task>, Outage> {
    let query = query_as(sql::TASK).bind(id.uuid());
    let row: Option<Tagged<TaskRow>> =
        query.fetch_optional(&mut *connection).await.map_err(Outage::during("read a task"))?;
    row.map(|row| row.read(&*sealer.get()?, TaskRow::read)).transpose()
}

/// Reads at most `limit` tasks, each of which is work to do. The statement takes the time, if there
/// is one, and the number of rows.
async fn scan_tasks(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    (statement, time): (&'static str, Option<Timestamp>),
    limit: u32,
    operation: &'static str,
) -> Result<Vec<Task>, Outage> {
    let mut scan = WorkScan::new(limit);
    loop {
        let query = query_as::<_, Tagged<TaskRow>>(statement);
        let query = time.into_iter().fold(query, |query, time| query.bind(time.unix())).bind(scan.limit());
        let rows = query.fetch_all(&mut *connection).await.map_err(Outage::during(operation))?;
        if let Some(tasks) = scan.add(rows, &*sealer.get()?, TaskRow::read)? {
            return Ok(tasks);
        }
    }
}

pub(super) async fn list_overdue_tasks(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Task>, Outage> {
    scan_tasks(connection, sealer, (sql::OVERDUE_TASKS, Some(now)), limit, "list overdue tasks").await
}

pub(super) async fn count_live(
    connection: &mut PgConnection,
    now: Timestamp,
    issued_since: Timestamp,
    limit: u32,
) -> Result<LiveCounts, Outage> {
    let tasks = query_as::<_, (i64,)>(sql::LIVE_TASKS).bind(i64::from(limit)).fetch_one(&mut *connection).await;
    let tasks = tasks.map_err(Outage::during("count live tasks"))?;
    let tokens =
        query_as::<_, (i64,)>(sql::LIVE_TOKENS).bind(now.unix()).bind(issued_since.unix()).bind(i64::from(limit));
    let tokens = tokens.fetch_one(&mut *connection).await.map_err(Outage::during("count live tokens"))?;
    let count = |(count,): (i64,)| u64::try_from(count).unwrap_or_default();
    Ok(LiveCounts { tasks: count(tasks), tokens: count(tokens) })
}

pub(super) async fn list_tasks(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    filter: &TaskFilter,
    page: &PageRequest,
) -> Result<Page<Task>, ListError> {
    // Few tasks are open, and all tasks at a resource may be many: a list of open tasks looks for
    // the resource in each.
    let only_open = filter.only_open || matches!(filter.state, Some(TaskState::Active | TaskState::Suspended));
    let by_resource = filter.resource.is_some() && !only_open;
    let statement = match (by_resource, &filter.requester, &filter.agent) {
        (true, Some(_), _) => sql::TASKS_BY_RESOURCE_AND_REQUESTER,
        (true, None, Some(_)) => sql::TASKS_BY_RESOURCE_AND_AGENT,
        (true, None, None) => sql::TASKS_BY_RESOURCE,
        (false, Some(_), _) => sql::TASKS_BY_REQUESTER,
        (false, None, Some(_)) => sql::TASKS_BY_AGENT,
        (false, None, None) => sql::TASKS,
    };
    let (created, id) = cursor::start_before(
        cursor::parse_cursor(page)?.unwrap_or((i64::MAX, Uuid::max())),
        filter.created_before.map(|before| (before.unix(), Uuid::nil())),
    );
    let requester = filter.requester.as_ref();
    let query = query_as::<_, Tagged<TaskRow>>(statement)
        .bind(requester.map(|(issuer, _)| issuer.as_str()))
        .bind(requester.map(|(_, subject)| subject.as_str()))
        .bind(filter.agent.as_ref().map(ClientId::as_str))
        .bind(filter.state.map(TaskState::as_str))
        .bind(created)
        .bind(id)
        .bind(cursor::clamp_limit(page))
        .bind(filter.created_from.unwrap_or(Timestamp::EPOCH).unix())
        .bind(filter.resource.as_ref().map(ResourceUri::as_str))
        .bind(filter.only_open);
    let rows = query.fetch_all(&mut *connection).await.map_err(Outage::during("list tasks"))?;
    let sealer = sealer.get()?;
    let tasks = rows.into_iter().map(|row| row.read(&*sealer, TaskRow::read)).collect::<Result<_, _>>()?;
    cursor::build_page(page, tasks, |task: &Task| (task.created_at, task.id))
}

pub(super) async fn find_token(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    id: TokenId,
) -> Result<Option<TokenRecord>, Outage> {
    let query = query_as(sql::TOKEN).bind(id.uuid());
    let row: Option<Tagged<TokenRow>> =
        query.fetch_optional(&mut *connection).await.map_err(Outage::during("read a token's record"))?;
    row.map(|row| row.read(&*sealer.get()?, TokenRow::read)).transpose()
}

pub(super) async fn list_tokens(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    filter: &TokenFilter,
    page: &PageRequest,
) -> Result<Page<TokenRecord>, ListError> {
    let statement = match filter {
        TokenFilter { task: Some(_), .. } => sql::TOKENS_BY_TASK,
        TokenFilter { requester: Some(_), .. } => sql::TOKENS_BY_REQUESTER,
        TokenFilter { client: Some(_), .. } => sql::TOKENS_BY_CLIENT,
        TokenFilter { audience: Some(_), .. } => sql::TOKENS_BY_AUDIENCE,
        TokenFilter { task: None, requester: None, client: None, audience: None, unexpired_at: _, issued_from: _ } => {
            sql::TOKENS
        }
    };
    let (issued, id) = cursor::parse_cursor(page)?.unwrap_or((i64::MAX, Uuid::max()));
    let requester = filter.requester.as_ref();
    let query = query_as::<_, Tagged<TokenRow>>(statement)
        .bind(filter.task.map(TaskId::uuid))
        .bind(requester.map(|(issuer, _)| issuer.as_str()))
        .bind(requester.map(|(_, subject)| subject.as_str()))
        .bind(filter.client.as_ref().map(ClientId::as_str))
        .bind(filter.audience.as_deref())
        .bind(filter.unexpired_at.map(Timestamp::unix))
        .bind(issued)
        .bind(id)
        .bind(cursor::clamp_limit(page))
        .bind(filter.earliest_issue().unix());
    let rows = query.fetch_all(&mut *connection).await.map_err(Outage::during("list tokens"))?;
    let sealer = sealer.get()?;
    let tokens = rows.into_iter().map(|row| row.read(&*sealer, TokenRow::read)).collect::<Result<_, _>>()?;
    cursor::build_page(page, tokens, |token: &TokenRecord| (token.issued, token.id))
}

pub(super) async fn list_evidence(
    connection: &mut PgConnection,
    selector: &EvidenceSelector,
    alive_at: Timestamp,
) -> Result<Vec<SeenEvidence>, Outage> {
    let query = match selector {
        EvidenceSelector::Tasks(ids) => query_as(sql::EVIDENCE_BY_TASK).bind(to_json(ids)?).bind(alive_at.unix()),
        EvidenceSelector::Requester(requester, issued_from) => query_as(sql::EVIDENCE_BY_REQUESTER)
            .bind(requester.issuer.to_string())
            .bind(requester.subject.to_string())
            .bind(issued_from.unix())
            .bind(alive_at.unix())
            .bind(issued_from.saturating_sub(MAX_CLOCK_SKEW).unix()),
    };
    let rows = query.fetch_all(&mut *connection).await.map_err(Outage::during("list exchanged user tokens"))?;
    Ok(read_endable(&rows, EvidenceRow::read))
}

pub(super) async fn list_sessions(
    connection: &mut PgConnection,
    requester: &Requester,
) -> Result<Vec<EvidenceDigest>, Outage> {
    let query = query_scalar::<_, String>(sql::SESSIONS_BY_REQUESTER);
    let query = query.bind(requester.issuer.as_str()).bind(requester.subject.as_str());
    let rows = query.fetch_all(&mut *connection).await.map_err(Outage::during("list sessions"))?;
    Ok(read_endable(&rows, |text| read_session(text)))
}

pub(super) async fn list_tasks_without_grant(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    limit: u32,
) -> Result<Vec<Task>, Outage> {
    scan_tasks(connection, sealer, (sql::TASKS_WITHOUT_GRANT, None), limit, "list tasks whose grant was removed").await
}

pub(super) async fn list_orphaned_tasks(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    limit: u32,
) -> Result<Vec<Task>, Outage> {
    scan_tasks(connection, sealer, (sql::ORPHANED_TASKS, None), limit, "list orphaned tasks").await
}

pub(super) async fn is_party_revoked(connection: &mut PgConnection, task: &Task) -> Result<bool, Outage> {
    let [requester, agent, issuer, delegation] = party_keys(task);
    let query = query_scalar(sql::PARTY_REVOKED).bind(requester).bind(agent).bind(issuer).bind(delegation);
    let query = query.bind(to_i64(task.rev.number()));
    query.fetch_one(&mut *connection).await.map_err(Outage::during("look up revocations of the parties of a task"))
}

pub(super) async fn list_tasks_of_revoked_parties(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    since: Timestamp,
    limit: u32,
) -> Result<Vec<Task>, Outage> {
    scan_tasks(connection, sealer, (sql::TASKS_OF_REVOKED_PARTIES, Some(since)), limit, "list tasks of revoked parties")
        .await
}

pub(super) async fn count_usage(
    connection: &mut PgConnection,
    key: &QuotaKey,
    now: Timestamp,
    limit: u32,
) -> Result<u32, Outage> {
    let query = match key {
        QuotaKey::OpenTasksOfAgent(agent) => {
            query_scalar::<_, i64>(sql::OPEN_TASKS_OF_AGENT).bind(agent.as_str()).bind(now.unix())
        }
        QuotaKey::OpenTasksOfRequester(requester) => query_scalar(sql::OPEN_TASKS_OF_REQUESTER)
            .bind(requester.issuer.as_str())
            .bind(requester.subject.as_str())
            .bind(now.unix()),
        QuotaKey::LiveTokensOfTask(id) => {
            let earliest_issue = now.saturating_sub(TOKEN_LIFETIME_CAP).saturating_sub(MAX_CLOCK_SKEW);
            query_scalar(sql::LIVE_TOKENS_OF_TASK).bind(id.uuid()).bind(now.unix()).bind(earliest_issue.unix())
        }
    };
    let count =
        query.bind(i64::from(limit)).fetch_one(&mut *connection).await.map_err(Outage::during("count for a quota"))?;
    u32::try_from(count).map_err(Outage::during("count for a quota"))
}

pub(super) async fn find_grant(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    id: GrantId,
) -> Result<Option<Grant>, Outage> {
    let query = query_as(sql::GRANT).bind(id.uuid());
    let row: Option<Tagged<GrantRow>> =
        query.fetch_optional(&mut *connection).await.map_err(Outage::during("read a grant"))?;
    row.map(|row| row.read(&*sealer.get()?, GrantRow::read)).transpose()
}

pub(super) async fn list_live_grants(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    requester: &Requester,
    agent: &ClientId,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Grant>, Outage> {
    let query = query_as::<_, Tagged<GrantRow>>(sql::LIVE_GRANTS)
        .bind(requester.issuer.as_str())
        .bind(requester.subject.as_str())
        .bind(agent.as_str())
        .bind(now.unix())
        .bind(i64::from(limit));
    let rows = query.fetch_all(&mut *connection).await.map_err(Outage::during("list live grants"))?;
    let sealer = sealer.get()?;
    rows.into_iter().map(|row| row.read(&*sealer, GrantRow::read)).collect()
}

pub(super) async fn list_grants(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    filter: &GrantFilter,
    page: &PageRequest,
) -> Result<Page<Grant>, ListError> {
    let statement = match filter {
        GrantFilter { requester: Some(_), .. } => sql::GRANTS_BY_REQUESTER,
        GrantFilter { agent: Some(_), .. } => sql::GRANTS_BY_AGENT,
        GrantFilter { requester: None, agent: None } => sql::GRANTS,
    };
    let (at, id) = cursor::parse_cursor(page)?.unwrap_or((i64::MAX, Uuid::max()));
    let requester = filter.requester.as_ref();
    let query = query_as::<_, Tagged<GrantRow>>(statement)
        .bind(requester.map(|(issuer, _)| issuer.as_str()))
        .bind(requester.map(|(_, subject)| subject.as_str()))
        .bind(filter.agent.as_ref().map(ClientId::as_str))
        .bind(at)
        .bind(id)
        .bind(cursor::clamp_limit(page));
    let rows = query.fetch_all(&mut *connection).await.map_err(Outage::during("list grants"))?;
    let sealer = sealer.get()?;
    let grants = rows.into_iter().map(|row| row.read(&*sealer, GrantRow::read)).collect::<Result<_, _>>()?;
    cursor::build_page(page, grants, |grant: &Grant| (grant.at, grant.id))
}

pub(super) async fn find_break_glass(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    id: GrantId,
) -> Result<Option<BreakGlassGrant>, Outage> {
    let query = query_as(sql::BREAK_GLASS).bind(id.uuid());
    let row: Option<StoredBreakGlassRow> =
        query.fetch_optional(&mut *connection).await.map_err(Outage::during("read a break-glass grant"))?;
    row.map(|row| row.read(&*sealer.get()?)).transpose()
}

pub(super) async fn list_break_glass(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    review: Option<ReviewState>,
    page: &PageRequest,
) -> Result<Page<BreakGlassGrant>, ListError> {
    let statement = match review {
        None => sql::BREAK_GLASS_LIST,
        Some(ReviewState::Open) => sql::BREAK_GLASS_UNREVIEWED,
        Some(ReviewState::Done) => sql::BREAK_GLASS_REVIEWED,
    };
    let (at, id) = cursor::parse_cursor(page)?.unwrap_or((i64::MAX, Uuid::max()));
    let query = query_as::<_, StoredBreakGlassRow>(statement).bind(at).bind(id).bind(cursor::clamp_limit(page));
    let rows = query.fetch_all(&mut *connection).await.map_err(Outage::during("list break-glass grants"))?;
    let sealer = sealer.get()?;
    let all = rows.into_iter().map(|row| row.read(&*sealer)).collect::<Result<_, _>>()?;
    cursor::build_page(page, all, |one: &BreakGlassGrant| (one.grant.at, one.grant.id))
}

pub(super) async fn list_revocations(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    page: &PageRequest,
) -> Result<Page<LogEntry>, ListError> {
    let query = query_as(sql::REVOCATIONS)
        .bind(cursor::parse_cursor(page)?.unwrap_or(i64::MAX))
        .bind(cursor::clamp_limit(page));
    let rows: Vec<Tagged<LogRow>> =
        query.fetch_all(&mut *connection).await.map_err(Outage::during("list revocations"))?;
    let sealer = sealer.get()?;
    let entries = rows.into_iter().map(|row| row.read(&*sealer, LogRow::read)).collect::<Result<_, _>>()?;
    cursor::build_page(page, entries, |entry: &LogEntry| entry.seq)
}

pub(super) async fn find_idempotent_response(
    connection: &mut PgConnection,
    sealer: &SealerCell,
    caller: &str,
    key: &str,
) -> Result<Option<WriteOutcome>, Outage> {
    let query = query_as(sql::IDEMPOTENT_RESPONSE).bind(digest_of(caller, key));
    let row: Option<Tagged<IdempotencyRow>> =
        query.fetch_optional(&mut *connection).await.map_err(Outage::during("look up an idempotency key"))?;
    row.map(|row| row.read(&*sealer.get()?, IdempotencyRow::read)).transpose()
}

pub(super) async fn list_audit_records(
    connection: &mut PgConnection,
    filter: &AuditFilter,
    page: &PageRequest,
) -> Result<Page<AuditRow>, ListError> {
    let statement = match filter {
        AuditFilter { request_id: Some(_), .. } => sql::AUDIT_BY_REQUEST,
        AuditFilter { token: Some(_), .. } => sql::AUDIT_BY_TOKEN,
        AuditFilter { task: Some(_), .. } => sql::AUDIT_BY_TASK,
        AuditFilter { requester: Some(_), .. } => sql::AUDIT_BY_REQUESTER,
        AuditFilter { agent: Some(_), .. } => sql::AUDIT_BY_AGENT,
        AuditFilter { resource: Some(_), .. } => sql::AUDIT_BY_RESOURCE,
        AuditFilter { event: Some(_), .. } => sql::AUDIT_BY_EVENT,
        AuditFilter { outcome: Some(_), .. } => sql::AUDIT_BY_OUTCOME,
        _ => sql::AUDIT,
    };
    let (at, writer, n) = cursor::start_before(
        cursor::parse_cursor(page)?.unwrap_or((i64::MAX, Uuid::max(), i64::MAX)),
        filter.occurred_before.map(|before| (before.unix(), Uuid::nil(), i64::MIN)),
    );
    let requester = filter.requester.as_ref();
    let query = query_as::<_, AuditRecordRow>(statement)
        .bind(filter.request_id.as_ref().map(RequestId::as_str))
        .bind(filter.token.map(|id| id.to_string()))
        .bind(filter.task.map(|id| id.to_string()))
        .bind(requester.map(|(issuer, _)| issuer.as_str()))
        .bind(requester.map(|(_, subject)| subject.as_str()))
        .bind(filter.agent.as_deref())
        .bind(filter.resource.as_deref())
        .bind(filter.event.map(audit::wire_name))
        .bind(filter.outcome.map(audit::wire_name))
        .bind(filter.occurred_from.unwrap_or(Timestamp::EPOCH).unix())
        .bind(at)
        .bind(writer)
        .bind(n)
        .bind(cursor::clamp_limit(page));
    let rows = cursor::truncate_at_bytes(query.fetch(&mut *connection), AuditRecordRow::text_len).await;
    let (rows, is_truncated) = rows.map_err(Outage::during("list audit records"))?;
    let records = rows.into_iter().map(AuditRecordRow::read).collect::<Result<_, _>>()?;
    cursor::build_truncated_page(page, (records, is_truncated), |row: &AuditRow| (row.columns.at, row.writer, row.n))
}

pub(super) async fn list_audit_heads(connection: &mut PgConnection) -> Result<Vec<(WriterId, Head)>, Outage> {
    let query = query_as(sql::AUDIT_HEADS);
    let rows: Vec<AuditHeadRow> =
        query.fetch_all(&mut *connection).await.map_err(Outage::during("read the heads of the audit trail"))?;
    rows.into_iter().map(AuditHeadRow::read).collect()
}

pub(super) async fn read_audit_chain(
    connection: &mut PgConnection,
    writer: WriterId,
    n: u64,
    limit: u32,
) -> Result<Vec<AuditRow>, Outage> {
    let query = query_as(sql::AUDIT_CHAIN).bind(writer.0).bind(to_i64(n)).bind(i64::from(limit));
    let (rows, _) = cursor::truncate_at_bytes(query.fetch(&mut *connection), AuditRecordRow::text_len)
        .await
        .map_err(Outage::during("read a chain of the audit trail"))?;
    rows.into_iter().map(AuditRecordRow::read).collect()
}

pub(super) async fn read_audit_state(connection: &mut PgConnection, sealer: &SealerCell) -> Result<AuditState, Outage> {
    let operation = "read the state of the audit trail";
    let mut tx = connection.begin_with(sql::BEGIN_SNAPSHOT).await.map_err(Outage::during(operation))?;
    let heads: Vec<AuditHeadRow> =
        query_as(sql::AUDIT_HEADS).fetch_all(&mut *tx).await.map_err(Outage::during(operation))?;
    let head = read_head_row(&mut tx, sealer).await?;
    let versions: Vec<VersionRow> =
        query_as(sql::VERSIONS).fetch_all(&mut *tx).await.map_err(Outage::during(operation))?;
    let registry = read_registry_rows(&mut tx).await.map_err(Outage::during(operation))?;
    let last = query_as(sql::CHECKPOINTS).bind(i64::MAX).bind(1_i64);
    let last: Option<CheckpointRow> = last.fetch_optional(&mut *tx).await.map_err(Outage::during(operation))?;
    tx.commit().await.map_err(Outage::during(operation))?;
    Ok(AuditState {
        writers: heads.into_iter().map(AuditHeadRow::read).collect::<Result<_, _>>()?,
        log: head.position(),
        registry: RegistryState { digest: registry.digest()?, version: VersionRow::find(&versions, REGISTRY_VERSION)? },
        last_checkpoint: last.map(CheckpointRow::read).transpose()?,
    })
}

pub(super) async fn read_checkpoints(
    connection: &mut PgConnection,
    after: u64,
    limit: u32,
) -> Result<Vec<SignedCheckpoint>, Outage> {
    let query = query_as::<_, CheckpointRow>(sql::CHECKPOINTS_AFTER).bind(to_i64(after)).bind(i64::from(limit));
    let rows = query.fetch_all(&mut *connection).await.map_err(Outage::during("read audit checkpoints"))?;
    rows.into_iter().map(CheckpointRow::read).collect()
}

pub(super) async fn list_checkpoints(
    connection: &mut PgConnection,
    page: &PageRequest,
) -> Result<Page<SignedCheckpoint>, ListError> {
    let query = query_as::<_, CheckpointRow>(sql::CHECKPOINTS)
        .bind(cursor::parse_cursor(page)?.unwrap_or(i64::MAX))
        .bind(cursor::clamp_limit(page));
    let rows = query.fetch_all(&mut *connection).await.map_err(Outage::during("list audit checkpoints"))?;
    let checkpoints = rows.into_iter().map(CheckpointRow::read).collect::<Result<_, _>>()?;
    cursor::build_page(page, checkpoints, |checkpoint: &SignedCheckpoint| checkpoint.number)
}

pub(super) async fn count_requester_rows(
    connection: &mut PgConnection,
    requester: &Requester,
) -> Result<RequesterRows, Outage> {
    let mut counts = [0; 4];
    let statements = [
        sql::COUNT_TOKENS_OF_REQUESTER,
        sql::COUNT_TASKS_OF_REQUESTER,
        sql::COUNT_GRANTS_OF_REQUESTER,
        sql::COUNT_BREAK_GLASS_OF_REQUESTER,
    ];
    for (statement, found) in statements.into_iter().zip(&mut counts) {
        let query = query_scalar(statement).bind(requester.issuer.as_str()).bind(requester.subject.as_str());
        let count: i64 =
            query.fetch_one(&mut *connection).await.map_err(Outage::during("count the rows of a requester"))?;
        *found = count.unsigned_abs();
    }
    let [tokens, tasks, grants, break_glass] = counts;
    Ok(RequesterRows { tokens, tasks, grants, break_glass })
}
