//! Trusted issuers: the identity providers of requesters, their keys, and the limits of that trust.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::domain::{
    authority::ToolUse,
    id::ClientId,
    jose::jwk::{JwkSet, JwsAlgorithm},
    registry::policy::ConsentPolicy,
    scope::ScopeToken,
    uri::IssuerUrl,
};

/// A trusted identity provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedIssuer {
    /// The issuer identifier. `iss` of its tokens must equal it exactly.
    pub issuer: IssuerUrl,
    /// The source of its keys.
    pub keys: KeySource,
    /// The `aud` values that identify this server. An ID token's `aud` is the agent's client id
    /// instead.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Whether `aud` may contain other values too.
    #[serde(default)]
    pub other_audiences: OtherAudiences,
    /// The permitted signature algorithms.
    pub algorithms: Vec<JwsAlgorithm>,
    /// The accepted kinds of token.
    pub token_types: Vec<SubjectTokenType>,
    /// The names of the claims that this server reads.
    #[serde(default)]
    pub claims: ClaimNames,
    /// Prepended to every subject, so that subjects of two issuers can't collide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_prefix: Option<String>,
    /// How the `scope` of a user token limits what it permits.
    #[serde(default)]
    pub subject_scopes: SubjectScopes,
    /// What its users may have, by their claims. Without rules, the scope of the token alone
    /// decides.
    #[serde(default)]
    pub entitlements: Vec<Entitlement>,
    /// Private or special networks from which its keys may be fetched.
    #[serde(default)]
    pub allowed_networks: Vec<IpNet>,
    /// Which calls need the recorded consent of its users.
    #[serde(default, skip_serializing_if = "ConsentPolicy::is_none")]
    pub consent: ConsentPolicy,
    /// The `aud` of tokens with which its users call this server's own API, and which permit
    /// nothing else. Empty: its users can't call the API.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub api_audiences: Vec<String>,
    /// The client ids of the portals whose tokens may call the API. None of them may be an agent's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub portal_clients: Vec<String>,
    /// Whether the issuer is blocked: its tokens are rejected.
    #[serde(default)]
    pub disabled: bool,
}

impl TrustedIssuer {
    /// Returns whether its users may call this server's own API.
    #[must_use]
    pub fn has_portal(&self) -> bool {
        !self.api_audiences.is_empty() && !self.portal_clients.is_empty()
    }

    /// Returns the issuer as seen by this server's own API: with another `aud`, and with no
    /// additional values.
    #[must_use]
    pub fn with_api_audiences(self) -> Self {
        Self { audiences: self.api_audiences.clone(), other_audiences: OtherAudiences::Refuse, ..self }
    }
}

/// The source of an issuer's keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeySource {
    /// Named by its metadata (OpenID Connect Discovery or RFC 8414).
    Discovery,
    /// Served at this URL.
    JwksUri(Url),
    /// Configured inline; they change by configuration only.
    Inline(JwkSet),
}

/// Whether a user token's `aud` may contain values other than this server's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OtherAudiences {
    /// Rejects a token that is also valid elsewhere.
    #[default]
    Refuse,
    /// Accepts such a token if one of the values is this server's.
    Accept,
}

/// The kinds of user token, each with its required `typ` (RFC 8725 §3.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectTokenType {
    /// An access token according to RFC 9068: `at+jwt`.
    AccessToken,
    /// An ID token (OpenID Connect Core §2): `JWT` or absent.
    IdToken,
    /// A JWT that the provider uses as an access token without declaring it: `JWT` or absent.
    Jwt,
}

/// How the `scope` of a user token limits what it permits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectScopes {
    /// The scope is a ceiling; without a scope the token permits nothing.
    #[default]
    Ceiling,
    /// The scope does not describe tools; entitlement rules and the agent's ceiling decide.
    Ignore,
}

/// The names of the claims that this server reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimNames {
    /// The claims with the client to which the token was issued, in order of precedence.
    pub client: Vec<String>,
    /// The claim with the scope: a space-separated list or an array of strings.
    pub scope: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self { client: vec!["client_id".into(), "azp".into()], scope: "scope".into() }
    }
}

/// An entitlement rule: users with this claim may have these scopes and tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entitlement {
    /// The users to which the rule applies.
    pub to: UserMatcher,
    /// The resource, by client id; every resource if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ClientId>,
    /// The scopes; each includes all its tools.
    #[serde(default)]
    pub scopes: Vec<ScopeToken>,
    /// Tools by name, with or without argument constraints.
    #[serde(default)]
    pub tools: Vec<ToolUse>,
}

/// Selects the users to which an entitlement rule applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum UserMatcher {
    /// Every user of the issuer.
    Everyone,
    /// Users whose token has this claim with this value, or an array that contains it.
    Claim {
        /// The claim.
        name: String,
        /// The value, as a string.
        value: String,
    },
}

impl UserMatcher {
    /// Returns whether a token with these claims matches.
    #[must_use]
    pub fn matches(&self, claims: &serde_json::Map<String, Value>) -> bool {
        match self {
            Self::Everyone => true,
            Self::Claim { name, value } => match claims.get(name) {
                Some(Value::String(has)) => has == value,
                Some(Value::Array(list)) => list.iter().any(|has| has.as_str() == Some(value)),
                _ => false,
            },
        }
    }
}
