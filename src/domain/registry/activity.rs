//! Activity of the parties of a token: whether each is still registered and enabled.

use super::Registry;
use crate::domain::{
    authority::Authority,
    revocation::RevocationKeys,
    token::{TaskTokenClaims, actor_chain::Actor},
};

impl Registry {
    /// Returns whether every resource of this authority accepts break-glass grants. An unknown
    /// resource does not.
    #[must_use]
    pub fn accepts_break_glass(&self, authority: &Authority) -> bool {
        authority.iter().all(|permission| {
            self.resource_at(&permission.resource).is_some_and(|resource| resource.break_glass.is_allow())
        })
    }
}

/// Returns whether every party of a token is still registered and enabled.
///
/// The parties are the requester and their issuer, the client, every agent of this server in the
/// chain, the next actor, and the resources of the authority. If the token is based on a
/// break-glass grant, every resource must accept such grants. `keys` are the revocation keys of the
/// token.
#[must_use]
pub fn parties_are_active(registry: &Registry, claims: &TaskTokenClaims, keys: &RevocationKeys) -> bool {
    let issuer_active = registry.issuer(claims.sub_iss.as_str()).is_some_and(|issuer| !issuer.disabled);
    let requester_active = !keys.requester.as_ref().is_some_and(|requester| registry.is_blocked(requester));
    let clients_active = keys.agents.iter().all(|id| registry.client(id).is_some_and(|client| !client.is_disabled()));
    // An actor whose name is not a valid client id is not among the keys.
    let is_agent =
        |actor: &Actor| keys.agents.iter().any(|id| id.as_str() == actor.sub && registry.agent(id).is_some());
    let resources_active = keys.resources.iter().all(|uri| registry.resource_at(uri).is_some_and(|r| !r.disabled));
    let resources_active =
        resources_active && (!claims.break_glass || registry.accepts_break_glass(&claims.authorization_details));
    issuer_active && requester_active && clients_active && claims.own_actors().all(is_agent) && resources_active
}
