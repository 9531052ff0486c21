//! `[[issuers]]`: the trusted identity providers.

use std::{collections::BTreeMap, path::Path};

use serde_json::Value;
use url::Url;

use crate::config::{
    node::{Node, Section, StringOrSection},
    sections::{
        access::{CLIENT_ID_HINT, read_scopes, read_tools},
        authentication::{check_public_keys, read_jwks, read_jwks_file},
        fetch::{read_ca_file, read_networks},
    },
};
use crate::domain::{
    jose::jwk::JwsAlgorithm,
    registry::issuer::{
        ClaimMatcher, ClaimNames, Entitlement, KeySource, MatchMode, TrustedIssuer, UserMatcher, default_key_max_age,
        default_key_refresh,
    },
    uri::{IssuerUrl, is_loopback},
};

pub(in crate::config) fn read_issuer(
    section: &mut Section<'_>,
    own_issuer: Option<&IssuerUrl>,
) -> Option<TrustedIssuer> {
    let issuer = section.required("issuer", "\"https://login.example.com\"", |node| {
        let issuer = node.parse::<IssuerUrl>("write the `iss` of its tokens, exactly")?;
        if own_issuer.is_some_and(|own| own.is_same_location(issuer.as_str())) {
            node.error("is Errand's own issuer", "remove the entry: Errand accepts its own tokens without one");
        }
        Some(issuer)
    });
    let keys_node = section.required_node("keys", "\"discovery\"");
    let keys = keys_node.as_ref().and_then(read_key_source);
    let audiences =
        section.optional("audiences", |node| node.elements(|item| item.non_empty_string())).unwrap_or_default();
    let other_audiences = section.optional("other_audiences", |node| node.parse_keyword()).unwrap_or_default();
    let audience_from = section.optional("audience_from", |node| node.parse_keyword()).unwrap_or_default();
    let required_claims = section.optional("required_claims", |node| read_required_claims(&node)).unwrap_or_default();
    let optional_claims =
        section.optional("optional_claims", |node| node.elements(|item| item.parse_keyword())).unwrap_or_default();
    let algorithms = section
        .required("algorithms", "[\"RS256\"]", |node| node.elements(|item| item.parse_keyword::<JwsAlgorithm>()));
    let token_types =
        section.required("token_types", "[\"access_token\"]", |node| node.elements(|item| item.parse_keyword()));
    let claims = read_claim_names(section.section("claims"));
    let subject_prefix = section.optional("subject_prefix", |node| node.non_empty_string());
    let subject_scopes = section.optional("subject_scopes", |node| node.parse_keyword()).unwrap_or_default();
    let entitlements = section.sections("entitlements").into_iter().filter_map(read_entitlement).collect();
    let allowed_networks = section.optional("allowed_networks", |node| read_networks(&node));
    let allow_http = section.optional("allow_http", |node| node.boolean()).unwrap_or_default();
    let ca_pem = section.optional("ca_file", |node| read_ca_file(&node));
    let key_refresh = section.lifetime(
        "key_refresh",
        default_key_refresh(),
        30..=86_400,
        "seconds after which its keys are fetched again; at most a day",
    );
    let key_max_age = section.lifetime(
        "key_max_age",
        default_key_max_age(),
        30..=604_800,
        "seconds up to which its keys are used while it can't be reached; at most a week",
    );
    let consent = section.optional("consent", |node| node.parse_keyword()).unwrap_or_default();
    let api_audiences =
        section.optional("api_audiences", |node| node.elements(|item| item.non_empty_string())).unwrap_or_default();
    let portal_clients =
        section.optional("portal_clients", |node| node.elements(|item| item.non_empty_string())).unwrap_or_default();
    let disabled = section.optional("disabled", |node| node.boolean()).unwrap_or_default();
    let issuer = TrustedIssuer {
        issuer: issuer?,
        keys: keys?,
        audiences,
        other_audiences,
        audience_from,
        required_claims,
        optional_claims,
        algorithms: algorithms?,
        token_types: token_types?,
        claims,
        subject_prefix,
        subject_scopes,
        entitlements,
        allowed_networks: allowed_networks.unwrap_or_default(),
        allow_http,
        ca_pem,
        key_refresh,
        key_max_age,
        consent,
        api_audiences,
        portal_clients,
        disabled,
    };
    check_keys(&issuer, &keys_node?).then_some(issuer)
}

fn read_key_source(node: &Node<'_>) -> Option<KeySource> {
    let remedy = "write `\"discovery\"`, `{ jwks_uri = \"https://…\" }` or `{ jwks_file = \"….json\" }`";
    let mut section = match node.string_or_section()? {
        StringOrSection::String("discovery") => return Some(KeySource::Discovery),
        StringOrSection::String(text) => {
            let remedy = remedy_for_key_source(text).unwrap_or(remedy);
            node.error("the string does not name a key source", remedy);
            return None;
        }
        StringOrSection::Section(section) => section,
    };
    let found = section.exclusive(&["jwks_uri", "jwks_file", "inline"]);
    match found {
        Some(("jwks_uri", node)) => node.parse::<Url>("write the URL that serves its keys").map(KeySource::JwksUri),
        Some(("jwks_file", node)) => read_jwks_file(&node).map(KeySource::Inline),
        Some((_, node)) => read_jwks(&node).map(KeySource::Inline),
        None => {
            node.error("does not name a key source", remedy);
            None
        }
    }
}

/// Returns what a string was most likely meant as, if it is not `discovery`.
fn remedy_for_key_source(text: &str) -> Option<&'static str> {
    let text = text.trim().to_ascii_lowercase();
    if text.contains(".well-known/openid-configuration") || text.contains(".well-known/oauth-authorization-server") {
        Some("write `keys = \"discovery\"`: the URL of the metadata follows from `issuer`")
    } else if text.starts_with("https:") || text.starts_with("http:") {
        Some("write the URL into a table: `keys = { jwks_uri = \"https://…\" }`")
    } else if Path::new(&text).extension().is_some_and(|ending| ending == "json" || ending == "jwks") {
        Some("write the file into a table: `keys = { jwks_file = \"….json\" }`")
    } else {
        None
    }
}

/// Checks that the keys may be fetched, or are sound and fit the algorithms. Returns false if the
/// registry would report the same error again.
fn check_keys(issuer: &TrustedIssuer, node: &Node<'_>) -> bool {
    let url = match &issuer.keys {
        KeySource::Discovery => Url::parse(issuer.issuer.as_str()).ok(),
        KeySource::JwksUri(url) => Some(url.clone()),
        KeySource::Inline(keys) => {
            return check_public_keys(node, keys, &issuer.algorithms);
        }
    };
    let Some(url) = url else { return true };
    let is_http = url.scheme() == "http" && !is_loopback(&url);
    if is_http && issuer.keys == KeySource::Discovery {
        node.error(
            "the name of the issuer is http, and metadata is fetched over https",
            "name the https URL of its keys: `keys = { jwks_uri = \"https://…\" }`",
        );
    } else if is_http && !issuer.allow_http {
        node.error(
            "https is required; http is allowed for loopback addresses only",
            "write the https URL of the keys; inside a network that you trust, add `allow_http = true`, and name the network in `allowed_networks`",
        );
    } else if is_http && issuer.allowed_networks.is_empty() {
        node.error("http is used within `allowed_networks` only", "name the network of the keys in `allowed_networks`");
    } else if !matches!(url.scheme(), "https" | "http") {
        node.error("https is required; http is allowed for loopback addresses only", "write the https URL of the keys");
    } else if is_loopback(&url) {
        let loopback = ["127.0.0.1", "::1"].iter().filter_map(|ip| ip.parse().ok()).collect::<Vec<std::net::IpAddr>>();
        if !issuer.allowed_networks.iter().any(|network| loopback.iter().any(|ip| network.contains(ip))) {
            let remedy = "add `allowed_networks = [\"127.0.0.0/8\"]` if the identity provider runs on this machine";
            node.error("the keys would be fetched from a loopback address, which is not allowed", remedy);
        }
    }
    true
}

fn read_claim_names(mut section: Section<'_>) -> ClaimNames {
    let default = ClaimNames::default();
    ClaimNames {
        client: section
            .optional("client", |node| node.elements(|item| item.non_empty_string()))
            .unwrap_or(default.client),
        scope: section.optional("scope", |node| node.non_empty_string()).unwrap_or(default.scope),
    }
}

fn read_entitlement(mut section: Section<'_>) -> Option<Entitlement> {
    let to = section.required("to", "\"everyone\"", |node| read_user_matcher(&node));
    let resource = section.optional("resource", |node| node.parse(CLIENT_ID_HINT));
    let scopes = section.optional("scopes", |node| read_scopes(&node)).unwrap_or_default();
    let tools = section.optional("tools", |node| read_tools(&node)).unwrap_or_default();
    if scopes.is_empty() && tools.is_empty() {
        section.location.error("grants nothing", "name `scopes` or `tools`");
    }
    Some(Entitlement { to: to?, resource, scopes, tools })
}

fn read_user_matcher(node: &Node<'_>) -> Option<UserMatcher> {
    let remedy = "write `\"everyone\"` or `{ claim = { name = \"groups\", value = \"…\" } }`";
    let mut section = match node.string_or_section()? {
        StringOrSection::String("everyone") => return Some(UserMatcher::Everyone),
        StringOrSection::String(text) => {
            node.error(format_args!("unknown value `{}`", text.escape_debug()), remedy);
            return None;
        }
        StringOrSection::Section(section) => section,
    };
    let mut claim = section.required("claim", "{ name = \"groups\", value = \"…\" }", |node| node.section())?;
    let location = claim.location.clone();
    let path = match claim.exclusive(&["name", "path"]) {
        Some(("path", node)) => read_claim_path(&node),
        Some((_, node)) => node.non_empty_string().map(|name| vec![name]),
        None => {
            location
                .error("does not name a claim", "write `name = \"groups\"` or `path = [\"realm_access\", \"roles\"]`");
            None
        }
    };
    let value = claim.required("value", "\"files-readers\"", |node| node.non_empty_string());
    let mode = claim.optional("mode", |node| node.parse_keyword::<MatchMode>()).unwrap_or_default();
    Some(UserMatcher::Claim(ClaimMatcher { path: path?, value: value?, mode }))
}

fn read_claim_path(node: &Node<'_>) -> Option<Vec<String>> {
    let path = node.elements(|item| item.non_empty_string())?;
    let max = ClaimMatcher::MAX_PATH;
    if path.is_empty() || path.len() > max {
        node.error(
            format_args!("must be 1 to {max} names"),
            "write the claim, then the member below it, such as `[\"realm_access\", \"roles\"]`",
        );
        return None;
    }
    Some(path)
}

/// Reads the claims that every token must have: texts, integers, or true and false.
fn read_required_claims(node: &Node<'_>) -> Option<BTreeMap<String, Value>> {
    let entries = node.entries()?.into_iter().filter_map(|(node, name)| Some((name.to_owned(), node.scalar()?)));
    Some(entries.collect())
}
