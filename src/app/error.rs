//! How a use-case says no, or that it does not know. One reason a rule; the edge has the one table to the wire.

use thiserror::Error;

use crate::{
    domain::{
        authority::{Authority, DetailsError},
        exchange::Denial,
        grants::break_glass::ReviewError,
        jose::jws::JwsError,
        registry::{BlockError, tool::AcceptanceError},
        scope::ScopeError,
        task::TransitionError,
        token::foreign_claims::ClaimError,
    },
    ports::{ListError, Outage, ToolListingError},
};

/// How a use-case ends when it does not do what was asked.
#[derive(Debug, Error)]
pub enum Error {
    /// The client did not prove who it is.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The request is not one.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The subject or actor token is not good.
    #[error("{0} token: {1}")]
    Token(&'static str, TokenError),
    /// A rule says no.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// A rule says no as long as the requester has not consented.
    #[error("{}", Denial::ConsentRequired)]
    ConsentRequired(Box<ConsentRequired>),
    /// It would not fit what is there.
    #[error(transparent)]
    Conflict(#[from] ConflictError),
    /// An MCP server could not be asked for its tools.
    #[error(transparent)]
    ToolListing(#[from] ToolListingError),
    /// It could not be found out.
    #[error(transparent)]
    Unavailable(#[from] Outage),
}

/// What the requester would have to consent to, and where they can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentRequired {
    /// All that was asked for.
    pub authority: Authority,
    /// The page where grants are made, if the operator names one.
    pub uri: Option<String>,
}

impl From<ListError> for Error {
    fn from(fault: ListError) -> Self {
        match fault {
            ListError::InvalidCursor => {
                RequestError::InvalidParameter("after", "is not the `next` of a page of this list").into()
            }
            ListError::Outage(outage) => outage.into(),
        }
    }
}

/// Why a client did not prove who it is. One answer to the outside, whichever it is; the reason is for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AuthError {
    /// The request has no credentials.
    #[error("no client authentication")]
    MissingCredentials,
    /// More than one method in one request (RFC 6749 §2.3).
    #[error("more than one way of client authentication in the request")]
    MultipleMethods,
    /// The header or the assertion can't be read.
    #[error("the credentials are malformed")]
    Malformed,
    /// No such client, or it is shut out.
    #[error("unknown or disabled client")]
    UnknownClient,
    /// Registered with another method.
    #[error("the client is registered with another method")]
    WrongMethod,
    /// The secret is wrong.
    #[error("wrong secret")]
    WrongSecret,
    /// The assertion's signature is wrong.
    #[error("the assertion is not signed by a key of the client")]
    BadSignature,
    /// A claim of the assertion is not right.
    #[error("assertion: {0}")]
    BadClaim(ClaimError),
    /// The assertion's `typ` says that it is something else.
    #[error("the assertion's `typ` is that of another kind of token")]
    WrongTyp,
    /// The assertion was used before.
    #[error("the assertion was used before")]
    Replayed,
    /// How it proves who it is was changed while it was being answered.
    #[error("the client's credentials were changed at the same moment")]
    CredentialsChanged,
    /// The request has no bearer token, where only one will do.
    #[error("an API token is needed: `Authorization: Bearer …`")]
    MissingBearer,
    /// The bearer token is not a live API token.
    #[error("not a live API token")]
    InvalidBearer,
    /// The API token lacks the scope for this.
    #[error("the API token lacks the scope")]
    InsufficientScope,
    /// The requester's token was not issued to a portal, or somebody else acts with it.
    #[error("the token was not issued to a portal of its issuer for the requester alone")]
    NotPortalToken,
    /// The client is not of the kind that may do this.
    #[error("this client may not do this")]
    ClientNotAllowed,
}

/// Why a request is not one. The texts go to the client, so they are fixed: nothing that was sent comes back.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// A parameter is missing.
    #[error("`{0}` is missing")]
    MissingParameter(&'static str),
    /// A parameter stands twice.
    #[error("a parameter stands twice")]
    DuplicateParameter,
    /// A parameter has a value that it can't have.
    #[error("`{0}`: {1}")]
    InvalidParameter(&'static str, &'static str),
    /// The body is not a form, not UTF-8, or has too many parameters.
    #[error("the body is not an `application/x-www-form-urlencoded` form in UTF-8 with at most 64 parameters")]
    MalformedForm,
    /// The body is not the JSON that is wanted.
    #[error("the body is not the JSON object that is wanted here: {0}")]
    MalformedJson(String),
    /// No scope list.
    #[error("`scope`: {0}")]
    InvalidScope(#[from] ScopeError),
    /// Not the details that we know.
    #[error(transparent)]
    InvalidDetails(#[from] DetailsError),
    /// The target is unknown, or more than one, or none.
    #[error("target: {0}")]
    InvalidTarget(&'static str),
    /// The token would be too large to be read by anybody, us included.
    #[error("the token would be larger than is read anywhere: ask for fewer tools or scopes, or send less context")]
    TokenTooLarge,
    /// No such grant type.
    #[error("`grant_type` is not one that is served here")]
    UnsupportedGrantType,
    /// The client may not use this grant.
    #[error("the client may not use this grant")]
    UnauthorizedGrantType,
    /// The scope is not one that the client may have for Errand's own APIs.
    #[error("the client may not have this scope")]
    ScopeNotAllowed,
    /// The token is not the client's to revoke.
    #[error("the token was not issued to this client, and not derived from one that was")]
    NotTokenOwner,
}

/// Why a presented token is not good.
#[derive(Debug, Error)]
pub enum TokenError {
    /// No JWS.
    #[error(transparent)]
    Malformed(#[from] JwsError),
    /// Its `typ` is not the one of the type that it is said to be.
    #[error("its `typ` does not fit the token type that the request says")]
    WrongTyp,
    /// Its issuer is not registered, or is blocked.
    #[error("the issuer is not trusted; register it")]
    UntrustedIssuer,
    /// Its issuer is trusted, but not for tokens of this type.
    #[error("tokens of this type are not accepted from the issuer; add the type to the issuer's `token_types`")]
    TokenTypeNotAccepted,
    /// Its signature is not good.
    #[error("its signature can't be verified with a key of its issuer")]
    BadSignature,
    /// A claim is not right.
    #[error(transparent)]
    BadClaim(#[from] ClaimError),
    /// It was taken back.
    #[error("it was revoked")]
    Revoked,
    /// It is held back.
    #[error("its task is suspended; it works again when the task is resumed")]
    Suspended,
    /// It was used before.
    #[error("it was used before")]
    Replayed,
}

/// Why a change of what is there does not happen.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConflictError {
    /// No such thing.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The configuration file owns it.
    #[error("the configuration file declares it: change it there")]
    ManagedByFile,
    /// It would not fit the rest.
    #[error("{0}")]
    Inconsistent(String),
    /// The key was used for another request.
    #[error("the idempotency key was used for another request")]
    IdempotencyKeyReused,
    /// It is not what was looked at.
    #[error(transparent)]
    DefinitionChanged(#[from] AcceptanceError),
    /// The state of the task does not allow it.
    #[error(transparent)]
    IllegalTransition(TransitionError),
    /// Whether and how it is shut out does not allow it.
    #[error(transparent)]
    Block(BlockError),
    /// A grant for an emergency is not to be signed off so.
    #[error(transparent)]
    ReviewRejected(ReviewError),
    /// Many at once need what a dry run gave.
    #[error("{0}")]
    ConfirmationRequired(&'static str),
    /// It was done, and its answer is one that is shown once.
    #[error("a secret was made for this idempotency key, and it is not shown again: make another one with another key")]
    SecretAlreadyShown,
    /// The log has no such position.
    #[error("`after` is no position of this log: begin again, without `after`")]
    UnknownCursor,
    /// All tokens of the list have ended.
    #[error("all tokens of this status list have ended")]
    StatusListExpired,
    /// No list of another time is kept.
    #[error("status lists of another time are not kept: ask without `time`")]
    HistoryUnsupported,
    /// So many listen already.
    #[error("as many listen already as may, with this client or all together: try again later")]
    TooManySubscribers,
    /// Others keep changing it at the same moment.
    #[error("it was changed by somebody else at the same moment: try again")]
    ConcurrentUpdate,
}
