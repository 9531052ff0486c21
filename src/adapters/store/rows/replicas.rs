//! Rows of replicas and their heartbeats.

use std::time::Duration;

use sqlx::FromRow;

use super::{RowContext, to_i64};
use crate::{
    domain::{
        configuration::FileVersion,
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
    pub(crate) file_digest: Option<String>,
    pub(crate) file_generation: Option<i64>,
    pub(crate) pending_restart: String,
}

/// Checks that a heartbeat was recorded. A heartbeat that was skipped gives no lease, because no
/// replica waits for it.
pub(crate) fn check_recorded(rows: u64) -> Result<(), Outage> {
    if rows > 0 {
        Ok(())
    } else {
        Err(Outage::during("record a heartbeat")("a later heartbeat of this replica is recorded"))
    }
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
            file_digest: beat.replica.file.as_ref().map(|file| file.digest.clone()),
            file_generation: beat.replica.file.as_ref().and_then(|file| file.generation).map(to_i64),
            pending_restart: serde_json::json!(beat.replica.pending_restart).to_string(),
        }
    }

    pub(crate) fn read(self) -> Result<Heartbeat, Outage> {
        let context = RowContext { table: "replicas", row: &self.id };
        let generation = self.file_generation.map(|number| context.parse_u64("file_generation", number)).transpose()?;
        Ok(Heartbeat {
            number: context.parse_u64("heartbeat_number", self.heartbeat_number)?,
            applied: LogPosition::new(context.parse_u64("applied_seq", self.applied_seq)?),
            lease: Duration::from_millis(context.parse_u64("lease_ms", self.lease_ms)?),
            at: context.parse_time("renewed_at", self.renewed_at)?,
            replica: Replica {
                id: ReplicaId(context.parse("id", &self.id)?),
                started_at: context.parse_time("started_at", self.started_at)?,
                name: self.name,
                version: self.version,
                file: self.file_digest.map(|digest| FileVersion { digest, generation }),
                pending_restart: context.parse_json("pending_restart", &self.pending_restart)?,
            },
        })
    }
}
