//! `/v1/admin/replicas`: the replicas that follow the log.

use axum::{Json, extract::State};
use serde::Serialize;

use crate::{
    app::ReplicaStatus,
    domain::replication::ReplicaId,
    http::{AppState, error::problem::Problem, extract::auth::AdminReader, views::ListView},
};

/// `GET /v1/admin/replicas`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    AdminReader(_, cx): AdminReader,
) -> Result<Json<ListView<ReplicaView>>, Problem> {
    let replicas = app.service.list_replicas(&cx).await?;
    Ok(Json(ListView::complete(replicas.into_iter().map(ReplicaView::from).collect())))
}

/// A replica.
#[derive(Serialize)]
pub(in crate::http) struct ReplicaView {
    id: ReplicaId,
    name: String,
    version: String,
    started: String,
    /// Whether this replica sends the response.
    answering: bool,
    applied_seq: u64,
    /// The number of log entries that it had not applied at its last heartbeat.
    behind: u64,
    renewed: String,
    renewal: u64,
    lease_ms: u128,
    /// The time for which the answering replica has seen no newer renewal.
    since_last_renewal_ms: u128,
    /// Whether it may answer from memory, so that a revocation waits for it.
    lease_valid: bool,
    /// Its configuration file.
    #[serde(skip_serializing_if = "Option::is_none")]
    configuration: Option<ConfigurationView>,
}

/// The configuration file of a replica.
#[derive(Serialize)]
pub(in crate::http) struct ConfigurationView {
    /// The digest of what the file declares.
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    /// Whether the file is the one that was applied last.
    in_force: bool,
    /// The keys that have changed since the start and need a restart.
    pending_restart: Vec<String>,
}

impl From<ReplicaStatus> for ReplicaView {
    fn from(status: ReplicaStatus) -> Self {
        let ReplicaStatus { heartbeat, lag, since_last_renewal, may_hold_lease, is_self, has_file_in_force } = status;
        let pending_restart = heartbeat.replica.pending_restart;
        let configuration = heartbeat.replica.file.map(|file| ConfigurationView {
            digest: file.digest,
            generation: file.generation,
            in_force: has_file_in_force == Some(true),
            pending_restart,
        });
        Self {
            id: heartbeat.replica.id,
            name: heartbeat.replica.name,
            version: heartbeat.replica.version,
            started: heartbeat.replica.started_at.to_rfc3339(),
            answering: is_self,
            applied_seq: heartbeat.applied.number(),
            behind: lag,
            renewed: heartbeat.at.to_rfc3339(),
            renewal: heartbeat.number,
            lease_ms: heartbeat.lease.as_millis(),
            since_last_renewal_ms: since_last_renewal.as_millis(),
            lease_valid: may_hold_lease,
            configuration,
        }
    }
}
