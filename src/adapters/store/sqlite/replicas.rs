//! Replicas: their leases, and a look at the file from time to time.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{SqlitePool, query, query_as};
use tokio::time::sleep;

use super::{read, sql};
use crate::{
    adapters::store::rows::{ReplicaRow, signed, was_taken},
    domain::{
        replica::{Beat, ReplicaId},
        revocation::Seq,
    },
    ports::{Ear, Heard, Outage},
};

/// How often the file is looked at: nobody tells one process what another one wrote.
const LOOK_EVERY: Duration = Duration::from_millis(25);

pub(super) async fn renew(pool: &SqlitePool, beat: &Beat) -> Result<(), Outage> {
    let row = ReplicaRow::of(beat);
    let renew = query(sql::RENEW).bind(row.id).bind(row.name).bind(row.version).bind(row.started);
    let renew = renew.bind(row.beat).bind(row.applied_seq).bind(row.lease_ms).bind(row.renewed);
    let done = renew.execute(pool).await.map_err(Outage::during("renew the lease"))?;
    was_taken(done.rows_affected())
}

pub(super) async fn replicas(pool: &SqlitePool) -> Result<Vec<Beat>, Outage> {
    let query = query_as(sql::REPLICAS);
    let rows: Vec<ReplicaRow> = query.fetch_all(pool).await.map_err(Outage::during("read the replicas"))?;
    rows.into_iter().map(ReplicaRow::read).collect()
}

pub(super) async fn remove(pool: &SqlitePool, id: ReplicaId, number: u64) -> Result<bool, Outage> {
    let remove = query(sql::REMOVE_REPLICA).bind(id.0.to_string()).bind(signed(number));
    let done = remove.execute(pool).await.map_err(Outage::during("remove a replica"))?;
    Ok(done.rows_affected() > 0)
}

/// Compares what it sees with what it saw.
pub(super) struct Lookout {
    pool: SqlitePool,
    log: Seq,
    acknowledged: Vec<Seq>,
}

impl Lookout {
    pub(super) async fn new(pool: SqlitePool) -> Result<Self, Outage> {
        let (log, acknowledged) = look(&pool).await?;
        Ok(Self { pool, log, acknowledged })
    }
}

#[async_trait]
impl Ear for Lookout {
    async fn hear(&mut self) -> Result<Heard, Outage> {
        loop {
            let (log, acknowledged) = look(&self.pool).await?;
            if log != self.log {
                self.log = log;
                return Ok(Heard::Log);
            }
            if acknowledged != self.acknowledged {
                self.acknowledged = acknowledged;
                return Ok(Heard::Acknowledgement);
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// The head of the log, and up to where it was applied by each.
async fn look(pool: &SqlitePool) -> Result<(Seq, Vec<Seq>), Outage> {
    let head = read::head(pool).await?;
    Ok((head, replicas(pool).await?.iter().map(|beat| beat.applied).collect()))
}
