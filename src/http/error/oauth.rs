//! The one table from reasons to the wire: OAuth's own errors (RFC 6749 §5.2, RFC 8693 §2.2.2) on OAuth endpoints.
//! Failures are logged here, once.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    app::{AuthError, ConflictError, ConsentRequired, Error, RequestError},
    domain::{
        authority::Authority,
        exchange::{CeilingExceeded, CeilingOwner, Denial},
    },
    http::middleware::request_log::RefusalReason,
};

/// An OAuth error code, with its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum ErrorCode {
    /// 400
    InvalidRequest,
    /// 401
    InvalidClient,
    /// 400
    UnauthorizedClient,
    /// 400
    UnsupportedGrantType,
    /// 400
    InvalidScope,
    /// 400 (RFC 8693 §2.2.2, RFC 8707 §2)
    InvalidTarget,
    /// 400 (RFC 9396 §5)
    InvalidAuthorizationDetails,
    /// 400 (actor profile draft)
    ActorUnauthorized,
    /// 400 (as OpenID Connect Core §3.1.2.6 has it, and the interaction response drafts)
    InteractionRequired,
    /// 401, of a bearer token (RFC 6750 §3.1)
    InvalidToken,
    /// 403, of a bearer token
    InsufficientScope,
    /// 403, of a client that is not of the kind that may ask
    AccessDenied,
    /// 503
    TemporarilyUnavailable,
    /// 500
    ServerError,
}

impl ErrorCode {
    /// The word on the wire.
    #[must_use]
    pub(in crate::http) fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidAuthorizationDetails => "invalid_authorization_details",
            Self::ActorUnauthorized => "actor_unauthorized",
            Self::InteractionRequired => "interaction_required",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::AccessDenied => "access_denied",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::ServerError => "server_error",
        }
    }

    /// The status that goes with it.
    #[must_use]
    pub(in crate::http) fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest
            | Self::UnauthorizedClient
            | Self::UnsupportedGrantType
            | Self::InvalidScope
            | Self::InvalidTarget
            | Self::InvalidAuthorizationDetails
            | Self::ActorUnauthorized
            | Self::InteractionRequired => StatusCode::BAD_REQUEST,
            Self::InvalidClient | Self::InvalidToken => StatusCode::UNAUTHORIZED,
            Self::InsufficientScope | Self::AccessDenied => StatusCode::FORBIDDEN,
            Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<&Error> for ErrorCode {
    fn from(failure: &Error) -> Self {
        match failure {
            Error::Auth(fault) => fault.into(),
            Error::Request(bad) => bad.into(),
            // RFC 8693 §2.2.2: a subject or actor token that is not valid, for any reason, is an invalid request.
            Error::Token(..) => Self::InvalidRequest,
            Error::Denied(denial) => denial.into(),
            Error::ConsentRequired(_) => Self::InteractionRequired,
            Error::Conflict(conflict) => conflict.into(),
            // No OAuth endpoint asks an MCP server anything.
            Error::ToolListing(_) | Error::Unavailable(_) => Self::TemporarilyUnavailable,
            Error::Internal(_) => Self::ServerError,
        }
    }
}

impl From<&AuthError> for ErrorCode {
    fn from(fault: &AuthError) -> Self {
        match fault {
            AuthError::MultipleMethods => Self::InvalidRequest,
            AuthError::MissingCredentials
            | AuthError::Malformed
            | AuthError::UnknownClient
            | AuthError::WrongMethod
            | AuthError::WrongSecret
            | AuthError::BadSignature
            | AuthError::BadClaim(_)
            | AuthError::WrongTyp
            | AuthError::Replayed
            | AuthError::CredentialsChanged => Self::InvalidClient,
            AuthError::MissingBearer | AuthError::InvalidBearer => Self::InvalidToken,
            AuthError::InsufficientScope => Self::InsufficientScope,
            AuthError::ClientNotAllowed | AuthError::NotPortalToken => Self::AccessDenied,
        }
    }
}

impl From<&RequestError> for ErrorCode {
    fn from(bad: &RequestError) -> Self {
        match bad {
            RequestError::MissingParameter(_)
            | RequestError::DuplicateParameter
            | RequestError::InvalidParameter(..)
            | RequestError::MalformedForm
            | RequestError::MalformedJson(_)
            | RequestError::TokenTooLarge => Self::InvalidRequest,
            RequestError::InvalidScope(_) | RequestError::ScopeNotAllowed => Self::InvalidScope,
            RequestError::InvalidDetails(_) => Self::InvalidAuthorizationDetails,
            RequestError::InvalidTarget(_) => Self::InvalidTarget,
            RequestError::UnsupportedGrantType => Self::UnsupportedGrantType,
            RequestError::UnauthorizedGrantType | RequestError::NotTokenOwner => Self::UnauthorizedClient,
        }
    }
}

impl From<&Denial> for ErrorCode {
    fn from(denial: &Denial) -> Self {
        match denial {
            Denial::ResourceLimitedToTxnToken => Self::UnauthorizedClient,
            Denial::TargetBlocked | Denial::TargetIsIssuer => Self::InvalidTarget,
            Denial::ConsentRequired => Self::InteractionRequired,
            Denial::DelegationNotAllowed
            | Denial::BrokerWithoutPrincipal
            | Denial::PresenterNotBound(_)
            | Denial::PresenterMismatch => Self::ActorUnauthorized,
            Denial::TxnTokenNotConvertible
            | Denial::ApiTokenNotExchangeable
            | Denial::PartyBlocked
            | Denial::RequesterBlocked
            | Denial::Chain(_)
            | Denial::DelegationDepthExceeded
            | Denial::LineageTooLong
            | Denial::TaskMismatch
            | Denial::TaskNotJoinable(_)
            | Denial::PurposeRequired
            | Denial::DeadlineTooLong
            | Denial::AlreadyExpired => Self::InvalidRequest,
            Denial::NoAuthorityRequested
            | Denial::SubjectScopeMissing
            | Denial::ScopeExceedsCeiling(_)
            | Denial::ScopeToolUnavailable(..) => Self::InvalidScope,
            Denial::DetailsExceedCeiling(CeilingExceeded {
                owner:
                    CeilingOwner::Catalogue
                    | CeilingOwner::Agent
                    | CeilingOwner::NextAgent
                    | CeilingOwner::Edge
                    | CeilingOwner::Requester
                    | CeilingOwner::Parent
                    | CeilingOwner::Task,
                ..
            })
            | Denial::DetailsToolUnavailable(..)
            | Denial::NoAuthorityAtTarget => Self::InvalidAuthorizationDetails,
        }
    }
}

impl From<&ConflictError> for ErrorCode {
    fn from(conflict: &ConflictError) -> Self {
        match conflict {
            ConflictError::NotFound(_)
            | ConflictError::ManagedByFile
            | ConflictError::Inconsistent(_)
            | ConflictError::IdempotencyKeyReused
            | ConflictError::DefinitionChanged(_)
            | ConflictError::IllegalTransition(_)
            | ConflictError::Block(_)
            | ConflictError::ReviewRejected(_)
            | ConflictError::ConfirmationRequired(_)
            | ConflictError::SecretAlreadyShown
            | ConflictError::UnknownCursor
            | ConflictError::StatusListExpired
            | ConflictError::HistoryUnsupported
            | ConflictError::TooManySubscribers
            | ConflictError::ConcurrentUpdate => Self::InvalidRequest,
        }
    }
}

/// A failure on its way out of an OAuth endpoint.
#[derive(Debug)]
pub(in crate::http) struct OAuthError {
    code: ErrorCode,
    status: StatusCode,
    challenge: Option<&'static str>,
    description: String,
    reason: String,
    allowed_authority: Option<Authority>,
    needed_consent: Option<Box<ConsentRequired>>,
}

#[derive(Serialize)]
struct OAuthErrorBody<'a> {
    error: &'static str,
    error_description: &'a str,
    /// How much of what is too much the client's own limits leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_details_allowed: Option<&'a Authority>,
    /// Where the requester can grant what is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    interaction_uri: Option<&'a str>,
    /// What they would have to grant.
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization_details: Option<&'a Authority>,
}

impl From<Error> for OAuthError {
    fn from(failure: Error) -> Self {
        let code = ErrorCode::from(&failure);
        let description = match &failure {
            // One text for all of them: who probes for client ids learns nothing.
            Error::Auth(fault) if code == ErrorCode::InvalidClient => match fault {
                AuthError::MissingCredentials => "client authentication is needed".to_owned(),
                _ => "client authentication failed".to_owned(),
            },
            Error::Unavailable(outage) => {
                tracing::error!(error = %outage, cause = %outage.source, "request failed");
                "try again".to_owned()
            }
            Error::Internal(defect) => {
                tracing::error!(error = %defect, "request failed");
                INTERNAL_ERROR_TEXT.to_owned()
            }
            refusal => refusal.to_string(),
        };
        let challenge = www_authenticate(&failure);
        let reason = failure.to_string();
        let (mut allowed, mut consent) = (None, None);
        match failure {
            Error::Denied(Denial::ScopeExceedsCeiling(excess) | Denial::DetailsExceedCeiling(excess)) => {
                allowed = excess.allowed
            }
            Error::ConsentRequired(needed) => consent = Some(needed),
            _ => {}
        }
        Self {
            code,
            status: code.status(),
            challenge,
            description,
            reason,
            allowed_authority: allowed,
            needed_consent: consent,
        }
    }
}

impl From<RequestError> for OAuthError {
    fn from(bad: RequestError) -> Self {
        Error::from(bad).into()
    }
}

impl OAuthError {
    /// The body is over the limit.
    pub(in crate::http) fn too_large() -> Self {
        Self::from(RequestError::InvalidParameter("body", "over 65536 bytes"))
            .with_status(StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// A mistake of ours, which the log of the panic tells more of.
    pub(in crate::http) fn internal_error() -> Self {
        let code = ErrorCode::ServerError;
        let (description, reason) = (INTERNAL_ERROR_TEXT.to_owned(), INTERNAL_ERROR_TEXT.to_owned());
        Self {
            code,
            status: code.status(),
            challenge: None,
            description,
            reason,
            allowed_authority: None,
            needed_consent: None,
        }
    }

    /// The same with another status than its code has.
    pub(in crate::http) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

/// What is said of a mistake of ours.
pub(in crate::http) const INTERNAL_ERROR_TEXT: &str = "a fault of the server itself: report it with the request id";

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let description = to_ascii(&self.description);
        let consent = self.needed_consent.as_deref();
        let body = OAuthErrorBody {
            error: self.code.as_str(),
            error_description: &description,
            authorization_details_allowed: self.allowed_authority.as_ref(),
            interaction_uri: consent.and_then(|consent| consent.uri.as_deref()),
            authorization_details: consent.map(|consent| &consent.authority).filter(|wanted| !wanted.is_empty()),
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self.code == ErrorCode::TemporarilyUnavailable {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(RefusalReason { code: self.code.as_str(), text: self.reason });
        response
    }
}

/// RFC 6749 §5.2 and RFC 6750 §3: a 401 says how to authenticate, a 403 of a bearer token what it lacks.
pub(in crate::http) fn www_authenticate(failure: &Error) -> Option<&'static str> {
    match ErrorCode::from(failure) {
        // RFC 6750 §3.1: who sent no token hears how to authenticate, and of no error.
        ErrorCode::InvalidToken if matches!(failure, Error::Auth(AuthError::MissingBearer)) => {
            Some("Bearer realm=\"errand\"")
        }
        ErrorCode::InvalidClient => Some("Basic realm=\"errand\", charset=\"UTF-8\""),
        ErrorCode::InvalidToken => Some("Bearer realm=\"errand\", error=\"invalid_token\""),
        ErrorCode::InsufficientScope => Some("Bearer realm=\"errand\", error=\"insufficient_scope\""),
        ErrorCode::InvalidRequest
        | ErrorCode::UnauthorizedClient
        | ErrorCode::UnsupportedGrantType
        | ErrorCode::InvalidScope
        | ErrorCode::InvalidTarget
        | ErrorCode::InvalidAuthorizationDetails
        | ErrorCode::ActorUnauthorized
        | ErrorCode::InteractionRequired
        | ErrorCode::AccessDenied
        | ErrorCode::TemporarilyUnavailable
        | ErrorCode::ServerError => None,
    }
}

/// RFC 6749 §5.2 allows %x20-21 / %x23-5B / %x5D-7E in a description: no quote, no backslash, no line break.
fn to_ascii(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '"' => '\'',
            ' '..='~' if c != '\\' => c,
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code. A new one does not compile before it has its place here.
    fn all_codes() -> Vec<ErrorCode> {
        let (mut codes, mut next) = (Vec::new(), Some(ErrorCode::InvalidRequest));
        while let Some(code) = next {
            codes.push(code);
            next = match code {
                ErrorCode::InvalidRequest => Some(ErrorCode::InvalidClient),
                ErrorCode::InvalidClient => Some(ErrorCode::UnauthorizedClient),
                ErrorCode::UnauthorizedClient => Some(ErrorCode::UnsupportedGrantType),
                ErrorCode::UnsupportedGrantType => Some(ErrorCode::InvalidScope),
                ErrorCode::InvalidScope => Some(ErrorCode::InvalidTarget),
                ErrorCode::InvalidTarget => Some(ErrorCode::InvalidAuthorizationDetails),
                ErrorCode::InvalidAuthorizationDetails => Some(ErrorCode::ActorUnauthorized),
                ErrorCode::ActorUnauthorized => Some(ErrorCode::InteractionRequired),
                ErrorCode::InteractionRequired => Some(ErrorCode::InvalidToken),
                ErrorCode::InvalidToken => Some(ErrorCode::InsufficientScope),
                ErrorCode::InsufficientScope => Some(ErrorCode::AccessDenied),
                ErrorCode::AccessDenied => Some(ErrorCode::TemporarilyUnavailable),
                ErrorCode::TemporarilyUnavailable => Some(ErrorCode::ServerError),
                ErrorCode::ServerError => None,
            };
        }
        codes
    }

    #[test]
    fn every_code_is_documented() {
        let table = include_str!("../../../docs/reference/errors.md");
        let rows = table.lines().filter(|line| line.starts_with("| `") && line.matches(" | ").count() == 3);
        let rows = rows.map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(" | ")).collect::<Vec<_>>();
        let want = all_codes().into_iter().map(|code| format!("| `{}` | {}", code.as_str(), code.status().as_u16()));
        assert_eq!(rows, want.collect::<Vec<_>>(), "docs/reference/errors.md has another table of codes");
    }

    #[test]
    fn every_code_is_in_openapi() {
        let description =
            serde_json::from_str::<serde_json::Value>(include_str!("../../../openapi/errand.json")).unwrap();
        let described = &description["components"]["schemas"]["ErrorCode"]["enum"];
        let codes = all_codes().into_iter().map(ErrorCode::as_str).collect::<Vec<_>>();
        assert_eq!(*described, serde_json::json!(codes));
    }
}
