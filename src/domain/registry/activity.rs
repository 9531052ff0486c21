//! Whether the parties of a token are still active.

use super::Registry;
use crate::domain::{
    authority::Authority,
    revocation::RevocationKeys,
    token::{TaskTokenClaims, actor_chain::Actor},
};

impl Registry {
    /// Whether all resources that this is about take what rests on a grant for an emergency. One that is not known does not.
    #[must_use]
    pub fn accepts_break_glass(&self, authority: &Authority) -> bool {
        authority.iter().all(|permission| {
            self.resource_at(&permission.resource).is_some_and(|resource| resource.break_glass.is_allow())
        })
    }
}

/// Whether everybody who takes part in a token is still registered and not shut out: its requester and their issuer, its
/// client, every agent of ours in its chain, the one that it is to be handed to, and the resources that it is about, which
/// may take nothing that rests on a grant for an emergency.
/// `names` are the token's own.
#[must_use]
pub fn parties_are_active(registry: &Registry, own: &TaskTokenClaims, names: &RevocationKeys) -> bool {
    let issuer = registry.issuer(own.sub_iss.as_str()).is_some_and(|issuer| !issuer.disabled);
    let requester = !names.requester.as_ref().is_some_and(|requester| registry.is_blocked(requester));
    let clients = names.agents.iter().all(|id| registry.client(id).is_some_and(|client| !client.is_disabled()));
    // What is no client id is none of the names.
    let is_agent = |hop: &Actor| names.agents.iter().any(|id| id.as_str() == hop.sub && registry.agent(id).is_some());
    let resources = names.resources.iter().all(|uri| registry.resource_at(uri).is_some_and(|r| !r.disabled));
    let resources = resources && (!own.break_glass || registry.accepts_break_glass(&own.authorization_details));
    issuer && requester && clients && own.own_actors().all(is_agent) && resources
}
