//! Heartbeats of replicas, and change detection by polling.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{SqliteConnection, query, query_as};
use tokio::time::sleep;

use super::{lane::Lane, read, sql};
use crate::{
    adapters::store::{
        lane::on,
        rows::{ReplicaRow, check_recorded, to_i64},
    },
    domain::{
        replication::{Heartbeat, ReplicaId},
        revocation::LogPosition,
    },
    ports::{ChangeListener, Notification, Outage},
};

/// The interval of polling. SQLite does not notify one process of the writes of another.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

pub(super) async fn record_heartbeat(connection: &mut SqliteConnection, beat: &Heartbeat) -> Result<(), Outage> {
    let row = ReplicaRow::new(beat);
    let record = query(sql::RECORD_HEARTBEAT).bind(row.id).bind(row.name).bind(row.version).bind(row.started_at);
    let record = record.bind(row.heartbeat_number).bind(row.applied_seq).bind(row.lease_ms).bind(row.renewed_at);
    let record = record.bind(row.file_digest).bind(row.file_generation).bind(row.pending_restart);
    let done = record.execute(&mut *connection).await.map_err(Outage::during("record a heartbeat"))?;
    check_recorded(done.rows_affected())
}

pub(super) async fn list_replicas(connection: &mut SqliteConnection) -> Result<Vec<Heartbeat>, Outage> {
    let query = query_as(sql::REPLICAS);
    let rows: Vec<ReplicaRow> = query.fetch_all(&mut *connection).await.map_err(Outage::during("list replicas"))?;
    rows.into_iter().map(ReplicaRow::read).collect()
}

pub(super) async fn deregister_replica(
    connection: &mut SqliteConnection,
    id: ReplicaId,
    number: u64,
) -> Result<bool, Outage> {
    let remove = query(sql::DEREGISTER_REPLICA).bind(id.0.to_string()).bind(to_i64(number));
    let done = remove.execute(&mut *connection).await.map_err(Outage::during("deregister a replica"))?;
    Ok(done.rows_affected() > 0)
}

/// Compares the state of the file with the state at the last poll.
pub(super) struct PollingListener {
    lane: Lane,
    log_head: LogPosition,
    acknowledged_positions: Vec<LogPosition>,
}

impl PollingListener {
    pub(super) async fn new(lane: Lane) -> Result<Self, Outage> {
        let (log, acknowledged) = read_positions_on(&lane).await?;
        Ok(Self { lane, log_head: log, acknowledged_positions: acknowledged })
    }
}

#[async_trait]
impl ChangeListener for PollingListener {
    async fn recv(&mut self) -> Result<Notification, Outage> {
        loop {
            let (log, acknowledged) = read_positions_on(&self.lane).await?;
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

async fn read_positions_on(lane: &Lane) -> Result<(LogPosition, Vec<LogPosition>), Outage> {
    on!(lane, read_positions())
}

/// Returns the head of the log and the acknowledged position of each replica.
async fn read_positions(connection: &mut SqliteConnection) -> Result<(LogPosition, Vec<LogPosition>), Outage> {
    let head = read::peek_log_position(connection).await?;
    Ok((head, list_replicas(connection).await?.iter().map(|beat| beat.applied).collect()))
}
