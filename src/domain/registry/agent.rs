//! Agents: clients that act for requesters.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{access::Access, authentication::Authentication, edge::Edge};
use crate::domain::{id::ClientId, time::Lifetime, uri::IssuerUrl};

/// A registered OAuth client that acts for requesters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// The client id: the `sub` of its entry in `act`.
    pub id: ClientId,
    /// The display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it acts for requesters directly or is an intermediary between agents and resources.
    #[serde(default)]
    pub kind: AgentKind,
    /// The authentication method.
    pub authentication: Authentication,
    /// The client ids by which identity providers know it (`client_id`, `azp`, `aud` of an ID
    /// token, `may_act`).
    #[serde(default)]
    pub known_as: BTreeMap<IssuerUrl, Vec<String>>,
    /// The ceiling: the maximum authority of the agent.
    #[serde(default)]
    pub access: Vec<Access>,
    /// The agents to which it may delegate a part of its task.
    #[serde(default)]
    pub may_delegate_to: Vec<Edge>,
    /// The maximum lifetime of its tokens, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_token_lifetime: Option<Lifetime>,
    /// Whether the agent is blocked: it can't authenticate and receives no tokens.
    #[serde(default)]
    pub disabled: bool,
}

impl Agent {
    /// Returns the edge to another agent, which permits delegation to it.
    #[must_use]
    pub fn edge_to(&self, agent: &ClientId) -> Option<&Edge> {
        self.may_delegate_to.iter().find(|edge| edge.agent == *agent)
    }
}

/// The role of an agent in a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentKind {
    /// Acts for requesters: opens tasks and delegates parts of them.
    #[default]
    Agent,
    /// Forwards the requests of agents to resources. It joins their tasks and opens none, so an
    /// agent behind it always stays visible in the chain.
    Broker,
}

impl AgentKind {
    /// Returns the `sub_profile` of its entry in `act` (actor profile draft).
    #[must_use]
    pub fn profile(self) -> &'static str {
        match self {
            Self::Agent => "ai_agent",
            Self::Broker => "service",
        }
    }
}
