//! Errors of the JSON APIs: problem details (RFC 9457). The same reasons as on OAuth endpoints, said in the way of a
//! JSON API. Failures are logged here, once.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    app::{ConflictError, Error, RequestError},
    domain::{registry::tool::AcceptanceError, task::TaskState},
    http::{
        error::oauth::{ErrorCode, INTERNAL_ERROR_TEXT, www_authenticate},
        middleware::request_log::RefusalReason,
    },
    ports::{OP_CHECK_SCHEMA, OP_FIND_SIGNING_KEY, Outage},
};

/// What kind of problem it is: a program decides by this.
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
    UnknownCursor,
    StatusListExpired,
    TooLarge,
    UnsupportedMediaType,
    InconsistentRegistry,
    IdempotencyKeyReused,
    TooManySubscribers,
    HistoryUnsupported,
    McpServerUnavailable,
    /// One that OAuth has a word for.
    OAuth(ErrorCode),
}

impl ProblemType {
    /// The last part of its URN.
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
            Self::UnknownCursor => "unknown_cursor",
            Self::StatusListExpired => "status_list_expired",
            Self::TooLarge => "too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::InconsistentRegistry => "inconsistent",
            Self::IdempotencyKeyReused => "key_reused",
            Self::TooManySubscribers => "too_many_subscribers",
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
            | Self::ConfirmationRequired => StatusCode::CONFLICT,
            Self::UnknownCursor | Self::StatusListExpired => StatusCode::GONE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::InconsistentRegistry | Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManySubscribers => StatusCode::TOO_MANY_REQUESTS,
            Self::HistoryUnsupported => StatusCode::NOT_IMPLEMENTED,
            Self::McpServerUnavailable => StatusCode::BAD_GATEWAY,
            Self::OAuth(code) => code.status(),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request is malformed",
            Self::NotFound => "There is no such thing",
            Self::MethodNotAllowed => "The path does not have this method",
            Self::ManagedByFile => "It can't be changed here",
            Self::WrongState => "The state it is in does not allow it",
            Self::DefinitionChanged => "It is not what was looked at",
            Self::Contended => "It can't be changed now",
            Self::SecretAlreadyShown => "It was done, and what came of it is shown once",
            Self::ConfirmationRequired => "It is not confirmed",
            Self::UnknownCursor => "The log has no such position",
            Self::StatusListExpired => "All tokens of the list have ended",
            Self::TooLarge => "The request is too large",
            Self::UnsupportedMediaType => "The body is of another media type",
            Self::InconsistentRegistry => "The request does not fit what is there",
            Self::IdempotencyKeyReused => "The idempotency key belongs to another request",
            Self::TooManySubscribers => "Too many listen",
            Self::HistoryUnsupported => "There is only the list of now",
            Self::McpServerUnavailable => "The MCP server could not be asked for its tools",
            Self::OAuth(code) => match code.status() {
                StatusCode::UNAUTHORIZED => "A live API token is needed",
                StatusCode::FORBIDDEN => "The API token does not allow this",
                StatusCode::INTERNAL_SERVER_ERROR => "The server made a mistake",
                StatusCode::SERVICE_UNAVAILABLE => "It could not be found out",
                _ => "The request is refused",
            },
        }
    }
}

impl From<&Error> for ProblemType {
    fn from(failure: &Error) -> Self {
        match failure {
            Error::Conflict(ConflictError::NotFound(_)) => Self::NotFound,
            Error::Conflict(ConflictError::ManagedByFile) => Self::ManagedByFile,
            Error::Conflict(
                ConflictError::IllegalTransition(_) | ConflictError::Block(_) | ConflictError::ReviewRejected(_),
            ) => Self::WrongState,
            Error::Conflict(ConflictError::DefinitionChanged(
                AcceptanceError::Duplicate(_) | AcceptanceError::AlreadyInCatalogue(_),
            )) => Self::InconsistentRegistry,
            Error::Conflict(ConflictError::DefinitionChanged(
                AcceptanceError::NotListed(_) | AcceptanceError::DefinitionChanged(_),
            )) => Self::DefinitionChanged,
            Error::Conflict(ConflictError::ConcurrentUpdate) => Self::Contended,
            Error::Conflict(ConflictError::SecretAlreadyShown) => Self::SecretAlreadyShown,
            Error::Conflict(ConflictError::ConfirmationRequired(_)) => Self::ConfirmationRequired,
            Error::Conflict(ConflictError::UnknownCursor) => Self::UnknownCursor,
            Error::Conflict(ConflictError::StatusListExpired) => Self::StatusListExpired,
            Error::Conflict(ConflictError::TooManySubscribers) => Self::TooManySubscribers,
            Error::Conflict(ConflictError::HistoryUnsupported) => Self::HistoryUnsupported,
            Error::Conflict(ConflictError::Inconsistent(_)) => Self::InconsistentRegistry,
            Error::Conflict(ConflictError::IdempotencyKeyReused) => Self::IdempotencyKeyReused,
            Error::ToolListing(_) => Self::McpServerUnavailable,
            Error::Auth(_)
            | Error::Request(_)
            | Error::Token(..)
            | Error::Denied(_)
            | Error::ConsentRequired(_)
            | Error::Unavailable(_)
            | Error::Internal(_) => match ErrorCode::from(failure) {
                ErrorCode::InvalidRequest => Self::Malformed,
                code => Self::OAuth(code),
            },
        }
    }
}

/// A failure on its way out of a JSON API.
#[derive(Debug)]
pub(in crate::http) struct Problem {
    r#type: ProblemType,
    challenge: Option<&'static str>,
    detail: String,
    reason: String,
    state: Option<TaskState>,
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    /// Where the task is whose state does not allow what was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<TaskState>,
}

impl From<Error> for Problem {
    fn from(failure: Error) -> Self {
        let detail = match &failure {
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
        let r#type = ProblemType::from(&failure);
        let state = match &failure {
            Error::Conflict(ConflictError::IllegalTransition(refusal)) => Some(refusal.state()),
            _ => None,
        };
        Self { r#type, challenge: www_authenticate(&failure), detail, reason: failure.to_string(), state }
    }
}

impl From<RequestError> for Problem {
    fn from(bad: RequestError) -> Self {
        Error::from(bad).into()
    }
}

impl From<ConflictError> for Problem {
    fn from(conflict: ConflictError) -> Self {
        Error::from(conflict).into()
    }
}

impl Problem {
    /// The body is over the limit.
    pub(in crate::http) fn too_large() -> Self {
        Self { r#type: ProblemType::TooLarge, ..RequestError::InvalidParameter("body", "over 65536 bytes").into() }
    }

    /// The body is said to be something else than JSON.
    pub(in crate::http) fn unsupported_media_type() -> Self {
        let bad = RequestError::MalformedJson("`content-type` must be application/json".into());
        Self { r#type: ProblemType::UnsupportedMediaType, ..bad.into() }
    }

    /// The path does not have the method.
    pub(in crate::http) fn method_not_allowed(bad: RequestError) -> Self {
        Self { r#type: ProblemType::MethodNotAllowed, ..bad.into() }
    }

    /// A mistake of ours, which the log of the panic tells more of.
    pub(in crate::http) fn internal_error() -> Self {
        let r#type = ProblemType::OAuth(ErrorCode::ServerError);
        Self {
            r#type,
            challenge: None,
            detail: INTERNAL_ERROR_TEXT.to_owned(),
            reason: INTERNAL_ERROR_TEXT.to_owned(),
            state: None,
        }
    }

    /// Requests can't be answered: says at which check that showed, and no more; the cause is in the log.
    pub(in crate::http) fn not_ready(failure: Error) -> Self {
        let check = match &failure {
            Error::Unavailable(Outage { operation: OP_CHECK_SCHEMA, .. }) => "schema",
            Error::Unavailable(Outage { operation: OP_FIND_SIGNING_KEY, .. }) => "keys",
            _ => "store",
        };
        Self { detail: format!("failed check: {check}; try again"), ..Self::from(failure) }
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
        };
        // Our own struct of strings and a number always has a JSON form.
        let body = serde_json::to_string(&body).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(RefusalReason { code, text: self.reason });
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every type that is none of OAuth's. A new one does not compile before it has its place here.
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
                ProblemType::ConfirmationRequired => Some(ProblemType::UnknownCursor),
                ProblemType::UnknownCursor => Some(ProblemType::StatusListExpired),
                ProblemType::StatusListExpired => Some(ProblemType::TooLarge),
                ProblemType::TooLarge => Some(ProblemType::UnsupportedMediaType),
                ProblemType::UnsupportedMediaType => Some(ProblemType::InconsistentRegistry),
                ProblemType::InconsistentRegistry => Some(ProblemType::IdempotencyKeyReused),
                ProblemType::IdempotencyKeyReused => Some(ProblemType::TooManySubscribers),
                ProblemType::TooManySubscribers => Some(ProblemType::HistoryUnsupported),
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
        let want = all_types().into_iter().map(|one| format!("| `{}` | {}", one.as_str(), one.status().as_u16()));
        assert_eq!(rows, want.collect::<Vec<_>>(), "docs/reference/errors.md has another table of types");
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
