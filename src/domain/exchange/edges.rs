//! Delegation edges: every exchange checks all edges along the chain of agents again.

use super::{Denial, ExchangeInput, Presenter, RequestedToken};
use crate::domain::{
    registry::{
        Registry,
        client::{Agent, AgentKind, Edge},
    },
    token::actor_chain::{Actor, ActorChain},
};

/// An edge along the chain, or from the chain to the requested actor.
#[derive(Clone, Copy, Debug)]
pub(super) struct EdgeUse<'a> {
    pub(super) edge: &'a Edge,
    /// Whether the edge starts at the presenter, which may then know what the edge allows.
    pub(super) is_own: bool,
}

/// Returns the edges along the chain, oldest first, and to the requested actor.
///
/// Each edge must still be in the registry, and its depth must allow the agents that follow. The
/// first agent must not be a broker: a broker works for an agent behind it.
pub(super) fn resolve_edges<'a>(input: &ExchangeInput<'a>, chain: &ActorChain) -> Result<Vec<EdgeUse<'a>>, Denial> {
    let registry: &'a Registry = input.registry;
    let is_own = |actor: &&Actor| actor.iss == input.issuer.as_str();
    let find = |actor: &Actor| actor.sub.parse().ok().and_then(|id| registry.agent(&id)).ok_or(Denial::PartyBlocked);
    let mut agents = chain.actors().rev().filter(is_own).map(find).collect::<Result<Vec<&Agent>, _>>()?;
    if let RequestedToken::HandOver(to, _) = input.requested_token {
        agents.push(to);
    }
    if agents.first().is_some_and(|root| root.kind == AgentKind::Broker) {
        return Err(Denial::BrokerWithoutPrincipal);
    }
    let mut edges = Vec::new();
    for (n, (from, to)) in agents.iter().zip(agents.iter().skip(1)).enumerate() {
        let edge = from.edge_to(&to.id).ok_or(Denial::DelegationNotAllowed)?;
        let followers = agents.len() - n - 1;
        if edge.depth.is_some_and(|depth| followers > usize::from(depth)) {
            return Err(Denial::DelegationDepthExceeded);
        }
        let is_own = matches!(input.presenter, Presenter::Agent(agent) if agent.id == from.id);
        edges.push(EdgeUse { edge, is_own });
    }
    Ok(edges)
}
