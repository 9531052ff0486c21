//! Warnings about settings that weaken security or look unintended.

use url::Url;

use super::{
    Config,
    format::{format_list, format_permissions},
};
use crate::domain::{
    id::ClientId,
    registry::{
        RegistryObject,
        client::{Access, Agent, AgentKind, AssertionAudience, Authentication},
        issuer::{AudienceSource, ClaimMatcher, OtherAudiences, SubjectScopes, TrustedIssuer, UserMatcher},
    },
    uri::is_loopback,
};

/// Returns a sentence for each setting that weakens security or looks unintended. `errand serve`
/// logs them at start.
#[must_use]
pub fn warnings(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let listen = &config.listen;
    if config.tls.is_none() && !listen.address.ip().is_loopback() {
        found.push(format!(
            "listen: {} serves plain HTTP; only a proxy that terminates TLS may reach it",
            listen.address
        ));
    }
    if config.operations_listen.is_none() && !listen.address.ip().is_loopback() {
        found.push("operations_listen: is the same as `listen`; clients can read health and metrics there".to_owned());
    }
    let any_address = listen.trusted_proxies.iter().filter(|network| network.prefix_len() == 0);
    found.extend(any_address.map(|network| {
        format!("listen: trusted_proxies: {network} trusts every client to report its own source address")
    }));
    if config.store.url.has_optional_tls() {
        found.push("store: the connection does not require TLS; add `?sslmode=verify-full` to the URL".to_owned());
    }
    if let Some(proxy) = &config.fetch.proxy {
        found.push(format!(
            "fetch: proxy: {} resolves the names of what is fetched, so Errand can't check the addresses; the proxy must refuse private destinations (SSRF)",
            proxy.url
        ));
    }
    // A server whose own name is a loopback address serves this machine alone.
    let is_local = Url::parse(config.issuer.as_str()).is_ok_and(|url| is_loopback(&url));
    if !config.fetch.networks.is_empty() && !is_local {
        let networks = format_list(&config.fetch.networks);
        found.push(format!("fetch: networks: an operator can have documents fetched from {networks}"));
    }
    for object in &config.objects {
        match object {
            RegistryObject::Issuer(issuer) => {
                collect_issuer_warnings(issuer, &mut found);
                collect_path_warnings(issuer, &mut found);
                collect_entitlement_warnings(issuer, config, &mut found);
            }
            RegistryObject::Agent(agent) => {
                collect_client_warnings(&agent.id, &agent.authentication, &mut found);
                collect_delegation_warnings(agent, config, &mut found);
            }
            RegistryObject::Resource(resource) => {
                collect_client_warnings(&resource.id, &resource.authentication, &mut found);
                if !resource.uri.is_secure() {
                    found.push(format!(
                        "{}: allow_http: tokens for {} are sent without encryption",
                        resource.id, resource.uri
                    ));
                }
                if !resource.allowed_networks.is_empty() {
                    let networks = format_list(&resource.allowed_networks);
                    found.push(format!(
                        "{}: allowed_networks: its tool catalogue may be fetched from {networks}",
                        resource.id
                    ));
                }
            }
            RegistryObject::Admin(admin) => collect_client_warnings(&admin.id, &admin.authentication, &mut found),
        }
    }
    found
}

fn collect_issuer_warnings(issuer: &TrustedIssuer, found: &mut Vec<String>) {
    let name = &issuer.issuer;
    match issuer.subject_scopes {
        SubjectScopes::Ceiling => {}
        SubjectScopes::Ignore => found.push(format!(
            "{name}: subject_scopes = \"ignore\": the scope of user tokens has no effect; entitlements and the agents' ceilings decide"
        )),
    }
    match issuer.other_audiences {
        OtherAudiences::Refuse => {}
        OtherAudiences::Accept => found.push(format!(
            "{name}: other_audiences = \"accept\": a token that is also valid for another service can be exchanged here"
        )),
    }
    match issuer.audience_from {
        AudienceSource::Aud => {}
        AudienceSource::ClientId => found.push(format!(
            "{name}: audience_from = \"client_id\": a token without `aud` is accepted from the agent that it was issued to, although nothing in it says that it is for Errand; `required_claims` must exclude every other kind of token of the provider"
        )),
    }
    if issuer.allow_http {
        found.push(format!(
            "{name}: allow_http: a party that can change the traffic between Errand and the keys can make tokens of every user"
        ));
    }
    if !issuer.allowed_networks.is_empty() {
        let networks = format_list(&issuer.allowed_networks);
        found.push(format!("{name}: allowed_networks: its keys may be fetched from {networks}"));
    }
    for rule in issuer.entitlements.iter().filter(|rule| rule.to == UserMatcher::Everyone) {
        let resource = rule.resource.as_ref().map_or_else(|| "every resource".to_owned(), ToString::to_string);
        found.push(format!(
            "{name}: entitlements: every user is entitled to {} at {resource}",
            format_permissions(&rule.scopes, &rule.tools)
        ));
    }
}

/// Warns about a rule whose claim looks like a path, because a claim of that name is unlikely.
fn collect_path_warnings(issuer: &TrustedIssuer, found: &mut Vec<String>) {
    for (n, rule) in issuer.entitlements.iter().enumerate() {
        let UserMatcher::Claim(ClaimMatcher { path, .. }) = &rule.to else { continue };
        let Some(name) = path.first().filter(|name| path.len() == 1 && looks_like_path(name)) else { continue };
        found.push(format!(
            "{}: entitlements[{n}]: looks for a claim named `{name}`; for a member of an object, write `path = [{}]`",
            issuer.issuer,
            name.split('.').map(|part| format!("\"{part}\"")).collect::<Vec<_>>().join(", ")
        ));
    }
}

/// Returns whether a claim name is names joined with dots. Names of claims that contain a URI are
/// not.
fn looks_like_path(name: &str) -> bool {
    name.contains('.') && !name.contains(['/', ':']) && name.split('.').all(|part| !part.is_empty())
}

/// Warns about rules for undeclared scopes and tools. They may be declared over REST, so this is
/// not an error, but possibly a typo.
fn collect_entitlement_warnings(issuer: &TrustedIssuer, config: &Config, found: &mut Vec<String>) {
    let resources = config.objects.iter().filter_map(|object| match object {
        RegistryObject::Resource(resource) => Some(resource),
        RegistryObject::Issuer(_) | RegistryObject::Agent(_) | RegistryObject::Admin(_) => None,
    });
    let resources = resources.collect::<Vec<_>>();
    for rule in &issuer.entitlements {
        let matching = resources.iter().filter(|r| rule.resource.as_ref().is_none_or(|id| *id == r.id));
        let matching = matching.collect::<Vec<_>>();
        let unknown_scopes =
            rule.scopes.iter().filter(|scope| !matching.iter().any(|resource| resource.has_scope(scope)));
        let tools = matching.iter().flat_map(|resource| &resource.tools).collect::<Vec<_>>();
        let unknown_tools = rule.tools.iter().filter(|rule| !tools.iter().any(|tool| tool.name == rule.tool));
        let unknown_tools = unknown_tools.map(|rule| format!("tool {}", rule.tool));
        for unknown in unknown_scopes.map(ToString::to_string).chain(unknown_tools) {
            found.push(format!("{}: entitlements: no matching resource in this file has {unknown}", issuer.issuer));
        }
    }
}

/// Warns about delegation that can never happen: an edge without common access, and a broker that
/// no edge leads to.
fn collect_delegation_warnings(agent: &Agent, config: &Config, found: &mut Vec<String>) {
    let agents = config.objects.iter().filter_map(|object| match object {
        RegistryObject::Agent(agent) => Some(agent),
        RegistryObject::Issuer(_) | RegistryObject::Resource(_) | RegistryObject::Admin(_) => None,
    });
    let agents = agents.collect::<Vec<_>>();
    for edge in &agent.may_delegate_to {
        let delegate = agents.iter().find(|other| other.id == edge.agent);
        let has_access =
            |agent: &Agent, access: &Access| agent.access.iter().any(|own| own.resource == access.resource);
        for access in edge.access.iter().flatten() {
            for party in [Some(&agent), delegate].into_iter().flatten().filter(|party| !has_access(party, access)) {
                found.push(format!(
                    "{}: may_delegate_to {}: {} does not have access to {}, so access to it can't be delegated",
                    agent.id, edge.agent, party.id, access.resource
                ));
            }
        }
    }
    let is_reached = agents.iter().any(|other| other.edge_to(&agent.id).is_some());
    if agent.kind == AgentKind::Agent && agent.known_as.is_empty() && !is_reached {
        found.push(format!(
            "{}: no `known_as` and no agent in this file delegates to it: no user token can name it, so that it opens a task only on a recorded grant",
            agent.id
        ));
    }
    if agent.kind == AgentKind::Broker && !is_reached {
        found.push(format!("{}: is a broker, but no agent in this file may delegate to it", agent.id));
    }
}

fn collect_client_warnings(id: &ClientId, authentication: &Authentication, found: &mut Vec<String>) {
    if let Authentication::PrivateKeyJwt { assertion_audience: AssertionAudience::TokenEndpointToo, .. } =
        authentication
    {
        found.push(format!(
            "{id}: assertion_audience = \"token_endpoint_too\": an assertion that another server obtained from it could be used here"
        ));
    }
}
