//! The OAuth clients of ours: agents, resources, admins; how each proves who it is, and what it may ever have.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use crate::domain::registry::edge::Edge;

use crate::domain::{
    authority::ToolUse,
    grants::{ConsentPolicy, break_glass::BreakGlassRule},
    id::{ClientId, ToolName},
    jose::jwk::{JwkSet, JwsAlgorithm, SigningAlgorithm},
    scope::{ScopeSet, ScopeToken},
    time::Lifetime,
    uri::{IssuerUrl, ResourceUri},
};

/// How a client proves who it is at our endpoints. One method a client; another one is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum Authentication {
    /// A signed assertion (RFC 7523, as 7523bis has it).
    PrivateKeyJwt {
        /// The client's public keys.
        jwks: JwkSet,
        /// The algorithms it may sign with; each key is bound to those that fit it.
        #[serde(default = "default_assertion_algorithms")]
        algorithms: Vec<JwsAlgorithm>,
        /// Which `aud` its assertions may have.
        #[serde(default)]
        assertion_audience: AssertionAudience,
    },
    /// A 256-bit secret that we made, by HTTP Basic (RFC 6749 §2.3.1). Its tag is kept apart.
    ClientSecretBasic {},
}

impl Authentication {
    /// The name of the method in RFC 8414 metadata.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Self::PrivateKeyJwt { .. } => "private_key_jwt",
            Self::ClientSecretBasic {} => "client_secret_basic",
        }
    }
}

/// What a client may sign its assertions with when its entry does not say.
#[must_use]
pub fn default_assertion_algorithms() -> Vec<JwsAlgorithm> {
    vec![JwsAlgorithm::ES256, JwsAlgorithm::EdDSA, JwsAlgorithm::RS256, JwsAlgorithm::PS256]
}

/// Which `aud` a client assertion may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssertionAudience {
    /// Our issuer, as the sole string (RFC 7523bis).
    #[default]
    Issuer,
    /// The token endpoint's URL as well: for libraries that can't do better, such as Authlib.
    TokenEndpointToo,
}

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

/// A part of a ceiling: some tools of one resource, or some calls of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// The client id of the resource.
    pub resource: ClientId,
    /// All tools under these scopes.
    #[serde(default)]
    pub scopes: Vec<ScopeToken>,
    /// These tools by name, each with rules for its arguments or without.
    #[serde(default)]
    pub tools: Vec<ToolUse>,
}

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

/// What a call of a tool may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Looks only.
    Read,
    /// Changes, and the change can be undone.
    Write,
    /// Can't be undone.
    Destructive,
}

/// How much harm a wrong call does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Little.
    #[default]
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
}

/// Somebody, or something, that runs Errand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Its client id.
    pub id: ClientId,
    /// What it may do.
    pub role: Role,
    /// How it proves who it is.
    pub authentication: Authentication,
    /// Whether it is shut out.
    #[serde(default)]
    pub disabled: bool,
}

/// What an admin may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Changes the registry, revokes, rotates keys; reads everything.
    Operator,
    /// Reads everything, changes nothing.
    Auditor,
}

/// A client of any kind.
#[derive(Clone, Copy, Debug)]
pub enum Client<'a> {
    /// An agent.
    Agent(&'a Agent),
    /// A resource.
    Resource(&'a Resource),
    /// An admin.
    Admin(&'a Admin),
}

impl Client<'_> {
    /// Its client id.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        match self {
            Self::Agent(agent) => &agent.id,
            Self::Resource(resource) => &resource.id,
            Self::Admin(admin) => &admin.id,
        }
    }

    /// How it proves who it is.
    #[must_use]
    pub fn authentication(&self) -> &Authentication {
        match self {
            Self::Agent(agent) => &agent.authentication,
            Self::Resource(resource) => &resource.authentication,
            Self::Admin(admin) => &admin.authentication,
        }
    }

    /// Whether it is shut out.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        match self {
            Self::Agent(agent) => agent.disabled,
            Self::Resource(resource) => resource.disabled,
            Self::Admin(admin) => admin.disabled,
        }
    }

    /// The scopes of Errand's own APIs that it may have in an API token.
    #[must_use]
    pub fn api_scopes(&self) -> ScopeSet {
        let names: &[&str] = match self {
            Self::Agent(_) => &[TASKS_SCOPE],
            Self::Resource(_) => &[INTROSPECT_SCOPE, TASKS_SCOPE, REVOCATIONS_SCOPE],
            Self::Admin(Admin { role: Role::Operator, .. }) => &[ADMIN_SCOPE, AUDIT_SCOPE],
            Self::Admin(Admin { role: Role::Auditor, .. }) => &[AUDIT_SCOPE],
        };
        names.iter().filter_map(|name| name.parse::<ScopeToken>().ok()).collect()
    }
}

/// May introspect tokens for its own audience.
pub const INTROSPECT_SCOPE: &str = "errand:introspect";
/// May read and report on tasks that it takes part in.
pub const TASKS_SCOPE: &str = "errand:tasks";
/// May follow the revocation log, to check tokens for its own audience offline.
pub const REVOCATIONS_SCOPE: &str = "errand:revocations";
/// May change the registry, revoke and rotate keys.
pub const ADMIN_SCOPE: &str = "errand:admin";
/// May read the registry, tokens, tasks, revocations and the audit trail.
pub const AUDIT_SCOPE: &str = "errand:audit";
