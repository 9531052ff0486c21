//! What is a presented token worth? Parse, find out who should have signed it, verify, check the claims, look up its
//! standing: only then is it evidence.

use std::sync::Arc;

use crate::{
    app::{Error, PresentedTokenType, RequestContext, Service, Snapshot, TokenError},
    domain::{
        exchange::{Evidence, presenter_binding::AgentMatch},
        id::KeyId,
        jose::jws::{CompactJws, JwsHeader, UnverifiedJws},
        registry::{
            client::Client,
            issuer::{SubjectTokenType, TrustedIssuer},
        },
        revocation::Standing,
        time::Timestamp,
        token::{
            ApiTokenClaims, TYP_ACCESS_TOKEN, TYP_TXN_TOKEN, TaskTokenClaims, TokenKind, check_expiry,
            foreign_claims::{ClaimError, UserClaims, UserTokenRules, check_user_claims},
        },
        uri::IssuerUrl,
    },
    ports::{ReplayGuard, SignatureError},
};

/// A subject token after every check on it.
#[derive(Debug)]
pub(in crate::app) enum SubjectToken {
    User(Box<UserClaims>, Arc<TrustedIssuer>),
    Own(Box<TaskTokenClaims>, TokenKind),
}

impl SubjectToken {
    pub(in crate::app) fn evidence(&self) -> Evidence<'_> {
        match self {
            Self::User(claims, issuer) => Evidence::User(claims, issuer),
            Self::Own(claims, kind) => Evidence::Own(claims, *kind),
        }
    }
}

/// A token of ours whose signature is good and which has not expired. Its standing has not been looked at.
#[derive(Debug)]
pub(in crate::app) enum IssuedToken {
    Task(Box<TaskTokenClaims>, TokenKind),
    Api(Box<ApiTokenClaims>),
}

impl IssuedToken {
    /// Reads the payload of a token of ours of this `typ`. What is one kind of token can't be read as another.
    pub(in crate::app) fn parse_payload(typ: &str, payload: &[u8]) -> Option<Self> {
        if let Ok(claims) = TaskTokenClaims::read(payload) {
            let kind = claims.kind(typ)?;
            return Some(Self::Task(Box::new(claims), kind));
        }
        let claims = (typ == TYP_ACCESS_TOKEN).then(|| ApiTokenClaims::read(payload).ok())??;
        Some(Self::Api(Box::new(claims)))
    }

    /// Who says to have issued it.
    fn issuer(&self) -> &IssuerUrl {
        match self {
            Self::Task(claims, _) => &claims.iss,
            Self::Api(claims) => &claims.iss,
        }
    }
}

impl Service {
    /// Makes evidence of a subject token, for `presenter`. Whose token it is stands in `known` even if it was taken back: what
    /// is tried with it then belongs into the trail of its task.
    pub(in crate::app) async fn verify_subject_token<'a>(
        &self,
        token: &str,
        declared_type: PresentedTokenType,
        presenter: Client<'_>,
        snapshot: &Snapshot,
        verified: &'a mut Option<SubjectToken>,
        cx: &RequestContext,
    ) -> Result<&'a SubjectToken, Error> {
        let refuse = |fault: TokenError| Error::Token("subject", fault);
        let jws = UnverifiedJws::parse(token).map_err(|fault| refuse(fault.into()))?;
        let subject = match jws.claimed_issuer() {
            Some(issuer) if issuer == self.settings().issuer.as_str() => {
                self.verify_issued_subject_token(jws, declared_type, cx).map_err(refuse)?
            }
            Some(issuer) => {
                let issuer = snapshot.registry.issuer(issuer).filter(|issuer| !issuer.disabled).cloned();
                let issuer = issuer.ok_or_else(|| refuse(TokenError::UntrustedIssuer))?;
                self.verify_user_token(jws, declared_type, issuer, presenter, snapshot, cx).await?
            }
            None => return Err(refuse(TokenError::BadClaim(ClaimError::Missing("iss")))),
        };
        match &*verified.insert(subject) {
            subject @ SubjectToken::Own(claims, _) => match snapshot.standing(&claims.revocation_keys()) {
                Standing::Live => Ok(subject),
                Standing::Suspended => Err(refuse(TokenError::Suspended)),
                Standing::Revoked => Err(refuse(TokenError::Revoked)),
            },
            subject @ SubjectToken::User(..) => Ok(subject),
        }
    }

    /// A token of ours as subject: an access token or a transaction token, said to be what it is. Its standing has not
    /// been looked at.
    fn verify_issued_subject_token(
        &self,
        jws: UnverifiedJws<'_>,
        declared_type: PresentedTokenType,
        cx: &RequestContext,
    ) -> Result<SubjectToken, TokenError> {
        let typ = match declared_type {
            PresentedTokenType::AccessToken => TYP_ACCESS_TOKEN,
            PresentedTokenType::TxnToken => TYP_TXN_TOKEN,
            PresentedTokenType::IdToken | PresentedTokenType::Jwt => return Err(TokenError::WrongTyp),
        };
        if jws.header().typ.as_deref() != Some(typ) {
            return Err(TokenError::WrongTyp);
        }
        match self.verify_issued(jws.into(), cx.now)? {
            // An API token is a good token of ours, and not one to act for anybody with.
            IssuedToken::Api(_) => Err(TokenError::WrongTyp),
            IssuedToken::Task(claims, kind) => Ok(SubjectToken::Own(claims, kind)),
        }
    }

    /// Verifies a token of ours: signature, issuer, form, expiry. Not its standing, and not whom it is for.
    pub(in crate::app) fn verify_issued(&self, jws: CompactJws<'_>, now: Timestamp) -> Result<IssuedToken, TokenError> {
        self.verify_issued_with_key(jws, now).map(|(ours, _)| ours)
    }

    /// The same, and the key that signed it.
    pub(in crate::app) fn verify_issued_with_key(
        &self,
        jws: CompactJws<'_>,
        now: Timestamp,
    ) -> Result<(IssuedToken, KeyId), TokenError> {
        let (ours, key) = self.verify_own_signature(jws, now)?;
        let expires = match &ours {
            IssuedToken::Task(claims, _) => claims.exp,
            IssuedToken::Api(claims) => claims.exp,
        };
        check_expiry(expires, now)?;
        Ok((ours, key))
    }

    /// A token that was issued here, as its signature shows, and the key of that; how long ago is not looked at.
    pub(in crate::app) fn verify_own_signature(
        &self,
        jws: CompactJws<'_>,
        now: Timestamp,
    ) -> Result<(IssuedToken, KeyId), TokenError> {
        let token = self.inner.ports.signer.verify(jws, now).ok_or(TokenError::BadSignature)?;
        let ours = IssuedToken::parse_payload(&token.typ, &token.payload).ok_or(TokenError::WrongTyp)?;
        if *ours.issuer() != self.settings().issuer {
            return Err(TokenError::UntrustedIssuer);
        }
        Ok((ours, token.key))
    }

    async fn verify_user_token(
        &self,
        jws: UnverifiedJws<'_>,
        declared_type: PresentedTokenType,
        issuer: Arc<TrustedIssuer>,
        presenter: Client<'_>,
        snapshot: &Snapshot,
        cx: &RequestContext,
    ) -> Result<SubjectToken, Error> {
        let refuse = |fault: TokenError| Error::Token("subject", fault);
        let kind = classify_user_token(jws.header(), declared_type).map_err(refuse)?;
        if !issuer.token_types.contains(&kind) {
            return Err(refuse(TokenError::UntrustedIssuer));
        }
        let payload = self.inner.ports.trusted_keys.verify_with_issuer(&issuer, jws, cx.now).await.map_err(
            |fault| match fault {
                SignatureError::Outage(outage) => Error::Unavailable(outage),
                SignatureError::UnknownKey | SignatureError::AlgorithmNotAllowed | SignatureError::InvalidSignature => {
                    refuse(TokenError::BadSignature)
                }
            },
        )?;
        let agent_names = match presenter {
            Client::Agent(agent) => agent.known_as.get(&issuer.issuer).map(Vec::as_slice).unwrap_or_default(),
            Client::Resource(_) | Client::Admin(_) => &[],
        };
        let rules = UserTokenRules {
            issuer: &issuer,
            kind,
            agent_client_ids: agent_names,
            foreign_prefixes: snapshot.registry.foreign_prefixes(&issuer).collect(),
            leeway: self.settings().tokens.leeway,
        };
        let claims = check_user_claims(payload, &rules, cx.now).map_err(|fault| refuse(fault.into()))?;
        Ok(SubjectToken::User(Box::new(claims), issuer))
    }

    /// What an actor token says of the client that presents it. It must be the client's own: a fresh assertion, used
    /// once, or its live API token. One that carries `act` is somebody's delegation, not somebody.
    pub(in crate::app) fn verify_actor_token(
        &self,
        token: &str,
        declared_type: PresentedTokenType,
        presenter: Client<'_>,
        snapshot: &Snapshot,
        cx: &RequestContext,
    ) -> Result<(AgentMatch, Option<ReplayGuard>), Error> {
        let refuse = |fault: TokenError| Error::Token("actor", fault);
        let jws = UnverifiedJws::parse(token).map_err(|fault| refuse(fault.into()))?;
        match declared_type {
            PresentedTokenType::AccessToken => match self.verify_issued(jws.into(), cx.now).map_err(refuse)? {
                IssuedToken::Task(..) => Err(refuse(TokenError::WrongTyp)),
                IssuedToken::Api(claims) if snapshot.standing(&claims.revocation_keys()) != Standing::Live => {
                    Err(refuse(TokenError::Revoked))
                }
                IssuedToken::Api(claims) if claims.sub == *presenter.id() => Ok((AgentMatch::ThisAgent, None)),
                IssuedToken::Api(_) => Ok((AgentMatch::OtherParty, None)),
            },
            PresentedTokenType::Jwt => {
                if jws.claimed_subject() != Some(presenter.id().as_str()) {
                    return Ok((AgentMatch::OtherParty, None));
                }
                let once = self.check_assertion_of(presenter, jws, cx).map_err(|_| refuse(TokenError::BadSignature))?;
                Ok((AgentMatch::ThisAgent, Some(once)))
            }
            PresentedTokenType::IdToken | PresentedTokenType::TxnToken => Err(refuse(TokenError::WrongTyp)),
        }
    }
}

/// Which kind of user token this is, by what the request says and by `typ` (RFC 8725 §3.11): the rules exclude each other.
fn classify_user_token(header: &JwsHeader, declared_type: PresentedTokenType) -> Result<SubjectTokenType, TokenError> {
    match (declared_type, header.typ.as_deref()) {
        (PresentedTokenType::AccessToken, Some("at+jwt")) => Ok(SubjectTokenType::AccessToken),
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
