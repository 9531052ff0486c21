//! Replicas: who follows the log, and how a request says how long it waits for them.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    extract::{FromRequestParts, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    app::ReplicaStatus,
    domain::replication::{Propagation, ReplicaId},
    http::{AppState, error::problem::Problem, extract::auth::AdminReader, views::ListView},
};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// `GET /v1/admin/replicas`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    AdminReader(_, cx): AdminReader,
) -> Result<Json<ListView<ReplicaView>>, Problem> {
    let replicas = app.service.list_replicas(&cx).await?;
    Ok(Json(ListView::complete(replicas.into_iter().map(ReplicaView::from).collect())))
}

/// `Prefer: wait=SECONDS` (RFC 7240 §4.3): how long the caller waits for all replicas to know; without it, until they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct PreferWait(pub Option<Duration>);

impl<S: Send + Sync> FromRequestParts<S> for PreferWait {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_headers(&parts.headers))
    }
}

impl PreferWait {
    /// The first `wait` counts (RFC 7240 §2), and one that is no number of seconds is no preference.
    fn from_headers(headers: &HeaderMap) -> Self {
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let preferences = values.flat_map(|value| value.split(','));
        let mut waits = preferences.filter_map(|preference| {
            let (name, value) = preference.split(';').next()?.split_once('=')?;
            name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"'))
        });
        let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A number that is too large for us is longer than anybody waits.
        let seconds = waits.next().filter(is_number).map(|text| text.parse::<u32>().unwrap_or(u32::MAX));
        Self(seconds.map(|seconds| Duration::from_secs(u64::from(seconds))))
    }

    /// 200 when it is known everywhere, 202 when it is durable and that is all.
    pub(in crate::http) fn respond(self, app: &AppState, spread: &Propagation, body: impl Serialize) -> Response {
        app.metrics.record_propagation(spread);
        let status = if spread.is_complete() { StatusCode::OK } else { StatusCode::ACCEPTED };
        let mut response = (status, Json(body)).into_response();
        if let Some(applied) = self.0.and_then(|wait| HeaderValue::try_from(format!("wait={}", wait.as_secs())).ok()) {
            response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
        response
    }
}

/// How far an entry of the log got.
#[derive(Serialize)]
pub(in crate::http) struct PropagationView {
    seq: u64,
    replicas_acknowledged: usize,
    replicas_lapsed: usize,
    /// Zero, unless the caller did not want to wait.
    replicas_pending: usize,
    propagated_ms: u128,
}

impl From<&Propagation> for PropagationView {
    fn from(spread: &Propagation) -> Self {
        Self {
            seq: spread.seq.number(),
            replicas_acknowledged: spread.acknowledged,
            replicas_lapsed: spread.lapsed,
            replicas_pending: spread.pending,
            propagated_ms: spread.elapsed.as_millis(),
        }
    }
}

/// A replica.
#[derive(Serialize)]
pub(in crate::http) struct ReplicaView {
    id: ReplicaId,
    name: String,
    version: String,
    started: String,
    /// The one that gives this answer.
    answering: bool,
    applied_seq: u64,
    /// How many entries of the log it had not applied when it was last heard of.
    behind: u64,
    renewed: String,
    renewal: u64,
    lease_ms: u128,
    /// How long the answering replica has seen no newer renewal.
    since_last_renewal_ms: u128,
    /// Whether it may answer from memory: a revocation waits for it.
    lease_valid: bool,
}

impl From<ReplicaStatus> for ReplicaView {
    fn from(
        ReplicaStatus {
            heartbeat: beat,
            lag: behind,
            since_last_renewal: age,
            may_hold_lease: may_hold,
            is_self: answers,
        }: ReplicaStatus,
    ) -> Self {
        Self {
            id: beat.replica.id,
            name: beat.replica.name,
            version: beat.replica.version,
            started: beat.replica.started_at.to_rfc3339(),
            answering: answers,
            applied_seq: beat.applied.number(),
            behind,
            renewed: beat.at.to_rfc3339(),
            renewal: beat.number,
            lease_ms: beat.lease.as_millis(),
            since_last_renewal_ms: age.as_millis(),
            lease_valid: may_hold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefer_wait_is_parsed() {
        for (prefer, seconds) in [
            (&["wait=1"][..], Some(1)),
            (&["respond-async, Wait = 10"], Some(10)),
            (&["wait=\"0\"; x=y"], Some(0)),
            (&["wait=1, wait=2"], Some(1)),
            (&["return=minimal", "wait=3"], Some(3)),
            (&["wait=99999999999999999999"], Some(u64::from(u32::MAX))),
            (&["wait=0.5, wait=2"], None),
            (&["wait=-1"], None),
            (&["wait"], None),
            (&["wait="], None),
            (&["waits=1"], None),
            (&[], None),
        ] {
            let headers = prefer.iter().map(|value| ("prefer".parse().unwrap(), value.parse().unwrap()));
            let patience = PreferWait::from_headers(&headers.collect());
            assert_eq!(patience.0.map(|wait| wait.as_secs()), seconds, "{prefer:?}");
        }
    }
}
