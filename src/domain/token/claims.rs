//! The claims of the tokens that this server issues.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::{Map, Value};

use super::{
    actor_chain::{Actor, ActorChain},
    foreign_claims::ClaimError,
};
use crate::domain::{
    authority::Authority,
    encoding::strict_json::{self, StrictJsonError},
    id::{ClientId, GrantId, Purpose, Subject, TaskId, TokenId},
    jose::jws::MAX_PAYLOAD_DEPTH,
    requester::Requester,
    revocation::{LogPosition, RevocationKeys},
    scope::ScopeSet,
    settings::{MAX_CLOCK_SKEW, TOKEN_LIFETIME_CAP},
    status_list::StatusClaim,
    time::Timestamp,
    uri::IssuerUrl,
};

/// The `typ` of an access token (RFC 9068 §2.1): task tokens for a resource, hand-over tokens and API tokens.
pub const TYP_ACCESS_TOKEN: &str = "at+jwt";
/// The `typ` of a transaction token.
pub const TYP_TXN_TOKEN: &str = "txntoken+jwt";
/// The `typ` of a signed introspection answer (RFC 9701 §5).
pub const TYP_INTROSPECTION: &str = "token-introspection+jwt";

/// Whether a token of ours with this end is good at `now`, as far as that goes. One that would last longer than any that
/// is made now is of an issuer whose clock is wrong: nobody knows how old it is.
pub fn check_expiry(expires: Timestamp, now: Timestamp) -> Result<(), ClaimError> {
    if expires.has_passed(now) {
        Err(ClaimError::Expired)
    } else if expires > now.saturating_add(TOKEN_LIFETIME_CAP).saturating_add(MAX_CLOCK_SKEW) {
        Err(ClaimError::LifetimeTooLong)
    } else {
        Ok(())
    }
}

/// What kind of token ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// For one resource.
    Access,
    /// For Errand alone: what an agent gives to the agent it names in `may_act`, to be exchanged.
    HandOver,
    /// For the trust domain (Transaction Tokens).
    Txn,
    /// For Errand's own APIs; in nobody's name.
    Api,
}

impl TokenKind {
    /// The word for it, in the store.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::HandOver => "hand_over",
            Self::Txn => "txn",
            Self::Api => "api",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Access, Self::HandOver, Self::Txn, Self::Api].into_iter().find(|kind| kind.as_str() == word)
    }

    /// The JOSE header's `typ`.
    #[must_use]
    pub fn typ(self) -> &'static str {
        match self {
            Self::Access | Self::HandOver | Self::Api => TYP_ACCESS_TOKEN,
            Self::Txn => TYP_TXN_TOKEN,
        }
    }
}

/// The claims of a token that was issued for a task: for a resource, for the trust domain, or to be handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskTokenClaims {
    /// Us.
    pub iss: IssuerUrl,
    /// The resource, the trust domain, or us (for a hand-over token). One string.
    pub aud: String,
    /// The requester.
    pub sub: Subject,
    /// Whose word it is that `sub` is who they are.
    pub sub_iss: IssuerUrl,
    /// The client that got the token.
    pub client_id: ClientId,
    /// When it was issued.
    pub iat: Timestamp,
    /// When it ends.
    pub exp: Timestamp,
    /// Its id.
    pub jti: TokenId,
    /// The task.
    pub txn: TaskId,
    /// The tokens it was derived from, oldest first.
    pub lineage: Vec<TokenId>,
    /// The position of the revocation log that the issuing replica had applied.
    pub rev: LogPosition,
    /// The scopes that `authorization_details` cover.
    pub scope: ScopeSet,
    /// What may be done.
    #[serde(deserialize_with = "deserialize_authority")]
    pub authorization_details: Authority,
    /// Who acts. Always there.
    pub act: ActorChain,
    /// The task and the hash of what was approved for it.
    pub task: TaskRef,
    /// What the task is for; does not change along the chain.
    pub tctx: TaskContext,
    /// Under which circumstances it was asked for.
    #[serde(deserialize_with = "deserialize_request_context")]
    pub rctx: Map<String, Value>,
    /// The workload that asked for a transaction token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req_wl: Option<ClientId>,
    /// The agent that a hand-over token is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_act: Option<NextActor>,
    /// The recorded grant that it rests on: it ends when that is withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// Whether that grant is for an emergency.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
    /// When the requester signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<Timestamp>,
    /// How strongly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    /// By which means.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amr: Option<Vec<String>>,
    /// Its place in the status lists, for who does not ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusClaim>,
}

/// The `task` claim, after the `mission` claim of the Mission-Bound Authorization drafts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRef {
    /// The task's id; the same as `txn`.
    pub id: TaskId,
    /// Where the task is kept: us.
    pub issuer: IssuerUrl,
    /// The hash of the authority that was approved for the task.
    pub authority_hash: String,
}

/// The `tctx` claim: what the task is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskContext {
    /// The task's purpose.
    pub purpose: Purpose,
    /// `request_details`, as the opening request gave them.
    #[serde(default, deserialize_with = "deserialize_request_details", skip_serializing_if = "Option::is_none")]
    pub details: Option<Map<String, Value>>,
}

/// The one agent that a hand-over token is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextActor {
    /// Us: the agent is registered here.
    pub iss: IssuerUrl,
    /// The agent.
    pub sub: ClientId,
}

/// How deep a claim may nest: a payload is one level more.
const MAX_CLAIM_DEPTH: usize = MAX_PAYLOAD_DEPTH - 1;

fn deserialize_authority<'de, D: Deserializer<'de>>(input: D) -> Result<Authority, D::Error> {
    Authority::deserialize_with_depth(input, MAX_CLAIM_DEPTH)
}

fn deserialize_request_context<'de, D: Deserializer<'de>>(input: D) -> Result<Map<String, Value>, D::Error> {
    strict_json::deserialize_members(input, MAX_CLAIM_DEPTH)?.ok_or_else(|| D::Error::custom("must be an object"))
}

/// In `tctx`, so one level further down.
fn deserialize_request_details<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Map<String, Value>>, D::Error> {
    strict_json::deserialize_members(input, MAX_CLAIM_DEPTH - 1)
}

impl TaskTokenClaims {
    /// Reads the payload of a token of ours, as strictly as that of anybody else.
    pub fn read(payload: &[u8]) -> Result<Self, StrictJsonError> {
        strict_json::parse_own(payload)
    }

    /// Which kind of token this is, by its `typ` and whether it names a next actor.
    #[must_use]
    pub fn kind(&self, typ: &str) -> Option<TokenKind> {
        match (typ, &self.may_act) {
            (TYP_ACCESS_TOKEN, None) => Some(TokenKind::Access),
            (TYP_ACCESS_TOKEN, Some(_)) => Some(TokenKind::HandOver),
            (TYP_TXN_TOKEN, None) => Some(TokenKind::Txn),
            _ => None,
        }
    }

    /// In whose name.
    #[must_use]
    pub fn requester(&self) -> Requester {
        Requester { issuer: self.sub_iss.clone(), subject: self.sub.clone() }
    }

    /// The hops of agents of ours, wherever they stand in the chain. One that another issuer named is none of them.
    pub fn own_actors(&self) -> impl Iterator<Item = &Actor> {
        self.act.actors().filter(|hop| hop.iss == self.iss.as_str())
    }

    /// Every name under which this token can be taken back.
    #[must_use]
    pub fn revocation_keys(&self) -> RevocationKeys {
        let mut agents = BTreeSet::from([self.client_id.clone()]);
        for hop in self.own_actors() {
            // The client is mostly the one that acts.
            if agents.iter().all(|id| id.as_str() != hop.sub) {
                agents.extend(hop.sub.parse::<ClientId>());
            }
        }
        agents.extend(self.may_act.iter().map(|next| next.sub.clone()));
        // By what it allows, not by `aud`: a hand-over token and a transaction token are for another audience, but what
        // they came from was for these resources, and ends with them.
        let mut resources = BTreeSet::new();
        for permission in self.authorization_details.iter() {
            if !resources.contains(&permission.resource) {
                resources.insert(permission.resource.clone());
            }
        }
        RevocationKeys {
            token: self.jti,
            lineage: self.lineage.clone(),
            task: Some(self.txn),
            grant: self.grant,
            requester: Some(self.requester()),
            agents,
            resources,
            rev: self.rev,
        }
    }
}

/// The claims of an API token: a client at Errand's own APIs, in nobody's name but its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiTokenClaims {
    /// Us.
    pub iss: IssuerUrl,
    /// Us.
    pub aud: String,
    /// The client.
    pub sub: ClientId,
    /// The client again (RFC 9068 §2.2).
    pub client_id: ClientId,
    /// When it was issued.
    pub iat: Timestamp,
    /// When it ends.
    pub exp: Timestamp,
    /// Its id.
    pub jti: TokenId,
    /// The position of the revocation log that the issuing replica had applied.
    pub rev: LogPosition,
    /// Which of Errand's APIs.
    pub scope: ScopeSet,
}

impl ApiTokenClaims {
    /// Reads the payload of a token of ours, as strictly as that of anybody else.
    pub fn read(payload: &[u8]) -> Result<Self, StrictJsonError> {
        strict_json::parse_own(payload)
    }

    /// Every name under which this token can be taken back.
    #[must_use]
    pub fn revocation_keys(&self) -> RevocationKeys {
        RevocationKeys {
            token: self.jti,
            lineage: Vec::new(),
            task: None,
            grant: None,
            requester: None,
            agents: [self.client_id.clone()].into(),
            resources: BTreeSet::new(),
            rev: self.rev,
        }
    }
}

#[cfg(test)]
mod tests;
