//! Who acts: the `act` claim (RFC 8693 §4.1), rebuilt hop by hop, each hop an issuer and a subject.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

/// One acting party: who it is, and in whose namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    /// The namespace of `sub`: our own issuer for every agent of ours.
    pub iss: String,
    /// The agent.
    pub sub: String,
    /// What kind of party it is (`ai_agent`, `service`, …), when known.
    pub sub_profile: Option<String>,
}

impl Actor {
    /// Whether both are the same party; the profile is a remark, not part of the name.
    #[must_use]
    pub fn is_same_party(&self, other: &Self) -> bool {
        self.iss == other.iss && self.sub == other.sub
    }
}

/// Why a chain can't be, or can't grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ActorChainError {
    /// More hops than the limit.
    #[error("the chain of agents is longer than allowed")]
    TooDeep,
    /// An agent would stand in the chain twice.
    #[error("the agent is already part of the chain")]
    DuplicateActor,
    /// Another issuer speaks of an agent of ours.
    #[error("the subject token says that an agent of this server acted, and was not issued here")]
    OwnAgentNamedByForeignIssuer,
    /// No hop at all: that would be impersonation.
    #[error("a chain names at least one agent")]
    Empty,
}

/// The agents that act, the current one first. Never empty: a token without `act` is impersonation, and there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorChain(Vec<Actor>);

/// How many hops we read at all, whatever the configured depth is.
pub const MAX_ACTORS: usize = 16;

impl ActorChain {
    /// A chain of one.
    #[must_use]
    pub fn from_actor(actor: Actor) -> Self {
        Self(vec![actor])
    }

    /// Takes hops, the current actor first.
    pub fn new(hops: Vec<Actor>) -> Result<Self, ActorChainError> {
        if hops.is_empty() {
            return Err(ActorChainError::Empty);
        }
        if hops.len() > MAX_ACTORS {
            return Err(ActorChainError::TooDeep);
        }
        let repeated = hops.iter().enumerate().any(|(n, hop)| hops.iter().skip(n + 1).any(|h| h.is_same_party(hop)));
        if repeated { Err(ActorChainError::DuplicateActor) } else { Ok(Self(hops)) }
    }

    /// The chain with `actor` in front of it, if it is not in there yet and the chain is not longer than `max` then.
    pub fn with_actor(&self, actor: Actor, max: usize) -> Result<Self, ActorChainError> {
        if self.0.iter().any(|hop| hop.is_same_party(&actor)) {
            return Err(ActorChainError::DuplicateActor);
        }
        if self.0.len() >= max {
            return Err(ActorChainError::TooDeep);
        }
        Self::new(std::iter::once(actor).chain(self.0.iter().cloned()).collect())
    }

    /// The agents, the current one first.
    pub fn actors(&self) -> impl DoubleEndedIterator<Item = &Actor> {
        self.0.iter()
    }

    /// How many hops there are.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Who acts now.
    #[must_use]
    pub fn current(&self) -> Option<&Actor> {
        self.0.first()
    }
}

/// The wire form: nested, the current actor outermost.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActClaim {
    iss: String,
    sub: String,
    #[serde(default)]
    sub_profile: Option<String>,
    #[serde(rename = "act", default)]
    inner: Option<Box<ActClaim>>,
}

/// The same, to be written: a hop, and those within it.
#[derive(Serialize)]
struct ActClaimRef<'a> {
    iss: &'a str,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_profile: Option<&'a str>,
    #[serde(rename = "act", skip_serializing_if = "NestedActors::is_empty")]
    inner: NestedActors<'a>,
}

struct NestedActors<'a>(&'a [Actor]);

impl NestedActors<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for NestedActors<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let act = self.0.split_first().map(|(hop, rest)| ActClaimRef {
            iss: &hop.iss,
            sub: &hop.sub,
            sub_profile: hop.sub_profile.as_deref(),
            inner: NestedActors(rest),
        });
        act.serialize(out)
    }
}

impl Serialize for ActorChain {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        NestedActors(&self.0).serialize(out)
    }
}

impl<'de> Deserialize<'de> for ActorChain {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let mut hops = Vec::new();
        let mut next = Some(Box::new(ActClaim::deserialize(input)?));
        while let Some(act) = next {
            let ActClaim { iss, sub, sub_profile, inner } = *act;
            hops.push(Actor { iss, sub, sub_profile });
            next = inner;
        }
        Self::new(hops).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn actor(sub: &str) -> Actor {
        Actor { iss: "https://sts.example.com".into(), sub: sub.into(), sub_profile: None }
    }

    #[test]
    fn actor_chain_round_trips_with_current_actor_outermost() {
        let chain = ActorChain::from_actor(actor("a")).with_actor(actor("b"), 4).unwrap();
        let json = serde_json::to_string(&chain).unwrap();
        assert_eq!(
            json,
            r#"{"iss":"https://sts.example.com","sub":"b","act":{"iss":"https://sts.example.com","sub":"a"}}"#
        );
        assert_eq!(serde_json::from_str::<ActorChain>(&json).unwrap(), chain);
    }

    #[test]
    fn actor_chain_with_missing_issuer_duplicate_or_excess_depth_is_rejected() {
        assert!(serde_json::from_str::<ActorChain>(r#"{"sub":"a"}"#).is_err());
        assert!(serde_json::from_str::<ActorChain>(r#"{"iss":"x"}"#).is_err());
        let two = ActorChain::from_actor(actor("a")).with_actor(actor("b"), 4).unwrap();
        assert_eq!(two.with_actor(actor("a"), 4), Err(ActorChainError::DuplicateActor));
        assert_eq!(two.with_actor(actor("c"), 2), Err(ActorChainError::TooDeep));
        assert_eq!(ActorChain::new(vec![]), Err(ActorChainError::Empty));
        let long = (0..=MAX_ACTORS).map(|n| actor(&n.to_string())).collect();
        assert_eq!(ActorChain::new(long), Err(ActorChainError::TooDeep));
    }
}
