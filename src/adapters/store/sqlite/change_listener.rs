//! Heartbeats of replicas, and change detection by polling.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{SqlitePool, query, query_as};
use tokio::time::sleep;

use super::{read, sql};
use crate::{
    adapters::store::rows::{ReplicaRow, check_recorded, to_i64},
    domain::{
        replication::{Heartbeat, ReplicaId},
        revocation::LogPosition,
    },
    ports::{ChangeListener, Notification, Outage},
};

/// The interval of polling. SQLite does not notify one process of the writes of another.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

pub(super) async fn record_heartbeat(pool: &SqlitePool, beat: &Heartbeat) -> Result<(), Outage> {
    let row = ReplicaRow::new(beat);
    let record = query(sql::RECORD_HEARTBEAT).bind(row.id).bind(row.name).bind(row.version).bind(row.started_at);
    let record = record.bind(row.heartbeat_number).bind(row.applied_seq).bind(row.lease_ms).bind(row.renewed_at);
    let record = record.bind(row.file_digest).bind(row.file_generation).bind(row.pending_restart);
    let done = record.execute(pool).await.map_err(Outage::during("record a heartbeat"))?;
    check_recorded(done.rows_affected())
}

pub(super) async fn list_replicas(pool: &SqlitePool) -> Result<Vec<Heartbeat>, Outage> {
    let query = query_as(sql::REPLICAS);
    let rows: Vec<ReplicaRow> = query.fetch_all(pool).await.map_err(Outage::during("list replicas"))?;
    rows.into_iter().map(ReplicaRow::read).collect()
}

pub(super) async fn deregister_replica(pool: &SqlitePool, id: ReplicaId, number: u64) -> Result<bool, Outage> {
    let remove = query(sql::DEREGISTER_REPLICA).bind(id.0.to_string()).bind(to_i64(number));
    let done = remove.execute(pool).await.map_err(Outage::during("deregister a replica"))?;
    Ok(done.rows_affected() > 0)
}

/// Compares the state of the file with the state at the last poll.
pub(super) struct PollingListener {
    pool: SqlitePool,
    log_head: LogPosition,
    acknowledged_positions: Vec<LogPosition>,
}

impl PollingListener {
    pub(super) async fn new(pool: SqlitePool) -> Result<Self, Outage> {
        let (log, acknowledged) = read_positions(&pool).await?;
        Ok(Self { pool, log_head: log, acknowledged_positions: acknowledged })
    }
}

#[async_trait]
impl ChangeListener for PollingListener {
    async fn recv(&mut self) -> Result<Notification, Outage> {
        loop {
            let (log, acknowledged) = read_positions(&self.pool).await?;
            if log != self.log_head {
                self.log_head = log;
                return Ok(Notification::Log);
            }
            if acknowledged != self.acknowledged_positions {
                self.acknowledged_positions = acknowledged;
                return Ok(Notification::Acknowledgement);
            }
            sleep(POLL_INTERVAL).await;
        }
    }
}

/// Returns the head of the log and the acknowledged position of each replica.
async fn read_positions(pool: &SqlitePool) -> Result<(LogPosition, Vec<LogPosition>), Outage> {
    let head = read::read_log_head(pool).await?;
    Ok((head, list_replicas(pool).await?.iter().map(|beat| beat.applied).collect()))
}
