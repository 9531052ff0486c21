//! Resources and their tools.

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

/// An MCP server, its tools and its credential for introspection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resource {
    /// Its client id, also its alias in `audience`.
    pub id: ClientId,
    /// Its canonical URI: the `aud` of tokens for it.
    pub uri: ResourceUri,
    /// A name for humans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How it proves who it is when it introspects.
    pub authentication: Authentication,
    /// The catalogue: what it offers.
    #[serde(default)]
    pub tools: Vec<Tool>,
    /// The scope that stands for listing what it has, apart from calling: without one, that can't be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discovery_scope: Option<ScopeToken>,
    /// Networks with special addresses that it may be asked at for its tools.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_networks: Vec<IpNet>,
    /// How often it is asked whether its tools are still what was accepted, in seconds; never, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue_refresh: Option<Lifetime>,
    /// The longest life of a token for it, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_token_lifetime: Option<Lifetime>,
    /// The algorithm of tokens and signed answers for it; ours when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_algorithm: Option<SigningAlgorithm>,
    /// Which calls of its tools need the requester's recorded consent.
    #[serde(default, skip_serializing_if = "ConsentPolicy::is_none")]
    pub consent: ConsentPolicy,
    /// Whether a grant for an emergency is good for anything here.
    #[serde(default, skip_serializing_if = "BreakGlassRule::is_allow")]
    pub break_glass: BreakGlassRule,
    /// Whether it is shut out: no token for it, no answer to it.
    #[serde(default)]
    pub disabled: bool,
}

impl Resource {
    /// Whether something of it stands under this scope.
    #[must_use]
    pub fn has_scope(&self, scope: &ScopeToken) -> bool {
        self.tools.iter().any(|tool| tool.scope == *scope) || self.discovery_scope.as_ref() == Some(scope)
    }
}

/// A named operation of a resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Its name in `tools/list`.
    pub name: ToolName,
    /// The scope that stands for it and its like.
    pub scope: ScopeToken,
    /// What a call may do.
    pub effect: Effect,
    /// How much harm a wrong call does.
    #[serde(default)]
    pub risk: Risk,
    /// What kind of data it touches, in the operator's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_class: Option<String>,
}
