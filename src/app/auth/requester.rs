//! The requester's own access: a human at Errand's API, with a token that a portal got for them.
//!
//! An agent must not be able to consent to its own acts, and agents hold user tokens: it is what they exchange. So the
//! token for this has an `aud` of its own, which no exchange takes, and was issued to a portal, which is no agent. The
//! registry keeps the names apart; see `docs/adr/0012`.

use crate::{
    app::{ApiCaller, AuthError, Error, RequestContext, Service, Snapshot},
    domain::{
        audit::Record,
        jose::jws::UnverifiedJws,
        registry::issuer::{SubjectTokenType, TrustedIssuer},
        secret::Secret,
        task::{Initiator, Requester},
        token::foreign_claims::{UserTokenRules, check_user_claims},
    },
    ports::SignatureError,
};

/// Proof that a request's bearer token is a requester's own, for Errand's API, from a portal of their issuer.
#[derive(Debug)]
pub struct RequesterCaller {
    requester: Requester,
    snapshot: Snapshot,
}

impl RequesterCaller {
    /// Who calls.
    #[must_use]
    pub fn requester(&self) -> &Requester {
        &self.requester
    }

    /// Who calls, for records: `requester:ISSUER SUBJECT`.
    #[must_use]
    pub fn identity(&self) -> String {
        Initiator::Requester(self.requester.clone()).to_string()
    }

    /// What was known when they called.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// Who calls where both agents and requesters may.
#[derive(Debug)]
pub enum Caller {
    /// A client, by its API token.
    Client(ApiCaller),
    /// A requester, by a token of their issuer.
    Requester(RequesterCaller),
}

impl Service {
    /// Whether a bearer token is a live API token with one of these scopes, or a requester's own.
    pub async fn authorize_any(
        &self,
        bearer: &Secret,
        required_scopes: &[&str],
        call: &str,
        cx: &RequestContext,
    ) -> Result<Caller, Error> {
        let ours = self.settings().issuer.as_str();
        let is_foreign = UnverifiedJws::parse(bearer.expose())
            .is_ok_and(|jws| jws.claimed_issuer().is_some_and(|issuer| issuer != ours));
        if is_foreign {
            return Ok(Caller::Requester(self.authorize_requester(bearer, call, cx).await?));
        }
        Ok(Caller::Client(self.authorize(bearer, required_scopes, call, cx).await?))
    }

    /// Whether a bearer token is a requester's own, made for this.
    pub async fn authorize_requester(
        &self,
        bearer: &Secret,
        call: &str,
        cx: &RequestContext,
    ) -> Result<RequesterCaller, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        match self.verify_requester_token(bearer, &snapshot, cx).await {
            Ok(requester) => Ok(RequesterCaller { requester, snapshot }),
            Err(Error::Auth(fault)) => {
                // Anybody can cause this.
                for record in self.inner.auth_failures.add(fault, None, cx) {
                    let asked = record.requested.or_else(|| Some(serde_json::json!({"call": call})));
                    self.inner.writer.enqueue_audit(Record { requested: asked, ..record });
                }
                Err(fault.into())
            }
            Err(failure) => Err(failure),
        }
    }

    async fn verify_requester_token(
        &self,
        bearer: &Secret,
        snapshot: &Snapshot,
        cx: &RequestContext,
    ) -> Result<Requester, Error> {
        let jws = UnverifiedJws::parse(bearer.expose()).map_err(|_| AuthError::InvalidBearer)?;
        let issuer = jws.claimed_issuer().and_then(|issuer| snapshot.registry.issuer(issuer)).cloned();
        let issuer = issuer.filter(|issuer| !issuer.disabled && issuer.has_portal()).ok_or(AuthError::InvalidBearer)?;
        // An ID token says that somebody signed in somewhere, and gives nobody access to anything.
        let kind = match jws.header().typ.as_deref() {
            Some("at+jwt") => SubjectTokenType::AccessToken,
            None | Some("jwt") => SubjectTokenType::Jwt,
            Some(_) => return Err(AuthError::InvalidBearer.into()),
        };
        if !issuer.token_types.contains(&kind) {
            return Err(AuthError::InvalidBearer.into());
        }
        let verified = self.inner.ports.trusted_keys.verify_with_issuer(&issuer, jws, cx.now).await;
        let payload = verified.map_err(|fault| match fault {
            SignatureError::Outage(outage) => Error::Unavailable(outage),
            SignatureError::UnknownKey | SignatureError::AlgorithmNotAllowed | SignatureError::InvalidSignature => {
                AuthError::InvalidBearer.into()
            }
        })?;
        let at_api = TrustedIssuer::clone(&issuer).with_api_audiences();
        let rules = UserTokenRules {
            issuer: &at_api,
            kind,
            agent_client_ids: &[],
            foreign_prefixes: snapshot.registry.foreign_prefixes(&issuer).collect(),
            leeway: self.settings().tokens.leeway,
        };
        let claims = check_user_claims(payload, &rules, cx.now).map_err(|_| AuthError::InvalidBearer)?;
        if snapshot.registry.is_blocked(&claims.requester) {
            return Err(AuthError::InvalidBearer.into());
        }
        if claims.is_issued_to_portal(&issuer) { Ok(claims.requester) } else { Err(AuthError::NotPortalToken.into()) }
    }
}
