//! Reads.

use sqlx::{SqlitePool, query_as, query_scalar};
use uuid::Uuid;

use super::sql;
use crate::{
    adapters::store::{
        batch::{KEYS, REGISTRY},
        cursor,
        rows::{
            AnswerRow, BreakGlassRow, GrantRow, HeadRow, KeyRow, KnownToolRow, LogRow, ObjectRow, RecordRow, SecretRow,
            ShutOutRow, TaskRow, TokenRow, ToolRow, VersionRow, digest_of, signed,
        },
        stretches::{Stretches, entries},
    },
    domain::{
        audit::{self, Head, Writer},
        break_glass::{BreakGlass, ReviewState},
        grant::Grant,
        id::{ClientId, GrantId, RequestId, TaskId, TokenId},
        revocation::{LogEntry, Seq},
        task::{Requester, Task, TaskState},
        time::Timestamp,
        tool::ToolRecord,
        uri::ResourceUri,
    },
    ports::{
        AuditFilter, AuditRow, GrantFilter, ListFault, Outage, Page, Paged, StoredKeys, StoredRegistry, TaskFilter,
        TokenFilter, TokenRecord, Written,
    },
};

pub(super) async fn schema_version(pool: &SqlitePool) -> Result<i64, sqlx::Error> {
    if !query_scalar::<_, bool>(sql::HAS_SCHEMA).fetch_one(pool).await? {
        return Ok(0);
    }
    query_scalar(sql::SCHEMA_VERSION).fetch_one(pool).await
}

pub(super) async fn head(pool: &SqlitePool) -> Result<Seq, Outage> {
    let seq: i64 = query_scalar(sql::HEAD).fetch_one(pool).await.map_err(Outage::during("read the log's head"))?;
    Ok(Seq::new(seq.unsigned_abs()))
}

pub(super) async fn log_after(
    pool: &SqlitePool,
    seq: Seq,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<LogEntry>, Outage> {
    if now == Timestamp::EPOCH {
        let query = query_as(sql::LOG_AFTER).bind(signed(seq.number())).bind(now.unix()).bind(i64::from(limit));
        return entries(query.fetch(pool)).await;
    }
    let mut page = Stretches::after(seq, limit);
    loop {
        let query = query_as(sql::LOG_ALIVE_AFTER).bind(page.after).bind(now.unix()).bind(page.left()).bind(page.width);
        if let Some(found) = page.take(entries(query.fetch(pool)).await?) {
            return Ok(found);
        }
    }
}

pub(super) async fn registry(pool: &SqlitePool) -> Result<StoredRegistry, Outage> {
    let during = "read the registry";
    let mut tx = pool.begin_with(sql::BEGIN_SNAPSHOT).await.map_err(Outage::during(during))?;
    let versions: Vec<VersionRow> =
        query_as(sql::VERSIONS).fetch_all(&mut *tx).await.map_err(Outage::during(during))?;
    let objects: Vec<ObjectRow> = query_as(sql::OBJECTS).fetch_all(&mut *tx).await.map_err(Outage::during(during))?;
    let secrets: Vec<SecretRow> = query_as(sql::SECRETS).fetch_all(&mut *tx).await.map_err(Outage::during(during))?;
    let tools: Vec<KnownToolRow> =
        query_as(sql::KNOWN_TOOLS).fetch_all(&mut *tx).await.map_err(Outage::during(during))?;
    let out: Vec<ShutOutRow> = query_as(sql::SHUT_OUT).fetch_all(&mut *tx).await.map_err(Outage::during(during))?;
    tx.commit().await.map_err(Outage::during(during))?;
    Ok(StoredRegistry {
        version: VersionRow::find(&versions, REGISTRY)?,
        entries: objects.iter().map(ObjectRow::read).collect::<Result<_, _>>()?,
        since: objects.iter().map(ObjectRow::registered).collect::<Result<_, _>>()?,
        tags: SecretRow::read_all(secrets)?,
        tools: KnownToolRow::read_all(tools)?,
        shut_out: out.into_iter().map(ShutOutRow::read).collect::<Result<_, _>>()?,
    })
}

pub(super) async fn tools(pool: &SqlitePool, resource: &ClientId) -> Result<Vec<ToolRecord>, Outage> {
    let query = query_as::<_, ToolRow>(sql::TOOLS).bind(resource.as_str());
    let rows = query.fetch_all(pool).await.map_err(Outage::during("read the tools of a resource"))?;
    rows.into_iter().map(ToolRow::read).collect()
}

pub(super) async fn keys(pool: &SqlitePool) -> Result<StoredKeys, Outage> {
    let during = "read the keys";
    let mut tx = pool.begin_with(sql::BEGIN_SNAPSHOT).await.map_err(Outage::during(during))?;
    let versions: Vec<VersionRow> =
        query_as(sql::VERSIONS).fetch_all(&mut *tx).await.map_err(Outage::during(during))?;
    let keys: Vec<KeyRow> = query_as(sql::SIGNING_KEYS).fetch_all(&mut *tx).await.map_err(Outage::during(during))?;
    tx.commit().await.map_err(Outage::during(during))?;
    Ok(StoredKeys {
        version: VersionRow::find(&versions, KEYS)?,
        keys: keys.into_iter().map(KeyRow::read).collect::<Result<_, _>>()?,
    })
}

pub(super) async fn task(pool: &SqlitePool, id: TaskId) -> Result<Option<Task>, Outage> {
    let query = query_as(sql::TASK).bind(id.to_string());
    let row: Option<TaskRow> = query.fetch_optional(pool).await.map_err(Outage::during("read a task"))?;
    row.as_ref().map(TaskRow::read).transpose()
}

pub(super) async fn tasks_due(pool: &SqlitePool, now: Timestamp, limit: u32) -> Result<Vec<Task>, Outage> {
    let query = query_as::<_, TaskRow>(sql::TASKS_DUE).bind(now.unix()).bind(i64::from(limit));
    let rows = query.fetch_all(pool).await.map_err(Outage::during("look for tasks past their deadline"))?;
    rows.iter().map(TaskRow::read).collect()
}

pub(super) async fn tasks(pool: &SqlitePool, filter: &TaskFilter, page: &Page) -> Result<Paged<Task>, ListFault> {
    let statement = match filter {
        TaskFilter { requester: Some(_), .. } => sql::TASKS_BY_REQUESTER,
        TaskFilter { agent: Some(_), .. } => sql::TASKS_BY_AGENT,
        TaskFilter { requester: None, agent: None, .. } => sql::TASKS,
    };
    let (created, id) = cursor::after(page)?.unwrap_or((i64::MAX, Uuid::max()));
    let requester = filter.requester.as_ref();
    let query = query_as::<_, TaskRow>(statement)
        .bind(requester.map(|(issuer, _)| issuer.as_str()))
        .bind(requester.map(|(_, subject)| subject.as_str()))
        .bind(filter.agent.as_ref().map(ClientId::as_str))
        .bind(filter.state.map(TaskState::as_str))
        .bind(created)
        .bind(id.to_string())
        .bind(cursor::limit(page))
        .bind(filter.resource.as_ref().map(ResourceUri::as_str))
        .bind(filter.from.map(Timestamp::unix))
        .bind(filter.until.map(Timestamp::unix))
        .bind(filter.only_open);
    let rows = query.fetch_all(pool).await.map_err(Outage::during("list tasks"))?;
    let tasks = rows.iter().map(TaskRow::read).collect::<Result<_, _>>()?;
    cursor::paged(page, tasks, |task: &Task| (task.created, task.id))
}

pub(super) async fn token(pool: &SqlitePool, id: TokenId) -> Result<Option<TokenRecord>, Outage> {
    let query = query_as(sql::TOKEN).bind(id.to_string());
    let row: Option<TokenRow> = query.fetch_optional(pool).await.map_err(Outage::during("read a token's record"))?;
    row.map(TokenRow::read).transpose()
}

pub(super) async fn tokens(
    pool: &SqlitePool,
    filter: &TokenFilter,
    page: &Page,
) -> Result<Paged<TokenRecord>, ListFault> {
    let statement = match filter {
        TokenFilter { task: Some(_), .. } => sql::TOKENS_BY_TASK,
        TokenFilter { requester: Some(_), .. } => sql::TOKENS_BY_REQUESTER,
        TokenFilter { client: Some(_), .. } => sql::TOKENS_BY_CLIENT,
        TokenFilter { audience: Some(_), .. } => sql::TOKENS_BY_AUDIENCE,
        TokenFilter { task: None, requester: None, client: None, audience: None, alive_at: _, issued_from: _ } => {
            sql::TOKENS
        }
    };
    let (issued, id) = cursor::after(page)?.unwrap_or((i64::MAX, Uuid::max()));
    let requester = filter.requester.as_ref();
    let query = query_as::<_, TokenRow>(statement)
        .bind(filter.task.map(|id| id.to_string()))
        .bind(requester.map(|(issuer, _)| issuer.as_str()))
        .bind(requester.map(|(_, subject)| subject.as_str()))
        .bind(filter.client.as_ref().map(ClientId::as_str))
        .bind(filter.audience.as_deref())
        .bind(filter.alive_at.map(Timestamp::unix))
        .bind(issued)
        .bind(id.to_string())
        .bind(cursor::limit(page))
        .bind(filter.issued_from.unwrap_or(Timestamp::EPOCH).unix());
    let rows = query.fetch_all(pool).await.map_err(Outage::during("list tokens"))?;
    let tokens = rows.into_iter().map(TokenRow::read).collect::<Result<_, _>>()?;
    cursor::paged(page, tokens, |token: &TokenRecord| (token.issued, token.id))
}

pub(super) async fn tasks_without_grant(pool: &SqlitePool, limit: u32) -> Result<Vec<Task>, Outage> {
    let query = query_as::<_, TaskRow>(sql::TASKS_WITHOUT_GRANT).bind(i64::from(limit));
    let rows = query.fetch_all(pool).await.map_err(Outage::during("look for tasks whose grant was withdrawn"))?;
    rows.iter().map(TaskRow::read).collect()
}

pub(super) async fn tasks_of_removed(pool: &SqlitePool, limit: u32) -> Result<Vec<Task>, Outage> {
    let query = query_as::<_, TaskRow>(sql::TASKS_OF_REMOVED).bind(i64::from(limit));
    let rows = query.fetch_all(pool).await.map_err(Outage::during("look for tasks whose agent was removed"))?;
    rows.iter().map(TaskRow::read).collect()
}

pub(super) async fn grant(pool: &SqlitePool, id: GrantId) -> Result<Option<Grant>, Outage> {
    let query = query_as(sql::GRANT).bind(id.to_string());
    let row: Option<GrantRow> = query.fetch_optional(pool).await.map_err(Outage::during("read a grant"))?;
    row.map(GrantRow::read).transpose()
}

pub(super) async fn grants_between(
    pool: &SqlitePool,
    requester: &Requester,
    agent: &ClientId,
    now: Timestamp,
    limit: u32,
) -> Result<Vec<Grant>, Outage> {
    let query = query_as::<_, GrantRow>(sql::GRANTS_BETWEEN)
        .bind(requester.issuer.as_str())
        .bind(requester.subject.as_str())
        .bind(agent.as_str())
        .bind(now.unix())
        .bind(i64::from(limit));
    let rows = query.fetch_all(pool).await.map_err(Outage::during("look for grants"))?;
    rows.into_iter().map(GrantRow::read).collect()
}

pub(super) async fn grants(pool: &SqlitePool, filter: &GrantFilter, page: &Page) -> Result<Paged<Grant>, ListFault> {
    let statement = if filter.requester.is_some() { sql::GRANTS_BY_REQUESTER } else { sql::GRANTS };
    let (at, id) = cursor::after(page)?.unwrap_or((i64::MAX, Uuid::max()));
    let requester = filter.requester.as_ref();
    let query = query_as::<_, GrantRow>(statement)
        .bind(requester.map(|(issuer, _)| issuer.as_str()))
        .bind(requester.map(|(_, subject)| subject.as_str()))
        .bind(filter.agent.as_ref().map(ClientId::as_str))
        .bind(at)
        .bind(id.to_string())
        .bind(cursor::limit(page));
    let rows = query.fetch_all(pool).await.map_err(Outage::during("list grants"))?;
    let grants = rows.into_iter().map(GrantRow::read).collect::<Result<_, _>>()?;
    cursor::paged(page, grants, |grant: &Grant| (grant.at, grant.id))
}

pub(super) async fn break_glass(pool: &SqlitePool, id: GrantId) -> Result<Option<BreakGlass>, Outage> {
    let query = query_as(sql::BREAK_GLASS).bind(id.to_string());
    let row: Option<BreakGlassRow> =
        query.fetch_optional(pool).await.map_err(Outage::during("read a grant for an emergency"))?;
    row.map(BreakGlassRow::read).transpose()
}

pub(super) async fn break_glass_list(
    pool: &SqlitePool,
    review: Option<ReviewState>,
    page: &Page,
) -> Result<Paged<BreakGlass>, ListFault> {
    let statement = match review {
        None => sql::BREAK_GLASS_LIST,
        Some(ReviewState::Open) => sql::BREAK_GLASS_OPEN,
        Some(ReviewState::Done) => sql::BREAK_GLASS_DONE,
    };
    let (at, id) = cursor::after(page)?.unwrap_or((i64::MAX, Uuid::max()));
    let query = query_as::<_, BreakGlassRow>(statement).bind(at).bind(id.to_string()).bind(cursor::limit(page));
    let rows = query.fetch_all(pool).await.map_err(Outage::during("list grants for an emergency"))?;
    let all = rows.into_iter().map(BreakGlassRow::read).collect::<Result<_, _>>()?;
    cursor::paged(page, all, |one: &BreakGlass| (one.grant.at, one.grant.id))
}

pub(super) async fn revocations(pool: &SqlitePool, page: &Page) -> Result<Paged<LogEntry>, ListFault> {
    let query = query_as(sql::REVOCATIONS).bind(cursor::after(page)?.unwrap_or(i64::MAX)).bind(cursor::limit(page));
    let rows: Vec<LogRow> = query.fetch_all(pool).await.map_err(Outage::during("list revocations"))?;
    let entries = rows.into_iter().map(LogRow::read).collect::<Result<_, _>>()?;
    cursor::paged(page, entries, |entry: &LogEntry| entry.seq)
}

pub(super) async fn answered(pool: &SqlitePool, caller: &str, key: &str) -> Result<Option<Written>, Outage> {
    let query = query_as(sql::ANSWERED).bind(digest_of(caller, key));
    let row: Option<AnswerRow> =
        query.fetch_optional(pool).await.map_err(Outage::during("look up an idempotency key"))?;
    row.map(AnswerRow::read).transpose()
}

pub(super) async fn audit(pool: &SqlitePool, filter: &AuditFilter, page: &Page) -> Result<Paged<AuditRow>, ListFault> {
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
    let (at, writer, n) = cursor::after(page)?.unwrap_or((i64::MAX, Uuid::max(), i64::MAX));
    let requester = filter.requester.as_ref();
    let query = query_as::<_, RecordRow>(statement)
        .bind(filter.request_id.as_ref().map(RequestId::as_str))
        .bind(filter.token.map(|id| id.to_string()))
        .bind(filter.task.map(|id| id.to_string()))
        .bind(requester.map(|(issuer, _)| issuer.as_str()))
        .bind(requester.map(|(_, subject)| subject.as_str()))
        .bind(filter.agent.as_deref())
        .bind(filter.resource.as_deref())
        .bind(filter.event.map(audit::word))
        .bind(filter.outcome.map(audit::word))
        .bind(filter.from.map(Timestamp::unix))
        .bind(filter.until.map(Timestamp::unix))
        .bind(at)
        .bind(writer.to_string())
        .bind(n)
        .bind(cursor::limit(page));
    let rows = cursor::cut(query.fetch(pool), RecordRow::size).await;
    let (rows, is_cut) = rows.map_err(Outage::during("list audit records"))?;
    let records = rows.into_iter().map(RecordRow::read).collect::<Result<_, _>>()?;
    cursor::paged_cut(page, (records, is_cut), |row: &AuditRow| (row.columns.at, row.writer, row.n))
}

pub(super) async fn audit_heads(pool: &SqlitePool) -> Result<Vec<(Writer, Head)>, Outage> {
    let query = query_as(sql::AUDIT_HEADS);
    let rows: Vec<HeadRow> = query.fetch_all(pool).await.map_err(Outage::during("read the heads of the trail"))?;
    rows.into_iter().map(HeadRow::read).collect()
}

pub(super) async fn audit_chain(
    pool: &SqlitePool,
    writer: Writer,
    n: u64,
    limit: u32,
) -> Result<Vec<AuditRow>, Outage> {
    let query = query_as(sql::AUDIT_CHAIN).bind(writer.0.to_string()).bind(signed(n)).bind(i64::from(limit));
    let (rows, _) =
        cursor::cut(query.fetch(pool), RecordRow::size).await.map_err(Outage::during("read a chain of the trail"))?;
    rows.into_iter().map(RecordRow::read).collect()
}
