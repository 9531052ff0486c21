//! Writes: a batch is one transaction.
//!
//! Locks are taken in one order by everybody, so that no two transactions wait for each other in a circle: versions,
//! idempotency keys (sorted), one-time ids (sorted), tasks that change (sorted), the head of the log, whatever a rare change touches, the writer's
//! end of chain. Each of them that is not needed is not taken: to issue tokens takes none that others issue by.

use sqlx::{PgConnection, PgPool, query, query_as, query_scalar};

use super::sql;
use crate::{
    adapters::store::{
        batch::{Asked, Found, Goes, Plan, is_refusal},
        rows::{
            AnswerRow, GrantRow, HeadRow, KeyRow, ObjectRow, RecordRow, ShutOutRow, ToolRow, VersionRow, json, signed,
            turn_json,
        },
    },
    domain::{
        audit::{Head, Writer},
        grant::Grant,
        registry::{Kind, OwnedTag},
        revocation::Seq,
        status_list::SHARDS_STAY,
        task::Requester,
        time::Timestamp,
    },
    ports::{Change, CommitFault, Outage, Swept, Write, Written},
};

pub(super) async fn commit(pool: &PgPool, writer: Writer, batch: &[Write]) -> Result<Vec<Written>, CommitFault> {
    let mut tx = pool.begin_with(sql::BEGIN).await.map_err(Outage::during("begin to commit"))?;
    match act(&mut tx, writer, batch).await {
        Ok((written, Goes::On)) => {
            tx.commit().await.map_err(Outage::during("commit"))?;
            Ok(written)
        }
        Ok((written, Goes::Back)) => {
            tx.rollback().await.map_err(Outage::during("roll back"))?;
            Ok(written)
        }
        // Before the commit was even asked for.
        Err(outage) if is_refusal(&outage, sql::is_about_data) => {
            tx.rollback().await.map_err(Outage::during("roll back"))?;
            Err(CommitFault::Refused(outage))
        }
        Err(outage) => Err(outage.into()),
    }
}

/// Everything but the end of the transaction: what becomes of each write if it ends in this way.
async fn act(tx: &mut PgConnection, writer: Writer, batch: &[Write]) -> Result<(Vec<Written>, Goes), Outage> {
    let found = guards(tx, &Asked::by(batch)).await?;
    let mut plan = Plan::of(batch, found)?;
    if plan.is_empty() {
        // Nothing happens, so what was taken in advance goes back as well.
        return Ok((plan.written()?, Goes::Back));
    }
    settle(tx, &plan).await?;
    let rare = plan.entries() > 0 || plan.changes().next().is_some();
    if rare {
        let places = query_scalar(sql::TAKE_PLACES).bind(signed(plan.entries()));
        let last: i64 = places.fetch_one(&mut *tx).await.map_err(Outage::during("take places in the log"))?;
        let before = Seq::new(last.unsigned_abs().saturating_sub(plan.entries()));
        let log = plan.log(Seq::new(last.unsigned_abs()));
        execute_rows(tx, sql::INSERT_LOG, &log, "append to the log").await?;
        for change in plan.changes() {
            carry_out(tx, change, before).await?;
        }
    }
    execute_rows(tx, sql::INSERT_TASKS, &plan.tasks()?, "open tasks").await?;
    execute_rows(tx, sql::INSERT_TOKENS, &plan.tokens()?, "record tokens").await?;
    execute_rows(tx, sql::FILL_KEYS, &plan.answers(), "keep an answer").await?;
    trail(tx, writer, &plan).await?;
    Ok((plan.written()?, Goes::On))
}

/// Asks the tables what the batch's guards need, and takes what is free.
async fn guards(tx: &mut PgConnection, asked: &Asked) -> Result<Found, Outage> {
    let mut found = Found::default();
    if asked.versions {
        let versions = query_as(sql::LOCK_VERSIONS);
        found.versions = versions.fetch_all(&mut *tx).await.map_err(Outage::during("read the versions"))?;
    }
    if !asked.keys.is_empty() {
        let during = "look up idempotency keys";
        let take = query_scalar(sql::TAKE_KEYS).bind(json(&asked.keys)?);
        found.keys = take.fetch_all(&mut *tx).await.map_err(Outage::during(during))?;
        let others = asked.keys.iter().filter(|row| !found.keys.contains(&row.digest)).cloned().collect::<Vec<_>>();
        if !others.is_empty() {
            let before = query_as(sql::BEFORE).bind(json::<AnswerRow>(&others)?);
            found.before = before.fetch_all(&mut *tx).await.map_err(Outage::during(during))?;
        }
    }
    if !asked.once.is_empty() {
        let take = query_scalar(sql::TAKE_ONCE).bind(json(&asked.once)?);
        found.once = take.fetch_all(&mut *tx).await.map_err(Outage::during("redeem one-time ids"))?;
    }
    if !asked.tasks.is_empty() {
        let lock = query_as(sql::LOCK_TASKS).bind(json(&asked.tasks)?);
        found.tasks = lock.fetch_all(&mut *tx).await.map_err(Outage::during("look up tasks"))?;
    }
    for (like, now) in &asked.room {
        let Requester { issuer, subject } = &like.requester;
        let count = query_scalar(sql::COUNT_GRANTS).bind(issuer.as_str()).bind(subject.as_str());
        let count = count.bind(like.agent.as_str()).bind(like.break_glass).bind(now.unix());
        let many = count.fetch_one(&mut *tx).await.map_err(Outage::during("count grants"))?;
        found.grants.insert(like.clone(), many);
    }
    Ok(found)
}

/// Gives back what was taken for writes that don't happen, and moves on the versions of those that do.
async fn settle(tx: &mut PgConnection, plan: &Plan<'_>) -> Result<(), Outage> {
    execute_rows(tx, sql::FREE_KEYS, &plan.free_keys, "give back idempotency keys").await?;
    execute_rows(tx, sql::FREE_ONCE, &plan.free_once, "give back one-time ids").await?;
    for VersionRow { name, version } in &plan.versions {
        let moved = query(sql::MOVE_VERSION).bind(name).bind(version);
        moved.execute(&mut *tx).await.map_err(Outage::during("move a version on"))?;
    }
    Ok(())
}

/// Puts the records at the end of the writer's chain.
async fn trail(tx: &mut PgConnection, writer: Writer, plan: &Plan<'_>) -> Result<(), Outage> {
    if plan.records().next().is_none() {
        return Ok(());
    }
    let during = "write the trail";
    let mut head = chain_end(tx, writer).await?;
    if head.is_none() {
        let new = query(sql::NEW_WRITER).bind(writer.0);
        new.execute(&mut *tx).await.map_err(Outage::during(during))?;
        // Another commit of this writer may have been quicker, and its records stand first.
        head = chain_end(tx, writer).await?;
    }
    let mut head = head.unwrap_or_else(Head::empty);
    let (rows, actors) = RecordRow::link(writer, &mut head, plan.records());
    execute_rows(tx, sql::INSERT_AUDIT, &rows, during).await?;
    execute_rows(tx, sql::INSERT_AUDIT_AGENTS, &actors, during).await?;
    let moved = query(sql::MOVE_WRITER).bind(writer.0).bind(signed(head.n)).bind(head.hash);
    moved.execute(&mut *tx).await.map_err(Outage::during(during))?;
    Ok(())
}

async fn chain_end(tx: &mut PgConnection, writer: Writer) -> Result<Option<Head>, Outage> {
    let lock = query_as(sql::LOCK_WRITER).bind(writer.0);
    let row: Option<HeadRow> = lock.fetch_optional(tx).await.map_err(Outage::during("write the trail"))?;
    row.map(|row| row.read().map(|(_, head)| head)).transpose()
}

/// `before` is where the log stood.
async fn carry_out(tx: &mut PgConnection, change: &Change, before: Seq) -> Result<(), Outage> {
    let done = match change {
        Change::PutObject(entry) => {
            let row = ObjectRow::of(entry, before)?;
            let put = query(sql::PUT_OBJECT).bind(row.kind).bind(row.id).bind(row.body).bind(row.owner);
            put.bind(row.since).execute(tx).await
        }
        Change::RemoveObject(kind, id) => {
            let secret = query(sql::REMOVE_SECRET).bind(id).execute(&mut *tx).await;
            secret.map_err(Outage::during("remove a secret"))?;
            let with_it = match kind {
                Kind::Agent => Some(sql::REMOVE_GRANTS_TO),
                Kind::Issuer => Some(sql::REMOVE_GRANTS_OF_ISSUER),
                Kind::Resource => Some(sql::REMOVE_TOOLS),
                Kind::Admin => None,
            };
            if let Some(with_it) = with_it {
                let removed = query(with_it).bind(id).execute(&mut *tx).await;
                removed.map_err(Outage::during("remove what goes with an object"))?;
            }
            query(sql::REMOVE_OBJECT).bind(kind.as_str()).bind(id).execute(tx).await
        }
        Change::PutSecret(client, OwnedTag { tag, owner }) => {
            let put = query(sql::PUT_SECRET).bind(client.as_str()).bind(tag.as_bytes());
            put.bind(owner.as_str()).execute(tx).await
        }
        Change::RemoveSecret(client) => query(sql::REMOVE_SECRET).bind(client.as_str()).execute(tx).await,
        Change::PutKey(key) => {
            let row = KeyRow::of(key);
            let put = query(sql::PUT_KEY).bind(row.kid).bind(row.algorithm).bind(row.created).bind(row.activates);
            put.bind(row.retires).bind(row.gone).bind(row.public_jwk).bind(row.sealed).execute(tx).await
        }
        Change::RemoveKey(kid) => query(sql::REMOVE_KEY).bind(kid.as_str()).execute(tx).await,
        Change::PutGrant(grant) => return put_grant(tx, grant).await,
        Change::RemoveGrant(id) => query(sql::REMOVE_GRANT).bind(id.uuid()).execute(tx).await,
        Change::PutTool(record) => {
            let row = ToolRow::of(record);
            let put = query(sql::PUT_TOOL).bind(row.resource).bind(row.tool).bind(row.accepted);
            let put = put.bind(row.accepted_definition).bind(row.accepted_at).bind(row.accepted_by);
            put.bind(row.seen).bind(row.seen_definition).bind(row.seen_at).execute(tx).await
        }
        Change::RemoveTool(resource, tool) => {
            query(sql::REMOVE_TOOL).bind(resource.as_str()).bind(tool.as_str()).execute(tx).await
        }
        Change::ForgetTools(resource) => query(sql::REMOVE_TOOLS).bind(resource.as_str()).execute(tx).await,
        Change::PutBreakGlass(glass) => {
            put_grant(&mut *tx, &glass.grant).await?;
            let row = GrantRow::of(&glass.grant)?;
            let put = query(sql::PUT_BREAK_GLASS).bind(glass.grant.id.uuid()).bind(row.requester_issuer);
            let put = put.bind(row.requester_subject).bind(row.agent).bind(row.authority).bind(row.until);
            put.bind(row.done_by).bind(row.done_at).bind(glass.reason.as_str()).execute(tx).await
        }
        Change::Review(id, review) => {
            let put = query(sql::REVIEW).bind(id.uuid()).bind(&review.by).bind(review.at.unix());
            put.bind(review.note.as_str()).execute(tx).await
        }
        Change::ShutOut(one) => {
            let row = ShutOutRow::of(one);
            let put = query(sql::PUT_SHUT_OUT).bind(row.kind).bind(row.id).bind(row.how).bind(row.reason);
            put.bind(row.done_by).bind(row.done_at).execute(tx).await
        }
        Change::LetIn(who) => query(sql::REMOVE_SHUT_OUT).bind(who.kind()).bind(who.id()).execute(tx).await,
        Change::TurnTask(id, turn) => {
            let turned = turn_json(turn)?;
            query(sql::TURN_TASK).bind(id.uuid()).bind(turn.state.as_str()).bind(turned).execute(tx).await
        }
    };
    done.map_err(Outage::during("carry out a change"))?;
    Ok(())
}

async fn put_grant(tx: &mut PgConnection, grant: &Grant) -> Result<(), Outage> {
    let row = GrantRow::of(grant)?;
    let put = query(sql::PUT_GRANT).bind(grant.id.uuid()).bind(row.requester_issuer).bind(row.requester_subject);
    let put = put.bind(row.agent).bind(row.authority).bind(row.until).bind(row.done_by).bind(row.done_at);
    put.bind(row.break_glass).execute(tx).await.map_err(Outage::during("record a grant"))?;
    Ok(())
}

/// One statement for all rows, or none for none.
async fn execute_rows<T: serde::Serialize>(
    tx: &mut PgConnection,
    statement: &'static str,
    rows: &[T],
    during: &'static str,
) -> Result<(), Outage> {
    if !rows.is_empty() {
        query(statement).bind(json(rows)?).execute(tx).await.map_err(Outage::during(during))?;
    }
    Ok(())
}

pub(super) async fn sweep(pool: &PgPool, now: Timestamp) -> Result<Swept, Outage> {
    Ok(Swept {
        once: drop_past(pool, sql::SWEEP_ONCE, now).await?,
        idempotency: drop_past(pool, sql::SWEEP_IDEMPOTENCY, now).await?,
        keys: drop_past(pool, sql::SWEEP_KEYS, now).await?,
        // A shard that begins again would give numbers twice: it is long over when it goes.
        shards: drop_past(pool, sql::SWEEP_SHARDS, now.before(SHARDS_STAY)).await?,
    })
}

async fn drop_past(pool: &PgPool, statement: &'static str, now: Timestamp) -> Result<u64, Outage> {
    let mut dropped = 0;
    loop {
        let done = query(statement).bind(now.unix()).execute(pool).await.map_err(Outage::during("sweep"))?;
        if done.rows_affected() == 0 {
            return Ok(dropped);
        }
        dropped += done.rows_affected();
    }
}
