//! OAuth error codes: the one table from errors to codes and statuses (RFC 6749 §5.2, RFC 8693
//! §2.2.2).

use axum::http::StatusCode;

use crate::{
    app::{AuthError, ConflictError, Error, RequestError},
    domain::exchange::{CeilingExceeded, CeilingOwner, Denial},
};

/// The text for an internal error.
pub(super) const INTERNAL_ERROR_TEXT: &str = "internal error; report it with the request id";

/// The text for a request above a concurrency limit.
pub(super) const OVERLOADED_TEXT: &str = "too many requests of this kind are in progress; retry later";

/// An OAuth error code. The documentation of each variant names its status.
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
    /// 400 (OpenID Connect Core §3.1.2.6 and the interaction response drafts)
    InteractionRequired,
    /// 401, for a bearer token (RFC 6750 §3.1)
    InvalidToken,
    /// 403, for a bearer token
    InsufficientScope,
    /// 403, for a client whose kind does not have the permission
    AccessDenied,
    /// 429 (RFC 6585 §4)
    TooManyRequests,
    /// 429
    QuotaExceeded,
    /// 503
    TemporarilyUnavailable,
    /// 500
    ServerError,
}

impl ErrorCode {
    /// Returns the code on the wire.
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
            Self::TooManyRequests => "too_many_requests",
            Self::QuotaExceeded => "quota_exceeded",
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::ServerError => "server_error",
        }
    }

    /// Returns the HTTP status of the code.
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
            Self::TooManyRequests | Self::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
            Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<&Error> for ErrorCode {
    fn from(error: &Error) -> Self {
        match error {
            Error::Auth(error) => error.into(),
            Error::Request(error) => error.into(),
            // RFC 8693 §2.2.2: an invalid subject or actor token makes the request invalid.
            Error::Token(..) => Self::InvalidRequest,
            Error::Denied(denial) => denial.into(),
            Error::ConsentRequired(_) => Self::InteractionRequired,
            Error::Conflict(conflict) => conflict.into(),
            Error::Throttled(_) => Self::TooManyRequests,
            Error::QuotaExceeded(_) => Self::QuotaExceeded,
            // No OAuth endpoint queries an MCP server.
            Error::ToolListing(_) | Error::Unavailable(_) => Self::TemporarilyUnavailable,
            Error::Internal(_) => Self::ServerError,
        }
    }
}

impl From<&AuthError> for ErrorCode {
    fn from(error: &AuthError) -> Self {
        match error {
            AuthError::MultipleMethods => Self::InvalidRequest,
            AuthError::MissingCredentials
            | AuthError::Malformed
            | AuthError::MalformedAssertion(_)
            | AuthError::UnknownClient
            | AuthError::WrongMethod
            | AuthError::WrongSecret
            | AuthError::BadSignature
            | AuthError::BadClaim(_)
            | AuthError::WrongTyp
            | AuthError::Replayed
            | AuthError::CredentialsChanged => Self::InvalidClient,
            AuthError::MissingBearer
            | AuthError::InvalidBearer
            | AuthError::ExpiredBearer
            | AuthError::EndedBearer(_)
            | AuthError::TaskTokenAsBearer
            | AuthError::BearerClaim(_) => Self::InvalidToken,
            AuthError::InsufficientScope => Self::InsufficientScope,
            AuthError::ClientNotAllowed | AuthError::NotPortalToken => Self::AccessDenied,
        }
    }
}

impl From<&RequestError> for ErrorCode {
    fn from(error: &RequestError) -> Self {
        match error {
            RequestError::MissingParameter(_)
            | RequestError::DuplicateParameter
            | RequestError::InvalidParameter(..)
            | RequestError::MalformedForm
            | RequestError::MalformedJson(_)
            | RequestError::TokenTooLarge => Self::InvalidRequest,
            RequestError::InvalidScope(_) | RequestError::ScopeNotAllowed => Self::InvalidScope,
            RequestError::InvalidDetails(_) => Self::InvalidAuthorizationDetails,
            RequestError::InvalidTarget(_) | RequestError::InvalidResource(_) | RequestError::UnknownTarget { .. } => {
                Self::InvalidTarget
            }
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
                    | CeilingOwner::RequesterClaimElsewhere
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
            | ConflictError::ApprovalRequired(_)
            | ConflictError::ApprovalInvalid(_)
            | ConflictError::NoPerson(_)
            | ConflictError::SecretAlreadyShown
            | ConflictError::UnknownCursor
            | ConflictError::StatusListExpired
            | ConflictError::HistoryUnsupported
            | ConflictError::TooManySubscribers
            | ConflictError::TooManyLists(_)
            | ConflictError::TooManyRows(_)
            | ConflictError::ConcurrentUpdate => Self::InvalidRequest,
            ConflictError::TooManyLongBodies(_) => Self::TooManyRequests,
            ConflictError::ListTimedOut(_) => Self::TemporarilyUnavailable,
        }
    }
}

/// Returns the challenge for `WWW-Authenticate`: a 401 names the authentication scheme, a 403 for a
/// bearer token the error (RFC 6749 §5.2, RFC 6750 §3).
pub(super) fn www_authenticate(error: &Error) -> Option<&'static str> {
    match ErrorCode::from(error) {
        // RFC 6750 §3.1: without a token, the challenge names the scheme and no error.
        ErrorCode::InvalidToken if matches!(error, Error::Auth(AuthError::MissingBearer)) => {
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
        | ErrorCode::TooManyRequests
        | ErrorCode::QuotaExceeded
        | ErrorCode::TemporarilyUnavailable
        | ErrorCode::ServerError => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns every code. The exhaustive match does not compile without a new one.
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
                ErrorCode::AccessDenied => Some(ErrorCode::TooManyRequests),
                ErrorCode::TooManyRequests => Some(ErrorCode::QuotaExceeded),
                ErrorCode::QuotaExceeded => Some(ErrorCode::TemporarilyUnavailable),
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
        let expected =
            all_codes().into_iter().map(|code| format!("| `{}` | {}", code.as_str(), code.status().as_u16()));
        assert_eq!(rows, expected.collect::<Vec<_>>(), "the codes in docs/reference/errors.md differ");
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
