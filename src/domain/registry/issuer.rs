//! Trusted issuers: the identity providers of requesters, their keys, and the limits of that trust.

use std::collections::BTreeMap;

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
    time::Lifetime,
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
    /// What identifies this server in an access token without `aud`.
    #[serde(default, skip_serializing_if = "AudienceSource::is_aud")]
    pub audience_from: AudienceSource,
    /// The claims that every token must have, each with its value. A claim may also be an array
    /// that contains the value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub required_claims: BTreeMap<String, Value>,
    /// The claims that tokens may lack, although the token type requires them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub optional_claims: Vec<OptionalClaim>,
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
    /// Whether its keys may be fetched over http, from addresses in `allowed_networks` only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_http: bool,
    /// The certificate authorities (PEM) that alone are trusted when its keys are fetched; those of
    /// the system and of `[fetch] ca_file` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_pem: Option<String>,
    /// The age in seconds at which its keys are fetched again.
    #[serde(default = "default_key_refresh", skip_serializing_if = "is_default_key_refresh")]
    pub key_refresh: Lifetime,
    /// The age in seconds up to which its keys are used while it can't be reached.
    #[serde(default = "default_key_max_age", skip_serializing_if = "is_default_key_max_age")]
    pub key_max_age: Lifetime,
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
        Self {
            audiences: self.api_audiences.clone(),
            other_audiences: OtherAudiences::Refuse,
            audience_from: AudienceSource::Aud,
            ..self
        }
    }
}

/// Returns the age at which keys are fetched again, if the entry of the issuer names none.
#[must_use]
pub const fn default_key_refresh() -> Lifetime {
    Lifetime::minutes(10)
}

/// Returns the age up to which keys are used while the issuer is unreachable, if its entry names
/// none.
#[must_use]
pub const fn default_key_max_age() -> Lifetime {
    Lifetime::hours(24)
}

/// Returns whether keys are fetched again at the default age.
#[must_use]
pub fn is_default_key_refresh(age: &Lifetime) -> bool {
    *age == default_key_refresh()
}

/// Returns whether keys are used up to the default age.
#[must_use]
pub fn is_default_key_max_age(age: &Lifetime) -> bool {
    *age == default_key_max_age()
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

/// A key of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IssuerKeyId {
    /// The issuer.
    pub issuer: IssuerUrl,
    /// The `kid`.
    pub kid: String,
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

/// What identifies this server as the audience of an access token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudienceSource {
    /// `aud`, which every access token has (RFC 9068 §2.2).
    #[default]
    Aud,
    /// The client, in a token without `aud`: it must be the agent that presents the token. If there
    /// is an `aud`, it counts.
    ClientId,
}

impl AudienceSource {
    /// Returns whether `aud` identifies this server, which is the default.
    #[must_use]
    pub fn is_aud(&self) -> bool {
        *self == Self::Aud
    }
}

/// A claim that tokens of an issuer may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptionalClaim {
    /// `iat`, required in every user token.
    Iat,
    /// `jti`, required in an `at+jwt` access token (RFC 9068 §2.2).
    Jti,
    /// `client_id`, required in an `at+jwt` access token (RFC 9068 §2.2).
    ClientId,
}

impl OptionalClaim {
    /// Returns the name of the claim.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Iat => "iat",
            Self::Jti => "jti",
            Self::ClientId => "client_id",
        }
    }
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

impl SubjectTokenType {
    /// Returns the name in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AccessToken => "access_token",
            Self::IdToken => "id_token",
            Self::Jwt => "jwt",
        }
    }
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
    /// Users whose token has a certain claim.
    Claim(ClaimMatcher),
}

/// A condition on a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawClaimMatcher", into = "RawClaimMatcher")]
pub struct ClaimMatcher {
    /// The names that lead to the value: the claim, and the members of the objects below it. At an
    /// array, each element is followed.
    pub path: Vec<String>,
    /// The value to look for.
    pub value: String,
    /// How the value is looked for.
    pub mode: MatchMode,
}

/// How an entitlement rule looks for its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchMode {
    /// The claim is the value, or an array that contains it.
    #[default]
    Value,
    /// The claim is an object that has the value as the name of a member.
    Key,
    /// The claim is a text that has the value between spaces, such as `scope`.
    Word,
}

/// The form of a [`ClaimMatcher`] on the wire: `name` is a path of one claim.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClaimMatcher {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<Vec<String>>,
    value: String,
    #[serde(default, skip_serializing_if = "MatchMode::is_value")]
    mode: MatchMode,
}

impl MatchMode {
    /// Returns whether the claim has the value itself, which is the default.
    #[must_use]
    pub fn is_value(&self) -> bool {
        *self == Self::Value
    }
}

impl TryFrom<RawClaimMatcher> for ClaimMatcher {
    type Error = &'static str;

    fn try_from(raw: RawClaimMatcher) -> Result<Self, Self::Error> {
        let path = match (raw.name, raw.path) {
            (Some(name), None) => vec![name],
            (None, Some(path)) => path,
            (Some(_), Some(_)) | (None, None) => return Err("`claim` needs either `name` or `path`"),
        };
        if path.is_empty() || path.len() > Self::MAX_PATH || path.iter().any(String::is_empty) {
            return Err("`path` must be 1 to 8 names");
        }
        Ok(Self { path, value: raw.value, mode: raw.mode })
    }
}

impl From<ClaimMatcher> for RawClaimMatcher {
    fn from(matcher: ClaimMatcher) -> Self {
        let ClaimMatcher { mut path, value, mode } = matcher;
        let name = if path.len() == 1 { path.pop() } else { None };
        Self { path: name.is_none().then_some(path), name, value, mode }
    }
}

impl ClaimMatcher {
    /// The maximum number of names in a path.
    pub const MAX_PATH: usize = 8;

    /// Returns whether the claims meet the condition.
    #[must_use]
    pub fn matches(&self, claims: &serde_json::Map<String, Value>) -> bool {
        let Some((first, rest)) = self.path.split_first() else { return false };
        claims.get(first).is_some_and(|claim| self.matches_below(claim, rest))
    }

    fn matches_below(&self, value: &Value, path: &[String]) -> bool {
        match (path.split_first(), value) {
            (Some((name, rest)), Value::Object(members)) => {
                members.get(name).is_some_and(|member| self.matches_below(member, rest))
            }
            (Some(_), Value::Array(list)) => list.iter().any(|item| item.is_object() && self.matches_below(item, path)),
            (Some(_), _) => false,
            (None, value) => self.matches_value(value),
        }
    }

    fn matches_value(&self, value: &Value) -> bool {
        match (self.mode, value) {
            (MatchMode::Value, Value::String(text)) => *text == self.value,
            (MatchMode::Value, Value::Array(list)) => list.iter().any(|item| item.as_str() == Some(&self.value)),
            (MatchMode::Key, Value::Object(members)) => members.contains_key(&self.value),
            (MatchMode::Word, Value::String(text)) => text.split(' ').any(|word| word == self.value),
            (MatchMode::Value | MatchMode::Key | MatchMode::Word, _) => false,
        }
    }
}

impl UserMatcher {
    /// Returns whether a token with these claims matches.
    #[must_use]
    pub fn matches(&self, claims: &serde_json::Map<String, Value>) -> bool {
        match self {
            Self::Everyone => true,
            Self::Claim(matcher) => matcher.matches(claims),
        }
    }

    /// Returns whether the claim that the rule looks at is not in the token, and the token says
    /// that the provider keeps it elsewhere (`_claim_names`, OpenID Connect Core §5.6.2; or Entra
    /// ID's `hasgroups`).
    #[must_use]
    pub fn is_claim_elsewhere(&self, claims: &serde_json::Map<String, Value>) -> bool {
        let Self::Claim(ClaimMatcher { path, .. }) = self else { return false };
        let Some(name) = path.first().filter(|name| claims.get(*name).is_none_or(Value::is_null)) else { return false };
        let is_distributed = claims.get("_claim_names").is_some_and(|names| names.get(name).is_some());
        is_distributed || (name == "groups" && claims.get("hasgroups").is_some_and(is_true))
    }
}

/// Returns whether a claim is true, which Entra ID writes in two ways.
fn is_true(value: &Value) -> bool {
    *value == Value::Bool(true) || value.as_str() == Some("true")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claim_matcher_follows_path_and_mode() {
        let keycloak = json!({"realm_access": {"roles": ["editor", "viewer"]}});
        let zitadel = json!({"urn:zitadel:iam:org:project:roles": {"editor": {"1": "example.com"}}});
        let nested = json!({"groups": [{"name": "editor", "id": 1}, {"name": "viewer"}, "plain", [{"name": "deep"}]]});
        let text = json!({"scope": "editor viewer", "role": "editor", "a.b": ["editor"], "n": [1, null]});
        for (claims, matcher, want) in [
            (&text, json!({"name": "role", "value": "editor"}), true),
            (&text, json!({"name": "role", "value": "edit"}), false),
            (&text, json!({"name": "scope", "value": "editor"}), false),
            (&text, json!({"name": "scope", "value": "editor", "mode": "word"}), true),
            (&text, json!({"name": "scope", "value": "edit", "mode": "word"}), false),
            (&text, json!({"name": "scope", "value": "editor viewer", "mode": "word"}), false),
            (&text, json!({"name": "a.b", "value": "editor"}), true),
            (&text, json!({"path": ["a", "b"], "value": "editor"}), false),
            (&text, json!({"name": "n", "value": "1"}), false),
            (&text, json!({"name": "missing", "value": "editor"}), false),
            (&keycloak, json!({"path": ["realm_access", "roles"], "value": "editor"}), true),
            (&keycloak, json!({"path": ["realm_access", "roles"], "value": "admin"}), false),
            (&keycloak, json!({"path": ["realm_access"], "value": "roles"}), false),
            (&keycloak, json!({"path": ["realm_access"], "value": "roles", "mode": "key"}), true),
            (&keycloak, json!({"name": "realm_access.roles", "value": "editor"}), false),
            (&keycloak, json!({"path": ["realm_access", "roles", "x"], "value": "editor"}), false),
            (&zitadel, json!({"name": "urn:zitadel:iam:org:project:roles", "value": "editor", "mode": "key"}), true),
            (&zitadel, json!({"name": "urn:zitadel:iam:org:project:roles", "value": "editor"}), false),
            (&zitadel, json!({"name": "urn:zitadel:iam:org:project:roles", "value": "1", "mode": "key"}), false),
            (&nested, json!({"path": ["groups", "name"], "value": "viewer"}), true),
            (&nested, json!({"path": ["groups", "name"], "value": "deep"}), false),
            (&nested, json!({"path": ["groups"], "value": "plain"}), true),
        ] {
            let to = serde_json::from_value::<UserMatcher>(json!({ "claim": matcher })).unwrap();
            assert_eq!(to.matches(claims.as_object().unwrap()), want, "{matcher}");
            let again = serde_json::to_value(&to).unwrap();
            assert_eq!(serde_json::from_value::<UserMatcher>(again).unwrap(), to);
        }
    }

    #[test]
    fn claim_matcher_needs_exactly_one_usable_path() {
        for bad in [
            json!({"value": "x"}),
            json!({"name": "a", "path": ["a"], "value": "x"}),
            json!({"path": [], "value": "x"}),
            json!({"path": ["a", ""], "value": "x"}),
            json!({"path": vec!["a"; 9], "value": "x"}),
            json!({"name": "a", "value": "x", "mode": "regex"}),
            json!({"name": "a", "value": "x", "more": 1}),
            json!({"name": "a"}),
        ] {
            assert!(serde_json::from_value::<UserMatcher>(json!({ "claim": bad })).is_err(), "{bad}");
        }
        // The form that the store and the API have had so far stays the same.
        let text = json!({"claim": {"name": "groups", "value": "staff"}});
        let matcher = serde_json::from_value::<UserMatcher>(text.clone()).unwrap();
        assert_eq!(serde_json::to_value(matcher).unwrap(), text);
    }

    #[test]
    fn claim_elsewhere_is_recognized() {
        let groups = serde_json::from_value::<UserMatcher>(json!({"claim": {"name": "groups", "value": "x"}})).unwrap();
        for (claims, want) in [
            (json!({"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {}}}), true),
            (json!({"_claim_names": {"groups": "src1"}, "groups": null}), true),
            (json!({"hasgroups": true}), true),
            (json!({"hasgroups": "true"}), true),
            (json!({"_claim_names": {"groups": "src1"}, "groups": ["y"]}), false),
            (json!({"_claim_names": {"roles": "src1"}}), false),
            (json!({"_claim_names": "groups"}), false),
            (json!({"hasgroups": false}), false),
            (json!({}), false),
        ] {
            assert_eq!(groups.is_claim_elsewhere(claims.as_object().unwrap()), want, "{claims}");
            assert!(!UserMatcher::Everyone.is_claim_elsewhere(claims.as_object().unwrap()));
        }
    }
}
