//! Error responses of the JSON APIs: problem details (RFC 9457).

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    app::{ConflictError, Error, RequestError},
    domain::{registry::tool::AcceptanceError, task::TaskState},
    http::error::{
        code::{ErrorCode, INTERNAL_ERROR_TEXT, OVERLOADED_TEXT, www_authenticate},
        outcome::{Refusal, RetryHint, describe},
    },
    ports::{OP_CHECK_SCHEMA, OP_FIND_SIGNING_KEY, Outage},
};

/// The type of a problem, by which programs decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProblemType {
    Malformed,
    NotFound,
    MethodNotAllowed,
    ManagedByFile,
    WrongState,
    DefinitionChanged,
    Contended,
    SecretAlreadyShown,
    ConfirmationRequired,
    ApprovalRequired,
    ApprovalInvalid,
    UnknownCursor,
    StatusListExpired,
    TooLarge,
    UnsupportedMediaType,
    InconsistentRegistry,
    IdempotencyKeyReused,
    TooManySubscribers,
    TooManyLists,
    ListTimedOut,
    HistoryUnsupported,
    McpServerUnavailable,
    /// A problem that has an OAuth error code.
    OAuth(ErrorCode),
}

impl ProblemType {
    /// Returns the last part of the URN.
    fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::ManagedByFile => "managed_by_file",
            Self::WrongState => "wrong_state",
            Self::DefinitionChanged => "definition_changed",
            Self::Contended => "contended",
            Self::SecretAlreadyShown => "secret_already_shown",
            Self::ConfirmationRequired => "confirmation_required",
            Self::ApprovalRequired => "approval_required",
            Self::ApprovalInvalid => "approval_invalid",
            Self::UnknownCursor => "unknown_cursor",
            Self::StatusListExpired => "status_list_expired",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::InconsistentRegistry => "inconsistent",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::TooManySubscribers => "too_many_subscribers",
            Self::TooManyLists => "too_many_lists",
            Self::ListTimedOut => "list_timed_out",
            Self::HistoryUnsupported => "history_unsupported",
            Self::McpServerUnavailable => "mcp_server_unavailable",
            Self::OAuth(code) => code.as_str(),
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::ManagedByFile
            | Self::WrongState
            | Self::DefinitionChanged
            | Self::Contended
            | Self::SecretAlreadyShown
            | Self::ConfirmationRequired
            | Self::ApprovalRequired
            | Self::ApprovalInvalid => StatusCode::CONFLICT,
            Self::UnknownCursor | Self::StatusListExpired => StatusCode::GONE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InconsistentRegistry | Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManySubscribers | Self::TooManyLists => StatusCode::TOO_MANY_REQUESTS,
            Self::ListTimedOut => StatusCode::SERVICE_UNAVAILABLE,
            Self::HistoryUnsupported => StatusCode::NOT_IMPLEMENTED,
            Self::McpServerUnavailable => StatusCode::BAD_GATEWAY,
            Self::OAuth(code) => code.status(),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Malformed => "Malformed request",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::ManagedByFile => "Managed by the configuration file",
            Self::WrongState => "Not allowed in the current state",
            Self::DefinitionChanged => "Tool definition changed",
            Self::Contended => "Concurrent change",
            Self::SecretAlreadyShown => "Secret already shown",
            Self::ConfirmationRequired => "Confirmation required",
            Self::ApprovalRequired => "Second person required",
            Self::ApprovalInvalid => "Approval not valid for the act",
            Self::UnknownCursor => "Unknown cursor",
            Self::StatusListExpired => "Status list expired",
            Self::TooLarge => "Request too large",
            Self::UnsupportedMediaType => "Unsupported media type",
            Self::InconsistentRegistry => "Inconsistent with existing objects",
            Self::IdempotencyKeyReused => "Idempotency key already used",
            Self::TooManySubscribers => "Too many subscribers",
            Self::TooManyLists => "Too many lists",
            Self::ListTimedOut => "List took too long",
            Self::HistoryUnsupported => "Historical status lists are not available",
            Self::McpServerUnavailable => "MCP server unavailable",
            Self::OAuth(ErrorCode::InvalidClient) => "Client authentication failed",
            Self::OAuth(code) => match code.status() {
                StatusCode::UNAUTHORIZED => "Live API token required",
                StatusCode::FORBIDDEN => "Not allowed for this client or token",
                StatusCode::INTERNAL_SERVER_ERROR => "Internal server error",
                StatusCode::SERVICE_UNAVAILABLE => "Temporarily unavailable",
                StatusCode::TOO_MANY_REQUESTS => "Too many requests",
                _ => "Request refused",
            },
        }
    }
}

impl From<&Error> for ProblemType {
    fn from(error: &Error) -> Self {
        match error {
            Error::Conflict(ConflictError::NotFound(_)) => Self::NotFound,
            Error::Conflict(ConflictError::ManagedByFile) => Self::ManagedByFile,
            Error::Conflict(
                ConflictError::IllegalTransition(_) | ConflictError::Block(_) | ConflictError::ReviewRejected(_),
            ) => Self::WrongState,
            Error::Conflict(
                ConflictError::Inconsistent(_)
                | ConflictError::DefinitionChanged(
                    AcceptanceError::Duplicate(_) | AcceptanceError::AlreadyInCatalogue(_),
                ),
            ) => Self::InconsistentRegistry,
            Error::Conflict(ConflictError::DefinitionChanged(
                AcceptanceError::NotListed(_) | AcceptanceError::DefinitionChanged(_),
            )) => Self::DefinitionChanged,
            Error::Conflict(ConflictError::ConcurrentUpdate) => Self::Contended,
            Error::Conflict(ConflictError::SecretAlreadyShown) => Self::SecretAlreadyShown,
            Error::Conflict(ConflictError::ConfirmationRequired(_)) => Self::ConfirmationRequired,
            Error::Conflict(ConflictError::ApprovalRequired(_)) => Self::ApprovalRequired,
            Error::Conflict(ConflictError::ApprovalInvalid(_) | ConflictError::NoPerson(_)) => Self::ApprovalInvalid,
            Error::Conflict(ConflictError::UnknownCursor) => Self::UnknownCursor,
            Error::Conflict(ConflictError::StatusListExpired) => Self::StatusListExpired,
            Error::Conflict(ConflictError::TooManySubscribers) => Self::TooManySubscribers,
            Error::Conflict(ConflictError::TooManyLists(_) | ConflictError::TooManyRows(_)) => Self::TooManyLists,
            Error::Conflict(ConflictError::TooManyLongBodies(_)) => Self::OAuth(ErrorCode::TooManyRequests),
            Error::Conflict(ConflictError::ListTimedOut(_)) => Self::ListTimedOut,
            Error::Conflict(ConflictError::HistoryUnsupported) => Self::HistoryUnsupported,
            Error::Conflict(ConflictError::IdempotencyKeyReused) => Self::IdempotencyKeyReused,
            Error::ToolListing(_) => Self::McpServerUnavailable,
            Error::Auth(_)
            | Error::Request(_)
            | Error::Token(..)
            | Error::Denied(_)
            | Error::ConsentRequired(_)
            | Error::Throttled(_)
            | Error::QuotaExceeded(_)
            | Error::Unavailable(_)
            | Error::Internal(_) => match ErrorCode::from(error) {
                ErrorCode::InvalidRequest => Self::Malformed,
                code => Self::OAuth(code),
            },
        }
    }
}

/// An error response of a JSON API.
#[derive(Debug)]
pub(in crate::http) struct Problem {
    r#type: ProblemType,
    challenge: Option<&'static str>,
    detail: Box<str>,
    reason: Box<str>,
    state: Option<TaskState>,
    approval_request: Option<Box<str>>,
    retry: Option<RetryHint>,
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    /// The state of the task that does not allow the action.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<TaskState>,
    /// What a second person approves.
    #[serde(skip_serializing_if = "Option::is_none")]
    approval_request: Option<&'a str>,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let state = match &error {
            Error::Conflict(ConflictError::IllegalTransition(refusal)) => Some(refusal.state()),
            _ => None,
        };
        Self {
            r#type: ProblemType::from(&error),
            challenge: www_authenticate(&error),
            detail: describe(&error).into(),
            reason: error.to_string().into(),
            state,
            approval_request: match &error {
                Error::Conflict(ConflictError::ApprovalRequired(request)) => Some(request.clone()),
                _ => None,
            },
            retry: RetryHint::of(&error),
        }
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        Error::from(error).into()
    }
}

impl From<ConflictError> for Problem {
    fn from(error: ConflictError) -> Self {
        Error::from(error).into()
    }
}

impl Problem {
    /// Returns the response to a body over the size limit.
    pub(in crate::http) fn too_large() -> Self {
        Self { r#type: ProblemType::TooLarge, ..RequestError::InvalidParameter("body", "exceeds 65536 bytes").into() }
    }

    /// Returns the response to an evaluation whose body is over its size limit.
    pub(in crate::http) fn evaluation_too_large() -> Self {
        let error = RequestError::InvalidParameter("body", "exceeds 1048576 bytes; send fewer or shorter arguments");
        Self { r#type: ProblemType::TooLarge, ..error.into() }
    }

    /// Returns the response to a body that is not declared as JSON.
    pub(in crate::http) fn unsupported_media_type() -> Self {
        let error = RequestError::MalformedJson("`content-type` must be application/json".into());
        Self { r#type: ProblemType::UnsupportedMediaType, ..error.into() }
    }

    /// Returns the response to a method that the path does not support.
    pub(super) fn method_not_allowed(error: RequestError) -> Self {
        Self { r#type: ProblemType::MethodNotAllowed, ..error.into() }
    }

    /// Returns the response to an internal error, whose cause is in the log.
    pub(in crate::http) fn internal_error() -> Self {
        Self::with_text(ErrorCode::ServerError, INTERNAL_ERROR_TEXT)
    }

    /// Returns the response to a request above a concurrency limit.
    pub(in crate::http) fn overloaded() -> Self {
        Self { retry: Some(RetryHint::SOON), ..Self::with_text(ErrorCode::TemporarilyUnavailable, OVERLOADED_TEXT) }
    }

    fn with_text(code: ErrorCode, text: &str) -> Self {
        Self {
            r#type: ProblemType::OAuth(code),
            challenge: None,
            detail: text.into(),
            reason: text.into(),
            state: None,
            approval_request: None,
            retry: None,
        }
    }

    /// Returns the response of a failed readiness probe. It names the failed check; the cause is in
    /// the log.
    pub(in crate::http) fn not_ready(error: Error) -> Self {
        if matches!(&error, Error::Unavailable(outage) if outage.unknown_entry().is_some()) {
            return Self::from(error);
        }
        let tampering = match &error {
            Error::Unavailable(outage) => outage.tampering().map(ToString::to_string),
            _ => None,
        };
        if let Some(tampering) = tampering {
            return Self { detail: format!("failed check: tampering; {tampering}").into(), ..Self::from(error) };
        }
        let check = match &error {
            Error::Unavailable(Outage { operation: OP_CHECK_SCHEMA, .. }) => "schema",
            Error::Unavailable(Outage { operation: OP_FIND_SIGNING_KEY, .. }) => "keys",
            _ => "store",
        };
        Self { detail: format!("failed check: {check}; retry later").into(), ..Self::from(error) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (code, status) = (self.r#type.as_str(), self.r#type.status());
        let body = ProblemBody {
            r#type: format!("urn:errand:problem:{code}"),
            title: self.r#type.title(),
            status: status.as_u16(),
            detail: &self.detail,
            state: self.state,
            approval_request: self.approval_request.as_deref(),
        };
        // A struct of strings and a number always serializes.
        let body = serde_json::to_string(&body).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(retry) = self.retry {
            retry.insert_into(response.headers_mut());
        }
        response.extensions_mut().insert(Refusal { code, reason: self.reason.into() });
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns every type that is not an OAuth code. The exhaustive match does not compile without
    /// a new one.
    fn all_types() -> Vec<ProblemType> {
        let (mut types, mut next) = (Vec::new(), Some(ProblemType::Malformed));
        while let Some(one) = next {
            types.push(one);
            next = match one {
                ProblemType::Malformed => Some(ProblemType::NotFound),
                ProblemType::NotFound => Some(ProblemType::MethodNotAllowed),
                ProblemType::MethodNotAllowed => Some(ProblemType::ManagedByFile),
                ProblemType::ManagedByFile => Some(ProblemType::WrongState),
                ProblemType::WrongState => Some(ProblemType::DefinitionChanged),
                ProblemType::DefinitionChanged => Some(ProblemType::Contended),
                ProblemType::Contended => Some(ProblemType::SecretAlreadyShown),
                ProblemType::SecretAlreadyShown => Some(ProblemType::ConfirmationRequired),
                ProblemType::ConfirmationRequired => Some(ProblemType::ApprovalRequired),
                ProblemType::ApprovalRequired => Some(ProblemType::ApprovalInvalid),
                ProblemType::ApprovalInvalid => Some(ProblemType::UnknownCursor),
                ProblemType::UnknownCursor => Some(ProblemType::StatusListExpired),
                ProblemType::StatusListExpired => Some(ProblemType::TooLarge),
                ProblemType::TooLarge => Some(ProblemType::UnsupportedMediaType),
                ProblemType::UnsupportedMediaType => Some(ProblemType::InconsistentRegistry),
                ProblemType::InconsistentRegistry => Some(ProblemType::IdempotencyKeyReused),
                ProblemType::IdempotencyKeyReused => Some(ProblemType::TooManySubscribers),
                ProblemType::TooManySubscribers => Some(ProblemType::TooManyLists),
                ProblemType::TooManyLists => Some(ProblemType::ListTimedOut),
                ProblemType::ListTimedOut => Some(ProblemType::HistoryUnsupported),
                ProblemType::HistoryUnsupported => Some(ProblemType::McpServerUnavailable),
                ProblemType::McpServerUnavailable | ProblemType::OAuth(_) => None,
            };
        }
        types
    }

    #[test]
    fn every_type_is_documented() {
        let table = include_str!("../../../docs/reference/errors.md");
        let rows = table.lines().filter(|line| line.starts_with("| `") && line.matches(" | ").count() == 2);
        let rows = rows.map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(" | ")).collect::<Vec<_>>();
        let expected = all_types().into_iter().map(|one| format!("| `{}` | {}", one.as_str(), one.status().as_u16()));
        assert_eq!(rows, expected.collect::<Vec<_>>(), "the types in docs/reference/errors.md differ");
    }

    #[test]
    fn every_type_is_in_openapi() {
        let description =
            serde_json::from_str::<serde_json::Value>(include_str!("../../../openapi/errand.json")).unwrap();
        let described =
            description["components"]["schemas"]["Problem"]["properties"]["type"]["enum"].as_array().unwrap();
        for one in all_types() {
            let urn = format!("urn:errand:problem:{}", one.as_str());
            assert!(described.iter().any(|other| *other == urn), "{urn}");
        }
    }
}
