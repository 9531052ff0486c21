//! Rows of status list shards.

use sqlx::FromRow;

use super::RowContext;
use crate::{domain::status_list::Shard, ports::Outage};

/// `status_shards`
#[derive(FromRow)]
pub(crate) struct ShardRow {
    pub(crate) shard: i64,
    pub(crate) allocated_blocks: i64,
}

impl ShardRow {
    pub(crate) fn read(&self) -> Result<(Shard, u64), Outage> {
        let context = RowContext { table: "status_shards", row: &self.shard };
        let shard = Shard::ending_at(self.shard).ok_or_else(|| context.corrupt("shard"))?;
        Ok((shard, context.parse_u64("allocated_blocks", self.allocated_blocks)?))
    }
}
