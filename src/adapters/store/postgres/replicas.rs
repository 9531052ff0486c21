//! Replicas: their leases, and a connection that listens.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Acquire, Connection, PgPool, postgres::PgListener, query, query_as};
use tokio::time::timeout;

use super::sql;
use crate::{
    adapters::store::rows::{ReplicaRow, signed, was_taken},
    domain::replica::{Beat, ReplicaId},
    ports::{Ear, Heard, Outage},
};

/// How long nothing may be heard before the connection is asked whether it still leads somewhere, and how long that may take.
const QUIET: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn renew(pool: &PgPool, beat: &Beat, is_news: bool) -> Result<(), Outage> {
    let row = ReplicaRow::of(beat);
    let renew = query(sql::RENEW).bind(beat.replica.id.0).bind(row.name).bind(row.version).bind(row.started);
    let renew = renew.bind(row.beat).bind(row.applied_seq).bind(row.lease_ms).bind(row.renewed).bind(is_news);
    let done = renew.execute(pool).await.map_err(Outage::during("renew the lease"))?;
    was_taken(done.rows_affected())
}

pub(super) async fn replicas(pool: &PgPool) -> Result<Vec<Beat>, Outage> {
    let query = query_as(sql::REPLICAS);
    let rows: Vec<ReplicaRow> = query.fetch_all(pool).await.map_err(Outage::during("read the replicas"))?;
    rows.into_iter().map(ReplicaRow::read).collect()
}

pub(super) async fn remove(pool: &PgPool, id: ReplicaId, number: u64) -> Result<bool, Outage> {
    let remove = query(sql::REMOVE_REPLICA).bind(id.0).bind(signed(number));
    let done = remove.execute(pool).await.map_err(Outage::during("remove a replica"))?;
    Ok(done.rows_affected() > 0)
}

/// A connection of its own, in a pool of its own: one that goes silent may keep its pool waiting for long, and who listens
/// anew does not wait for that.
pub(super) struct Listener(PgListener);

impl Listener {
    pub(super) async fn new(pool: PgPool) -> Result<Self, Outage> {
        let during = "listen to the store";
        let mut listener = PgListener::connect_with(&pool).await.map_err(Outage::during(during))?;
        // Who has heard nothing for a while because nobody was there to tell must know that.
        listener.eager_reconnect(false);
        let listening = timeout(PATIENCE, listener.listen_all([sql::TOLD_OF_LOG, sql::TOLD_OF_ACKS])).await;
        listening.map_err(Outage::during(during))?.map_err(Outage::during(during))?;
        Ok(Self(listener))
    }
}

#[async_trait]
impl Ear for Listener {
    async fn hear(&mut self) -> Result<Heard, Outage> {
        let during = "listen to the store";
        loop {
            match timeout(QUIET, self.0.try_recv()).await {
                Ok(Ok(Some(told))) if told.channel() == sql::TOLD_OF_LOG => return Ok(Heard::Log),
                Ok(Ok(Some(_))) => return Ok(Heard::Acknowledgement),
                Ok(Ok(None)) => return Err(Outage::during(during)("the connection was lost")),
                Ok(Err(error)) => return Err(Outage::during(during)(error)),
                Err(_quiet) => {
                    let connection = self.0.acquire().await.map_err(Outage::during(during))?;
                    let answer = timeout(PATIENCE, connection.ping()).await.map_err(Outage::during(during))?;
                    answer.map_err(Outage::during(during))?;
                }
            }
        }
    }
}
