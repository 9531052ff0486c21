//! Replicas: their leases, and a connection that listens.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Acquire, Connection, PgPool, postgres::PgListener, query, query_as};
use tokio::time::timeout;

use super::sql;
use crate::{
    adapters::store::rows::{ReplicaRow, check_recorded, to_i64},
    domain::replication::{Heartbeat, ReplicaId},
    ports::{ChangeListener, Notification, Outage},
};

/// How long nothing may be heard before the connection is asked whether it still leads somewhere, and how long that may take.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn record_heartbeat(pool: &PgPool, beat: &Heartbeat, is_news: bool) -> Result<(), Outage> {
    let row = ReplicaRow::new(beat);
    let renew =
        query(sql::RECORD_HEARTBEAT).bind(beat.replica.id.0).bind(row.name).bind(row.version).bind(row.started_at);
    let renew =
        renew.bind(row.heartbeat_number).bind(row.applied_seq).bind(row.lease_ms).bind(row.renewed_at).bind(is_news);
    let done = renew.execute(pool).await.map_err(Outage::during("renew the lease"))?;
    check_recorded(done.rows_affected())
}

pub(super) async fn list_replicas(pool: &PgPool) -> Result<Vec<Heartbeat>, Outage> {
    let query = query_as(sql::REPLICAS);
    let rows: Vec<ReplicaRow> = query.fetch_all(pool).await.map_err(Outage::during("read the replicas"))?;
    rows.into_iter().map(ReplicaRow::read).collect()
}

pub(super) async fn deregister_replica(pool: &PgPool, id: ReplicaId, number: u64) -> Result<bool, Outage> {
    let remove = query(sql::DEREGISTER_REPLICA).bind(id.0).bind(to_i64(number));
    let done = remove.execute(pool).await.map_err(Outage::during("remove a replica"))?;
    Ok(done.rows_affected() > 0)
}

/// A connection of its own, in a pool of its own: one that goes silent may keep its pool waiting for long, and who listens
/// anew does not wait for that.
pub(super) struct NotifyListener(PgListener);

impl NotifyListener {
    pub(super) async fn new(pool: PgPool) -> Result<Self, Outage> {
        let during = "listen to the store";
        let mut listener = PgListener::connect_with(&pool).await.map_err(Outage::during(during))?;
        // Who has heard nothing for a while because nobody was there to tell must know that.
        listener.eager_reconnect(false);
        let listening = timeout(KEEPALIVE_TIMEOUT, listener.listen_all([sql::LOG_CHANNEL, sql::ACK_CHANNEL])).await;
        listening.map_err(Outage::during(during))?.map_err(Outage::during(during))?;
        Ok(Self(listener))
    }
}

#[async_trait]
impl ChangeListener for NotifyListener {
    async fn recv(&mut self) -> Result<Notification, Outage> {
        let during = "listen to the store";
        loop {
            match timeout(KEEPALIVE_INTERVAL, self.0.try_recv()).await {
                Ok(Ok(Some(told))) if told.channel() == sql::LOG_CHANNEL => return Ok(Notification::Log),
                Ok(Ok(Some(_))) => return Ok(Notification::Acknowledgement),
                Ok(Ok(None)) => return Err(Outage::during(during)("the connection was lost")),
                Ok(Err(error)) => return Err(Outage::during(during)(error)),
                Err(_quiet) => {
                    let connection = self.0.acquire().await.map_err(Outage::during(during))?;
                    let answer = timeout(KEEPALIVE_TIMEOUT, connection.ping()).await.map_err(Outage::during(during))?;
                    answer.map_err(Outage::during(during))?;
                }
            }
        }
    }
}
