//! Verification of presented tokens: parse, find the expected signer, verify the signature, check
//! the claims, look up the standing. Only a token that passes all of these is evidence.

use std::sync::Arc;

use crate::{
    app::{
        AuthError, Error, PresentedTokenType, RequestContext, RequestError, Service, Snapshot, TokenError,
        auth::issued_token::IssuedToken, exchange::ExchangeContext,
    },
    domain::{
        authority::Permission,
        exchange::{Evidence, Presenter, check_holder, presenter_binding::AgentMatch},
        id::{ClientId, TaskId, TokenId},
        jose::jws::{JwsHeader, UnverifiedJws},
        registry::{
            client::Client,
            issuer::{SubjectTokenType, TrustedIssuer},
        },
        revocation::{
            RevocationKeys, Standing,
            evidence::{EvidenceEnd, PresentedEvidence},
        },
        task::Requester,
        token::{
            TYP_ACCESS_TOKEN, TYP_TXN_TOKEN, TaskTokenClaims, TokenKind, check_expiry,
            foreign_claims::{ClaimError, UserClaims, UserTokenRules, check_user_claims},
        },
    },
    ports::{FetchCaller, ReplayGuard, SignatureError},
};

/// A subject token whose signature and claims are verified, and that is live.
#[derive(Debug)]
pub(in crate::app) enum SubjectToken {
    User(Box<UserClaims>, Arc<TrustedIssuer>, Box<PresentedEvidence>),
    Own(Box<TaskTokenClaims>, TokenKind),
}

impl SubjectToken {
    pub(in crate::app) fn evidence(&self) -> Evidence<'_> {
        match self {
            Self::User(claims, issuer, _) => Evidence::User(claims, issuer),
            Self::Own(claims, kind) => Evidence::Own(claims, *kind),
        }
    }

    /// Returns the names of a user token, under which it can be ended as evidence.
    pub(super) fn presented(&self) -> Option<&PresentedEvidence> {
        match self {
            Self::User(_, _, presented) => Some(presented),
            Self::Own(..) => None,
        }
    }

    /// Returns why a user token is no longer evidence for the agent that presents it.
    pub(super) fn evidence_end(&self, agent: &ClientId, snapshot: &Snapshot) -> Option<EvidenceEnd> {
        match self {
            Self::User(claims, _, presented) => snapshot.evidence_end(agent, &claims.requester, presented),
            Self::Own(..) => None,
        }
    }
}

/// The verified evidence of an exchange.
pub(super) struct VerifiedEvidence<'a> {
    /// The client that presents the tokens.
    pub(super) presenter: Presenter<'a>,
    /// The subject token.
    pub(super) subject: SubjectToken,
    /// How the actor token relates to the presenter.
    pub(super) actor_match: AgentMatch,
    /// The one-time id of the actor token, if it is an assertion.
    pub(super) actor_replay_guard: Option<ReplayGuard>,
}

/// The facts about a verified subject token that an audit record states.
#[derive(Debug)]
pub(super) struct KnownSubject {
    pub(super) requester: Requester,
    /// Set for tokens that Errand issued.
    pub(super) issued: Option<KnownIssuedToken>,
}

/// The facts about a token that Errand issued.
#[derive(Debug)]
pub(super) struct KnownIssuedToken {
    pub(super) task: TaskId,
    pub(super) token: TokenId,
    pub(super) agents: Vec<String>,
}

impl From<&SubjectToken> for KnownSubject {
    fn from(subject: &SubjectToken) -> Self {
        match subject {
            SubjectToken::User(claims, ..) => Self { requester: claims.requester.clone(), issued: None },
            SubjectToken::Own(claims, _) => Self {
                requester: claims.requester(),
                issued: Some(KnownIssuedToken {
                    task: claims.txn,
                    token: claims.jti,
                    agents: claims.act.audit_names(&claims.iss),
                }),
            },
        }
    }
}

/// Why evidence is rejected, and the subject, as far as it was verified: an attempt with a revoked
/// token belongs in the audit trail of its task.
#[derive(Debug)]
pub(super) struct EvidenceError {
    pub(super) error: Error,
    pub(super) known: Option<KnownSubject>,
}

impl From<Error> for EvidenceError {
    fn from(error: Error) -> Self {
        Self { error, known: None }
    }
}

fn subject_error(error: TokenError) -> Error {
    Error::Token("subject", error)
}

fn actor_error(error: TokenError) -> Error {
    Error::Token("actor", error)
}

/// Returns why an assertion is not a valid actor token. The presenter is the client that it names.
fn assertion_error(error: AuthError) -> TokenError {
    match error {
        AuthError::BadClaim(error) => TokenError::BadClaim(error),
        AuthError::WrongTyp => TokenError::WrongTyp,
        _ => TokenError::BadSignature,
    }
}

impl Service {
    /// Verifies the subject token and the actor token of an exchange.
    #[tracing::instrument(target = "errand::trace", level = "trace", name = "evidence", skip_all)]
    pub(super) async fn verify_evidence<'a>(
        &self,
        exchange: ExchangeContext<'a>,
    ) -> Result<VerifiedEvidence<'a>, EvidenceError> {
        let ExchangeContext { caller, replay_guards, request, cx } = exchange;
        let client = caller.client().map_err(Error::from)?;
        let presenter = match client {
            Client::Agent(agent) => Presenter::Agent(agent),
            Client::Resource(resource) => Presenter::Resource(resource),
            Client::Admin(_) => return Err(Error::from(RequestError::UnauthorizedGrantType).into()),
        };
        let (token, declared_type) = (request.subject_token.expose(), request.subject_token_type);
        let subject = self.verify_subject_token(token, declared_type, presenter, caller.snapshot(), cx).await?;
        let Some((token, declared_type)) = &request.actor else {
            return Ok(VerifiedEvidence {
                presenter,
                subject,
                actor_match: AgentMatch::Absent,
                actor_replay_guard: None,
            });
        };
        let verified = self.verify_actor_token(token.expose(), *declared_type, client, caller.snapshot(), cx);
        // One assertion is used once, so it can't authenticate the client and be the actor token of
        // the same request.
        let verified = verified.and_then(|(actor_match, guard)| match guard {
            Some(guard) if replay_guards.contains(&guard) => Err(actor_error(TokenError::Replayed)),
            guard => Ok((actor_match, guard)),
        });
        match verified {
            Ok((actor_match, actor_replay_guard)) => {
                Ok(VerifiedEvidence { presenter, subject, actor_match, actor_replay_guard })
            }
            Err(error) => Err(EvidenceError { error, known: Some(KnownSubject::from(&subject)) }),
        }
    }

    /// Verifies the subject token that `presenter` presents.
    async fn verify_subject_token(
        &self,
        token: &str,
        declared_type: PresentedTokenType,
        presenter: Presenter<'_>,
        snapshot: &Snapshot,
        cx: &RequestContext,
    ) -> Result<SubjectToken, EvidenceError> {
        let jws = UnverifiedJws::parse(token).map_err(|error| subject_error(error.into()))?;
        match jws.claimed_issuer() {
            Some(issuer) if issuer == self.settings().issuer.as_str() => {
                let (claims, kind) = self.verify_issued_subject_token(jws, declared_type, cx).map_err(subject_error)?;
                let keys = claims.revocation_keys();
                let checked = self.check_issued_subject_token(&claims, kind, &keys, presenter, snapshot, cx);
                let subject = SubjectToken::Own(claims, kind);
                match checked {
                    Ok(()) => Ok(without_ended_tools(subject, &keys, snapshot)),
                    Err(error) => Err(EvidenceError { error, known: Some(KnownSubject::from(&subject)) }),
                }
            }
            Some(issuer) => {
                let registry = &snapshot.registry;
                let found = registry.issuer(issuer).filter(|issuer| !issuer.disabled).cloned();
                let issuer = found.ok_or_else(|| {
                    let is_spelled_otherwise = registry.issuer_in_other_spelling(issuer).is_some();
                    let error = if is_spelled_otherwise {
                        TokenError::IssuerInOtherSpelling
                    } else {
                        TokenError::UntrustedIssuer
                    };
                    subject_error(error)
                })?;
                let subject = self.verify_user_token(jws, declared_type, issuer, presenter, snapshot, cx).await?;
                match subject.evidence_end(presenter.id(), snapshot) {
                    None => Ok(subject),
                    Some(end) => Err(EvidenceError {
                        error: subject_error(TokenError::EvidenceEnded(end)),
                        known: Some(KnownSubject::from(&subject)),
                    }),
                }
            }
            None => Err(subject_error(TokenError::BadClaim(ClaimError::Missing("iss"))).into()),
        }
    }

    /// Verifies the signature and the type of a subject token that Errand issued: an access token
    /// or a transaction token, declared as what it is.
    fn verify_issued_subject_token(
        &self,
        jws: UnverifiedJws<'_>,
        declared_type: PresentedTokenType,
        cx: &RequestContext,
    ) -> Result<(Box<TaskTokenClaims>, TokenKind), TokenError> {
        let typ = match declared_type {
            PresentedTokenType::AccessToken => TYP_ACCESS_TOKEN,
            PresentedTokenType::TxnToken => TYP_TXN_TOKEN,
            PresentedTokenType::IdToken | PresentedTokenType::Jwt => return Err(TokenError::WrongTyp),
        };
        if jws.header().typ.as_deref() != Some(typ) {
            return Err(TokenError::WrongTyp);
        }
        match self.verify_own_signature(jws.into(), cx.now)?.0 {
            // An API token is valid at Errand's own APIs, and has no requester to act for.
            IssuedToken::Api(_) => Err(TokenError::WrongTyp),
            IssuedToken::Task(claims, kind) => Ok((claims, kind)),
        }
    }

    /// Checks the presenter, the expiry and the standing of an issued subject token, in this order:
    /// a client must not learn whether another client's token is live, suspended or revoked.
    fn check_issued_subject_token(
        &self,
        claims: &TaskTokenClaims,
        kind: TokenKind,
        keys: &RevocationKeys,
        presenter: Presenter<'_>,
        snapshot: &Snapshot,
        cx: &RequestContext,
    ) -> Result<(), Error> {
        check_holder(claims, kind, presenter, &self.settings().issuer)?;
        check_expiry(claims.exp, cx.now).map_err(|error| subject_error(error.into()))?;
        match snapshot.standing(keys) {
            Standing::Live => Ok(()),
            Standing::Suspended => Err(subject_error(TokenError::Suspended(snapshot.suspension_cause(keys)))),
            Standing::Revoked => Err(subject_error(TokenError::Revoked)),
        }
    }

    async fn verify_user_token(
        &self,
        jws: UnverifiedJws<'_>,
        declared_type: PresentedTokenType,
        issuer: Arc<TrustedIssuer>,
        presenter: Presenter<'_>,
        snapshot: &Snapshot,
        cx: &RequestContext,
    ) -> Result<SubjectToken, Error> {
        let kind = classify_user_token(jws.header(), declared_type, &issuer.token_types).map_err(subject_error)?;
        let signed_text = jws.text().rsplit_once('.').map_or("", |(signed, _)| signed);
        if !issuer.token_types.contains(&kind) {
            return Err(subject_error(TokenError::TokenTypeNotAccepted(kind)));
        }
        let trusted_keys = &self.inner.ports.trusted_keys;
        let verified = trusted_keys.verify_with_issuer(&issuer, jws, FetchCaller::Client(presenter.id())).await;
        let payload = verified.map_err(|error| match error {
            SignatureError::Outage(outage) => Error::Unavailable(outage),
            SignatureError::WithdrawnKey => subject_error(TokenError::WithdrawnKey),
            SignatureError::UnknownKey => subject_error(TokenError::UnknownKey),
            SignatureError::AlgorithmNotAllowed => subject_error(TokenError::AlgorithmNotAllowed),
            SignatureError::InvalidSignature => subject_error(TokenError::BadSignature),
        })?;
        let agent_client_ids = match presenter {
            Presenter::Agent(agent) => agent.known_as.get(&issuer.issuer).map(Vec::as_slice).unwrap_or_default(),
            Presenter::Resource(_) => &[],
        };
        let rules = UserTokenRules {
            issuer: &issuer,
            kind,
            agent_client_ids,
            foreign_prefixes: snapshot.registry.foreign_prefixes(&issuer).collect(),
            leeway: self.settings().tokens.leeway,
        };
        let claims = check_user_claims(payload, &rules, cx.now).map_err(|error| subject_error(error.into()))?;
        if !claims.ignored_claims.is_empty() {
            let (issuer, claims) = (&issuer.issuer, &claims.ignored_claims);
            tracing::debug!(%issuer, ?claims, "claims of a user token are left out: their values can't be passed on");
        }
        self.inner.rule_matches.count(&issuer, &claims.raw_claims);
        let presented = claims.as_evidence(signed_text.as_bytes());
        Ok(SubjectToken::User(Box::new(claims), issuer, Box::new(presented)))
    }

    /// Verifies an actor token, and returns how it relates to the client that presents it. It must
    /// be the client's own: a fresh assertion, valid for one use, or its live API token. A token
    /// with `act` describes a delegation, and does not identify one party.
    fn verify_actor_token(
        &self,
        token: &str,
        declared_type: PresentedTokenType,
        presenter: Client<'_>,
        snapshot: &Snapshot,
        cx: &RequestContext,
    ) -> Result<(AgentMatch, Option<ReplayGuard>), Error> {
        let jws = UnverifiedJws::parse(token).map_err(|error| actor_error(error.into()))?;
        match declared_type {
            PresentedTokenType::AccessToken => {
                match self.verify_own_signature(jws.into(), cx.now).map_err(actor_error)?.0 {
                    IssuedToken::Task(..) => Err(actor_error(TokenError::WrongTyp)),
                    // Of another client's token, the presenter does not learn whether it is live.
                    IssuedToken::Api(claims) if claims.sub != *presenter.id() => Ok((AgentMatch::OtherParty, None)),
                    IssuedToken::Api(claims) => {
                        check_expiry(claims.exp, cx.now).map_err(|error| actor_error(error.into()))?;
                        let keys = claims.revocation_keys();
                        match snapshot.standing(&keys) {
                            Standing::Live => Ok((AgentMatch::ThisAgent, None)),
                            Standing::Suspended => {
                                Err(actor_error(TokenError::Suspended(snapshot.suspension_cause(&keys))))
                            }
                            Standing::Revoked => Err(actor_error(TokenError::Revoked)),
                        }
                    }
                }
            }
            PresentedTokenType::Jwt => {
                if jws.claimed_subject() != Some(presenter.id().as_str()) {
                    return Ok((AgentMatch::OtherParty, None));
                }
                let checked = self.check_assertion_of(presenter, jws, cx);
                let guard = checked.map_err(|error| actor_error(assertion_error(error)))?;
                Ok((AgentMatch::ThisAgent, Some(guard)))
            }
            PresentedTokenType::IdToken | PresentedTokenType::TxnToken => Err(actor_error(TokenError::WrongTyp)),
        }
    }
}

/// Removes the tools that the log ended from the authority of a token, so that no token is derived
/// for them. A tool whose accepted definition changed is left: the decision refuses it, and names
/// the reason.
fn without_ended_tools(subject: SubjectToken, keys: &RevocationKeys, snapshot: &Snapshot) -> SubjectToken {
    match subject {
        SubjectToken::Own(mut claims, kind) if !snapshot.all_tools_are_live(keys) => {
            let is_kept = |permission: &&Permission| {
                snapshot.is_permission_live(permission, claims.rev) || snapshot.registry.is_superseded(permission)
            };
            claims.authorization_details = claims.authorization_details.iter().filter(is_kept).cloned().collect();
            SubjectToken::Own(claims, kind)
        }
        SubjectToken::Own(..) | SubjectToken::User(..) => subject,
    }
}

/// Classifies a user token by its declared type and its `typ` (RFC 8725 §3.11). The rules are
/// mutually exclusive. A JWT may be declared as an access token if the issuer's entry accepts its
/// JWTs, because that means that they are access tokens.
fn classify_user_token(
    header: &JwsHeader,
    declared_type: PresentedTokenType,
    accepted: &[SubjectTokenType],
) -> Result<SubjectTokenType, TokenError> {
    match (declared_type, header.typ.as_deref()) {
        (PresentedTokenType::AccessToken, Some("at+jwt")) => Ok(SubjectTokenType::AccessToken),
        (PresentedTokenType::AccessToken, None | Some("jwt")) => {
            let is_accepted = accepted.contains(&SubjectTokenType::Jwt);
            is_accepted.then_some(SubjectTokenType::Jwt).ok_or(TokenError::JwtAsAccessToken)
        }
        (PresentedTokenType::Jwt | PresentedTokenType::IdToken, Some("at+jwt")) => Err(TokenError::AccessTokenAsOther),
        (PresentedTokenType::Jwt, None | Some("jwt")) => Ok(SubjectTokenType::Jwt),
        (PresentedTokenType::IdToken, None | Some("jwt")) => Ok(SubjectTokenType::IdToken),
        (
            PresentedTokenType::AccessToken
            | PresentedTokenType::Jwt
            | PresentedTokenType::IdToken
            | PresentedTokenType::TxnToken,
            _,
        ) => Err(TokenError::WrongTyp),
    }
}
