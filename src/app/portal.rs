//! The requester's own access: a human at Errand's API, with a token that a portal got for them.
//!
//! An agent must not be able to consent to its own acts, and agents hold user tokens: it is what they exchange. So the
//! token for this has an `aud` of its own, which no exchange takes, and was issued to a portal, which is no agent. The
//! registry keeps the names apart; see `docs/adr/0012`.

use crate::{
    app::{ApiCaller, AuthFault, Cx, Failure, Service, View},
    domain::{
        audit::Record,
        claims::{UserTokenRules, check_user_claims},
        issuer::{SubjectTokenType, TrustedIssuer},
        jws::Unverified,
        secret::Secret,
        task::{Party, Requester},
    },
    ports::KeyFault,
};

/// Proof that a request's bearer token is a requester's own, for Errand's API, from a portal of their issuer.
#[derive(Debug)]
pub struct RequesterCaller {
    requester: Requester,
    view: View,
}

impl RequesterCaller {
    /// Who calls.
    #[must_use]
    pub fn requester(&self) -> &Requester {
        &self.requester
    }

    /// Who calls, for records: `requester:ISSUER SUBJECT`.
    #[must_use]
    pub fn name(&self) -> String {
        Party::Requester(self.requester.clone()).to_string()
    }

    /// What was known when they called.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
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
        wanted: &[&str],
        call: &str,
        cx: &Cx,
    ) -> Result<Caller, Failure> {
        let ours = self.settings().issuer.as_str();
        let is_foreign = Unverified::parse(bearer.expose())
            .is_ok_and(|jws| jws.claimed_issuer().is_some_and(|issuer| issuer != ours));
        if is_foreign {
            return Ok(Caller::Requester(self.authorize_requester(bearer, call, cx).await?));
        }
        Ok(Caller::Client(self.authorize(bearer, wanted, call, cx).await?))
    }

    /// Whether a bearer token is a requester's own, made for this.
    pub async fn authorize_requester(&self, bearer: &Secret, call: &str, cx: &Cx) -> Result<RequesterCaller, Failure> {
        let view = self.0.follower.current(cx.now).await?;
        match self.requester_of(bearer, &view, cx).await {
            Ok(requester) => Ok(RequesterCaller { requester, view }),
            Err(Failure::Client(fault)) => {
                // Anybody can cause this.
                for record in self.0.refusals.add(fault, None, cx) {
                    let asked = record.asked.or_else(|| Some(serde_json::json!({"call": call})));
                    self.0.journal.note(Record { asked, ..record });
                }
                Err(fault.into())
            }
            Err(failure) => Err(failure),
        }
    }

    async fn requester_of(&self, bearer: &Secret, view: &View, cx: &Cx) -> Result<Requester, Failure> {
        let jws = Unverified::parse(bearer.expose()).map_err(|_| AuthFault::Bearer)?;
        let issuer = jws.claimed_issuer().and_then(|issuer| view.registry.issuer(issuer)).cloned();
        let issuer = issuer.filter(|issuer| !issuer.disabled && issuer.has_portal()).ok_or(AuthFault::Bearer)?;
        // An ID token says that somebody signed in somewhere, and gives nobody access to anything.
        let kind = match jws.header().typ.as_deref() {
            Some("at+jwt") => SubjectTokenType::AccessToken,
            None | Some("jwt") => SubjectTokenType::Jwt,
            Some(_) => return Err(AuthFault::Bearer.into()),
        };
        if !issuer.token_types.contains(&kind) {
            return Err(AuthFault::Bearer.into());
        }
        let verified = self.0.parts.trusted.verify_issuer(&issuer, jws, cx.now).await;
        let payload = verified.map_err(|fault| match fault {
            KeyFault::Outage(outage) => Failure::Outage(outage),
            KeyFault::UnknownKey | KeyFault::Algorithm | KeyFault::Signature => AuthFault::Bearer.into(),
        })?;
        let at_api = TrustedIssuer::clone(&issuer).at_own_api();
        let rules = UserTokenRules {
            issuer: &at_api,
            kind,
            agent_names: &[],
            foreign_prefixes: view.registry.foreign_prefixes(&issuer).collect(),
            leeway: self.settings().tokens.leeway,
        };
        let claims = check_user_claims(payload, &rules, cx.now).map_err(|_| AuthFault::Bearer)?;
        if view.registry.is_out(&claims.requester) {
            return Err(AuthFault::Bearer.into());
        }
        if claims.is_of_portal(&issuer) { Ok(claims.requester) } else { Err(AuthFault::NotOfPortal.into()) }
    }
}
