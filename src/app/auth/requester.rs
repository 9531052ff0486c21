//! Authentication of requesters: a person at Errand's API, with a token that a portal obtained for
//! them.
//!
//! An agent must not be able to consent to its own actions, and agents hold user tokens, which they
//! exchange. So a token for this API has an `aud` of its own, which no exchange accepts, and was
//! issued to a portal, which is not an agent. The registry keeps the names of agents and portals
//! apart; see `docs/adr/0012-requesters-and-admins-may-consent.md`.

use crate::{
    app::{ApiCaller, AuthError, Error, RequestContext, Service, Snapshot, auth::client::auth_failure_record},
    domain::{
        audit::Record,
        jose::jws::UnverifiedJws,
        registry::issuer::{SubjectTokenType, TrustedIssuer},
        secret::Secret,
        task::{Initiator, Requester},
        token::foreign_claims::{UserTokenRules, check_user_claims},
    },
    ports::{FetchCaller, SignatureError},
};

/// Proof that a request's bearer token is a requester's own token for Errand's API, issued to a
/// portal of their issuer.
#[derive(Debug)]
pub struct RequesterCaller {
    requester: Requester,
    snapshot: Snapshot,
}

impl RequesterCaller {
    /// Returns the requester.
    #[must_use]
    pub fn requester(&self) -> &Requester {
        &self.requester
    }

    /// Returns the identity for records: `requester:ISSUER SUBJECT`.
    #[must_use]
    pub fn identity(&self) -> String {
        Initiator::Requester(self.requester.clone()).to_string()
    }

    /// Returns the snapshot at which the requester was authenticated.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }
}

/// The caller of an endpoint that accepts both clients and requesters.
#[derive(Debug)]
pub enum Caller {
    /// A client, by its API token.
    Client(ApiCaller),
    /// A requester, by a token of their issuer.
    Requester(RequesterCaller),
}

impl Service {
    /// Authorizes a bearer token: it must be a live API token with one of these scopes, or a
    /// requester's own token.
    pub async fn authorize_any(
        &self,
        bearer: &Secret,
        required_scopes: &[&str],
        call: &str,
        cx: &RequestContext,
    ) -> Result<Caller, Error> {
        let settings = self.settings();
        let own_issuer = settings.issuer.as_str();
        let is_foreign = UnverifiedJws::parse(bearer.expose())
            .is_ok_and(|jws| jws.claimed_issuer().is_some_and(|issuer| issuer != own_issuer));
        if is_foreign {
            return Ok(Caller::Requester(self.authorize_requester(bearer, call, cx).await?));
        }
        Ok(Caller::Client(self.authorize(bearer, required_scopes, call, cx).await?))
    }

    /// Authorizes a bearer token: it must be a requester's own token for this API.
    pub async fn authorize_requester(
        &self,
        bearer: &Secret,
        call: &str,
        cx: &RequestContext,
    ) -> Result<RequesterCaller, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        match self.verify_requester_token(bearer, &snapshot, cx).await {
            Ok(requester) => Ok(RequesterCaller { requester, snapshot }),
            Err(Error::Auth(error)) => {
                let requested = Some(serde_json::json!({"call": call}));
                self.enqueue_sampled(Record { requested, ..auth_failure_record(&error, None, cx) });
                Err(error.into())
            }
            Err(error) => Err(error),
        }
    }

    async fn verify_requester_token(
        &self,
        bearer: &Secret,
        snapshot: &Snapshot,
        cx: &RequestContext,
    ) -> Result<Requester, Error> {
        let jws = UnverifiedJws::parse(bearer.expose()).map_err(|_| AuthError::InvalidBearer)?;
        let signing_input = jws.signing_input();
        let issuer = jws.claimed_issuer().and_then(|issuer| snapshot.registry.issuer(issuer)).cloned();
        let issuer = issuer.filter(|issuer| !issuer.disabled && issuer.has_portal()).ok_or(AuthError::InvalidBearer)?;
        // ID tokens are not accepted: an ID token states that a user signed in, and does not
        // authorize API access.
        let kind = match jws.header().typ.as_deref() {
            Some("at+jwt") => SubjectTokenType::AccessToken,
            None | Some("jwt") => SubjectTokenType::Jwt,
            Some(_) => return Err(AuthError::InvalidBearer.into()),
        };
        if !issuer.token_types.contains(&kind) {
            return Err(AuthError::InvalidBearer.into());
        }
        let verified = self.inner.ports.trusted_keys.verify_with_issuer(&issuer, jws, FetchCaller::Anonymous).await;
        let payload = verified.map_err(|error| match error {
            SignatureError::Outage(outage) => Error::Unavailable(outage),
            SignatureError::UnknownKey
            | SignatureError::WithdrawnKey
            | SignatureError::AlgorithmNotAllowed
            | SignatureError::InvalidSignature => AuthError::InvalidBearer.into(),
        })?;
        let api_issuer = TrustedIssuer::clone(&issuer).with_api_audiences();
        let rules = UserTokenRules {
            issuer: &api_issuer,
            kind,
            agent_client_ids: &[],
            foreign_prefixes: snapshot.registry.foreign_prefixes(&issuer).collect(),
            leeway: self.settings().tokens.leeway,
        };
        let claims = check_user_claims(payload, &rules, cx.now).map_err(AuthError::BearerClaim)?;
        if snapshot.registry.is_blocked(&claims.requester) {
            return Err(AuthError::InvalidBearer.into());
        }
        let evidence = claims.as_evidence(signing_input);
        if let Some(end) = snapshot.evidence_end_of_requester(&claims.requester, &evidence) {
            return Err(AuthError::EndedBearer(end).into());
        }
        if claims.is_issued_to_portal(&issuer) { Ok(claims.requester) } else { Err(AuthError::NotPortalToken.into()) }
    }
}
