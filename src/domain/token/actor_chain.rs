//! Actor chain: the `act` claim (RFC 8693 §4.1), in which each actor has an issuer and a subject.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

use crate::domain::uri::IssuerUrl;

/// An actor, identified by name and namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Actor {
    /// The namespace of `sub`: this server's issuer for its own agents.
    pub iss: String,
    /// The name of the actor.
    pub sub: String,
    /// The kind of party (`ai_agent`, `service`, …), if known.
    pub sub_profile: Option<String>,
}

impl Actor {
    /// Returns whether both are the same party. The profile is not part of the identity.
    #[must_use]
    pub fn is_same_party(&self, other: &Self) -> bool {
        self.iss == other.iss && self.sub == other.sub
    }
}

/// Why a chain is invalid or can't be extended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ActorChainError {
    /// The chain has more actors than the limit.
    #[error("the actor chain is longer than permitted")]
    TooDeep,
    /// An agent would appear more than once.
    #[error("the agent is already part of the actor chain")]
    DuplicateActor,
    /// A foreign issuer names an agent of this server.
    #[error("the subject token names an agent of this server in `act`, but another issuer issued it")]
    OwnAgentNamedByForeignIssuer,
    /// The chain is empty, which would be impersonation.
    #[error("the actor chain is empty; name at least one agent")]
    Empty,
}

/// The actors, the current one first. Never empty: a token without `act` would be impersonation,
/// which this server does not issue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorChain(Vec<Actor>);

/// Maximum number of actors that are parsed, regardless of the configured depth.
pub const MAX_ACTORS: usize = 16;

impl ActorChain {
    /// Returns a chain with one actor.
    #[must_use]
    pub fn from_actor(actor: Actor) -> Self {
        Self(vec![actor])
    }

    /// Builds a chain from actors, the current one first.
    pub fn new(actors: Vec<Actor>) -> Result<Self, ActorChainError> {
        if actors.is_empty() {
            return Err(ActorChainError::Empty);
        }
        if actors.len() > MAX_ACTORS {
            return Err(ActorChainError::TooDeep);
        }
        let has_duplicate = actors
            .iter()
            .enumerate()
            .any(|(n, actor)| actors.iter().skip(n + 1).any(|other| other.is_same_party(actor)));
        if has_duplicate { Err(ActorChainError::DuplicateActor) } else { Ok(Self(actors)) }
    }

    /// Returns the chain with `actor` as the current actor. Fails if the actor is already in the
    /// chain, or the chain would exceed `max`.
    pub fn with_actor(&self, actor: Actor, max: usize) -> Result<Self, ActorChainError> {
        if self.0.iter().any(|present| present.is_same_party(&actor)) {
            return Err(ActorChainError::DuplicateActor);
        }
        if self.0.len() >= max {
            return Err(ActorChainError::TooDeep);
        }
        Self::new(std::iter::once(actor).chain(self.0.iter().cloned()).collect())
    }

    /// Returns the actors, the current one first.
    pub fn actors(&self) -> impl DoubleEndedIterator<Item = &Actor> {
        self.0.iter()
    }

    /// Returns the names of the actors for an audit record, the current one first. An actor of
    /// another issuer is `foreign:`, its issuer and its name, which no client id can be.
    #[must_use]
    pub fn audit_names(&self, own_issuer: &IssuerUrl) -> Vec<String> {
        let name = |actor: &Actor| {
            if actor.iss == own_issuer.as_str() {
                actor.sub.clone()
            } else {
                format!("foreign:{} {}", actor.iss, actor.sub)
            }
        };
        self.0.iter().map(name).collect()
    }

    /// Returns the number of actors.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Returns the current actor.
    #[must_use]
    pub fn current(&self) -> Option<&Actor> {
        self.0.first()
    }
}

/// The wire form: nested, with the current actor outermost.
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

/// The wire form for serialization: an actor, and the prior actors.
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
        let act = self.0.split_first().map(|(actor, rest)| ActClaimRef {
            iss: &actor.iss,
            sub: &actor.sub,
            sub_profile: actor.sub_profile.as_deref(),
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
        let mut actors = Vec::new();
        let mut next = Some(Box::new(ActClaim::deserialize(input)?));
        while let Some(act) = next {
            let ActClaim { iss, sub, sub_profile, inner } = *act;
            actors.push(Actor { iss, sub, sub_profile });
            next = inner;
        }
        Self::new(actors).map_err(D::Error::custom)
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
    fn audit_names_mark_actors_of_other_issuers() {
        let foreign = Actor { iss: "https://login.example.com".into(), ..actor("planner") };
        let chain = ActorChain::from_actor(foreign).with_actor(actor("planner"), 4).unwrap();
        let own = "https://sts.example.com".parse().unwrap();
        assert_eq!(chain.audit_names(&own), ["planner", "foreign:https://login.example.com planner"]);
        assert!("foreign:x y".parse::<crate::domain::id::ClientId>().is_err());
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
