//! `[[issuers]]`: the identity providers whose users Errand takes.

use url::Url;

use crate::config::{
    node::{Node, Section},
    sections::{
        access::{CLIENT_ID_HINT, read_scopes, read_tools},
        authentication::{is_compatible_key, read_jwks, read_jwks_file},
    },
};
use crate::domain::{
    jose::jwk::JwsAlgorithm,
    registry::issuer::{ClaimNames, Entitlement, KeySource, TrustedIssuer, UserMatcher},
    uri::{IssuerUrl, is_loopback},
};

pub(in crate::config) fn read_issuer(section: &mut Section<'_>, ours: Option<&IssuerUrl>) -> Option<TrustedIssuer> {
    let issuer = section.required("issuer", "\"https://login.example.com\"", |at| {
        let issuer = at.parse::<IssuerUrl>("write the `iss` of its tokens; https, unless it is on this machine")?;
        if ours.is_some_and(|ours| ours.is_same_location(issuer.as_str())) {
            at.error("is Errand itself", "remove it: Errand knows its own tokens, and takes them as such");
        }
        Some(issuer)
    });
    let at_keys = section.required_node("keys", "\"discovery\"");
    let keys = at_keys.as_ref().and_then(read_key_source);
    let audiences = section.optional("audiences", |at| at.elements(|item| item.non_empty_string())).unwrap_or_default();
    let other_audiences = section.optional("other_audiences", |at| at.parse_keyword()).unwrap_or_default();
    let algorithms =
        section.required("algorithms", "[\"RS256\"]", |at| at.elements(|item| item.parse_keyword::<JwsAlgorithm>()));
    let token_types =
        section.required("token_types", "[\"access_token\"]", |at| at.elements(|item| item.parse_keyword()));
    let claims = read_claim_names(section.section("claims"));
    let subject_prefix = section.optional("subject_prefix", |at| at.non_empty_string());
    let subject_scopes = section.optional("subject_scopes", |at| at.parse_keyword()).unwrap_or_default();
    let entitlements = section.sections("entitlements").into_iter().filter_map(read_entitlement).collect();
    let allowed_networks = section.optional("allowed_networks", |at| {
        at.elements(|item| item.parse("write a network with the length of its prefix, such as `10.0.0.0/8`"))
    });
    let consent = section.optional("consent", |at| at.parse_keyword()).unwrap_or_default();
    let api_audiences =
        section.optional("api_audiences", |at| at.elements(|item| item.non_empty_string())).unwrap_or_default();
    let portal_clients =
        section.optional("portal_clients", |at| at.elements(|item| item.non_empty_string())).unwrap_or_default();
    let disabled = section.optional("disabled", |at| at.boolean()).unwrap_or_default();
    let issuer = TrustedIssuer {
        issuer: issuer?,
        keys: keys?,
        audiences,
        other_audiences,
        algorithms: algorithms?,
        token_types: token_types?,
        claims,
        subject_prefix,
        subject_scopes,
        entitlements,
        allowed_networks: allowed_networks.unwrap_or_default(),
        consent,
        api_audiences,
        portal_clients,
        disabled,
    };
    check_keys(&issuer, &at_keys?);
    Some(issuer)
}

fn read_key_source(at: &Node<'_>) -> Option<KeySource> {
    let remedy = "write `\"discovery\"`, `{ jwks_uri = \"https://…\" }` or `{ jwks_file = \"….json\" }`";
    if at.is_string() {
        return at.parse_keyword();
    }
    let mut section = at.section()?;
    let found = section.exclusive(&["jwks_uri", "jwks_file", "inline"]);
    match found {
        Some(("jwks_uri", at)) => at.parse::<Url>("write the URL that serves its keys").map(KeySource::JwksUri),
        Some(("jwks_file", at)) => read_jwks_file(&at).map(KeySource::Inline),
        Some((_, at)) => read_jwks(&at).map(KeySource::Inline),
        None => {
            at.error("says not where the keys are", remedy);
            None
        }
    }
}

/// Whether its keys can be had, and fit its algorithms.
fn check_keys(issuer: &TrustedIssuer, at: &Node<'_>) {
    let url = match &issuer.keys {
        KeySource::Discovery => Url::parse(issuer.issuer.as_str()).ok(),
        KeySource::JwksUri(url) => Some(url.clone()),
        KeySource::Inline(keys) => {
            if !issuer.algorithms.is_empty() && !keys.keys().any(|key| is_compatible_key(key, &issuer.algorithms)) {
                at.error("no key of it fits its `algorithms`", "name in `algorithms` what the keys are for");
            }
            None
        }
    };
    let Some(url) = url else { return };
    if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(&url)) {
        at.error("https is needed (http is for loopback addresses only)", "write the https URL of the keys");
    } else if is_loopback(&url) {
        let loopback = ["127.0.0.1", "::1"].iter().filter_map(|ip| ip.parse().ok()).collect::<Vec<std::net::IpAddr>>();
        if !issuer.allowed_networks.iter().any(|network| loopback.iter().any(|ip| network.contains(ip))) {
            let remedy = "add `allowed_networks = [\"127.0.0.0/8\"]` if the identity provider does run here";
            at.error("its keys would be fetched from this machine, which is refused", remedy);
        }
    }
}

fn read_claim_names(mut section: Section<'_>) -> ClaimNames {
    let default = ClaimNames::default();
    ClaimNames {
        client: section.optional("client", |at| at.elements(|item| item.non_empty_string())).unwrap_or(default.client),
        scope: section.optional("scope", |at| at.non_empty_string()).unwrap_or(default.scope),
    }
}

fn read_entitlement(mut section: Section<'_>) -> Option<Entitlement> {
    let to = section.required("to", "\"everyone\"", |at| read_holder(&at));
    let resource = section.optional("resource", |at| at.parse(CLIENT_ID_HINT));
    let scopes = section.optional("scopes", |at| read_scopes(&at)).unwrap_or_default();
    let tools = section.optional("tools", |at| read_tools(&at)).unwrap_or_default();
    if scopes.is_empty() && tools.is_empty() {
        section.location.error("gives nothing", "name `scopes` or `tools`");
    }
    Some(Entitlement { to: to?, resource, scopes, tools })
}

fn read_holder(at: &Node<'_>) -> Option<UserMatcher> {
    let remedy = "write `\"everyone\"` or `{ claim = { name = \"groups\", value = \"…\" } }`";
    if at.is_string() {
        let everyone = at.string()? == "everyone";
        if !everyone {
            at.error("is not known here", remedy);
        }
        return everyone.then_some(UserMatcher::Everyone);
    }
    let mut section = at.section()?;
    let mut claim = section.required("claim", "{ name = \"groups\", value = \"…\" }", |at| at.section())?;
    let name = claim.required("name", "\"groups\"", |at| at.non_empty_string());
    let value = claim.required("value", "\"files-readers\"", |at| at.non_empty_string());
    Some(UserMatcher::Claim { name: name?, value: value? })
}
