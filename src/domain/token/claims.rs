//! Claims of the tokens that this server issues.

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

/// The `typ` of an access token (RFC 9068 §2.1): task tokens for a resource, hand-over tokens and
/// API tokens.
pub const TYP_ACCESS_TOKEN: &str = "at+jwt";
/// The `typ` of a transaction token.
pub const TYP_TXN_TOKEN: &str = "txntoken+jwt";
/// The `typ` of a signed introspection response (RFC 9701 §5).
pub const TYP_INTROSPECTION: &str = "token-introspection+jwt";

/// Checks the expiry of a token of this server. An expiry beyond any token issued now means that
/// the clock of the issuing replica was wrong, so the age of the token is unknown.
pub fn check_expiry(expires: Timestamp, now: Timestamp) -> Result<(), ClaimError> {
    if expires.has_passed(now) {
        Err(ClaimError::Expired)
    } else if expires > now.saturating_add(TOKEN_LIFETIME_CAP).saturating_add(MAX_CLOCK_SKEW) {
        Err(ClaimError::LifetimeTooLong)
    } else {
        Ok(())
    }
}

/// The kinds of token that this server issues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenKind {
    /// For one resource.
    Access,
    /// For this server only: the agent passes it to the agent named in `may_act`, which exchanges
    /// it.
    HandOver,
    /// For the trust domain (Transaction Tokens).
    Txn,
    /// For this server's own APIs, without a requester.
    Api,
}

impl TokenKind {
    /// Returns the wire name, which is also the stored name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::HandOver => "hand_over",
            Self::Txn => "txn",
            Self::Api => "api",
        }
    }

    /// Parses the wire name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Access, Self::HandOver, Self::Txn, Self::Api].into_iter().find(|kind| kind.as_str() == word)
    }

    /// Returns the `typ` of the JOSE header.
    #[must_use]
    pub fn typ(self) -> &'static str {
        match self {
            Self::Access | Self::HandOver | Self::Api => TYP_ACCESS_TOKEN,
            Self::Txn => TYP_TXN_TOKEN,
        }
    }
}

/// The claims of a task token: for a resource, for the trust domain, or for a hand-over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskTokenClaims {
    /// The issuer: this server.
    pub iss: IssuerUrl,
    /// The resource, the trust domain, or this server (for a hand-over token). A single string.
    pub aud: String,
    /// The requester.
    pub sub: Subject,
    /// The identity provider that authenticated `sub`.
    pub sub_iss: IssuerUrl,
    /// The client that received the token.
    pub client_id: ClientId,
    /// The time of issue.
    pub iat: Timestamp,
    /// The expiry.
    pub exp: Timestamp,
    /// The token id.
    pub jti: TokenId,
    /// The task.
    pub txn: TaskId,
    /// The tokens from which it was derived, oldest first.
    pub lineage: Vec<TokenId>,
    /// The log position that the issuing replica had applied.
    pub rev: LogPosition,
    /// The scopes that `authorization_details` covers completely. Left out if there is none,
    /// because an empty scope is not valid (RFC 6749 §3.3).
    #[serde(default, skip_serializing_if = "ScopeSet::is_empty")]
    pub scope: ScopeSet,
    /// The authority.
    #[serde(deserialize_with = "deserialize_authority")]
    pub authorization_details: Authority,
    /// The actor chain; always present.
    pub act: ActorChain,
    /// The task, with the hash of its approved authority.
    pub task: TaskRef,
    /// The purpose of the task; constant along the chain.
    pub tctx: TaskContext,
    /// The circumstances of the request.
    #[serde(deserialize_with = "deserialize_request_context")]
    pub rctx: Map<String, Value>,
    /// The workload that requested a transaction token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub req_wl: Option<ClientId>,
    /// The agent for which a hand-over token is intended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_act: Option<NextActor>,
    /// The recorded grant on which it is based. Withdrawing the grant revokes the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<GrantId>,
    /// Whether that grant is a break-glass grant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub break_glass: bool,
    /// The time at which the requester authenticated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<Timestamp>,
    /// The authentication context class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    /// The authentication methods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amr: Option<Vec<String>>,
    /// The index in a status list, for verifiers that do not introspect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusClaim>,
}

/// The `task` claim, after the `mission` claim of the Mission-Bound Authorization drafts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskRef {
    /// The id of the task, equal to `txn`.
    pub id: TaskId,
    /// The server that keeps the task: this server.
    pub issuer: IssuerUrl,
    /// The hash of the authority that was approved for the task.
    pub authority_hash: String,
}

/// The `tctx` claim: the purpose of the task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskContext {
    /// The purpose.
    pub purpose: Purpose,
    /// `request_details` of the request that opened the task.
    #[serde(default, deserialize_with = "deserialize_request_details", skip_serializing_if = "Option::is_none")]
    pub details: Option<Map<String, Value>>,
}

/// The one agent for which a hand-over token is intended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NextActor {
    /// The issuer with which the agent is registered: this server.
    pub iss: IssuerUrl,
    /// The agent.
    pub sub: ClientId,
}

/// Maximum nesting depth of a claim. The payload is one more level.
const MAX_CLAIM_DEPTH: usize = MAX_PAYLOAD_DEPTH - 1;

fn deserialize_authority<'de, D: Deserializer<'de>>(input: D) -> Result<Authority, D::Error> {
    Authority::deserialize_with_depth(input, MAX_CLAIM_DEPTH)
}

fn deserialize_request_context<'de, D: Deserializer<'de>>(input: D) -> Result<Map<String, Value>, D::Error> {
    strict_json::deserialize_members(input, MAX_CLAIM_DEPTH)?.ok_or_else(|| D::Error::custom("must be an object"))
}

/// The value is inside `tctx`, so one level deeper.
fn deserialize_request_details<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Map<String, Value>>, D::Error> {
    strict_json::deserialize_members(input, MAX_CLAIM_DEPTH - 1)
}

impl TaskTokenClaims {
    /// Parses the payload of a token of this server as strictly as a foreign one.
    pub fn read(payload: &[u8]) -> Result<Self, StrictJsonError> {
        strict_json::parse_own(payload)
    }

    /// Returns the kind of token, by its `typ` and by the presence of a next actor.
    #[must_use]
    pub fn kind(&self, typ: &str) -> Option<TokenKind> {
        match (typ, &self.may_act) {
            (TYP_ACCESS_TOKEN, None) => Some(TokenKind::Access),
            (TYP_ACCESS_TOKEN, Some(_)) => Some(TokenKind::HandOver),
            (TYP_TXN_TOKEN, None) => Some(TokenKind::Txn),
            _ => None,
        }
    }

    /// Returns the requester.
    #[must_use]
    pub fn requester(&self) -> Requester {
        Requester { issuer: self.sub_iss.clone(), subject: self.sub.clone() }
    }

    /// Returns the agents of this server anywhere in the chain. Actors of other issuers are
    /// excluded.
    pub fn own_actors(&self) -> impl Iterator<Item = &Actor> {
        self.act.actors().filter(|actor| actor.iss == self.iss.as_str())
    }

    /// Returns all keys under which this token can be revoked.
    #[must_use]
    pub fn revocation_keys(&self) -> RevocationKeys {
        let mut agents = BTreeSet::from([self.client_id.clone()]);
        for actor in self.own_actors() {
            // The client is usually the current actor.
            if agents.iter().all(|id| id.as_str() != actor.sub) {
                agents.extend(actor.sub.parse::<ClientId>());
            }
        }
        agents.extend(self.may_act.iter().map(|next| next.sub.clone()));
        // The resources are those of the authority, not `aud`: a hand-over token and a transaction
        // token have another audience, but they were derived from access to these resources and are
        // revoked with them.
        let mut resources = BTreeSet::new();
        for permission in self.authorization_details.iter() {
            if !resources.contains(&permission.resource) {
                resources.insert(permission.resource.clone());
            }
        }
        let (tools, may_list) = RevocationKeys::of_authority(&self.authorization_details);
        RevocationKeys {
            token: self.jti,
            lineage: self.lineage.clone(),
            task: Some(self.txn),
            grant: self.grant,
            requester: Some(self.requester()),
            agents,
            resources,
            tools,
            may_list,
            break_glass: self.break_glass,
            rev: self.rev,
        }
    }
}

/// The claims of an API token: a client at this server's own APIs, without a requester.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiTokenClaims {
    /// The issuer: this server.
    pub iss: IssuerUrl,
    /// The audience: this server.
    pub aud: String,
    /// The client.
    pub sub: ClientId,
    /// The client (RFC 9068 §2.2).
    pub client_id: ClientId,
    /// The time of issue.
    pub iat: Timestamp,
    /// The expiry.
    pub exp: Timestamp,
    /// The token id.
    pub jti: TokenId,
    /// The log position that the issuing replica had applied.
    pub rev: LogPosition,
    /// The scopes of this server's APIs.
    pub scope: ScopeSet,
}

impl ApiTokenClaims {
    /// Parses the payload of a token of this server as strictly as a foreign one.
    pub fn read(payload: &[u8]) -> Result<Self, StrictJsonError> {
        strict_json::parse_own(payload)
    }

    /// Returns all keys under which this token can be revoked.
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
            tools: BTreeSet::new(),
            may_list: false,
            break_glass: false,
            rev: self.rev,
        }
    }
}

#[cfg(test)]
mod tests;
