//! Delegation edges between agents.

use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::Value;

use super::access::Access;
use crate::domain::id::ClientId;

/// Permission to delegate a part of a task to an agent, with limits on what is delegated and how
/// far. Serialized as the agent's id if it has no limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The agent to which the task is delegated.
    pub agent: ClientId,
    /// Maximum number of further agents, including this one: at 1 the agent may not delegate
    /// further. Without it, only the maximum chain length applies.
    pub depth: Option<u8>,
    /// The ceiling of what is delegated. Without it, everything that the token allows.
    pub access: Option<Vec<Access>>,
}

impl Edge {
    /// The valid range of `depth`: no chain has more than eight agents.
    pub const DEPTH_RANGE: RangeInclusive<u8> = 1..=7;
}

impl From<ClientId> for Edge {
    fn from(agent: ClientId) -> Self {
        Self { agent, depth: None, access: None }
    }
}

/// The long form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EdgeObject {
    agent: ClientId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    depth: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access: Option<Vec<Access>>,
}

impl Serialize for Edge {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let Self { agent, depth, access } = self.clone();
        match (depth, access) {
            (None, None) => agent.serialize(out),
            (depth, access) => EdgeObject { agent, depth, access }.serialize(out),
        }
    }
}

impl<'de> Deserialize<'de> for Edge {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(input)?;
        if value.is_string() {
            return serde_json::from_value::<ClientId>(value).map(Into::into).map_err(D::Error::custom);
        }
        if !value.is_object() {
            return Err(D::Error::custom("must be the id of an agent, or an object"));
        }
        let EdgeObject { agent, depth, access } = serde_json::from_value(value).map_err(D::Error::custom)?;
        Ok(Self { agent, depth, access })
    }
}
