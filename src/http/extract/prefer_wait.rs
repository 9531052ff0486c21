//! The preference `Prefer: wait` (RFC 7240 §4.3): how long the caller waits for the propagation of
//! a revocation.

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{domain::replication::Propagation, http::AppState};

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// `Prefer: wait=SECONDS`: how long the caller waits until every replica has applied its change.
/// Without it, the caller waits until that is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct PreferWait(pub Option<Duration>);

impl<S: Send + Sync> FromRequestParts<S> for PreferWait {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::from_headers(&parts.headers))
    }
}

impl PreferWait {
    /// Parses the first `wait` (RFC 7240 §2). A value that is not a number of seconds is ignored.
    fn from_headers(headers: &HeaderMap) -> Self {
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let preferences = values.flat_map(|value| value.split(','));
        let mut waits = preferences.filter_map(|preference| {
            let (name, value) = preference.split(';').next()?.split_once('=')?;
            name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"'))
        });
        let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A number beyond 32 bits is longer than any client waits, so the maximum has the same
        // effect.
        let seconds = waits.next().filter(is_number).map(|text| text.parse::<u32>().unwrap_or(u32::MAX));
        Self(seconds.map(|seconds| Duration::from_secs(u64::from(seconds))))
    }

    /// Returns 200 if every replica has applied the change, or 202 if the change is durable only.
    pub(in crate::http) fn respond(self, app: &AppState, propagation: &Propagation, body: impl Serialize) -> Response {
        app.metrics.record_propagation(propagation);
        let status = if propagation.is_complete() { StatusCode::OK } else { StatusCode::ACCEPTED };
        let mut response = (status, Json(body)).into_response();
        if let Some(applied) = self.0.and_then(|wait| HeaderValue::try_from(format!("wait={}", wait.as_secs())).ok()) {
            response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefer_wait_is_parsed() {
        for (preferences, seconds) in [
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
            let headers = preferences.iter().map(|value| ("prefer".parse().unwrap(), value.parse().unwrap()));
            let wait = PreferWait::from_headers(&headers.collect());
            assert_eq!(wait.0.map(|wait| wait.as_secs()), seconds, "{preferences:?}");
        }
    }
}
