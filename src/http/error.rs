//! The one table from reasons to the wire: OAuth's own errors (RFC 6749 §5.2, RFC 8693 §2.2.2) on OAuth endpoints.
//! Failures are logged here, once.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{
    app::{AuthFault, BadRequest, Conflict, ConsentNeeded, Failure},
    domain::{
        authority::Authority,
        exchange::{Denial, Excess, Holding},
    },
    http::observe::Reason,
};

/// An OAuth error code, with its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
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

impl Code {
    /// The word on the wire.
    #[must_use]
    pub(super) fn as_str(self) -> &'static str {
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
    pub(super) fn status(self) -> StatusCode {
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

impl From<&Failure> for Code {
    fn from(failure: &Failure) -> Self {
        match failure {
            Failure::Client(fault) => fault.into(),
            Failure::Request(bad) => bad.into(),
            // RFC 8693 §2.2.2: a subject or actor token that is not valid, for any reason, is an invalid request.
            Failure::Token(..) => Self::InvalidRequest,
            Failure::Denied(denial) => denial.into(),
            Failure::Consent(_) => Self::InteractionRequired,
            Failure::Conflict(conflict) => conflict.into(),
            // No OAuth endpoint asks an MCP server anything.
            Failure::NotListed(_) | Failure::Outage(_) => Self::TemporarilyUnavailable,
        }
    }
}

impl From<&AuthFault> for Code {
    fn from(fault: &AuthFault) -> Self {
        match fault {
            AuthFault::Several => Self::InvalidRequest,
            AuthFault::None
            | AuthFault::Malformed
            | AuthFault::Unknown
            | AuthFault::Method
            | AuthFault::Secret
            | AuthFault::Signature
            | AuthFault::Claim(_)
            | AuthFault::Type
            | AuthFault::Replayed
            | AuthFault::Changed => Self::InvalidClient,
            AuthFault::NoBearer | AuthFault::Bearer => Self::InvalidToken,
            AuthFault::Scope => Self::InsufficientScope,
            AuthFault::NotForThisClient | AuthFault::NotOfPortal => Self::AccessDenied,
        }
    }
}

impl From<&BadRequest> for Code {
    fn from(bad: &BadRequest) -> Self {
        match bad {
            BadRequest::Missing(_)
            | BadRequest::Repeated
            | BadRequest::Invalid(..)
            | BadRequest::NotAForm
            | BadRequest::NotJson(_)
            | BadRequest::TooMuch => Self::InvalidRequest,
            BadRequest::Scope(_) | BadRequest::ApiScope => Self::InvalidScope,
            BadRequest::Details(_) => Self::InvalidAuthorizationDetails,
            BadRequest::Target(_) => Self::InvalidTarget,
            BadRequest::GrantType => Self::UnsupportedGrantType,
            BadRequest::GrantNotForClient | BadRequest::NotYourToken => Self::UnauthorizedClient,
        }
    }
}

impl From<&Denial> for Code {
    fn from(denial: &Denial) -> Self {
        match denial {
            Denial::OnlyTxnForResource => Self::UnauthorizedClient,
            Denial::TargetShutOut | Denial::TargetIsUs => Self::InvalidTarget,
            Denial::ConsentNeeded => Self::InteractionRequired,
            Denial::MayNotDelegate | Denial::BrokerAlone | Denial::Splice(_) | Denial::NotThePresenter => {
                Self::ActorUnauthorized
            }
            Denial::TxnOnlyReplaced
            | Denial::ApiToken
            | Denial::ShutOut
            | Denial::RequesterShutOut
            | Denial::Chain(_)
            | Denial::TooFar
            | Denial::LineageTooLong
            | Denial::OtherTask
            | Denial::CannotJoin(_)
            | Denial::PurposeMissing
            | Denial::DeadlineTooLong
            | Denial::NoTimeLeft => Self::InvalidRequest,
            Denial::NothingAsked | Denial::SubjectWithoutScope | Denial::ScopeTooWide(_) | Denial::ScopeNotGood(..) => {
                Self::InvalidScope
            }
            Denial::DetailsTooWide(Excess {
                holding:
                    Holding::Catalogue
                    | Holding::Agent
                    | Holding::NextAgent
                    | Holding::Edge
                    | Holding::Requester
                    | Holding::Parent
                    | Holding::Task,
                ..
            })
            | Denial::DetailsNotGood(..)
            | Denial::NothingForTarget => Self::InvalidAuthorizationDetails,
        }
    }
}

impl From<&Conflict> for Code {
    fn from(conflict: &Conflict) -> Self {
        match conflict {
            Conflict::NotFound(_)
            | Conflict::OwnedByFile
            | Conflict::Inconsistent(_)
            | Conflict::KeyReused
            | Conflict::CannotAccept(_)
            | Conflict::CannotTurn(_)
            | Conflict::Door(_)
            | Conflict::Review(_)
            | Conflict::Unconfirmed(_)
            | Conflict::ShownOnce
            | Conflict::NoSuchPosition
            | Conflict::ListIsOver
            | Conflict::NoHistory
            | Conflict::TooManyListen
            | Conflict::Contended => Self::InvalidRequest,
        }
    }
}

/// A failure on its way out of an OAuth endpoint.
#[derive(Debug)]
pub(super) struct OAuthError {
    code: Code,
    status: StatusCode,
    challenge: Option<&'static str>,
    description: String,
    reason: String,
    allowed: Option<Authority>,
    consent: Option<Box<ConsentNeeded>>,
}

#[derive(Serialize)]
struct Body<'a> {
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

impl From<Failure> for OAuthError {
    fn from(failure: Failure) -> Self {
        let code = Code::from(&failure);
        let description = match &failure {
            // One text for all of them: who probes for client ids learns nothing.
            Failure::Client(fault) if code == Code::InvalidClient => match fault {
                AuthFault::None => "client authentication is needed".to_owned(),
                _ => "client authentication failed".to_owned(),
            },
            Failure::Outage(outage) => {
                tracing::error!(error = %outage, cause = %outage.source, "request failed");
                "try again".to_owned()
            }
            refusal => refusal.to_string(),
        };
        let challenge = challenge(&failure);
        let reason = failure.to_string();
        let (mut allowed, mut consent) = (None, None);
        match failure {
            Failure::Denied(Denial::ScopeTooWide(excess) | Denial::DetailsTooWide(excess)) => allowed = excess.allowed,
            Failure::Consent(needed) => consent = Some(needed),
            _ => {}
        }
        Self { code, status: code.status(), challenge, description, reason, allowed, consent }
    }
}

impl From<BadRequest> for OAuthError {
    fn from(bad: BadRequest) -> Self {
        Failure::from(bad).into()
    }
}

impl OAuthError {
    /// The body is over the limit.
    pub(super) fn too_large() -> Self {
        Self::from(BadRequest::Invalid("body", "over 65536 bytes")).with_status(StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// A mistake of ours, which the log of the panic tells more of.
    pub(super) fn own_fault() -> Self {
        let code = Code::ServerError;
        let (description, reason) = (OWN_FAULT.to_owned(), OWN_FAULT.to_owned());
        Self { code, status: code.status(), challenge: None, description, reason, allowed: None, consent: None }
    }

    /// The same with another status than its code has.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }
}

/// What is said of a mistake of ours.
pub(super) const OWN_FAULT: &str = "a fault of the server itself: report it with the request id";

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let description = ascii(&self.description);
        let consent = self.consent.as_deref();
        let body = Body {
            error: self.code.as_str(),
            error_description: &description,
            authorization_details_allowed: self.allowed.as_ref(),
            interaction_uri: consent.and_then(|consent| consent.uri.as_deref()),
            authorization_details: consent.map(|consent| &consent.wanted).filter(|wanted| !wanted.is_empty()),
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self.code == Code::TemporarilyUnavailable {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.extensions_mut().insert(Reason { code: self.code.as_str(), text: self.reason });
        response
    }
}

/// RFC 6749 §5.2 and RFC 6750 §3: a 401 says how to authenticate, a 403 of a bearer token what it lacks.
pub(super) fn challenge(failure: &Failure) -> Option<&'static str> {
    match Code::from(failure) {
        // RFC 6750 §3.1: who sent no token hears how to authenticate, and of no error.
        Code::InvalidToken if matches!(failure, Failure::Client(AuthFault::NoBearer)) => {
            Some("Bearer realm=\"errand\"")
        }
        Code::InvalidClient => Some("Basic realm=\"errand\", charset=\"UTF-8\""),
        Code::InvalidToken => Some("Bearer realm=\"errand\", error=\"invalid_token\""),
        Code::InsufficientScope => Some("Bearer realm=\"errand\", error=\"insufficient_scope\""),
        Code::InvalidRequest
        | Code::UnauthorizedClient
        | Code::UnsupportedGrantType
        | Code::InvalidScope
        | Code::InvalidTarget
        | Code::InvalidAuthorizationDetails
        | Code::ActorUnauthorized
        | Code::InteractionRequired
        | Code::AccessDenied
        | Code::TemporarilyUnavailable
        | Code::ServerError => None,
    }
}

/// RFC 6749 §5.2 allows %x20-21 / %x23-5B / %x5D-7E in a description: no quote, no backslash, no line break.
fn ascii(text: &str) -> String {
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
    fn codes() -> Vec<Code> {
        let (mut codes, mut next) = (Vec::new(), Some(Code::InvalidRequest));
        while let Some(code) = next {
            codes.push(code);
            next = match code {
                Code::InvalidRequest => Some(Code::InvalidClient),
                Code::InvalidClient => Some(Code::UnauthorizedClient),
                Code::UnauthorizedClient => Some(Code::UnsupportedGrantType),
                Code::UnsupportedGrantType => Some(Code::InvalidScope),
                Code::InvalidScope => Some(Code::InvalidTarget),
                Code::InvalidTarget => Some(Code::InvalidAuthorizationDetails),
                Code::InvalidAuthorizationDetails => Some(Code::ActorUnauthorized),
                Code::ActorUnauthorized => Some(Code::InteractionRequired),
                Code::InteractionRequired => Some(Code::InvalidToken),
                Code::InvalidToken => Some(Code::InsufficientScope),
                Code::InsufficientScope => Some(Code::AccessDenied),
                Code::AccessDenied => Some(Code::TemporarilyUnavailable),
                Code::TemporarilyUnavailable => Some(Code::ServerError),
                Code::ServerError => None,
            };
        }
        codes
    }

    #[test]
    fn every_code_is_explained_to_developers() {
        let table = include_str!("../../docs/reference/errors.md");
        let rows = table.lines().filter(|line| line.starts_with("| `") && line.matches(" | ").count() == 3);
        let rows = rows.map(|row| row.split(" | ").take(2).collect::<Vec<_>>().join(" | ")).collect::<Vec<_>>();
        let want = codes().into_iter().map(|code| format!("| `{}` | {}", code.as_str(), code.status().as_u16()));
        assert_eq!(rows, want.collect::<Vec<_>>(), "docs/reference/errors.md has another table of codes");
    }

    #[test]
    fn every_code_is_in_the_description() {
        let description = serde_json::from_str::<serde_json::Value>(include_str!("../../openapi/errand.json")).unwrap();
        let described = &description["components"]["schemas"]["ErrorCode"]["enum"];
        let codes = codes().into_iter().map(Code::as_str).collect::<Vec<_>>();
        assert_eq!(*described, serde_json::json!(codes));
    }
}
