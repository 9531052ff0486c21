//! Replicas and their leases.

use std::time::Duration;

use sqlx::FromRow;

use super::{Place, signed};
use crate::{
    domain::{
        replica::{Beat, Replica, ReplicaId},
        revocation::Seq,
    },
    ports::Outage,
};

/// `replicas`
#[derive(FromRow)]
pub(crate) struct ReplicaRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) started: i64,
    pub(crate) beat: i64,
    pub(crate) applied_seq: i64,
    pub(crate) lease_ms: i64,
    pub(crate) renewed: i64,
}

/// Whether a renewal was written: nobody waits for the lease of one that was passed over.
pub(crate) fn was_taken(rows: u64) -> Result<(), Outage> {
    if rows > 0 { Ok(()) } else { Err(Outage::during("renew the lease")("a later renewal is there")) }
}

impl ReplicaRow {
    pub(crate) fn of(beat: &Beat) -> Self {
        Self {
            id: beat.replica.id.0.to_string(),
            name: beat.replica.name.clone(),
            version: beat.replica.version.clone(),
            started: beat.replica.started.unix(),
            beat: signed(beat.number),
            applied_seq: signed(beat.applied.number()),
            lease_ms: i64::try_from(beat.lease.as_millis()).unwrap_or(i64::MAX),
            renewed: beat.at.unix(),
        }
    }

    pub(crate) fn read(self) -> Result<Beat, Outage> {
        let place = Place { table: "replicas", row: &self.id };
        Ok(Beat {
            number: place.number("beat", self.beat)?,
            applied: Seq::new(place.number("applied_seq", self.applied_seq)?),
            lease: Duration::from_millis(place.number("lease_ms", self.lease_ms)?),
            at: place.time("renewed", self.renewed)?,
            replica: Replica {
                id: ReplicaId(place.name("id", &self.id)?),
                started: place.time("started", self.started)?,
                name: self.name,
                version: self.version,
            },
        })
    }
}
