//! Errors of the use-cases: one variant for each reason. The HTTP layer maps them to status codes
//! in one table.

use std::time::Duration;

use thiserror::Error;

use crate::{
    domain::{
        admission::Throttled,
        authority::{Authority, DetailsError},
        exchange::Denial,
        four_eyes::PersonError,
        grants::break_glass::ReviewError,
        id::ClientId,
        jose::jws::JwsError,
        quota::QuotaExceeded,
        registry::{BlockError, issuer::SubjectTokenType, tool::AcceptanceError},
        revocation::{SuspensionCause, evidence::EvidenceEnd},
        scope::ScopeError,
        task::TransitionError,
        token::foreign_claims::ClaimError,
        uri::{ResourceUri, UrlError},
    },
    ports::{ListError, Outage, ToolListingError},
};

/// Why a use-case did not do what was requested.
#[derive(Debug, Error)]
pub enum Error {
    /// The client is not authenticated, or not authorized.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The request is malformed.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The subject token or the actor token is not valid.
    #[error("{0} token: {1}")]
    Token(&'static str, TokenError),
    /// A rule denies the exchange.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// A rule denies the exchange until the requester consents.
    #[error("{}", Denial::ConsentRequired)]
    ConsentRequired(Box<ConsentRequired>),
    /// The current state does not allow the change.
    #[error(transparent)]
    Conflict(#[from] ConflictError),
    /// The caller sends too many requests.
    #[error(transparent)]
    Throttled(#[from] Throttled),
    /// A quota is used up.
    #[error(transparent)]
    QuotaExceeded(#[from] QuotaExceeded),
    /// The tools of an MCP server could not be listed.
    #[error(transparent)]
    ToolListing(#[from] ToolListingError),
    /// Errand can't decide: something that it depends on is unavailable.
    #[error(transparent)]
    Unavailable(#[from] Outage),
    /// A defect of Errand itself.
    #[error(transparent)]
    Internal(#[from] LogicError),
}

/// A defect: an invariant between this program and the store does not hold. Neither a refusal nor
/// an outage; the text is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LogicError {
    /// The store reported an outcome that the write can't have, given its guards.
    #[error("the store reported an outcome that this write can't have: {0}")]
    ImpossibleOutcome(&'static str),
    /// A revocation was committed without a position in the log to wait for.
    #[error("the store committed a revocation without a log position")]
    MissingLogPosition,
}

/// The authority that the requester has to consent to, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentRequired {
    /// All authority that the exchange requested.
    pub authority: Authority,
    /// The page where grants are made, if the operator configured one.
    pub uri: Option<String>,
}

impl From<ListError> for Error {
    fn from(error: ListError) -> Self {
        match error {
            ListError::InvalidCursor => {
                RequestError::InvalidParameter("after", "must be the `next` of a page of this list").into()
            }
            ListError::TimedOut(limit) => ConflictError::ListTimedOut(limit).into(),
            ListError::Outage(outage) => outage.into(),
        }
    }
}

/// Why a client is not authenticated or not authorized. The response has one text for all reasons
/// that depend on the registration of the client, because any caller can try any client id; see
/// [`AuthError::is_disclosable`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AuthError {
    /// The request has no credentials.
    #[error("client authentication is required")]
    MissingCredentials,
    /// The request uses more than one method (RFC 6749 §2.3).
    #[error("more than one client authentication method in the request")]
    MultipleMethods,
    /// The header or the parameters can't be parsed.
    #[error("malformed client credentials; use HTTP Basic, or `client_assertion` with `client_assertion_type`")]
    Malformed,
    /// The assertion can't be parsed.
    #[error("client assertion: {0}")]
    MalformedAssertion(JwsError),
    /// The client does not exist or is disabled.
    #[error("unknown or disabled client")]
    UnknownClient,
    /// The client is registered with another method.
    #[error("the client is registered with another authentication method")]
    WrongMethod,
    /// The secret is wrong.
    #[error("wrong client secret")]
    WrongSecret,
    /// The signature of the assertion can't be verified.
    #[error("the assertion is not signed with a key of the client")]
    BadSignature,
    /// A claim of the assertion is not acceptable.
    #[error("client assertion: {0}")]
    BadClaim(ClaimError),
    /// The `typ` of the assertion names another kind of token.
    #[error("client assertion: `typ` names another kind of token; use `client-authentication+jwt`")]
    WrongTyp,
    /// The assertion was used before.
    #[error("client assertion: already used; sign a new one for each request")]
    Replayed,
    /// The client's credentials changed while the request was processed.
    #[error("the client's credentials changed while the request was processed; authenticate with the new ones")]
    CredentialsChanged,
    /// The endpoint requires a bearer token.
    #[error("an API token is required: `Authorization: Bearer …`")]
    MissingBearer,
    /// The bearer token is not a live API token.
    #[error("not a live API token")]
    InvalidBearer,
    /// The bearer token is an API token that has expired.
    #[error("the API token has expired; get a new one with `client_credentials`")]
    ExpiredBearer,
    /// The requester's token, or everything of the requester, was ended.
    #[error("bearer token: {0}")]
    EndedBearer(EvidenceEnd),
    /// The bearer token is a task token.
    #[error("a task token is not an API token; get one with `client_credentials`")]
    TaskTokenAsBearer,
    /// A claim of the requester's token, whose signature is valid, is not acceptable.
    #[error("bearer token: {0}")]
    BearerClaim(ClaimError),
    /// The API token lacks the scope of the endpoint.
    #[error("the API token lacks the required scope; request it with `client_credentials`")]
    InsufficientScope,
    /// The requester's token was not issued to a portal, or an agent acts with it.
    #[error("the token was not issued to a portal of its issuer for the requester alone")]
    NotPortalToken,
    /// The operation is not available to this kind of client.
    #[error("this client may not use this operation")]
    ClientNotAllowed,
}

impl AuthError {
    /// Returns whether the client may learn the reason. A stranger, who has no key of the client,
    /// must not learn from it whether a client exists and how it is registered. These reasons
    /// depend on what was sent alone, or on a valid signature of the client.
    #[must_use]
    pub fn is_disclosable(&self) -> bool {
        match self {
            Self::MissingCredentials
            | Self::MultipleMethods
            | Self::Malformed
            | Self::MalformedAssertion(_)
            | Self::BadClaim(_)
            | Self::WrongTyp
            | Self::Replayed
            | Self::CredentialsChanged
            | Self::MissingBearer
            | Self::InvalidBearer
            | Self::ExpiredBearer
            | Self::EndedBearer(_)
            | Self::TaskTokenAsBearer
            | Self::BearerClaim(_)
            | Self::InsufficientScope
            | Self::NotPortalToken
            | Self::ClientNotAllowed => true,
            Self::UnknownClient | Self::WrongMethod | Self::WrongSecret | Self::BadSignature => false,
        }
    }
}

/// Why a request is malformed. The texts go to the client and never contain a value that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// A required parameter is missing.
    #[error("`{0}` is missing")]
    MissingParameter(&'static str),
    /// A parameter is sent more than once.
    #[error("duplicate parameter")]
    DuplicateParameter,
    /// The value of a parameter is not valid.
    #[error("`{0}`: {1}")]
    InvalidParameter(&'static str, &'static str),
    /// The body is not a form, not UTF-8, or has too many parameters.
    #[error("the body is not an `application/x-www-form-urlencoded` form in UTF-8 with at most 64 parameters")]
    MalformedForm,
    /// The body is not the JSON object that the endpoint expects.
    #[error("invalid JSON body: {0}")]
    MalformedJson(String),
    /// The scope is malformed.
    #[error("`scope`: {0}")]
    InvalidScope(#[from] ScopeError),
    /// The authorization details are malformed.
    #[error(transparent)]
    InvalidDetails(#[from] DetailsError),
    /// The target is unknown, ambiguous or missing.
    #[error("target: {0}")]
    InvalidTarget(&'static str),
    /// `resource` is not a URI that a resource can have.
    #[error("target: `resource` is not a valid resource URI: {0}")]
    InvalidResource(UrlError),
    /// No resource is registered with the URI or the name.
    #[error("target: {rule}{}", nearest_hint(.nearest.as_ref()))]
    UnknownTarget {
        /// What is wrong.
        rule: &'static str,
        /// The URI of the resource that the client most likely means.
        nearest: Option<ResourceUri>,
    },
    /// The token would be larger than any recipient accepts, Errand included.
    #[error("the token would exceed the maximum size; request fewer tools or scopes, or send less context")]
    TokenTooLarge,
    /// The grant type is not supported.
    #[error("`grant_type` is not supported")]
    UnsupportedGrantType,
    /// The client may not use this grant type.
    #[error("the client may not use this grant type")]
    UnauthorizedGrantType,
    /// The client may not request this scope of Errand's own APIs.
    #[error("the client may not request this scope")]
    ScopeNotAllowed,
    /// The client may not revoke the token.
    #[error("the token was neither issued to this client nor derived from a token of this client")]
    NotTokenOwner,
}

fn nearest_hint(nearest: Option<&ResourceUri>) -> String {
    nearest.map_or_else(String::new, |uri| {
        format!("; the nearest one that the client has access to is {uri} (other spellings need `uri_aliases`)")
    })
}

/// Why a presented token is not valid.
#[derive(Debug, Error)]
pub enum TokenError {
    /// The token is not a JWS.
    #[error(transparent)]
    Malformed(#[from] JwsError),
    /// The `typ` does not match the declared token type.
    #[error("the token's `typ` does not match the token type in the request")]
    WrongTyp,
    /// A token without the `typ` of an access token is declared as one, and the issuer's entry does
    /// not say that its JWTs are access tokens.
    #[error(
        "the token is not an access token by its `typ` (at+jwt); if the provider sends none, add \"jwt\" to the issuer's `token_types`, and send `subject_token_type` urn:ietf:params:oauth:token-type:jwt or access_token"
    )]
    JwtAsAccessToken,
    /// A token with the `typ` of an access token is declared as another type.
    #[error(
        "the token is an access token by its `typ` (at+jwt); send `subject_token_type` urn:ietf:params:oauth:token-type:access_token"
    )]
    AccessTokenAsOther,
    /// The issuer is not registered, or is blocked.
    #[error("the issuer is not trusted; register it")]
    UntrustedIssuer,
    /// The issuer is registered in another spelling of its URL, for example without the slash.
    #[error(
        "the issuer is registered in another spelling of its URL, for example with or without a slash at its end; register it exactly as `iss` of its tokens"
    )]
    IssuerInOtherSpelling,
    /// The issuer is trusted, but not for tokens of this type.
    #[error("tokens of this type are not accepted from the issuer; add \"{}\" to the issuer's `token_types`", .0.as_str())]
    TokenTypeNotAccepted(SubjectTokenType),
    /// The issuer has no key for the `kid` and the algorithm.
    #[error("the issuer has no key for the token's `kid` and `alg`")]
    UnknownKey,
    /// The issuer may not use the algorithm, `none` included.
    #[error("the token's `alg` is not accepted from its issuer; see `algorithms` of the issuer")]
    AlgorithmNotAllowed,
    /// The signature can't be verified.
    #[error("the token's signature does not verify with any key of its issuer")]
    BadSignature,
    /// An admin withdrew the key that signed the token.
    #[error("the key of the token's `kid` was withdrawn by an admin; get a token signed with a newer key")]
    WithdrawnKey,
    /// A claim is not acceptable.
    #[error(transparent)]
    BadClaim(#[from] ClaimError),
    /// The token was revoked.
    #[error("the token was revoked")]
    Revoked,
    /// The token is suspended. What it waits for may have been resumed meanwhile.
    #[error("{}", describe_suspension(.0.as_ref()))]
    Suspended(Option<SuspensionCause>),
    /// The token was used before.
    #[error("the token was already used; sign a new one for each request")]
    Replayed,
    /// The requester refused an agent at `/v1/grants`.
    #[error("the requester refused the agent `{0}`, until they make a grant to it at `/v1/grants`")]
    AgentRefused(ClientId),
    /// The user token is no longer evidence.
    #[error(transparent)]
    EvidenceEnded(EvidenceEnd),
}

fn describe_suspension(cause: Option<&SuspensionCause>) -> String {
    match cause {
        Some(SuspensionCause::Task) => "its task is suspended; retry after the task is resumed".to_owned(),
        Some(SuspensionCause::Agent(id)) => {
            format!("the agent `{id}` in its chain is suspended; retry after an admin resumes the agent")
        }
        Some(SuspensionCause::AllAgents) => "all agents are suspended; retry after an admin resumes them".to_owned(),
        Some(SuspensionCause::Tools) => {
            "the server of its tools changed or removed them; retry after an admin has reviewed the tools".to_owned()
        }
        None => "the token was suspended a moment ago; retry".to_owned(),
    }
}

/// Why the current state does not allow a change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConflictError {
    /// The object does not exist, or is hidden from the caller.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The configuration file declares the object.
    #[error("the configuration file declares this object; change it there")]
    ManagedByFile,
    /// The change conflicts with other objects.
    #[error("{0}")]
    Inconsistent(String),
    /// The idempotency key was used for another request.
    #[error("the idempotency key was used for another request; use a new key")]
    IdempotencyKeyReused,
    /// The definition of a tool is not the accepted one.
    #[error(transparent)]
    DefinitionChanged(#[from] AcceptanceError),
    /// The state of the task does not allow the action.
    #[error(transparent)]
    IllegalTransition(TransitionError),
    /// The current block of the party, or the lack of one, does not allow the action.
    #[error(transparent)]
    Block(BlockError),
    /// The break-glass grant can't be reviewed.
    #[error(transparent)]
    ReviewRejected(ReviewError),
    /// A change of many tasks lacks a valid confirmation.
    #[error("{0}")]
    ConfirmationRequired(&'static str),
    /// The act needs the approval of a second person. The text is the request for it.
    #[error(
        "the act needs a second person: have another operator approve `approval_request` at `/v1/admin/approvals`, and repeat the request with the answer in the header `Errand-Approval`"
    )]
    ApprovalRequired(Box<str>),
    /// The approval does not cover the act.
    #[error("the approval {0}; repeat the request without `Errand-Approval` to ask for another one")]
    ApprovalInvalid(&'static str),
    /// The party counts as no person.
    #[error(transparent)]
    NoPerson(#[from] PersonError),
    /// The request created a secret before, which is shown once.
    #[error("a secret was created for this idempotency key and is shown once; create another one with a new key")]
    SecretAlreadyShown,
    /// The log has no such position.
    #[error("unknown `after` cursor; restart without `after`")]
    UnknownCursor,
    /// All tokens of the list have ended.
    #[error("all tokens of this status list have ended")]
    StatusListExpired,
    /// Only the current list is kept.
    #[error("historical status lists are not kept; omit `time`")]
    HistoryUnsupported,
    /// The limit of concurrent subscribers is reached.
    #[error("too many subscribers (per client or overall); retry later")]
    TooManySubscribers,
    /// The client has as many lists in progress as it may.
    #[error("the client already reads {0} lists; wait for one of them, then retry")]
    TooManyLists(usize),
    /// The client has read more rows than it may.
    #[error("the client reads more than {0} rows per second in lists; retry later, or read fewer")]
    TooManyRows(u64),
    /// The client sends as many long bodies as it may.
    #[error("the client already sends {0} bodies of more than 64 KiB; wait for one of them, then retry")]
    TooManyLongBodies(usize),
    /// The list took longer than a list may take.
    #[error("the list took longer than {} ms; narrow it by more parameters, or retry later", .0.as_millis())]
    ListTimedOut(Duration),
    /// Concurrent changes won every race.
    #[error("the object was changed concurrently; retry")]
    ConcurrentUpdate,
}
