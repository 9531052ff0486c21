//! The refusal of a request, from the error response to the request log.

use std::time::Duration;

use axum::http::HeaderValue;

use crate::{app::Error, http::error::code::INTERNAL_ERROR_TEXT, ports::ErrorChain};

/// Why a request was refused. An error response carries it as an extension; the request log reads
/// it.
#[derive(Clone, Debug)]
pub(in crate::http) struct Refusal {
    /// The error code or problem type on the wire.
    pub code: &'static str,
    /// The full reason, for the log only.
    pub reason: String,
}

/// The `Retry-After` of a response whose error names no time.
pub(super) const DEFAULT_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Returns the time after which a retry may succeed.
pub(super) fn retry_after(error: &Error) -> Duration {
    match error {
        Error::Unavailable(outage) => outage.retry_after(),
        _ => DEFAULT_RETRY_AFTER,
    }
}

/// Returns the value of `Retry-After` (RFC 9110 §10.2.3): whole seconds, rounded up.
pub(super) fn retry_after_header(delay: Duration) -> HeaderValue {
    let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
    seconds.max(1).into()
}

/// Returns the text that the client receives for an error. Logs an outage with its causes: the
/// client learns only that a retry may help.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::Unavailable(outage) => {
            tracing::error!(error = %ErrorChain(outage), "request failed");
            match outage.unknown_entry() {
                Some(unknown) => format!(
                    "this replica has version {} and needs version {} or later; retry at another replica",
                    unknown.own, unknown.needed
                ),
                None => "temporarily unavailable; retry later".to_owned(),
            }
        }
        Error::Internal(defect) => {
            tracing::error!(error = %ErrorChain(defect), "request failed");
            INTERNAL_ERROR_TEXT.to_owned()
        }
        // One text for all of them, so that a probe for client ids learns nothing.
        Error::Auth(auth) if !auth.is_disclosable() => "client authentication failed".to_owned(),
        refusal => refusal.to_string(),
    }
}
