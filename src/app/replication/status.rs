//! The state of replication, as the service reports it.

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use crate::{
    app::{Error, RequestContext, Service},
    domain::{
        audit::{Event, Outcome, Record},
        configuration::FileVersion,
        replication::Heartbeat,
        revocation::{LogPosition, NewEntry},
    },
    ports::WriteSet,
};

/// The status of a replica, as an admin sees it.
#[derive(Debug)]
pub struct ReplicaStatus {
    /// The replica's last renewal.
    pub heartbeat: Heartbeat,
    /// The number of log entries that the replica had not applied at its last renewal.
    pub lag: u64,
    /// How long the responding replica has seen no newer renewal.
    pub since_last_renewal: Duration,
    /// Whether the replica's lease may still be valid.
    pub may_hold_lease: bool,
    /// Whether this is the responding replica.
    pub is_self: bool,
    /// Whether its configuration file declares what the file in force declares. `None` if one of
    /// the two is unknown.
    pub has_file_in_force: Option<bool>,
}

impl Service {
    /// Follows the log and renews the lease until the service is [shut down](Service::shutdown).
    /// Without it, responses are just as exact, but every request reads the log's head from the
    /// store.
    pub async fn follow_log(&self) {
        self.inner.renewal.run().await;
    }

    /// Returns how often this replica found a row, the revocation log, the registry or the keys
    /// changed outside the program, since the start.
    #[must_use]
    pub fn tampering_count(&self) -> u64 {
        self.store().tampering_count().saturating_add(self.inner.follower.tampering_count())
    }

    /// Returns whether requests are answered from memory now.
    #[must_use]
    pub fn holds_lease(&self) -> bool {
        self.inner.follower.holds_lease()
    }

    /// Describes the configuration file of this replica to the others.
    pub fn describe_file(&self, file: FileVersion, pending_restart: Vec<String>) {
        self.inner.renewal.describe_file(file, pending_restart);
    }

    /// Returns a receiver that changes when an operator requests that every replica reads its
    /// configuration file again.
    #[must_use]
    pub fn subscribe_reload_requests(&self) -> watch::Receiver<u64> {
        self.inner.follower.subscribe_reload_requests()
    }

    /// Requests that every replica reads its configuration file again. When this returns, every
    /// replica has received the request.
    pub async fn request_reload(&self, actor: &str, requested_by: &str, cx: &RequestContext) -> Result<(), Error> {
        let write = WriteSet {
            log_entries: vec![NewEntry::reload_requested(actor.to_owned(), cx.now)],
            audit_records: vec![Record {
                admin: Some(actor.to_owned()),
                requested: Some(json!({"reload": "configuration files", "requested_by": requested_by})),
                request_id: Some(cx.request_id.clone()),
                source: cx.source_text(),
                ..Record::new(cx.now, Event::RegistryChange, Outcome::Done)
            }],
            ..WriteSet::default()
        };
        self.inner.writer.commit_and_propagate(write, None).await?;
        Ok(())
    }

    /// Returns the log position that this replica has applied.
    #[must_use]
    pub fn applied_seq(&self) -> LogPosition {
        self.inner.follower.applied_seq()
    }

    /// Returns the status of every replica in the store.
    pub async fn list_replicas(&self, cx: &RequestContext) -> Result<Vec<ReplicaStatus>, Error> {
        let head = self.inner.follower.committed_snapshot(cx.now).await?.seq;
        let heartbeats = self.inner.peers.read_heartbeats().await?;
        let history = self.store().load_configuration_history().await?;
        let in_force = history.in_force().map(|applied| &applied.version);
        let (now, own_id) = (self.clock().monotonic(), self.inner.renewal.replica_id());
        Ok(self.inner.peers.with_observations(|peers| {
            let status = |heartbeat: &Heartbeat| ReplicaStatus {
                lag: head.number().saturating_sub(heartbeat.applied.number()),
                since_last_renewal: peers.age(heartbeat, now),
                may_hold_lease: !peers.has_lapsed(heartbeat, now),
                is_self: heartbeat.replica.id == own_id,
                has_file_in_force: in_force.zip(heartbeat.replica.file.as_ref()).map(|(newest, own)| newest == own),
                heartbeat: heartbeat.clone(),
            };
            heartbeats.iter().map(status).collect()
        }))
    }
}
