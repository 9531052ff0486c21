//! Errors of the JSON APIs: problem details (RFC 9457). The same reasons as on OAuth endpoints, said in the way of a
//! JSON API. Failures are logged here, once.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    app::{BadRequest, Conflict, Failure},
    domain::{task::TaskState, tool::CannotAccept},
    http::{
        error::{Code, OWN_FAULT, challenge},
        observe::Reason,
    },
    ports::{CHECK_SCHEMA, FIND_KEY, Outage},
};

/// What kind of problem it is: a program decides by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Malformed,
    NotFound,
    MethodNotAllowed,
    OwnedByFile,
    WrongState,
    NotAsLookedAt,
    Contended,
    ShownOnce,
    Unconfirmed,
    NoSuchPosition,
    ListIsOver,
    TooLarge,
    UnsupportedMedia,
    Inconsistent,
    KeyReused,
    TooManyListen,
    NoHistory,
    NotListed,
    /// One that OAuth has a word for.
    OAuth(Code),
}

impl Type {
    /// The last part of its URN.
    fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::OwnedByFile => "owned_by_file",
            Self::WrongState => "wrong_state",
            Self::NotAsLookedAt => "not_as_looked_at",
            Self::Contended => "contended",
            Self::ShownOnce => "shown_once",
            Self::Unconfirmed => "unconfirmed",
            Self::NoSuchPosition => "no_such_position",
            Self::ListIsOver => "list_is_over",
            Self::TooLarge => "too_large",
            Self::UnsupportedMedia => "unsupported_media_type",
            Self::Inconsistent => "inconsistent",
            Self::KeyReused => "key_reused",
            Self::TooManyListen => "too_many_listen",
            Self::NoHistory => "no_history",
            Self::NotListed => "not_listed",
            Self::OAuth(code) => code.as_str(),
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::OwnedByFile
            | Self::WrongState
            | Self::NotAsLookedAt
            | Self::Contended
            | Self::ShownOnce
            | Self::Unconfirmed => StatusCode::CONFLICT,
            Self::NoSuchPosition | Self::ListIsOver => StatusCode::GONE,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMedia => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Inconsistent | Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyListen => StatusCode::TOO_MANY_REQUESTS,
            Self::NoHistory => StatusCode::NOT_IMPLEMENTED,
            Self::NotListed => StatusCode::BAD_GATEWAY,
            Self::OAuth(code) => code.status(),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Malformed => "The request is malformed",
            Self::NotFound => "There is no such thing",
            Self::MethodNotAllowed => "The path does not have this method",
            Self::OwnedByFile => "It can't be changed here",
            Self::WrongState => "The state it is in does not allow it",
            Self::NotAsLookedAt => "It is not what was looked at",
            Self::Contended => "It can't be changed now",
            Self::ShownOnce => "It was done, and what came of it is shown once",
            Self::Unconfirmed => "It is not confirmed",
            Self::NoSuchPosition => "The log has no such position",
            Self::ListIsOver => "All tokens of the list have ended",
            Self::TooLarge => "The request is too large",
            Self::UnsupportedMedia => "The body is of another media type",
            Self::Inconsistent => "The request does not fit what is there",
            Self::KeyReused => "The idempotency key belongs to another request",
            Self::TooManyListen => "Too many listen",
            Self::NoHistory => "There is only the list of now",
            Self::NotListed => "The MCP server could not be asked for its tools",
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

impl From<&Failure> for Type {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Conflict(Conflict::NotFound(_)) => Self::NotFound,
            Failure::Conflict(Conflict::OwnedByFile) => Self::OwnedByFile,
            Failure::Conflict(Conflict::CannotTurn(_) | Conflict::Door(_) | Conflict::Review(_)) => Self::WrongState,
            Failure::Conflict(Conflict::CannotAccept(CannotAccept::Twice(_) | CannotAccept::InCatalogue(_))) => {
                Self::Inconsistent
            }
            Failure::Conflict(Conflict::CannotAccept(CannotAccept::Unlisted(_) | CannotAccept::Moved(_))) => {
                Self::NotAsLookedAt
            }
            Failure::Conflict(Conflict::Contended) => Self::Contended,
            Failure::Conflict(Conflict::ShownOnce) => Self::ShownOnce,
            Failure::Conflict(Conflict::Unconfirmed(_)) => Self::Unconfirmed,
            Failure::Conflict(Conflict::NoSuchPosition) => Self::NoSuchPosition,
            Failure::Conflict(Conflict::ListIsOver) => Self::ListIsOver,
            Failure::Conflict(Conflict::TooManyListen) => Self::TooManyListen,
            Failure::Conflict(Conflict::NoHistory) => Self::NoHistory,
            Failure::Conflict(Conflict::Inconsistent(_)) => Self::Inconsistent,
            Failure::Conflict(Conflict::KeyReused) => Self::KeyReused,
            Failure::NotListed(_) => Self::NotListed,
            Failure::Client(_)
            | Failure::Request(_)
            | Failure::Token(..)
            | Failure::Denied(_)
            | Failure::Consent(_)
            | Failure::Outage(_) => match Code::from(failure) {
                Code::InvalidRequest => Self::Malformed,
                code => Self::OAuth(code),
            },
        }
    }
}

/// A failure on its way out of a JSON API.
#[derive(Debug)]
pub(super) struct Problem {
    r#type: Type,
    challenge: Option<&'static str>,
    detail: String,
    reason: String,
    state: Option<TaskState>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    /// Where the task is whose state does not allow what was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<TaskState>,
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let detail = match &failure {
            Failure::Outage(outage) => {
                tracing::error!(error = %outage, cause = %outage.source, "request failed");
                "try again".to_owned()
            }
            refusal => refusal.to_string(),
        };
        let r#type = Type::from(&failure);
        let state = match &failure {
            Failure::Conflict(Conflict::CannotTurn(refusal)) => Some(refusal.state()),
            _ => None,
        };
        Self { r#type, challenge: challenge(&failure), detail, reason: failure.to_string(), state }
    }
}

impl From<BadRequest> for Problem {
    fn from(bad: BadRequest) -> Self {
        Failure::from(bad).into()
    }
}

impl From<Conflict> for Problem {
    fn from(conflict: Conflict) -> Self {
        Failure::from(conflict).into()
    }
}

impl Problem {
    /// The body is over the limit.
    pub(super) fn too_large() -> Self {
        Self { r#type: Type::TooLarge, ..BadRequest::Invalid("body", "over 65536 bytes").into() }
    }

    /// The body is said to be something else than JSON.
    pub(super) fn not_json() -> Self {
        let bad = BadRequest::NotJson("`content-type` must be application/json".into());
        Self { r#type: Type::UnsupportedMedia, ..bad.into() }
    }

    /// The path does not have the method.
    pub(super) fn method_not_allowed(bad: BadRequest) -> Self {
        Self { r#type: Type::MethodNotAllowed, ..bad.into() }
    }

    /// A mistake of ours, which the log of the panic tells more of.
    pub(super) fn own_fault() -> Self {
        let r#type = Type::OAuth(Code::ServerError);
        Self { r#type, challenge: None, detail: OWN_FAULT.to_owned(), reason: OWN_FAULT.to_owned(), state: None }
    }

    /// Requests can't be answered: says at which check that showed, and no more; the cause is in the log.
    pub(super) fn not_ready(failure: Failure) -> Self {
        let check = match &failure {
            Failure::Outage(Outage { during: CHECK_SCHEMA, .. }) => "schema",
            Failure::Outage(Outage { during: FIND_KEY, .. }) => "keys",
            _ => "store",
        };
        Self { detail: format!("failed check: {check}; try again"), ..Self::from(failure) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (code, status) = (self.r#type.as_str(), self.r#type.status());
        let body = Body {
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
        response.extensions_mut().insert(Reason { code, text: self.reason });
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every type that is none of OAuth's. A new one does not compile before it has its place here.
    fn types() -> Vec<Type> {
        let (mut types, mut next) = (Vec::new(), Some(Type::Malformed));
        while let Some(one) = next {
            types.push(one);
            next = match one {
                Type::Malformed => Some(Type::NotFound),
                Type::NotFound => Some(Type::MethodNotAllowed),
                Type::MethodNotAllowed => Some(Type::OwnedByFile),
                Type::OwnedByFile => Some(Type::WrongState),
                Type::WrongState => Some(Type::NotAsLookedAt),
                Type::NotAsLookedAt => Some(Type::Contended),
                Type::Contended => Some(Type::ShownOnce),
                Type::ShownOnce => Some(Type::Unconfirmed),
                Type::Unconfirmed => Some(Type::NoSuchPosition),
                Type::NoSuchPosition => Some(Type::ListIsOver),
                Type::ListIsOver => Some(Type::TooLarge),
                Type::TooLarge => Some(Type::UnsupportedMedia),
                Type::UnsupportedMedia => Some(Type::Inconsistent),
                Type::Inconsistent => Some(Type::KeyReused),
                Type::KeyReused => Some(Type::TooManyListen),
                Type::TooManyListen => Some(Type::NoHistory),
                Type::NoHistory => Some(Type::NotListed),
                Type::NotListed | Type::OAuth(_) => None,
            };
        }
        types
    }

    #[test]
    fn every_type_is_explained_to_developers() {
        let table = include_str!("../../docs/reference/errors.md");
        let rows = table.lines().filter(|line| line.starts_with("| `") && line.matches(" | ").count() == 2);
        let rows = rows.map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(" | ")).collect::<Vec<_>>();
        let want = types().into_iter().map(|one| format!("| `{}` | {}", one.as_str(), one.status().as_u16()));
        assert_eq!(rows, want.collect::<Vec<_>>(), "docs/reference/errors.md has another table of types");
    }

    #[test]
    fn every_type_is_in_the_description() {
        let description = serde_json::from_str::<serde_json::Value>(include_str!("../../openapi/errand.json")).unwrap();
        let described =
            description["components"]["schemas"]["Problem"]["properties"]["type"]["enum"].as_array().unwrap();
        for one in types() {
            let urn = format!("urn:errand:problem:{}", one.as_str());
            assert!(described.iter().any(|other| *other == urn), "{urn}");
        }
    }
}
