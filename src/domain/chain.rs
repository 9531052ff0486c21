//! Who acts: the `act` claim (RFC 8693 §4.1), rebuilt hop by hop, each hop an issuer and a subject.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use thiserror::Error;

/// One acting party: who it is, and in whose namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// The namespace of `sub`: our own issuer for every agent of ours.
    pub iss: String,
    /// The agent.
    pub sub: String,
    /// What kind of party it is (`ai_agent`, `service`, …), when known.
    pub sub_profile: Option<String>,
}

impl Hop {
    /// Whether both are the same party; the profile is a remark, not part of the name.
    #[must_use]
    pub fn is_same_party(&self, other: &Self) -> bool {
        self.iss == other.iss && self.sub == other.sub
    }
}

/// Why a chain can't be, or can't grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidChain {
    /// More hops than the limit.
    #[error("the chain of agents is longer than allowed")]
    TooDeep,
    /// An agent would stand in the chain twice.
    #[error("the agent is already part of the chain")]
    Repeated,
    /// Another issuer speaks of an agent of ours.
    #[error("the subject token says that an agent of this server acted, and was not issued here")]
    NotTheirs,
    /// No hop at all: that would be impersonation.
    #[error("a chain names at least one agent")]
    Empty,
}

/// The agents that act, the current one first. Never empty: a token without `act` is impersonation, and there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain(Vec<Hop>);

/// How many hops we read at all, whatever the configured depth is.
pub const MAX_HOPS: usize = 16;

impl Chain {
    /// A chain of one.
    #[must_use]
    pub fn of(actor: Hop) -> Self {
        Self(vec![actor])
    }

    /// Takes hops, the current actor first.
    pub fn new(hops: Vec<Hop>) -> Result<Self, InvalidChain> {
        if hops.is_empty() {
            return Err(InvalidChain::Empty);
        }
        if hops.len() > MAX_HOPS {
            return Err(InvalidChain::TooDeep);
        }
        let repeated = hops.iter().enumerate().any(|(n, hop)| hops.iter().skip(n + 1).any(|h| h.is_same_party(hop)));
        if repeated { Err(InvalidChain::Repeated) } else { Ok(Self(hops)) }
    }

    /// The chain with `actor` in front of it, if it is not in there yet and the chain is not longer than `max` then.
    pub fn extended_by(&self, actor: Hop, max: usize) -> Result<Self, InvalidChain> {
        if self.0.iter().any(|hop| hop.is_same_party(&actor)) {
            return Err(InvalidChain::Repeated);
        }
        if self.0.len() >= max {
            return Err(InvalidChain::TooDeep);
        }
        Self::new(std::iter::once(actor).chain(self.0.iter().cloned()).collect())
    }

    /// The agents, the current one first.
    pub fn hops(&self) -> impl DoubleEndedIterator<Item = &Hop> {
        self.0.iter()
    }

    /// How many hops there are.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.0.len()
    }

    /// Who acts now.
    #[must_use]
    pub fn current(&self) -> Option<&Hop> {
        self.0.first()
    }
}

/// The wire form: nested, the current actor outermost.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Act {
    iss: String,
    sub: String,
    #[serde(default)]
    sub_profile: Option<String>,
    #[serde(rename = "act", default)]
    inner: Option<Box<Act>>,
}

/// The same, to be written: a hop, and those within it.
#[derive(Serialize)]
struct ActOf<'a> {
    iss: &'a str,
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_profile: Option<&'a str>,
    #[serde(rename = "act", skip_serializing_if = "Inner::is_empty")]
    inner: Inner<'a>,
}

struct Inner<'a>(&'a [Hop]);

impl Inner<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Inner<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let act = self.0.split_first().map(|(hop, rest)| ActOf {
            iss: &hop.iss,
            sub: &hop.sub,
            sub_profile: hop.sub_profile.as_deref(),
            inner: Inner(rest),
        });
        act.serialize(out)
    }
}

impl Serialize for Chain {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        Inner(&self.0).serialize(out)
    }
}

impl<'de> Deserialize<'de> for Chain {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let mut hops = Vec::new();
        let mut next = Some(Box::new(Act::deserialize(input)?));
        while let Some(act) = next {
            let Act { iss, sub, sub_profile, inner } = *act;
            hops.push(Hop { iss, sub, sub_profile });
            next = inner;
        }
        Self::new(hops).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(sub: &str) -> Hop {
        Hop { iss: "https://sts.example.com".into(), sub: sub.into(), sub_profile: None }
    }

    #[test]
    fn nests_with_the_current_actor_outermost_and_reads_back() {
        let chain = Chain::of(hop("a")).extended_by(hop("b"), 4).unwrap();
        let json = serde_json::to_string(&chain).unwrap();
        assert_eq!(
            json,
            r#"{"iss":"https://sts.example.com","sub":"b","act":{"iss":"https://sts.example.com","sub":"a"}}"#
        );
        assert_eq!(serde_json::from_str::<Chain>(&json).unwrap(), chain);
    }

    #[test]
    fn no_hop_without_issuer_no_loop_no_depth() {
        assert!(serde_json::from_str::<Chain>(r#"{"sub":"a"}"#).is_err());
        assert!(serde_json::from_str::<Chain>(r#"{"iss":"x"}"#).is_err());
        let two = Chain::of(hop("a")).extended_by(hop("b"), 4).unwrap();
        assert_eq!(two.extended_by(hop("a"), 4), Err(InvalidChain::Repeated));
        assert_eq!(two.extended_by(hop("c"), 2), Err(InvalidChain::TooDeep));
        assert_eq!(Chain::new(vec![]), Err(InvalidChain::Empty));
        let long = (0..=MAX_HOPS).map(|n| hop(&n.to_string())).collect();
        assert_eq!(Chain::new(long), Err(InvalidChain::TooDeep));
    }
}
