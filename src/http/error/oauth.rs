//! Error responses of the OAuth endpoints (RFC 6749 §5.2, RFC 8693 §2.2.2).

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    app::{ConsentRequired, Error, RequestError},
    domain::{authority::Authority, exchange::Denial},
    http::error::{
        code::{ErrorCode, INTERNAL_ERROR_TEXT, OVERLOADED_TEXT, www_authenticate},
        outcome::{Refusal, RetryHint, describe},
    },
};

/// An error response of an OAuth endpoint.
#[derive(Debug)]
pub(in crate::http) struct OAuthError {
    code: ErrorCode,
    status: StatusCode,
    challenge: Option<&'static str>,
    description: String,
    reason: String,
    allowed_authority: Option<Authority>,
    required_consent: Option<Box<ConsentRequired>>,
    retry: Option<RetryHint>,
}

#[derive(Serialize)]
struct OAuthErrorBody<'a> {
    error: &'static str,
    error_description: &'a str,
    /// The part of the excess that the client's own limits leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_details_allowed: Option<&'a Authority>,
    /// The page where the requester can grant the authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    interaction_uri: Option<&'a str>,
    /// The authority to grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_details: Option<&'a Authority>,
}

impl From<Error> for OAuthError {
    fn from(error: Error) -> Self {
        let code = ErrorCode::from(&error);
        let (description, reason) = (describe(&error), error.to_string());
        let (challenge, retry) = (www_authenticate(&error), RetryHint::of(&error));
        let (mut allowed_authority, mut required_consent) = (None, None);
        match error {
            Error::Denied(Denial::ScopeExceedsCeiling(excess) | Denial::DetailsExceedCeiling(excess)) => {
                allowed_authority = excess.allowed;
            }
            Error::ConsentRequired(consent) => required_consent = Some(consent),
            _ => {}
        }
        Self { code, status: code.status(), challenge, description, reason, allowed_authority, required_consent, retry }
    }
}

impl From<RequestError> for OAuthError {
    fn from(error: RequestError) -> Self {
        Error::from(error).into()
    }
}

impl OAuthError {
    /// Returns the response to a body over the size limit.
    pub(in crate::http) fn too_large() -> Self {
        Self::from(RequestError::InvalidParameter("body", "exceeds 65536 bytes"))
            .with_status(StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// Returns the response to a panic, whose cause is in the log.
    pub(in crate::http) fn internal_error() -> Self {
        Self::with_text(ErrorCode::ServerError, INTERNAL_ERROR_TEXT)
    }

    /// Returns the response to a request above a concurrency limit.
    pub(in crate::http) fn overloaded() -> Self {
        Self { retry: Some(RetryHint::SOON), ..Self::with_text(ErrorCode::TemporarilyUnavailable, OVERLOADED_TEXT) }
    }

    fn with_text(code: ErrorCode, text: &str) -> Self {
        Self {
            code,
            status: code.status(),
            challenge: None,
            description: text.to_owned(),
            reason: text.to_owned(),
            allowed_authority: None,
            required_consent: None,
            retry: None,
        }
    }

    /// Replaces the status of the code.
    pub(in crate::http) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let description = to_ascii(&self.description);
        let consent = self.required_consent.as_deref();
        let body = OAuthErrorBody {
            error: self.code.as_str(),
            error_description: &description,
            authorization_details_allowed: self.allowed_authority.as_ref(),
            interaction_uri: consent.and_then(|consent| consent.uri.as_deref()),
            authorization_details: consent.map(|consent| &consent.authority).filter(|details| !details.is_empty()),
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(retry) = self.retry {
            retry.insert_into(response.headers_mut());
        }
        response.extensions_mut().insert(Refusal { code: self.code.as_str(), reason: self.reason });
        response
    }
}

/// Replaces the characters that a description must not contain: RFC 6749 §5.2 allows %x20-21 /
/// %x23-5B / %x5D-7E, which excludes quotes, backslashes and line breaks.
fn to_ascii(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' => '\'',
            ' '..='~' if c != '\\' => c,
            _ => '?',
        })
        .collect()
}
