//! Heartbeats of replicas, and change notifications by LISTEN and NOTIFY.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Acquire, Connection, PgConnection, PgPool, postgres::PgListener, query, query_as};
use tokio::time::timeout;

use super::sql;
use crate::{
    adapters::store::rows::{ReplicaRow, check_recorded, to_i64},
    domain::replication::{Heartbeat, ReplicaId},
    ports::{ChangeListener, Notification, Outage},
};

/// The time without a notification after which the connection is tested, and the time that the test
/// may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn record_heartbeat(
    connection: &mut PgConnection,
    beat: &Heartbeat,
    is_news: bool,
) -> Result<(), Outage> {
    let row = ReplicaRow::new(beat);
    let record =
        query(sql::RECORD_HEARTBEAT).bind(beat.replica.id.0).bind(row.name).bind(row.version).bind(row.started_at);
    let record = record.bind(row.heartbeat_number).bind(row.applied_seq).bind(row.lease_ms).bind(row.renewed_at);
    let record = record.bind(row.file_digest).bind(row.file_generation).bind(row.pending_restart).bind(is_news);
    let done = record.execute(&mut *connection).await.map_err(Outage::during("record a heartbeat"))?;
    check_recorded(done.rows_affected())
}

pub(super) async fn list_replicas(connection: &mut PgConnection) -> Result<Vec<Heartbeat>, Outage> {
    let query = query_as(sql::REPLICAS);
    let rows: Vec<ReplicaRow> = query.fetch_all(&mut *connection).await.map_err(Outage::during("list replicas"))?;
    rows.into_iter().map(ReplicaRow::read).collect()
}

pub(super) async fn deregister_replica(
    connection: &mut PgConnection,
    id: ReplicaId,
    number: u64,
) -> Result<bool, Outage> {
    let remove = query(sql::DEREGISTER_REPLICA).bind(id.0).bind(to_i64(number));
    let done = remove.execute(&mut *connection).await.map_err(Outage::during("deregister a replica"))?;
    Ok(done.rows_affected() > 0)
}

/// A listener on a connection and a pool of its own. A silent connection may block its pool for
/// long, and a new listener must not wait for that.
pub(super) struct NotifyListener(PgListener);

impl NotifyListener {
    pub(super) async fn new(pool: PgPool) -> Result<Self, Outage> {
        let operation = "listen to the store";
        let mut listener = PgListener::connect_with(&pool).await.map_err(Outage::during(operation))?;
        // A caller must learn that notifications may have been missed, so the connection is not
        // replaced silently.
        listener.eager_reconnect(false);
        let listening = timeout(KEEPALIVE_TIMEOUT, listener.listen_all([sql::LOG_CHANNEL, sql::ACK_CHANNEL])).await;
        listening.map_err(Outage::during(operation))?.map_err(Outage::during(operation))?;
        Ok(Self(listener))
    }
}

#[async_trait]
impl ChangeListener for NotifyListener {
    async fn recv(&mut self) -> Result<Notification, Outage> {
        let operation = "listen to the store";
        loop {
            match timeout(KEEPALIVE_INTERVAL, self.0.try_recv()).await {
                Ok(Ok(Some(notification))) if notification.channel() == sql::LOG_CHANNEL => {
                    return Ok(Notification::Log);
                }
                Ok(Ok(Some(_))) => return Ok(Notification::Acknowledgement),
                Ok(Ok(None)) => return Err(Outage::during(operation)("the connection was lost")),
                Ok(Err(error)) => return Err(Outage::during(operation)(error)),
                Err(_quiet) => {
                    let connection = self.0.acquire().await.map_err(Outage::during(operation))?;
                    let answer =
                        timeout(KEEPALIVE_TIMEOUT, connection.ping()).await.map_err(Outage::during(operation))?;
                    answer.map_err(Outage::during(operation))?;
                }
            }
        }
    }
}
