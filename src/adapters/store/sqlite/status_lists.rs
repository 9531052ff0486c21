//! Status lists: the allocation of indexes, and the tokens that have one.

use sqlx::{Connection, SqliteConnection, query_as, query_scalar};

use super::sql;
use crate::{
    adapters::store::{
        rows::{ShardRow, Tagged, TokenRow, read_indexed_token, to_json},
        store_sealer::SealerCell,
    },
    domain::{settings::TOKEN_LIFETIME_CAP, status_list::Shard, time::Timestamp},
    ports::{IndexedToken, Outage, TokenCursor, TokenSelector},
};

pub(super) async fn allocate_block(connection: &mut SqliteConnection, shard: Shard) -> Result<u64, Outage> {
    let operation = "allocate a block of status list indexes";
    let mut tx = connection.begin_with(sql::BEGIN).await.map_err(Outage::during(operation))?;
    let allocate = query_scalar(sql::ALLOCATE_STATUS_BLOCK).bind(shard.end());
    let allocated: i64 = allocate.fetch_one(&mut *tx).await.map_err(Outage::during(operation))?;
    tx.commit().await.map_err(Outage::during(operation))?;
    ShardRow { shard: shard.end(), allocated_blocks: allocated }.read().map(|(_, blocks)| blocks.saturating_sub(1))
}

pub(super) async fn list_shards(
    connection: &mut SqliteConnection,
    now: Timestamp,
) -> Result<Vec<(Shard, u64)>, Outage> {
    let query = query_as::<_, ShardRow>(sql::STATUS_SHARDS).bind(now.unix());
    let rows = query.fetch_all(&mut *connection).await.map_err(Outage::during("list status list shards"))?;
    rows.iter().map(ShardRow::read).collect()
}

pub(super) async fn list_tokens_with_status(
    connection: &mut SqliteConnection,
    sealer: &SealerCell,
    selector: &TokenSelector,
    alive_at: Timestamp,
    after: TokenCursor,
    limit: u32,
) -> Result<Vec<IndexedToken>, Outage> {
    let (statement, keys) = match selector {
        TokenSelector::Tokens(ids) => (sql::STATUS_TOKENS_BY_TOKEN, to_json(ids)),
        TokenSelector::Tasks(ids) => (sql::STATUS_TOKENS_BY_TASK, to_json(ids)),
        TokenSelector::Grants(ids) => (sql::STATUS_TOKENS_BY_GRANT, to_json(ids)),
        TokenSelector::Requesters(pairs) => (sql::STATUS_TOKENS_BY_REQUESTER, to_json(pairs)),
        TokenSelector::Agents(ids) => (sql::STATUS_TOKENS_BY_AGENT, to_json(ids)),
        TokenSelector::Audiences(texts) => (sql::STATUS_TOKENS_BY_AUDIENCE, to_json(texts)),
        TokenSelector::Issuers(urls) => (sql::STATUS_TOKENS_BY_ISSUER, to_json(urls)),
    };
    let query = query_as::<_, Tagged<TokenRow>>(statement)
        .bind(keys?)
        .bind(alive_at.unix())
        .bind(alive_at.saturating_sub(TOKEN_LIFETIME_CAP).unix())
        .bind(after.issued.unix())
        .bind(after.id.uuid().to_string())
        .bind(i64::from(limit));
    let rows =
        query.fetch_all(&mut *connection).await.map_err(Outage::during("list tokens with a status list index"))?;
    let sealer = sealer.get()?;
    rows.into_iter().map(|row| read_indexed_token(row, &*sealer)).collect()
}
