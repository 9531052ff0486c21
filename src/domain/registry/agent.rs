//! Agents.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{access::Access, authentication::Authentication, edge::Edge};
use crate::domain::{id::ClientId, time::Lifetime, uri::IssuerUrl};

/// A registered OAuth client that acts for requesters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// Its client id, the `sub` of its hop in `act`.
    pub id: ClientId,
    /// A name for humans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether it works for people, or stands between agents and resources.
    #[serde(default)]
    pub kind: AgentKind,
    /// How it proves who it is.
    pub authentication: Authentication,
    /// The client ids under which identity providers know it (`client_id`, `azp`, `aud` of an ID token, `may_act`).
    #[serde(default)]
    pub known_as: BTreeMap<IssuerUrl, Vec<String>>,
    /// What it may ever have: its ceiling.
    #[serde(default)]
    pub access: Vec<Access>,
    /// The agents that it may hand a part of its task to.
    #[serde(default)]
    pub may_delegate_to: Vec<Edge>,
    /// The longest life of a token that it gets, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_token_lifetime: Option<Lifetime>,
    /// Whether it is shut out: it can't authenticate and gets nothing.
    #[serde(default)]
    pub disabled: bool,
}

impl Agent {
    /// The edge to another agent, if there is one: leave to hand over to it.
    #[must_use]
    pub fn edge_to(&self, agent: &ClientId) -> Option<&Edge> {
        self.may_delegate_to.iter().find(|edge| edge.agent == *agent)
    }
}

/// What an agent is in a chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentKind {
    /// It works for people: it opens tasks, and hands over parts of them.
    #[default]
    Agent,
    /// It passes on what agents want of resources. It takes part in their tasks and opens none: there is always an agent
    /// behind it, which stays visible.
    Broker,
}

impl AgentKind {
    /// What it is called in `sub_profile` of its hop (actor profile draft).
    #[must_use]
    pub fn profile(self) -> &'static str {
        match self {
            Self::Agent => "ai_agent",
            Self::Broker => "service",
        }
    }
}
