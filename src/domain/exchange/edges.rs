//! From agent to agent: every edge that the work goes along is looked at again, whoever asks and for what.

use super::{Denial, ExchangeInput, Presenter, RequestedToken};
use crate::domain::{
    registry::{
        Registry,
        client::{Agent, AgentKind, Edge},
    },
    token::actor_chain::{Actor, ActorChain},
};

/// An edge that the work went along, or is to go along.
#[derive(Clone, Copy, Debug)]
pub(super) struct EdgeUse<'a> {
    pub(super) edge: &'a Edge,
    /// Whether it is the presenter's own: then it may know what the edge lets through.
    pub(super) is_own: bool,
}

/// The edges along a chain, oldest first, and to the agent that is handed over to. Each must still be in the registry and
/// lead no further than its depth; and behind a broker there is an agent that it works for.
pub(super) fn resolve_edges<'a>(ask: &ExchangeInput<'a>, chain: &ActorChain) -> Result<Vec<EdgeUse<'a>>, Denial> {
    let registry: &'a Registry = ask.registry;
    let ours = |hop: &&Actor| hop.iss == ask.issuer.as_str();
    let find = |hop: &Actor| hop.sub.parse().ok().and_then(|id| registry.agent(&id)).ok_or(Denial::PartyBlocked);
    let mut line = chain.actors().rev().filter(ours).map(find).collect::<Result<Vec<&Agent>, _>>()?;
    if let RequestedToken::HandOver(to, _) = ask.requested_token {
        line.push(to);
    }
    if line.first().is_some_and(|root| root.kind == AgentKind::Broker) {
        return Err(Denial::BrokerWithoutPrincipal);
    }
    let mut steps = Vec::new();
    for (n, (from, to)) in line.iter().zip(line.iter().skip(1)).enumerate() {
        let edge = from.edge_to(&to.id).ok_or(Denial::DelegationNotAllowed)?;
        let followers = line.len() - n - 1;
        if edge.depth.is_some_and(|depth| followers > usize::from(depth)) {
            return Err(Denial::DelegationDepthExceeded);
        }
        let is_own = matches!(ask.presenter, Presenter::Agent(agent) if agent.id == from.id);
        steps.push(EdgeUse { edge, is_own });
    }
    Ok(steps)
}
