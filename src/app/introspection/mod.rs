//! Introspection (RFC 7662): is this token good, at this moment, for the resource that asks?
//!
//! Whatever is wrong, the answer is the same `{"active":false}`, and as far as it can be had for the same work: the
//! signature is always verified, and all checks are made before any of them decides. Only the way to a yes is shorter for
//! a token that had one before; when it ends in a no, it is taken for a token that was never seen.

pub(super) mod cache;

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use crate::{
    app::{
        AuthError, AuthenticatedClient, Error, RequestContext, Service, Snapshot, exchange::evidence::IssuedToken,
        introspection::cache::CachedToken,
    },
    domain::{
        audit::{Event, IntrospectionAuditMode, Outcome, Record},
        exchange::parties_are_active,
        id::TokenId,
        jose::jws::CompactJws,
        registry::{
            Registry,
            client::{Client, Resource},
        },
        revocation::{RevocationKeys, Standing},
        token::{TYP_INTROSPECTION, TaskTokenClaims, TokenDigest, TokenKind, check_expiry},
    },
    ports::Outage,
};

/// The answer.
#[derive(Debug)]
pub enum Introspection {
    /// Good, and what is told of it.
    Active(Bytes),
    /// Anything else.
    Inactive,
}

impl Introspection {
    /// What is told of a token, as JSON.
    pub fn serialize_response(response: &impl Serialize) -> Result<Bytes, Outage> {
        // Most of them fit; and it may be kept, so it takes no more room than it needs then.
        let mut text = Vec::with_capacity(2048);
        serde_json::to_writer(&mut text, response).map_err(Outage::during("write the answer"))?;
        Ok(text.into_boxed_slice().into())
    }
}

/// The body of a signed answer (RFC 9701 §5): no `sub`, no `exp` at the top, so that nobody takes it for a token.
#[derive(Serialize)]
struct SignedResponse<'a, B> {
    iss: &'a str,
    aud: &'a str,
    iat: crate::domain::time::Timestamp,
    token_introspection: B,
}

impl Service {
    /// Answers a resource about a token. Anybody else may not ask. `tell` puts what a token says into words, and is asked
    /// for the same token once, as long as all of it is good: it goes by what it is given, and by nothing else.
    pub fn introspect(
        &self,
        caller: &AuthenticatedClient,
        token: &str,
        serialize: impl FnOnce(&TaskTokenClaims) -> Result<Bytes, Outage>,
        cx: &RequestContext,
    ) -> Result<Introspection, Error> {
        let Client::Resource(resource) = caller.client()? else {
            return Err(AuthError::ClientNotAllowed.into());
        };
        let snapshot = caller.snapshot();
        let digest = TokenDigest::of(token);
        if let Some(known) = digest.and_then(|digest| self.inner.token_cache.get_task(&digest))
            && self.inner.ports.signer.is_published(&known.key, cx.now)
            && is_active_for(&known.claims, &known.revocation_keys, resource, snapshot, cx)
            && passes_registry(&known, resource, snapshot)
        {
            self.audit_introspection(resource, Some(&known.claims), Outcome::Active, cx);
            return Ok(Introspection::Active(known.response.clone()));
        }
        let ours = CompactJws::parse(token).ok().and_then(|jws| self.verify_own_signature(jws, cx.now).ok());
        let Some((IssuedToken::Task(claims, kind), key)) = ours else {
            self.audit_introspection(resource, None, Outcome::Inactive, cx);
            return Ok(Introspection::Inactive);
        };
        let names = claims.revocation_keys();
        let is_access = kind == TokenKind::Access;
        let is_good = is_active_for(&claims, &names, resource, snapshot, cx)
            & parties_are_active(&snapshot.registry, &claims, &names);
        let reduced = reduce_to_valid(&snapshot.registry, &claims, resource);
        let has_any = reduced.as_ref().is_none_or(|part| !part.authorization_details.is_empty());
        let is_active = is_access & is_good & has_any;
        let outcome = if is_active { Outcome::Active } else { Outcome::Inactive };
        self.audit_introspection(resource, Some(&claims), outcome, cx);
        if !is_active {
            return Ok(Introspection::Inactive);
        }
        if let Some(part) = reduced {
            // True for now, and so nothing to be kept: the whole may be good again.
            return Ok(Introspection::Active(serialize(&part)?));
        }
        let answer = serialize(&claims)?;
        if let Some(digest) = digest {
            let known =
                CachedToken::from_task(*claims, names, key, answer.clone(), token.len(), snapshot.registry_generation);
            self.inner.token_cache.insert_task(digest, known);
        }
        Ok(Introspection::Active(answer))
    }

    /// The answer as a signed JWT for this resource (RFC 9701). `body` is the answer of RFC 7662.
    pub fn sign_introspection(
        &self,
        caller: &AuthenticatedClient,
        body: impl Serialize,
        cx: &RequestContext,
    ) -> Result<String, Error> {
        let Client::Resource(resource) = caller.client()? else {
            return Err(AuthError::ClientNotAllowed.into());
        };
        let settings = self.settings();
        let response = SignedResponse {
            iss: settings.issuer.as_str(),
            aud: resource.id.as_str(),
            iat: cx.now,
            token_introspection: body,
        };
        let payload = serde_json::to_vec(&response).map_err(Outage::during("write the answer"))?;
        let algorithm = self.select_signing_algorithm(resource.signing_algorithm, cx);
        Ok(self.inner.ports.signer.sign(algorithm, TYP_INTROSPECTION, &payload, cx.now)?)
    }

    /// The record names whose token it was, so that a task's trail shows who still tried it after it was ended. The
    /// answer does not.
    fn audit_introspection(
        &self,
        resource: &Resource,
        claims: Option<&TaskTokenClaims>,
        outcome: Outcome,
        cx: &RequestContext,
    ) {
        let is_first = || claims.is_none_or(|claims| !self.inner.recently_audited.contains(claims.jti));
        let break_glass = claims.is_some_and(|claims| claims.break_glass);
        let is_wanted = match self.settings().introspection_audit {
            _ if break_glass => true,
            IntrospectionAuditMode::Off => false,
            IntrospectionAuditMode::All => true,
            IntrospectionAuditMode::Changes => outcome != Outcome::Active || is_first(),
        };
        if !is_wanted {
            return;
        }
        let is_queued = self.inner.writer.enqueue_audit(Record {
            requester: claims.map(TaskTokenClaims::requester),
            agents: claims.iter().flat_map(|claims| claims.act.actors()).map(|hop| hop.sub.clone()).collect(),
            client: Some(resource.id.clone()),
            task: claims.map(|claims| claims.txn),
            authority_hash: claims.map(|claims| claims.task.authority_hash.clone()),
            token: claims.map(|claims| claims.jti),
            resource: Some(resource.uri.to_string()),
            granted: break_glass.then(|| json!({"break_glass": true, "grant": claims.and_then(|claims| claims.grant)})),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, Event::TokenIntrospect, outcome)
        });
        // Only then: the next answer makes up for a record that was dropped.
        if let (true, Outcome::Active, Some(claims)) = (is_queued, outcome, claims) {
            self.inner.recently_audited.insert(claims.jti);
        }
    }
}

/// Whether an access token of ours is for this resource and live at this moment. All is looked at, whatever the first of it
/// says. `names` are the token's.
fn is_active_for(
    claims: &TaskTokenClaims,
    names: &RevocationKeys,
    resource: &Resource,
    snapshot: &Snapshot,
    cx: &RequestContext,
) -> bool {
    let is_for_caller = claims.aud == resource.uri.as_str();
    let is_young = check_expiry(claims.exp, cx.now).is_ok();
    let is_live = snapshot.standing(names) == Standing::Live;
    is_for_caller & is_young & is_live
}

/// What of the claims is good, when it is not all: without the tools that are not offered any more or not any more what was
/// accepted, and without the scopes that stand for more by now than the token was given.
fn reduce_to_valid(registry: &Registry, claims: &TaskTokenClaims, reader: &Resource) -> Option<TaskTokenClaims> {
    let (whole, by) = (&claims.authorization_details, Some(&reader.uri));
    let rest = registry.remaining_available(whole);
    if rest.is_none() && registry.covers_scopes(&claims.scope, whole, by) {
        return None;
    }
    let authorization_details = rest.unwrap_or_else(|| whole.clone());
    let covered = registry.covered_scopes(&authorization_details, by);
    let scope = claims.scope.iter().filter(|scope| covered.contains(scope)).cloned().collect();
    Some(TaskTokenClaims { scope, authorization_details, ..claims.clone() })
}

/// Whether everybody who takes part in a known token is let in, and all that it says is good, for the resource that it is for.
/// That goes by the registry alone, so it is found out once for each.
fn passes_registry(known: &CachedToken<TaskTokenClaims>, reader: &Resource, snapshot: &Snapshot) -> bool {
    if known.is_valid_for(snapshot.registry_generation) {
        return true;
    }
    let CachedToken { claims, revocation_keys: names, .. } = known;
    let is_good = parties_are_active(&snapshot.registry, claims, names)
        && reduce_to_valid(&snapshot.registry, claims, reader).is_none();
    if is_good {
        known.mark_valid_for(snapshot.registry_generation);
    }
    is_good
}

/// The tokens whose first active answer is on record. Bounded: a token that fell out is recorded once more. A token has
/// one audience and only that one gets an active answer, so the token alone is the key.
#[derive(Default)]
pub(super) struct RecentlyAudited(Mutex<(HashSet<TokenId>, VecDeque<TokenId>)>);

const AUDIT_DEDUP_CAPACITY: usize = 65_536;

impl RecentlyAudited {
    fn contains(&self, id: TokenId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.contains(&id)
    }

    fn insert(&self, id: TokenId) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (set, order) = &mut *seen;
        if !set.insert(id) {
            return;
        }
        order.push_back(id);
        if order.len() > AUDIT_DEDUP_CAPACITY
            && let Some(oldest) = order.pop_front()
        {
            set.remove(&oldest);
        }
    }
}
