//! `[[issuers]]`: the identity providers whose users Errand takes.

use url::Url;

use super::{
    authentication::{jwks, jwks_file, key_fits},
    names::{ID, scopes, tools},
    reader::{At, Section},
};
use crate::domain::{
    issuer::{ClaimNames, Entitlement, Holder, KeySource, TrustedIssuer},
    jwk::JwsAlgorithm,
    uri::{IssuerUrl, is_loopback},
};

pub(super) fn issuer(section: &mut Section<'_>, ours: Option<&IssuerUrl>) -> Option<TrustedIssuer> {
    let issuer = section.must("issuer", "\"https://login.example.com\"", |at| {
        let issuer = at.parse::<IssuerUrl>("write the `iss` of its tokens; https, unless it is on this machine")?;
        if ours.is_some_and(|ours| ours.is_place_of(issuer.as_str())) {
            at.wrong("is Errand itself", "remove it: Errand knows its own tokens, and takes them as such");
        }
        Some(issuer)
    });
    let at_keys = section.need("keys", "\"discovery\"");
    let keys = at_keys.as_ref().and_then(key_source);
    let audiences = section.read("audiences", |at| at.each(|item| item.words())).unwrap_or_default();
    let other_audiences = section.read("other_audiences", |at| at.word()).unwrap_or_default();
    let algorithms = section.must("algorithms", "[\"RS256\"]", |at| at.each(|item| item.word::<JwsAlgorithm>()));
    let token_types = section.must("token_types", "[\"access_token\"]", |at| at.each(|item| item.word()));
    let claims = claims(section.section("claims"));
    let subject_prefix = section.read("subject_prefix", |at| at.words());
    let subject_scopes = section.read("subject_scopes", |at| at.word()).unwrap_or_default();
    let entitlements = section.sections("entitlements").into_iter().filter_map(entitlement).collect();
    let allowed_networks = section.read("allowed_networks", |at| {
        at.each(|item| item.parse("write a network with the length of its prefix, such as `10.0.0.0/8`"))
    });
    let consent = section.read("consent", |at| at.word()).unwrap_or_default();
    let api_audiences = section.read("api_audiences", |at| at.each(|item| item.words())).unwrap_or_default();
    let portal_clients = section.read("portal_clients", |at| at.each(|item| item.words())).unwrap_or_default();
    let disabled = section.read("disabled", |at| at.flag()).unwrap_or_default();
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

fn key_source(at: &At<'_>) -> Option<KeySource> {
    let remedy = "write `\"discovery\"`, `{ jwks_uri = \"https://…\" }` or `{ jwks_file = \"….json\" }`";
    if at.is_text() {
        return at.word();
    }
    let mut section = at.section()?;
    let found = section.one_of(&["jwks_uri", "jwks_file", "inline"]);
    match found {
        Some(("jwks_uri", at)) => at.parse::<Url>("write the URL that serves its keys").map(KeySource::JwksUri),
        Some(("jwks_file", at)) => jwks_file(&at).map(KeySource::Inline),
        Some((_, at)) => jwks(&at).map(KeySource::Inline),
        None => {
            at.wrong("says not where the keys are", remedy);
            None
        }
    }
}

/// Whether its keys can be had, and fit its algorithms.
fn check_keys(issuer: &TrustedIssuer, at: &At<'_>) {
    let url = match &issuer.keys {
        KeySource::Discovery => Url::parse(issuer.issuer.as_str()).ok(),
        KeySource::JwksUri(url) => Some(url.clone()),
        KeySource::Inline(keys) => {
            if !issuer.algorithms.is_empty() && !keys.keys().any(|key| key_fits(key, &issuer.algorithms)) {
                at.wrong("no key of it fits its `algorithms`", "name in `algorithms` what the keys are for");
            }
            None
        }
    };
    let Some(url) = url else { return };
    if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(&url)) {
        at.wrong("https is needed (http is for loopback addresses only)", "write the https URL of the keys");
    } else if is_loopback(&url) {
        let loopback = ["127.0.0.1", "::1"].iter().filter_map(|ip| ip.parse().ok()).collect::<Vec<std::net::IpAddr>>();
        if !issuer.allowed_networks.iter().any(|network| loopback.iter().any(|ip| network.contains(ip))) {
            let remedy = "add `allowed_networks = [\"127.0.0.0/8\"]` if the identity provider does run here";
            at.wrong("its keys would be fetched from this machine, which is refused", remedy);
        }
    }
}

fn claims(mut section: Section<'_>) -> ClaimNames {
    let default = ClaimNames::default();
    ClaimNames {
        client: section.read("client", |at| at.each(|item| item.words())).unwrap_or(default.client),
        scope: section.read("scope", |at| at.words()).unwrap_or(default.scope),
    }
}

fn entitlement(mut section: Section<'_>) -> Option<Entitlement> {
    let to = section.must("to", "\"everyone\"", |at| holder(&at));
    let resource = section.read("resource", |at| at.parse(ID));
    let scopes = section.read("scopes", |at| scopes(&at)).unwrap_or_default();
    let tools = section.read("tools", |at| tools(&at)).unwrap_or_default();
    if scopes.is_empty() && tools.is_empty() {
        section.here.wrong("gives nothing", "name `scopes` or `tools`");
    }
    Some(Entitlement { to: to?, resource, scopes, tools })
}

fn holder(at: &At<'_>) -> Option<Holder> {
    let remedy = "write `\"everyone\"` or `{ claim = { name = \"groups\", value = \"…\" } }`";
    if at.is_text() {
        let everyone = at.text()? == "everyone";
        if !everyone {
            at.wrong("is not known here", remedy);
        }
        return everyone.then_some(Holder::Everyone);
    }
    let mut section = at.section()?;
    let mut claim = section.must("claim", "{ name = \"groups\", value = \"…\" }", |at| at.section())?;
    let name = claim.must("name", "\"groups\"", |at| at.words());
    let value = claim.must("value", "\"files-readers\"", |at| at.words());
    Some(Holder::Claim { name: name?, value: value? })
}
