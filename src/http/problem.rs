//! Errors of the JSON APIs: problem details (RFC 9457). The same reasons as on OAuth endpoints, said in the way of a
//! JSON API. Failures are logged here, once.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    app::{BadRequest, Conflict, Failure},
    http::{
        error::{Code, OWN_FAULT, challenge},
        observe::Reason,
    },
    ports::{CHECK_SCHEMA, FIND_KEY, Outage},
};

/// A failure on its way out of a JSON API.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: Code,
    challenge: Option<&'static str>,
    detail: String,
    reason: String,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let code = Code::from(&failure);
        let status = match &failure {
            Failure::Conflict(Conflict::NotFound(_)) => StatusCode::NOT_FOUND,
            Failure::Conflict(Conflict::OwnedByFile | Conflict::Contended) => StatusCode::CONFLICT,
            Failure::Conflict(Conflict::Inconsistent(_) | Conflict::KeyReused) => StatusCode::UNPROCESSABLE_ENTITY,
            Failure::Client(_) | Failure::Request(_) | Failure::Token(..) | Failure::Denied(_) | Failure::Outage(_) => {
                code.status()
            }
        };
        let detail = match &failure {
            Failure::Outage(outage) => {
                tracing::error!(error = %outage, cause = %outage.source, "request failed");
                "try again".to_owned()
            }
            refusal => refusal.to_string(),
        };
        Self { status, code, challenge: challenge(&failure), detail, reason: failure.to_string() }
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
        Self::from(BadRequest::Invalid("body", "over 65536 bytes")).with_status(StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// The body is said to be something else than JSON.
    pub(super) fn not_json() -> Self {
        let bad = BadRequest::NotJson("`content-type` must be application/json".into());
        Self::from(bad).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    }

    /// A mistake of ours, which the log of the panic tells more of.
    pub(super) fn own_fault() -> Self {
        let code = Code::ServerError;
        let (detail, reason) = (OWN_FAULT.to_owned(), OWN_FAULT.to_owned());
        Self { status: code.status(), code, challenge: None, detail, reason }
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

    /// The same with another status than its code has.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    fn title(&self) -> &'static str {
        match self.status {
            StatusCode::BAD_REQUEST => "The request is malformed",
            StatusCode::UNAUTHORIZED => "A live API token is needed",
            StatusCode::FORBIDDEN => "The API token does not allow this",
            StatusCode::NOT_FOUND => "There is no such thing",
            StatusCode::METHOD_NOT_ALLOWED => "The path does not have this method",
            StatusCode::CONFLICT => "It can't be changed here or now",
            StatusCode::PAYLOAD_TOO_LARGE => "The request is too large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "The body is of another media type",
            StatusCode::UNPROCESSABLE_ENTITY => "The request does not fit what is there",
            StatusCode::INTERNAL_SERVER_ERROR => "The server made a mistake",
            _ => "It could not be found out",
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: format!("urn:errand:problem:{}", self.code.as_str()),
            title: self.title(),
            status: self.status.as_u16(),
            detail: &self.detail,
        };
        // Our own struct of strings and a number always has a JSON form.
        let body = serde_json::to_string(&body).unwrap_or_default();
        let mut response = (self.status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(Reason { code: self.code.as_str(), text: self.reason });
        response
    }
}
