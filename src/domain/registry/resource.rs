//! Resources: MCP servers and their tools.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    authentication::Authentication,
    policy::{BreakGlassRule, ConsentPolicy, Effect, Risk},
};
use crate::domain::{
    id::{ClientId, ToolName},
    jose::jwk::SigningAlgorithm,
    scope::ScopeToken,
    time::Lifetime,
    uri::ResourceUri,
};

/// An MCP server with its tools and its credential for introspection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// The client id, which is also its alias in `audience`.
    pub id: ClientId,
    /// The canonical URI: the `aud` of tokens for it.
    pub uri: ResourceUri,
    /// Other URIs by which clients name it in requests. Tokens for it have `uri` as their `aud`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uri_aliases: Vec<ResourceUri>,
    /// Whether its URI may be http on an address other than loopback: tokens for it are then sent
    /// without encryption, inside a network that the operator trusts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_http: bool,
    /// The display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The authentication method, for introspection.
    pub authentication: Authentication,
    /// The tools: the resource's part of the catalogue.
    #[serde(default)]
    pub tools: Vec<Tool>,
    /// The scope for listing (`tools/list` and the like) without calling. Without it, listing can't
    /// be granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery_scope: Option<ScopeToken>,
    /// Special networks in which its server may be queried for tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_networks: Vec<IpNet>,
    /// The interval for comparing its tools with the accepted definitions, in seconds; never if
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue_refresh: Option<Lifetime>,
    /// The maximum lifetime of tokens for it, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_token_lifetime: Option<Lifetime>,
    /// The algorithm of tokens and signed responses for it; the server's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_algorithm: Option<SigningAlgorithm>,
    /// Which calls of its tools need the requester's recorded consent.
    #[serde(default, skip_serializing_if = "ConsentPolicy::is_none")]
    pub consent: ConsentPolicy,
    /// Whether it accepts tokens based on a break-glass grant.
    #[serde(default, skip_serializing_if = "BreakGlassRule::is_allow")]
    pub break_glass: BreakGlassRule,
    /// Whether the resource is blocked: no tokens are issued for it, and it can't introspect.
    #[serde(default)]
    pub disabled: bool,
}

impl Resource {
    /// Returns whether it offers anything under this scope.
    #[must_use]
    pub fn has_scope(&self, scope: &ScopeToken) -> bool {
        self.tools.iter().any(|tool| tool.scope == *scope) || self.discovery_scope.as_ref() == Some(scope)
    }
}

/// A named operation of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// The name in `tools/list`.
    pub name: ToolName,
    /// The scope that includes it.
    pub scope: ScopeToken,
    /// What a call may do.
    pub effect: Effect,
    /// How much harm a wrong call does.
    #[serde(default)]
    pub risk: Risk,
    /// The class of data that it accesses, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_class: Option<String>,
}
