//! The refusal of a request, from the error response to the request log.

use crate::{
    app::{AuthError, Error},
    http::error::code::{ErrorCode, INTERNAL_ERROR_TEXT},
    ports::ErrorChain,
};

/// Why a request was refused. An error response carries it as an extension; the request log reads
/// it.
#[derive(Clone, Debug)]
pub(in crate::http) struct Refusal {
    /// The error code or problem type on the wire.
    pub code: &'static str,
    /// The full reason, for the log only.
    pub reason: String,
}

/// Returns the text that the client receives for an error. Logs an outage with its causes: the
/// client learns only that a retry may help.
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::Unavailable(outage) => {
            tracing::error!(error = %ErrorChain(outage), "request failed");
            "temporarily unavailable; retry later".to_owned()
        }
        Error::Internal(defect) => {
            tracing::error!(error = %ErrorChain(defect), "request failed");
            INTERNAL_ERROR_TEXT.to_owned()
        }
        // One text for all of them, so that a probe for client ids learns nothing.
        Error::Auth(auth) if ErrorCode::from(auth) == ErrorCode::InvalidClient => match auth {
            AuthError::MissingCredentials => "client authentication is required".to_owned(),
            _ => "client authentication failed".to_owned(),
        },
        refusal => refusal.to_string(),
    }
}
