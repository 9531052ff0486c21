//! Replicas and their leases.

use std::time::Duration;

use sqlx::FromRow;

use super::{RowContext, to_i64};
use crate::{
    domain::{
        replication::{Heartbeat, Replica, ReplicaId},
        revocation::LogPosition,
    },
    ports::Outage,
};

/// `replicas`
#[derive(FromRow)]
pub(crate) struct ReplicaRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) started_at: i64,
    pub(crate) heartbeat_number: i64,
    pub(crate) applied_seq: i64,
    pub(crate) lease_ms: i64,
    pub(crate) renewed_at: i64,
}

/// Whether a renewal was written: nobody waits for the lease of one that was passed over.
pub(crate) fn check_recorded(rows: u64) -> Result<(), Outage> {
    if rows > 0 { Ok(()) } else { Err(Outage::during("renew the lease")("a later renewal is there")) }
}

impl ReplicaRow {
    pub(crate) fn new(beat: &Heartbeat) -> Self {
        Self {
            id: beat.replica.id.0.to_string(),
            name: beat.replica.name.clone(),
            version: beat.replica.version.clone(),
            started_at: beat.replica.started_at.unix(),
            heartbeat_number: to_i64(beat.number),
            applied_seq: to_i64(beat.applied.number()),
            lease_ms: i64::try_from(beat.lease.as_millis()).unwrap_or(i64::MAX),
            renewed_at: beat.at.unix(),
        }
    }

    pub(crate) fn read(self) -> Result<Heartbeat, Outage> {
        let place = RowContext { table: "replicas", row: &self.id };
        Ok(Heartbeat {
            number: place.parse_u64("heartbeat_number", self.heartbeat_number)?,
            applied: LogPosition::new(place.parse_u64("applied_seq", self.applied_seq)?),
            lease: Duration::from_millis(place.parse_u64("lease_ms", self.lease_ms)?),
            at: place.parse_time("renewed_at", self.renewed_at)?,
            replica: Replica {
                id: ReplicaId(place.parse("id", &self.id)?),
                started_at: place.parse_time("started_at", self.started_at)?,
                name: self.name,
                version: self.version,
            },
        })
    }
}
