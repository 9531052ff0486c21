//! A trusted identity provider: whose users it vouches for, with which keys, and how far its word goes.

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
    /// Its identifier: `iss` of its tokens must be exactly this.
    pub issuer: IssuerUrl,
    /// Where its keys come from.
    pub keys: KeySource,
    /// The `aud` values that mean us. An ID token's `aud` is the agent's client id instead.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// Whether `aud` may name others beside us.
    #[serde(default)]
    pub other_audiences: OtherAudiences,
    /// The algorithms that it signs with.
    pub algorithms: Vec<JwsAlgorithm>,
    /// The kinds of token that are taken from it.
    pub token_types: Vec<SubjectTokenType>,
    /// Under which names it writes what we need.
    #[serde(default)]
    pub claims: ClaimNames,
    /// Put before every subject, so that two issuers' subjects can't be the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_prefix: Option<String>,
    /// What the `scope` of a user token means for what can be had with it.
    #[serde(default)]
    pub subject_scopes: SubjectScopes,
    /// What its users may have, by their claims. None: their token's scope alone decides.
    #[serde(default)]
    pub entitlements: Vec<Entitlement>,
    /// Networks with private or special addresses that its keys may be fetched from.
    #[serde(default)]
    pub allowed_networks: Vec<IpNet>,
    /// Which calls in its users' names need their recorded consent.
    #[serde(default, skip_serializing_if = "ConsentPolicy::is_none")]
    pub consent: ConsentPolicy,
    /// The `aud` of tokens with which its users call Errand's own API, and nothing else is done. None: they can't.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub api_audiences: Vec<String>,
    /// The client ids of the portals whose users may do so with tokens that were issued to these. No agent's may be one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub portal_clients: Vec<String>,
    /// Whether it is shut out: no token of it is taken.
    #[serde(default)]
    pub disabled: bool,
}

impl TrustedIssuer {
    /// Whether its users may call Errand's own API at all.
    #[must_use]
    pub fn has_portal(&self) -> bool {
        !self.api_audiences.is_empty() && !self.portal_clients.is_empty()
    }

    /// The same issuer as far as tokens for Errand's own API go: another `aud`, and none beside it.
    #[must_use]
    pub fn with_api_audiences(self) -> Self {
        Self { audiences: self.api_audiences.clone(), other_audiences: OtherAudiences::Refuse, ..self }
    }
}

/// Where an issuer's keys come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum KeySource {
    /// Its metadata (OpenID Connect Discovery or RFC 8414) names them.
    Discovery,
    /// This URL serves them.
    JwksUri(Url),
    /// They are here, and change by configuration only.
    Inline(JwkSet),
}

/// Whether a user token's `aud` may name others beside us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OtherAudiences {
    /// A token that is good elsewhere too is refused.
    #[default]
    Refuse,
    /// Taken, as long as one of the values means us.
    Accept,
}

/// The kinds of user token, and which `typ` (RFC 8725 §3.11) each must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectTokenType {
    /// An access token by RFC 9068: `at+jwt`.
    AccessToken,
    /// An ID token (OpenID Connect Core §2): `JWT` or none.
    IdToken,
    /// A JWT that the provider uses as access token without saying so: `JWT` or none.
    Jwt,
}

/// What the `scope` of a user token means for what can be had with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectScopes {
    /// What it doesn't cover can't be had; no scope means nothing.
    #[default]
    Ceiling,
    /// It says nothing about tools: entitlement rules and the agent's ceiling decide.
    Ignore,
}

/// Under which names an issuer writes what we need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimNames {
    /// The client that the token was issued to, looked for in this order.
    pub client: Vec<String>,
    /// The token's scope: a list with spaces or an array of strings.
    pub scope: String,
}

impl Default for ClaimNames {
    fn default() -> Self {
        Self { client: vec!["client_id".into(), "azp".into()], scope: "scope".into() }
    }
}

/// One entitlement rule: users with this claim may have these scopes and tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entitlement {
    /// Whom it is for.
    pub to: UserMatcher,
    /// The resource it is about, by client id; every resource when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<ClientId>,
    /// All tools under these scopes.
    #[serde(default)]
    pub scopes: Vec<ScopeToken>,
    /// These tools by name, each with rules for its arguments or without.
    #[serde(default)]
    pub tools: Vec<ToolUse>,
}

/// Whom an entitlement rule is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum UserMatcher {
    /// Every user of the issuer.
    Everyone,
    /// Users whose token has this claim with this value, or an array with this value in it.
    Claim {
        /// The claim.
        name: String,
        /// The value, as a string.
        value: String,
    },
}

impl UserMatcher {
    /// Whether a token with these claims is meant.
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
