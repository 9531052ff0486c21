//! Consistency rules of the registry. Each violation is one [`RegistryError`].

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::RangeInclusive,
    sync::Arc,
};

use url::{Host, Url};

use super::{ObjectKind, Registry, RegistryError, RegistryObject};
use crate::domain::{
    authority::{Authority, ToolUse},
    id::ClientId,
    jose::{
        jwk::{JwkSet, JwsAlgorithm},
        public_key::check_key_set,
    },
    registry::{
        access::Access,
        admin::Admin,
        agent::{Agent, AgentKind},
        authentication::Authentication,
        client::Client,
        edge::Edge,
        issuer::{AudienceSource, KeySource, SubjectScopes, SubjectTokenType, TrustedIssuer},
        resource::Resource,
    },
    scope::ScopeToken,
    settings::TOKEN_LIFETIME_CAP,
    time::Lifetime,
    uri::is_loopback,
};

/// A token with a shorter lifetime would expire before it is used.
const MIN_TOKEN_LIFETIME_CAP: Lifetime = Lifetime::seconds(10);
/// The maximum number of aliases of a resource.
const MAX_URI_ALIASES: usize = 16;
/// The range of the age at which keys of issuers are fetched again.
const KEY_REFRESH_RANGE: RangeInclusive<Lifetime> = Lifetime::seconds(30)..=Lifetime::hours(24);
/// The maximum age of keys of an issuer that can't be reached.
const KEY_MAX_AGE_LIMIT: Lifetime = Lifetime::hours(7 * 24);
/// The maximum size of the certificate authorities of an issuer (bytes).
const MAX_CA_BYTES: usize = 64 * 1024;
/// The minimum interval between two fetches of a tool catalogue.
const MIN_REFRESH_INTERVAL: Lifetime = Lifetime::seconds(60);
/// A longer interval has no benefit over a manual import.
const MAX_REFRESH_INTERVAL: Lifetime = Lifetime::hours(24);

impl Registry {
    pub(super) fn add(&mut self, object: &RegistryObject, errors: &mut Vec<RegistryError>) {
        let error = |key, reason: &str| RegistryError {
            kind: object.kind(),
            id: object.id().to_owned(),
            key,
            reason: reason.to_owned(),
        };
        if let RegistryObject::Issuer(issuer) = object {
            if self.issuers.insert(issuer.issuer.clone(), Arc::new(issuer.clone())).is_some() {
                errors.push(error("issuer", "duplicate issuer"));
            }
            return;
        }
        if object.client_id().is_some_and(ClientId::is_reserved) {
            errors.push(error("id", "client ids beginning with `errand` are reserved"));
        }
        let taken = |id: &ClientId| self.client(id).is_some();
        match object {
            RegistryObject::Agent(Agent { id, .. })
            | RegistryObject::Resource(Resource { id, .. })
            | RegistryObject::Admin(Admin { id, .. })
                if taken(id) =>
            {
                errors.push(error("id", "duplicate client id; agents, resources and admins share one namespace"));
            }
            RegistryObject::Agent(agent) => {
                self.agents.insert(agent.id.clone(), agent.clone());
            }
            RegistryObject::Resource(resource) => {
                let is_other = |id: &ClientId| *id != resource.id;
                if self.by_uri.insert(resource.uri.clone(), resource.id.clone()).is_some() {
                    errors.push(error("uri", "another resource has the same canonical URI"));
                }
                if self.by_alias.get(&resource.uri).is_some_and(is_other) {
                    errors.push(error("uri", "is an alias of another resource (`uri_aliases`)"));
                }
                for alias in &resource.uri_aliases {
                    let owner = self.by_uri.get(alias).or_else(|| self.by_alias.get(alias));
                    if owner.is_some_and(is_other) {
                        let reason = format!("`{alias}` is the URI or an alias of another resource");
                        errors.push(error("uri_aliases", &reason));
                    }
                    self.by_alias.insert(alias.clone(), resource.id.clone());
                }
                self.resources.insert(resource.id.clone(), resource.clone());
            }
            RegistryObject::Admin(admin) => {
                self.admins.insert(admin.id.clone(), admin.clone());
            }
            RegistryObject::Issuer(_) => {}
        }
    }

    pub(super) fn check_issuers(&self, errors: &mut Vec<RegistryError>) {
        for issuer in self.issuers.values() {
            let mut report = |key, reason: String| {
                errors.push(RegistryError { kind: ObjectKind::Issuer, id: issuer.issuer.to_string(), key, reason });
            };
            let prefix = issuer.subject_prefix.as_deref().unwrap_or_default();
            for other in self.issuers.values().filter(|other| other.issuer < issuer.issuer) {
                let other_prefix = other.subject_prefix.as_deref().unwrap_or_default();
                let collide = if prefix.is_empty() || other_prefix.is_empty() {
                    prefix == other_prefix
                } else {
                    prefix.starts_with(other_prefix) || other_prefix.starts_with(prefix)
                };
                if collide {
                    let reason = format!(
                        "subjects could collide with those of `{}`; give one of the two issuers a prefix that does not begin the other's",
                        other.issuer
                    );
                    report("subject_prefix", reason);
                }
            }
            if prefix.len() > 64 || prefix.chars().any(char::is_control) {
                report("subject_prefix", "must be at most 64 bytes without control characters".into());
            }
            if let Err(reason) = check_key_source(issuer) {
                report("keys", reason.into());
            }
            if let KeySource::Inline(keys) = &issuer.keys {
                check_public_keys(keys, &issuer.algorithms, &mut |reason| report("keys", reason));
            }
            if issuer.algorithms.is_empty() {
                report("algorithms", "name at least one, such as \"RS256\"".into());
            }
            if issuer.token_types.is_empty() {
                report("token_types", "name at least one of \"access_token\", \"jwt\", \"id_token\"".into());
            }
            let needs_audience =
                issuer.token_types.iter().any(|t| matches!(t, SubjectTokenType::AccessToken | SubjectTokenType::Jwt));
            let has_no_audience = issuer.audiences.iter().all(String::is_empty);
            if needs_audience && has_no_audience && issuer.audience_from.is_aud() {
                report("audiences", "name the `aud` of access tokens for this server".into());
            }
            check_claim_rules(issuer, &mut report);
            check_key_ages(issuer, &mut report);
            let is_pem = |pem: &String| pem.contains("-----BEGIN CERTIFICATE-----") && pem.len() <= MAX_CA_BYTES;
            if issuer.ca_pem.as_ref().is_some_and(|pem| !is_pem(pem)) {
                report("ca_pem", "must be certificates in PEM, at most 65536 bytes".into());
            }
            if issuer.subject_scopes == SubjectScopes::Ignore && issuer.entitlements.is_empty() {
                let reason =
                    "\"ignore\" needs at least one entitlement rule; otherwise nothing defines what its users may have";
                report("subject_scopes", reason.into());
            }
            check_portal(issuer, &mut report);
            for rule in &issuer.entitlements {
                if rule.scopes.is_empty() && rule.tools.is_empty() {
                    report("entitlements", "a rule names neither scopes nor tools".into());
                }
                match rule.resource.as_ref().map(|id| (id, self.resources.get(id))) {
                    Some((id, None)) => report("entitlements", format!("resource `{id}` does not exist")),
                    Some((_, Some(resource))) => {
                        check_declared(&rule.scopes, &rule.tools, resource, &mut |reason| {
                            report("entitlements", reason);
                        });
                    }
                    // A rule for every resource may be meant for one that is registered later.
                    None => {}
                }
                let permitted = self.resolve_entitlements(std::iter::once(rule), |_| true);
                let concerned = self.resources.values().filter(|r| rule.resource.as_ref().is_none_or(|id| *id == r.id));
                for resource in concerned {
                    check_rules(&rule.tools, resource, &permitted, &mut |reason| report("entitlements", reason));
                }
            }
        }
    }

    pub(super) fn check_resources(&self, errors: &mut Vec<RegistryError>) {
        for resource in self.resources.values() {
            let mut report = |key, reason: String| {
                errors.push(RegistryError { kind: ObjectKind::Resource, id: resource.id.to_string(), key, reason });
            };
            check_lifetime(resource.max_token_lifetime, &mut report);
            if !resource.uri.is_secure() && !resource.allow_http {
                let reason =
                    "https is required; http needs `allow_http = true`, because tokens are sent without encryption";
                report("uri", reason.into());
            }
            if resource.uri_aliases.len() > MAX_URI_ALIASES {
                report("uri_aliases", format!("at most {MAX_URI_ALIASES} aliases are allowed"));
            }
            let names = resource.tools.iter().map(|t| &t.name).collect::<BTreeSet<_>>();
            if names.len() != resource.tools.len() {
                report("tools", "two tools have the same name".into());
            }
            if resource.discovery_scope.as_ref().is_some_and(|scope| resource.tools.iter().any(|t| t.scope == *scope)) {
                report("discovery_scope", "is also the scope of a tool; listing must not permit calling".into());
            }
            let range = MIN_REFRESH_INTERVAL..=MAX_REFRESH_INTERVAL;
            if resource.catalogue_refresh.is_some_and(|every| !range.contains(&every)) {
                report("catalogue_refresh", "must be 60 to 86400 seconds".into());
            }
        }
    }

    pub(super) fn check_agents(&self, errors: &mut Vec<RegistryError>) {
        for agent in self.agents.values() {
            let mut report = |key, reason: String| {
                errors.push(RegistryError { kind: ObjectKind::Agent, id: agent.id.to_string(), key, reason });
            };
            check_lifetime(agent.max_token_lifetime, &mut report);
            let ceiling = self.ceiling(agent, |_| true);
            self.check_access(&agent.access, &ceiling, &mut |reason| report("access", reason));
            for (n, edge) in agent.may_delegate_to.iter().enumerate() {
                let mut report = |reason| report("may_delegate_to", reason);
                let other = &edge.agent;
                if !self.agents.contains_key(other) {
                    report(format!("agent `{other}` does not exist"));
                } else if *other == agent.id {
                    report("an agent can't delegate to itself".into());
                }
                if agent.may_delegate_to.iter().take(n).any(|before| before.agent == *other) {
                    report(format!("duplicate agent `{other}`"));
                }
                if edge.depth.is_some_and(|depth| !Edge::DEPTH_RANGE.contains(&depth)) {
                    let (min, max) = (Edge::DEPTH_RANGE.start(), Edge::DEPTH_RANGE.end());
                    report(format!("the depth for `{other}` must be {min} to {max}"));
                }
                match (&edge.access, self.edge_ceiling(edge, |_| true)) {
                    (Some(access), Some(_)) if access.is_empty() => {
                        report(format!("`access` for `{other}` is empty"));
                    }
                    (Some(access), Some(ceiling)) => self.check_access(access, &ceiling, &mut report),
                    (_, _) => {}
                }
            }
            if agent.kind == AgentKind::Broker && !agent.known_as.is_empty() {
                report("known_as", "a broker opens no tasks and receives no user tokens".into());
            }
            for (issuer, names) in &agent.known_as {
                match self.issuers.get(issuer) {
                    None => {
                        let reason = match self.issuer_in_other_spelling(issuer.as_str()) {
                            Some(known) => format!(
                                "issuer `{issuer}` does not exist; did you mean `{}`? Issuers are compared character by character",
                                known.issuer
                            ),
                            None => format!("issuer `{issuer}` does not exist"),
                        };
                        report("known_as", reason);
                    }
                    // Otherwise every user token of the issuer would name this agent,
                    // regardless of its client.
                    Some(issuer) if names.iter().any(|name| issuer.audiences.contains(name)) => {
                        let reason =
                            "names an audience of this server; every user token would then be intended for the agent";
                        report("known_as", reason.into());
                    }
                    Some(_) => {}
                }
                let portal = self.issuers.get(issuer).map(|issuer| &issuer.portal_clients);
                // Otherwise the agent could consent to its own actions.
                if let Some(name) = portal.and_then(|portal| names.iter().find(|name| portal.contains(name))) {
                    report(
                        "known_as",
                        format!(
                            "`{name}` is a portal of `{issuer}`, where requesters give consent; an agent can't be a portal"
                        ),
                    );
                }
                let api = self.issuers.get(issuer).map(|issuer| &issuer.api_audiences);
                if api.is_some_and(|api| names.iter().any(|name| api.contains(name))) {
                    report("known_as", "names an audience of this server's own API".into());
                }
                if names.iter().any(String::is_empty) {
                    report("known_as", format!("empty client id for `{issuer}`"));
                }
                // A token that names one agent must not be presentable by another.
                for other in self.agents.values().filter(|other| other.id < agent.id) {
                    let other_ids = other.known_as.get(issuer).map(Vec::as_slice).unwrap_or_default();
                    for name in names.iter().filter(|name| other_ids.contains(name)) {
                        report("known_as", format!("`{name}` at `{issuer}` already identifies `{}`", other.id));
                    }
                }
            }
        }
    }

    pub(super) fn check_clients(&self, errors: &mut Vec<RegistryError>) {
        for client in self.clients() {
            let Authentication::PrivateKeyJwt { jwks, algorithms, .. } = client.authentication() else { continue };
            let mut report = |reason| {
                let (kind, id) = (object_kind(client), client.id().to_string());
                errors.push(RegistryError { kind, id, key: "authentication", reason });
            };
            if algorithms.is_empty() {
                report("name at least one algorithm; otherwise no assertion can be accepted".into());
            }
            check_public_keys(jwks, algorithms, &mut report);
        }
    }

    /// Checks that the referenced objects exist. `whole` is the authority of all entries together.
    fn check_access(&self, access: &[Access], whole: &Authority, report: &mut impl FnMut(String)) {
        for access_entry in access {
            let Some(resource) = self.resources.get(&access_entry.resource) else {
                report(format!("resource `{}` does not exist", access_entry.resource));
                continue;
            };
            if access_entry.scopes.is_empty() && access_entry.tools.is_empty() {
                report(format!("names neither scopes nor tools of `{}`", resource.id));
            }
            check_declared(&access_entry.scopes, &access_entry.tools, resource, report);
            check_rules(&access_entry.tools, resource, whole, report);
        }
    }
}

/// A scope or a tool that the resource does not have is a typing error: the entry permits nothing.
fn check_declared(scopes: &[ScopeToken], tools: &[ToolUse], resource: &Resource, report: &mut impl FnMut(String)) {
    for scope in scopes.iter().filter(|scope| !resource.has_scope(scope)) {
        report(format!("no tool of `{}` has the scope `{scope}`", resource.id));
    }
    for ToolUse { tool: name, .. } in tools {
        if !resource.tools.iter().any(|tool| tool.name == *name) {
            report(format!("`{}` has no tool `{name}`", resource.id));
        }
    }
}

/// Constraints have no effect if another entry allows every call of the tool.
fn check_rules(uses: &[ToolUse], resource: &Resource, whole: &Authority, report: &mut impl FnMut(String)) {
    for ToolUse { tool, constraints } in uses {
        if !constraints.is_none() && whole.allows_every_call(&resource.uri, tool) {
            report(format!(
                "the constraints for `{tool}` of `{}` have no effect; another entry allows every call of it",
                resource.id
            ));
        }
    }
}

fn object_kind(client: Client<'_>) -> ObjectKind {
    match client {
        Client::Agent(_) => ObjectKind::Agent,
        Client::Resource(_) => ObjectKind::Resource,
        Client::Admin(_) => ObjectKind::Admin,
    }
}

/// A token lifetime is bounded by the cap and by a useful minimum.
fn check_lifetime(lifetime: Option<Lifetime>, report: &mut impl FnMut(&'static str, String)) {
    if lifetime.is_some_and(|lifetime| lifetime < MIN_TOKEN_LIFETIME_CAP || lifetime > TOKEN_LIFETIME_CAP) {
        let (min, max) = (MIN_TOKEN_LIFETIME_CAP.as_seconds(), TOKEN_LIFETIME_CAP.as_seconds());
        report("max_token_lifetime", format!("must be {min} to {max} seconds"));
    }
}

/// A requester's token for this server's API must not be usable for anything else, and no other
/// token for the API.
fn check_portal(issuer: &TrustedIssuer, report: &mut impl FnMut(&'static str, String)) {
    let (api, portals) = (&issuer.api_audiences, &issuer.portal_clients);
    if api.is_empty() != portals.is_empty() {
        let key = if api.is_empty() { "api_audiences" } else { "portal_clients" };
        report(key, "`api_audiences` and `portal_clients` must be set together".into());
    }
    if api.iter().chain(portals).any(String::is_empty) {
        report("api_audiences", "empty name in `api_audiences` or `portal_clients`".into());
    }
    if api.iter().any(|audience| issuer.audiences.contains(audience)) {
        let reason =
            "must differ from all `audiences`; agents hold tokens with those and could consent for the requester";
        report("api_audiences", reason.into());
    }
    if api.iter().any(|audience| portals.contains(audience)) {
        let reason = "must differ from all `portal_clients`; the `aud` of an ID token is the client id, and an ID token \
                      does not authorize API access";
        report("api_audiences", reason.into());
    }
    let takes_access =
        issuer.token_types.iter().any(|t| matches!(t, SubjectTokenType::AccessToken | SubjectTokenType::Jwt));
    if !api.is_empty() && !takes_access {
        report("api_audiences", "needs \"access_token\" or \"jwt\" in `token_types`".into());
    }
}

fn check_public_keys(keys: &JwkSet, algorithms: &[JwsAlgorithm], report: &mut impl FnMut(String)) {
    for error in check_key_set(keys, algorithms) {
        report(format!("{error}; {}", error.remedy()));
    }
}

/// In a token without `aud`, other claims must say what the token is: otherwise an ID token could
/// be an access token.
fn check_claim_rules(issuer: &TrustedIssuer, report: &mut impl FnMut(&'static str, String)) {
    if issuer.audience_from == AudienceSource::ClientId && issuer.required_claims.is_empty() {
        let reason =
            "\"client_id\" needs `required_claims` that only access tokens have, such as `token_use = \"access\"`";
        report("audience_from", reason.into());
    }
    for (name, value) in &issuer.required_claims {
        let is_scalar = value.is_string() || value.is_boolean() || value.is_i64();
        if name.is_empty() || !is_scalar {
            report("required_claims", format!("the value of `{name}` must be a text, an integer, or true or false"));
        }
    }
}

/// The keys of an issuer are not refreshed too often, and not used for too long.
fn check_key_ages(issuer: &TrustedIssuer, report: &mut impl FnMut(&'static str, String)) {
    if !KEY_REFRESH_RANGE.contains(&issuer.key_refresh) {
        report("key_refresh", "must be 30 to 86400 seconds".into());
    }
    if issuer.key_max_age < issuer.key_refresh || issuer.key_max_age > KEY_MAX_AGE_LIMIT {
        report("key_max_age", "must be at least `key_refresh` and at most 604800 seconds".into());
    }
}

/// Keys are fetched by https, or by http from loopback addresses that the issuer's networks allow,
/// or by http within these networks if the issuer allows it.
fn check_key_source(issuer: &TrustedIssuer) -> Result<(), &'static str> {
    let url = match &issuer.keys {
        KeySource::Inline(_) => return Ok(()),
        KeySource::JwksUri(url) => url.clone(),
        KeySource::Discovery => Url::parse(issuer.issuer.as_str()).map_err(|_| "the issuer is not a URL")?,
    };
    let is_http = url.scheme() == "http" && !is_loopback(&url);
    if is_http && issuer.keys == KeySource::Discovery {
        return Err(
            "the name of the issuer is http, and metadata is fetched over https; name the keys' own URL in `jwks_uri`",
        );
    }
    if is_http && !issuer.allow_http {
        return Err("https is required; http needs `allow_http = true` and the network in `allowed_networks`");
    }
    if is_http && issuer.allowed_networks.is_empty() {
        return Err("http is used within `allowed_networks` only; name the network of the keys");
    }
    if !matches!(url.scheme(), "https" | "http") {
        return Err("https is required");
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("user information and fragments are not allowed in the URL");
    }
    if is_loopback(&url) && !loopback_addresses(&url).iter().any(|ip| is_network_allowed(issuer, *ip)) {
        return Err(
            "the keys are on a loopback address, which is refused by default; name the network in `allowed_networks`",
        );
    }
    Ok(())
}

fn is_network_allowed(issuer: &TrustedIssuer, ip: IpAddr) -> bool {
    issuer.allowed_networks.iter().any(|network| network.contains(&ip))
}

/// Returns the addresses to which a loopback host may resolve.
fn loopback_addresses(url: &Url) -> Vec<IpAddr> {
    match url.host() {
        Some(Host::Ipv4(ip)) => vec![ip.into()],
        Some(Host::Ipv6(ip)) => vec![ip.into()],
        Some(Host::Domain(_)) | None => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
    }
}
