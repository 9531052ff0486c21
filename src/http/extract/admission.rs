//! Admission of an authenticated request. The extractor that authenticates the caller admits the
//! request; the slot holds the admission until the response is ready.

use std::sync::Arc;

use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue};
use parking_lot::Mutex;

use crate::{
    app::Admitted,
    domain::admission::{Throttled, retry_after_seconds},
};

/// The policy that applies to the request: `"exchange";q=500;w=5`
/// (draft-ietf-httpapi-ratelimit-headers, `q` requests in `w` seconds).
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is left of it: `"exchange";r=499`.
const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// The place of a request's admission, in its extensions.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct AdmissionSlot(Arc<Mutex<Option<Admitted>>>);

impl AdmissionSlot {
    /// Returns the slot of a request.
    pub(in crate::http) fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// Keeps the admission of the request until the response is ready.
    pub(in crate::http) fn hold(&self, admitted: Admitted) {
        *self.0.lock() = Some(admitted);
    }

    /// Ends the request: states in the headers what the caller may still send.
    pub(in crate::http) fn finish(&self, headers: &mut HeaderMap) {
        if let Some(admitted) = self.0.lock().take() {
            let (family, limit) = (admitted.family.as_str(), admitted.limit);
            insert_headers(headers, family, limit.burst.get(), limit.per_second.get(), admitted.remaining, None);
        }
    }
}

/// States the limit in the headers of a response to a request that was not admitted.
pub(in crate::http) fn insert_throttled(headers: &mut HeaderMap, throttled: &Throttled) {
    let (family, limit) = (throttled.family.as_str(), throttled.limit);
    let retry_after = retry_after_seconds(throttled.retry_after);
    insert_headers(headers, family, limit.burst.get(), limit.per_second.get(), 0, Some(retry_after));
}

fn insert_headers(headers: &mut HeaderMap, family: &str, burst: u32, rate: u32, remaining: u32, reset: Option<u64>) {
    // `q` requests in `w` seconds: the burst fills up in `w` seconds.
    let window = burst.div_ceil(rate.max(1)).max(1);
    let reset = reset.map(|seconds| format!(";t={seconds}")).unwrap_or_default();
    for (name, text) in [
        (RATELIMIT_POLICY, format!("\"{family}\";q={burst};w={window}")),
        (RATELIMIT, format!("\"{family}\";r={remaining}{reset}")),
    ] {
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    }
}
