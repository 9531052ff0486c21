//! What is a presented token worth? Parse, find out who should have signed it, verify, check the claims, look up its
//! standing: only then is it evidence.

use std::sync::Arc;

use crate::{
    app::{Cx, Failure, Service, SubjectFault, SubjectType, View},
    domain::{
        claims::{BadClaim, UserClaims, UserTokenRules, check_user_claims},
        client::Client,
        exchange::Evidence,
        id::KeyId,
        issuer::{SubjectTokenType, TrustedIssuer},
        jws::{Header, Unread, Unverified},
        revocation::Standing,
        splice::Says,
        time::Timestamp,
        token::{ApiTokenClaims, TYP_ACCESS_TOKEN, TYP_TXN_TOKEN, TaskTokenClaims, TokenKind, check_end},
        uri::IssuerUrl,
    },
    ports::{KeyFault, OneTimeId},
};

/// A subject token after every check on it.
#[derive(Debug)]
pub(super) enum Subject {
    User(Box<UserClaims>, Arc<TrustedIssuer>),
    Own(Box<TaskTokenClaims>, TokenKind),
}

impl Subject {
    pub(super) fn evidence(&self) -> Evidence<'_> {
        match self {
            Self::User(claims, issuer) => Evidence::User(claims, issuer),
            Self::Own(claims, kind) => Evidence::Own(claims, *kind),
        }
    }
}

/// A token of ours whose signature is good and which has not expired. Its standing has not been looked at.
#[derive(Debug)]
pub(super) enum Ours {
    Task(Box<TaskTokenClaims>, TokenKind),
    Api(Box<ApiTokenClaims>),
}

impl Ours {
    /// Reads the payload of a token of ours of this `typ`. What is one kind of token can't be read as another.
    pub(super) fn read(typ: &str, payload: &[u8]) -> Option<Self> {
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
    pub(super) async fn subject<'a>(
        &self,
        token: &str,
        said: SubjectType,
        presenter: Client<'_>,
        view: &View,
        known: &'a mut Option<Subject>,
        cx: &Cx,
    ) -> Result<&'a Subject, Failure> {
        let refuse = |fault: SubjectFault| Failure::Token("subject", fault);
        let jws = Unverified::parse(token).map_err(|fault| refuse(fault.into()))?;
        let subject = match jws.claimed_issuer() {
            Some(issuer) if issuer == self.settings().issuer.as_str() => {
                self.own_subject(jws, said, cx).map_err(refuse)?
            }
            Some(issuer) => {
                let issuer = view.registry.issuer(issuer).filter(|issuer| !issuer.disabled).cloned();
                let issuer = issuer.ok_or_else(|| refuse(SubjectFault::Issuer))?;
                self.user_subject(jws, said, issuer, presenter, view, cx).await?
            }
            None => return Err(refuse(SubjectFault::Claim(BadClaim::Missing("iss")))),
        };
        match &*known.insert(subject) {
            subject @ Subject::Own(claims, _) => match view.standing(&claims.names()) {
                Standing::Live => Ok(subject),
                Standing::Suspended => Err(refuse(SubjectFault::Suspended)),
                Standing::Revoked => Err(refuse(SubjectFault::Revoked)),
            },
            subject @ Subject::User(..) => Ok(subject),
        }
    }

    /// A token of ours as subject: an access token or a transaction token, said to be what it is. Its standing has not
    /// been looked at.
    fn own_subject(&self, jws: Unverified<'_>, said: SubjectType, cx: &Cx) -> Result<Subject, SubjectFault> {
        let typ = match said {
            SubjectType::AccessToken => TYP_ACCESS_TOKEN,
            SubjectType::TxnToken => TYP_TXN_TOKEN,
            SubjectType::IdToken | SubjectType::Jwt => return Err(SubjectFault::Type),
        };
        if jws.header().typ.as_deref() != Some(typ) {
            return Err(SubjectFault::Type);
        }
        match self.own(jws.into(), cx.now)? {
            // An API token is a good token of ours, and not one to act for anybody with.
            Ours::Api(_) => Err(SubjectFault::Type),
            Ours::Task(claims, kind) => Ok(Subject::Own(claims, kind)),
        }
    }

    /// Verifies a token of ours: signature, issuer, form, expiry. Not its standing, and not whom it is for.
    pub(super) fn own(&self, jws: Unread<'_>, now: Timestamp) -> Result<Ours, SubjectFault> {
        self.own_by_key(jws, now).map(|(ours, _)| ours)
    }

    /// The same, and the key that signed it.
    pub(super) fn own_by_key(&self, jws: Unread<'_>, now: Timestamp) -> Result<(Ours, KeyId), SubjectFault> {
        let (ours, key) = self.issued_here(jws, now)?;
        let expires = match &ours {
            Ours::Task(claims, _) => claims.exp,
            Ours::Api(claims) => claims.exp,
        };
        check_end(expires, now)?;
        Ok((ours, key))
    }

    /// A token that was issued here, as its signature shows, and the key of that; how long ago is not looked at.
    pub(super) fn issued_here(&self, jws: Unread<'_>, now: Timestamp) -> Result<(Ours, KeyId), SubjectFault> {
        let token = self.0.parts.signer.verify(jws, now).ok_or(SubjectFault::Signature)?;
        let ours = Ours::read(&token.typ, &token.payload).ok_or(SubjectFault::Type)?;
        if *ours.issuer() != self.settings().issuer {
            return Err(SubjectFault::Issuer);
        }
        Ok((ours, token.key))
    }

    async fn user_subject(
        &self,
        jws: Unverified<'_>,
        said: SubjectType,
        issuer: Arc<TrustedIssuer>,
        presenter: Client<'_>,
        view: &View,
        cx: &Cx,
    ) -> Result<Subject, Failure> {
        let refuse = |fault: SubjectFault| Failure::Token("subject", fault);
        let kind = user_token_type(jws.header(), said).map_err(refuse)?;
        if !issuer.token_types.contains(&kind) {
            return Err(refuse(SubjectFault::Issuer));
        }
        let payload = self.0.parts.trusted.verify_issuer(&issuer, jws, cx.now).await.map_err(|fault| match fault {
            KeyFault::Outage(outage) => Failure::Outage(outage),
            KeyFault::UnknownKey | KeyFault::Algorithm | KeyFault::Signature => refuse(SubjectFault::Signature),
        })?;
        let agent_names = match presenter {
            Client::Agent(agent) => agent.known_as.get(&issuer.issuer).map(Vec::as_slice).unwrap_or_default(),
            Client::Resource(_) | Client::Admin(_) => &[],
        };
        let rules = UserTokenRules {
            issuer: &issuer,
            kind,
            agent_names,
            foreign_prefixes: view.registry.foreign_prefixes(&issuer).collect(),
            leeway: self.settings().tokens.leeway,
        };
        let claims = check_user_claims(payload, &rules, cx.now).map_err(|fault| refuse(fault.into()))?;
        Ok(Subject::User(Box::new(claims), issuer))
    }

    /// What an actor token says of the client that presents it. It must be the client's own: a fresh assertion, used
    /// once, or its live API token. One that carries `act` is somebody's delegation, not somebody.
    pub(super) fn actor(
        &self,
        token: &str,
        said: SubjectType,
        presenter: Client<'_>,
        view: &View,
        cx: &Cx,
    ) -> Result<(Says, Option<OneTimeId>), Failure> {
        let refuse = |fault: SubjectFault| Failure::Token("actor", fault);
        let jws = Unverified::parse(token).map_err(|fault| refuse(fault.into()))?;
        match said {
            SubjectType::AccessToken => match self.own(jws.into(), cx.now).map_err(refuse)? {
                Ours::Task(..) => Err(refuse(SubjectFault::Type)),
                Ours::Api(claims) if view.standing(&claims.names()) != Standing::Live => {
                    Err(refuse(SubjectFault::Revoked))
                }
                Ours::Api(claims) if claims.sub == *presenter.id() => Ok((Says::ThisAgent, None)),
                Ours::Api(_) => Ok((Says::SomebodyElse, None)),
            },
            SubjectType::Jwt => {
                if jws.claimed_subject() != Some(presenter.id().as_str()) {
                    return Ok((Says::SomebodyElse, None));
                }
                let once = self.check_assertion_of(presenter, jws, cx).map_err(|_| refuse(SubjectFault::Signature))?;
                Ok((Says::ThisAgent, Some(once)))
            }
            SubjectType::IdToken | SubjectType::TxnToken => Err(refuse(SubjectFault::Type)),
        }
    }
}

/// Which kind of user token this is, by what the request says and by `typ` (RFC 8725 §3.11): the rules exclude each other.
fn user_token_type(header: &Header, said: SubjectType) -> Result<SubjectTokenType, SubjectFault> {
    match (said, header.typ.as_deref()) {
        (SubjectType::AccessToken, Some("at+jwt")) => Ok(SubjectTokenType::AccessToken),
        (SubjectType::Jwt, None | Some("jwt")) => Ok(SubjectTokenType::Jwt),
        (SubjectType::IdToken, None | Some("jwt")) => Ok(SubjectTokenType::IdToken),
        (SubjectType::AccessToken | SubjectType::Jwt | SubjectType::IdToken | SubjectType::TxnToken, _) => {
            Err(SubjectFault::Type)
        }
    }
}
