//! An edge from one agent to another: leave to hand over to it.

use std::ops::RangeInclusive;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use serde_json::Value;

use super::access::Access;
use crate::domain::id::ClientId;

/// Leave to hand a part of a task to an agent: what may go to it, and how far it may go on from there. Written as the
/// agent's id when it is neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The agent that is handed over to.
    pub agent: ClientId,
    /// How many agents may follow, this one included: with 1 it hands over to nobody. The length of the whole chain
    /// decides alone when absent.
    pub depth: Option<u8>,
    /// What may go along; whatever the token allows when absent.
    pub access: Option<Vec<Access>>,
}

impl Edge {
    /// What `depth` may be: no chain has more than eight agents.
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
