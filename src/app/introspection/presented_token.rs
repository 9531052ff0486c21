//! Verification of a token that a resource received: is it active, now, for that resource?
//!
//! Introspection and evaluation share this check. The signature is always verified, and all checks
//! run before any of them decides. Only the path to an active result is shorter, for a token that
//! was active before. If that path finds a check that fails, the token is processed as if it was
//! never seen.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    app::{RequestContext, Service, Snapshot, auth::issued_token::IssuedToken, introspection::cache::CachedToken},
    domain::{
        jose::jws::CompactJws,
        registry::{Reduction, Registry, client::Resource, parties_are_active},
        revocation::{RevocationKeys, Standing},
        token::{TaskTokenClaims, TokenDigest, TokenKind, check_expiry},
    },
};

/// A token that a resource received.
#[derive(Debug)]
pub(in crate::app) enum PresentedToken {
    /// The token is active for the resource.
    Active(ActiveToken),
    /// Any other token, with the claims of a task token of this server. They are for the audit
    /// trail: the resource must not learn them.
    Inactive(Option<Box<TaskTokenClaims>>),
}

/// The claims of an active token, with a place for the response that a caller prepares from them.
#[derive(Debug)]
pub struct ActiveToken {
    claims: ActiveClaims,
}

#[derive(Debug)]
enum ActiveClaims {
    /// All claims of the token are valid. They do not change, so their encoding is kept with them.
    Whole(Arc<CachedToken<TaskTokenClaims>>),
    /// A part of the authority or of the scopes is valid now. All of it may be valid later, so
    /// nothing is kept.
    Reduced {
        claims: Box<TaskTokenClaims>,
        /// Whether the token was issued for a call.
        names_tools: bool,
    },
}

impl ActiveToken {
    /// Returns the claims that are valid now.
    #[must_use]
    pub fn claims(&self) -> &TaskTokenClaims {
        match &self.claims {
            ActiveClaims::Whole(token) => &token.claims,
            ActiveClaims::Reduced { claims, .. } => claims,
        }
    }

    /// Returns whether the token was issued for a call of a tool, which may be unavailable by now.
    pub(in crate::app) fn names_tools(&self) -> bool {
        match &self.claims {
            ActiveClaims::Whole(token) => names_tools(&token.claims),
            ActiveClaims::Reduced { names_tools, .. } => *names_tools,
        }
    }

    /// Returns the encoded claims: those that were encoded for this token before, or else the
    /// result of `encode`, which must depend on the claims alone. An encoding that is longer than
    /// the token itself is not kept.
    pub fn encoded<E>(&self, encode: impl FnOnce(&TaskTokenClaims) -> Result<Bytes, E>) -> Result<Bytes, E> {
        match &self.claims {
            ActiveClaims::Whole(token) => token.encoded(encode),
            ActiveClaims::Reduced { claims, .. } => encode(claims),
        }
    }
}

impl Service {
    /// Verifies a token that a resource received, at a snapshot.
    pub(in crate::app) fn verify_presented(
        &self,
        token: &str,
        resource: &Resource,
        snapshot: &Snapshot,
        cx: &RequestContext,
    ) -> PresentedToken {
        let digest = TokenDigest::of(token);
        if let Some(cached) = digest.and_then(|digest| self.inner.token_cache.get_task(&digest))
            && self.inner.ports.signer.is_published(&cached.key, cx.now)
            && is_active_for(&cached.claims, &cached.revocation_keys, resource, snapshot, cx)
            && snapshot.all_tools_are_live(&cached.revocation_keys)
            && passes_registry(&cached, resource, snapshot)
        {
            return PresentedToken::Active(ActiveToken { claims: ActiveClaims::Whole(cached) });
        }
        let verified = CompactJws::parse(token).ok().and_then(|jws| self.verify_own_signature(jws, cx.now).ok());
        let Some((IssuedToken::Task(claims, kind), key)) = verified else {
            return PresentedToken::Inactive(None);
        };
        let revocation_keys = claims.revocation_keys();
        let is_access = kind == TokenKind::Access;
        let is_valid = is_active_for(&claims, &revocation_keys, resource, snapshot, cx)
            & has_active_parties(&snapshot.registry, &claims, &revocation_keys);
        let reduction = reduce_to_valid(snapshot, &claims, &revocation_keys, resource);
        let has_authority = match &reduction {
            Reduction::Unchanged => true,
            Reduction::Reduced(rest) => !rest.authorization_details.is_empty(),
        };
        let is_active = is_access & is_valid & has_authority;
        if !is_active {
            return PresentedToken::Inactive(Some(claims));
        }
        let claims = match reduction {
            Reduction::Reduced(rest) => {
                ActiveClaims::Reduced { claims: Box::new(rest), names_tools: names_tools(&claims) }
            }
            Reduction::Unchanged => {
                let generation = snapshot.registry_generation;
                let cached = Arc::new(CachedToken::from_task(*claims, revocation_keys, key, token.len(), generation));
                if let Some(digest) = digest {
                    self.inner.token_cache.insert_task(digest, Arc::clone(&cached));
                }
                ActiveClaims::Whole(cached)
            }
        };
        PresentedToken::Active(ActiveToken { claims })
    }
}

fn names_tools(claims: &TaskTokenClaims) -> bool {
    claims.authorization_details.iter().any(|permission| permission.tool().is_some())
}

/// Whether an access token is for this resource, not expired and live. All checks run, whatever the
/// first of them finds.
fn is_active_for(
    claims: &TaskTokenClaims,
    revocation_keys: &RevocationKeys,
    resource: &Resource,
    snapshot: &Snapshot,
    cx: &RequestContext,
) -> bool {
    let is_for_resource = claims.aud == resource.uri.as_str();
    let is_unexpired = check_expiry(claims.exp, cx.now).is_ok();
    let is_live = snapshot.standing(revocation_keys) == Standing::Live;
    is_for_resource & is_unexpired & is_live
}

/// Whether all parties of a token are active. The token with which this server lists tools has no
/// party but the resource.
fn has_active_parties(registry: &Registry, claims: &TaskTokenClaims, keys: &RevocationKeys) -> bool {
    let is_active = |uri| registry.resource_at(uri).is_some_and(|resource| !resource.disabled);
    let is_own_listing = claims.is_for_catalogue() && keys.resources.iter().all(is_active);
    parties_are_active(registry, claims, keys) | is_own_listing
}

/// Reduces claims to what is valid now. Removes tools that are no longer offered, or not with the
/// accepted definition, tools that the log ended, and scopes that cover more now than the token was
/// issued for.
fn reduce_to_valid(
    snapshot: &Snapshot,
    claims: &TaskTokenClaims,
    revocation_keys: &RevocationKeys,
    resource: &Resource,
) -> Reduction<TaskTokenClaims> {
    let (registry, authority, at) = (&snapshot.registry, &claims.authorization_details, Some(&resource.uri));
    let all_live = snapshot.all_tools_are_live(revocation_keys);
    let authorization_details = match registry.remaining_available(authority) {
        Reduction::Unchanged if all_live && registry.covers_scopes(&claims.scope, authority, at) => {
            return Reduction::Unchanged;
        }
        Reduction::Unchanged => authority.clone(),
        Reduction::Reduced(rest) => rest,
    };
    let live = authorization_details.iter().filter(|permission| snapshot.is_permission_live(permission, claims.rev));
    let authorization_details = live.cloned().collect();
    let covered = registry.covered_scopes(&authorization_details, at);
    let scope = claims.scope.iter().filter(|scope| covered.contains(scope)).cloned().collect();
    Reduction::Reduced(TaskTokenClaims { scope, authorization_details, ..claims.clone() })
}

/// Whether all parties of a cached token are active and all its claims are valid, for the resource
/// that it is for. Both depend on the registry alone, so the result is computed once for each
/// registry generation.
fn passes_registry(token: &CachedToken<TaskTokenClaims>, resource: &Resource, snapshot: &Snapshot) -> bool {
    if token.is_valid_for(snapshot.registry_generation) {
        return true;
    }
    let CachedToken { claims, revocation_keys, .. } = token;
    let is_valid = has_active_parties(&snapshot.registry, claims, revocation_keys)
        && matches!(reduce_to_valid(snapshot, claims, revocation_keys, resource), Reduction::Unchanged);
    if is_valid {
        token.mark_valid_for(snapshot.registry_generation);
    }
    is_valid
}
