//! From agent to agent: every edge that the work goes along is looked at again, whoever asks and for what.

use super::{Ask, Denial, Output, Presenter};
use crate::domain::{
    chain::{Chain, Hop},
    client::{Agent, AgentKind, Edge},
    registry::Registry,
};

/// An edge that the work went along, or is to go along.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step<'a> {
    pub(super) edge: &'a Edge,
    /// Whether it is the presenter's own: then it may know what the edge lets through.
    pub(super) is_own: bool,
}

/// The edges along a chain, oldest first, and to the agent that is handed over to. Each must still be in the registry and
/// lead no further than its depth; and behind a broker there is an agent that it works for.
pub(super) fn edges<'a>(ask: &Ask<'a>, chain: &Chain) -> Result<Vec<Step<'a>>, Denial> {
    let registry: &'a Registry = ask.registry;
    let ours = |hop: &&Hop| hop.iss == ask.issuer.as_str();
    let find = |hop: &Hop| hop.sub.parse().ok().and_then(|id| registry.agent(&id)).ok_or(Denial::ShutOut);
    let mut line = chain.hops().rev().filter(ours).map(find).collect::<Result<Vec<&Agent>, _>>()?;
    if let Output::HandOver(to, _) = ask.output {
        line.push(to);
    }
    if line.first().is_some_and(|root| root.kind == AgentKind::Broker) {
        return Err(Denial::BrokerAlone);
    }
    let mut steps = Vec::new();
    for (n, (from, to)) in line.iter().zip(line.iter().skip(1)).enumerate() {
        let edge = from.edge_to(&to.id).ok_or(Denial::MayNotDelegate)?;
        let followers = line.len() - n - 1;
        if edge.depth.is_some_and(|depth| followers > usize::from(depth)) {
            return Err(Denial::TooFar);
        }
        let is_own = matches!(ask.presenter, Presenter::Agent(agent) if agent.id == from.id);
        steps.push(Step { edge, is_own });
    }
    Ok(steps)
}
