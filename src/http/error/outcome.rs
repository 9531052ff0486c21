//! The refusal of a request, from the error response to the request log.

use axum::http::{HeaderMap, header};

use crate::{
    app::{ConflictError, Error},
    domain::admission::{Throttled, retry_after_seconds},
    http::{error::code::INTERNAL_ERROR_TEXT, extract::admission::insert_throttled},
    ports::ErrorChain,
};

/// When a client whose quota is used up may retry: tokens expire, and tasks have deadlines.
const QUOTA_RETRY_SECONDS: u64 = 30;

/// Why a request was refused. An error response carries it as an extension; the request log reads
/// it.
#[derive(Clone, Debug)]
pub(in crate::http) struct Refusal {
    /// The error code or problem type on the wire.
    pub code: &'static str,
    /// The full reason, for the log only.
    pub reason: String,
}

/// When the client of a refused request may retry, and the limit that it exceeded.
#[derive(Clone, Copy, Debug)]
pub(super) struct RetryHint {
    seconds: u64,
    throttled: Option<Throttled>,
}

impl RetryHint {
    /// For a condition that may be over soon.
    pub(super) const SOON: Self = Self { seconds: 1, throttled: None };

    /// Returns the hint for an error, if a retry can help.
    pub(super) fn of(error: &Error) -> Option<Self> {
        match error {
            Error::Throttled(throttled) => {
                Some(Self { seconds: retry_after_seconds(throttled.retry_after), throttled: Some(*throttled) })
            }
            Error::QuotaExceeded(_) => Some(Self { seconds: QUOTA_RETRY_SECONDS, throttled: None }),
            Error::Unavailable(outage) => {
                Some(Self { seconds: retry_after_seconds(outage.retry_after()), throttled: None })
            }
            Error::Conflict(
                ConflictError::TooManySubscribers
                | ConflictError::TooManyLists(_)
                | ConflictError::TooManyRows(_)
                | ConflictError::TooManyLongBodies(_)
                | ConflictError::ListTimedOut(_),
            ) => Some(Self::SOON),
            _ => None,
        }
    }

    /// Writes the headers.
    pub(super) fn insert_into(self, headers: &mut HeaderMap) {
        headers.insert(header::RETRY_AFTER, self.seconds.into());
        if let Some(throttled) = &self.throttled {
            insert_throttled(headers, throttled);
        }
    }
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
