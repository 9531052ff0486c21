//! Introspection (RFC 7662): is this token good, at this moment, for the resource that asks?
//!
//! Whatever is wrong, the answer is the same `{"active":false}`, and as far as it can be had for the same work: the
//! signature is always verified, and all checks are made before any of them decides.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use serde::Serialize;

use crate::{
    app::{AuthFault, AuthenticatedClient, Cx, Failure, Service, evidence::Ours},
    domain::{
        audit::{Event, Introspections, Outcome, Record},
        client::{Client, Resource},
        exchange::admits,
        id::TokenId,
        jws::Unverified,
        revocation::Standing,
        token::{TYP_INTROSPECTION, TaskTokenClaims, TokenKind},
    },
    ports::Outage,
};

/// The answer.
#[derive(Debug)]
pub enum Introspection {
    /// Good, and what it says.
    Active(Box<TaskTokenClaims>),
    /// Anything else.
    Inactive,
}

/// The body of a signed answer (RFC 9701 §5): no `sub`, no `exp` at the top, so that nobody takes it for a token.
#[derive(Serialize)]
struct SignedAnswer<'a, B> {
    iss: &'a str,
    aud: &'a str,
    iat: crate::domain::time::Timestamp,
    token_introspection: B,
}

impl Service {
    /// Answers a resource about a token. Anybody else may not ask.
    pub fn introspect(&self, caller: &AuthenticatedClient, token: &str, cx: &Cx) -> Result<Introspection, Failure> {
        let Client::Resource(resource) = caller.client()? else {
            return Err(AuthFault::NotForThisClient.into());
        };
        let answer = match self.look_at(caller, resource, token, cx) {
            Some(claims) => Introspection::Active(claims),
            None => Introspection::Inactive,
        };
        self.note_introspection(resource, &answer, cx);
        Ok(answer)
    }

    /// The claims, if the token is a live access token for this resource.
    fn look_at(
        &self,
        caller: &AuthenticatedClient,
        resource: &Resource,
        token: &str,
        cx: &Cx,
    ) -> Option<Box<TaskTokenClaims>> {
        let view = caller.view();
        let jws = Unverified::parse(token).ok()?;
        let Ok(Ours::Task(claims, kind)) = self.own(jws, cx.now) else { return None };
        let is_access = kind == TokenKind::Access;
        let is_for_caller = claims.aud == resource.uri.as_str();
        let is_live = view.standing(&claims.names()) == Standing::Live;
        let is_admitted = admits(&view.registry, &claims);
        (is_access & is_for_caller & is_live & is_admitted).then_some(claims)
    }

    /// The answer as a signed JWT for this resource (RFC 9701). `body` is the answer of RFC 7662.
    pub fn sign_introspection(
        &self,
        caller: &AuthenticatedClient,
        body: impl Serialize,
        cx: &Cx,
    ) -> Result<String, Failure> {
        let Client::Resource(resource) = caller.client()? else {
            return Err(AuthFault::NotForThisClient.into());
        };
        let settings = self.settings();
        let answer = SignedAnswer {
            iss: settings.issuer.as_str(),
            aud: resource.id.as_str(),
            iat: cx.now,
            token_introspection: body,
        };
        let payload = serde_json::to_vec(&answer).map_err(Outage::during("write the answer"))?;
        let algorithm = resource.signing_algorithm.unwrap_or(settings.algorithm);
        Ok(self.0.parts.signer.sign(algorithm, TYP_INTROSPECTION, &payload, cx.now)?)
    }

    fn note_introspection(&self, resource: &Resource, answer: &Introspection, cx: &Cx) {
        let wanted = match (self.settings().introspection_audit, answer) {
            (Introspections::Off, _) => false,
            (Introspections::All, _) | (Introspections::Changes, Introspection::Inactive) => true,
            (Introspections::Changes, Introspection::Active(claims)) => self.0.seen.is_first(claims.jti),
        };
        if !wanted {
            return;
        }
        let base = |outcome| Record {
            client: Some(resource.id.clone()),
            resource: Some(resource.uri.to_string()),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, Event::TokenIntrospect, outcome)
        };
        self.0.journal.note(match answer {
            Introspection::Inactive => base(Outcome::Inactive),
            Introspection::Active(claims) => Record {
                requester: Some(claims.requester()),
                agents: claims.act.hops().map(|hop| hop.sub.clone()).collect(),
                task: Some(claims.txn),
                token: Some(claims.jti),
                ..base(Outcome::Active)
            },
        });
    }
}

/// The tokens whose first active answer is on record. Bounded: a token that fell out is recorded once more. A token has
/// one audience and only that one gets an active answer, so the token alone is the key.
#[derive(Default)]
pub(super) struct Seen(Mutex<(HashSet<TokenId>, VecDeque<TokenId>)>);

const SEEN: usize = 65_536;

impl Seen {
    fn is_first(&self, id: TokenId) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (set, order) = &mut *seen;
        if !set.insert(id) {
            return false;
        }
        order.push_back(id);
        if order.len() > SEEN
            && let Some(oldest) = order.pop_front()
        {
            set.remove(&oldest);
        }
        true
    }
}
