//! Shards of status lists.

use sqlx::FromRow;

use super::Place;
use crate::{domain::status_list::Shard, ports::Outage};

/// `status_shards`
#[derive(FromRow)]
pub(crate) struct ShardRow {
    pub(crate) shard: i64,
    pub(crate) blocks: i64,
}

impl ShardRow {
    pub(crate) fn read(&self) -> Result<(Shard, u64), Outage> {
        let place = Place { table: "status_shards", row: &self.shard };
        let shard = Shard::ending(self.shard).ok_or_else(|| place.corrupt("shard"))?;
        Ok((shard, place.number("blocks", self.blocks)?))
    }
}
