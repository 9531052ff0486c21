//! Status lists: who takes which numbers, and which tokens may have been touched.

use sqlx::{SqlitePool, query_as, query_scalar};

use super::sql;
use crate::{
    adapters::store::rows::{ShardRow, TokenRow, json},
    domain::{limits::TOKEN_LIFETIME_CAP, status_list::Shard, time::Timestamp},
    ports::{Having, ListedAfter, Outage, TokenRecord},
};

pub(super) async fn take_block(pool: &SqlitePool, shard: Shard) -> Result<u64, Outage> {
    let during = "take a block of a status list";
    let mut tx = pool.begin_with(sql::BEGIN).await.map_err(Outage::during(during))?;
    let take = query_scalar(sql::TAKE_BLOCK).bind(shard.end());
    let taken: i64 = take.fetch_one(&mut *tx).await.map_err(Outage::during(during))?;
    tx.commit().await.map_err(Outage::during(during))?;
    ShardRow { shard: shard.end(), blocks: taken }.read().map(|(_, blocks)| blocks.saturating_sub(1))
}

pub(super) async fn shards(pool: &SqlitePool, now: Timestamp) -> Result<Vec<(Shard, u64)>, Outage> {
    let query = query_as::<_, ShardRow>(sql::STATUS_SHARDS).bind(now.unix());
    let rows = query.fetch_all(pool).await.map_err(Outage::during("read the status lists"))?;
    rows.iter().map(ShardRow::read).collect()
}

pub(super) async fn listed_tokens(
    pool: &SqlitePool,
    having: &Having,
    alive_at: Timestamp,
    after: ListedAfter,
    limit: u32,
) -> Result<Vec<TokenRecord>, Outage> {
    let (statement, keys) = match having {
        Having::Tokens(ids) => (sql::LISTED_BY_TOKEN, json(ids)),
        Having::Tasks(ids) => (sql::LISTED_BY_TASK, json(ids)),
        Having::Grants(ids) => (sql::LISTED_BY_GRANT, json(ids)),
        Having::Requesters(pairs) => (sql::LISTED_BY_REQUESTER, json(pairs)),
        Having::Agents(ids) => (sql::LISTED_BY_AGENT, json(ids)),
        Having::Audiences(texts) => (sql::LISTED_BY_AUDIENCE, json(texts)),
        Having::Issuers(urls) => (sql::LISTED_BY_ISSUER, json(urls)),
    };
    let query = query_as::<_, TokenRow>(statement)
        .bind(keys?)
        .bind(alive_at.unix())
        .bind(alive_at.before(TOKEN_LIFETIME_CAP).unix())
        .bind(after.issued.unix())
        .bind(after.id.uuid().to_string())
        .bind(i64::from(limit));
    let rows = query.fetch_all(pool).await.map_err(Outage::during("look for tokens with a status"))?;
    rows.into_iter().map(TokenRow::read).collect()
}
