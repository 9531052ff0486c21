//! What makes a registry consistent. Every rule is one [`Inconsistency`].

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use url::{Host, Url};

use super::{ObjectKind, Registry, RegistryError, RegistryObject};
use crate::domain::{
    authority::{Authority, ToolUse},
    id::ClientId,
    registry::{
        access::Access,
        admin::Admin,
        agent::{Agent, AgentKind},
        authentication::Authentication,
        client::Client,
        edge::Edge,
        issuer::{KeySource, SubjectScopes, SubjectTokenType, TrustedIssuer},
        resource::Resource,
    },
    settings::TOKEN_LIFETIME_CAP,
    time::Lifetime,
    uri::is_loopback,
};

/// A shorter life than this is over before the token has arrived.
const MIN_TOKEN_LIFETIME_CAP: Lifetime = Lifetime::seconds(10);
/// Nobody is asked for its tools more often than this.
const MIN_REFRESH_INTERVAL: Lifetime = Lifetime::seconds(60);
/// What is asked for its tools more rarely may as well be asked by hand.
const MAX_REFRESH_INTERVAL: Lifetime = Lifetime::hours(24);

impl Registry {
    pub(super) fn add(&mut self, object: &RegistryObject, faults: &mut Vec<RegistryError>) {
        let fault = |key, reason: &str| RegistryError {
            kind: object.kind(),
            id: object.id().to_owned(),
            key,
            reason: reason.to_owned(),
        };
        if let RegistryObject::Issuer(issuer) = object {
            if self.issuers.insert(issuer.issuer.clone(), Arc::new(issuer.clone())).is_some() {
                faults.push(fault("issuer", "stands twice"));
            }
            return;
        }
        if object.client_id().is_some_and(ClientId::is_reserved) {
            faults.push(fault("id", "names that begin with `errand` are Errand's own"));
        }
        let taken = |id: &ClientId| self.client(id).is_some();
        match object {
            RegistryObject::Agent(Agent { id, .. })
            | RegistryObject::Resource(Resource { id, .. })
            | RegistryObject::Admin(Admin { id, .. })
                if taken(id) =>
            {
                faults.push(fault("id", "stands twice: agents, resources and admins share one set of client ids"));
            }
            RegistryObject::Agent(agent) => {
                self.agents.insert(agent.id.clone(), agent.clone());
            }
            RegistryObject::Resource(resource) => {
                if self.by_uri.insert(resource.uri.clone(), resource.id.clone()).is_some() {
                    faults.push(fault("uri", "another resource has the same canonical URI"));
                }
                self.resources.insert(resource.id.clone(), resource.clone());
            }
            RegistryObject::Admin(admin) => {
                self.admins.insert(admin.id.clone(), admin.clone());
            }
            RegistryObject::Issuer(_) => {}
        }
    }

    pub(super) fn check_issuers(&self, faults: &mut Vec<RegistryError>) {
        for issuer in self.issuers.values() {
            let mut fault = |key, reason: String| {
                faults.push(RegistryError { kind: ObjectKind::Issuer, id: issuer.issuer.to_string(), key, reason });
            };
            let prefix = issuer.subject_prefix.as_deref().unwrap_or_default();
            for other in self.issuers.values().filter(|other| other.issuer < issuer.issuer) {
                let theirs = other.subject_prefix.as_deref().unwrap_or_default();
                let collide = if prefix.is_empty() || theirs.is_empty() {
                    prefix == theirs
                } else {
                    prefix.starts_with(theirs) || theirs.starts_with(prefix)
                };
                if collide {
                    let reason = format!(
                        "its subjects could be taken for those of `{}`: give one of the two a prefix that is not the beginning of the other's",
                        other.issuer
                    );
                    fault("subject_prefix", reason);
                }
            }
            if prefix.len() > 64 || prefix.chars().any(char::is_control) {
                fault("subject_prefix", "must be at most 64 bytes without control characters".into());
            }
            if let Err(reason) = check_keys(issuer) {
                fault("keys", reason.into());
            }
            if issuer.algorithms.is_empty() {
                fault("algorithms", "name at least one, such as \"RS256\"".into());
            }
            if issuer.token_types.is_empty() {
                fault("token_types", "name at least one of \"access_token\", \"jwt\", \"id_token\"".into());
            }
            let needs_audience =
                issuer.token_types.iter().any(|t| matches!(t, SubjectTokenType::AccessToken | SubjectTokenType::Jwt));
            if needs_audience && issuer.audiences.iter().all(String::is_empty) {
                fault("audiences", "name the `aud` that access tokens for this server have".into());
            }
            if issuer.subject_scopes == SubjectScopes::Ignore && issuer.entitlements.is_empty() {
                let reason = "\"ignore\" needs at least one entitlement rule: otherwise nothing would say what its users may have";
                fault("subject_scopes", reason.into());
            }
            check_portal(issuer, &mut fault);
            for rule in &issuer.entitlements {
                if rule.scopes.is_empty() && rule.tools.is_empty() {
                    fault("entitlements", "a rule names neither scopes nor tools".into());
                }
                if let Some(id) = &rule.resource
                    && !self.resources.contains_key(id)
                {
                    fault("entitlements", format!("there is no resource `{id}`"));
                }
                let gives = self.resolve_entitlements(std::iter::once(rule), |_| true);
                let concerned = self.resources.values().filter(|r| rule.resource.as_ref().is_none_or(|id| *id == r.id));
                for resource in concerned {
                    check_rules(&rule.tools, resource, &gives, &mut |reason| fault("entitlements", reason));
                }
            }
        }
    }

    pub(super) fn check_resources(&self, faults: &mut Vec<RegistryError>) {
        for resource in self.resources.values() {
            let mut fault = |key, reason: String| {
                faults.push(RegistryError { kind: ObjectKind::Resource, id: resource.id.to_string(), key, reason });
            };
            check_lifetime(resource.max_token_lifetime, &mut fault);
            let names = resource.tools.iter().map(|t| &t.name).collect::<BTreeSet<_>>();
            if names.len() != resource.tools.len() {
                fault("tools", "two tools have the same name".into());
            }
            if resource.discovery_scope.as_ref().is_some_and(|scope| resource.tools.iter().any(|t| t.scope == *scope)) {
                fault("discovery_scope", "is the scope of a tool too: who may list must not be able to call".into());
            }
            let pace = MIN_REFRESH_INTERVAL..=MAX_REFRESH_INTERVAL;
            if resource.catalogue_refresh.is_some_and(|every| !pace.contains(&every)) {
                fault("catalogue_refresh", "must be 60 to 86400 seconds".into());
            }
        }
    }

    pub(super) fn check_agents(&self, faults: &mut Vec<RegistryError>) {
        for agent in self.agents.values() {
            let mut fault = |key, reason: String| {
                faults.push(RegistryError { kind: ObjectKind::Agent, id: agent.id.to_string(), key, reason });
            };
            check_lifetime(agent.max_token_lifetime, &mut fault);
            let ceiling = self.ceiling(agent, |_| true);
            self.check_access(&agent.access, &ceiling, &mut |reason| fault("access", reason));
            for (n, edge) in agent.may_delegate_to.iter().enumerate() {
                let mut fault = |reason| fault("may_delegate_to", reason);
                let other = &edge.agent;
                if !self.agents.contains_key(other) {
                    fault(format!("there is no agent `{other}`"));
                } else if *other == agent.id {
                    fault("an agent does not delegate to itself".into());
                }
                if agent.may_delegate_to.iter().take(n).any(|before| before.agent == *other) {
                    fault(format!("`{other}` stands there twice"));
                }
                if edge.depth.is_some_and(|depth| !Edge::DEPTH_RANGE.contains(&depth)) {
                    let (least, most) = (Edge::DEPTH_RANGE.start(), Edge::DEPTH_RANGE.end());
                    fault(format!("the depth for `{other}` must be {least} to {most}"));
                }
                match (&edge.access, self.edge_ceiling(edge, |_| true)) {
                    (Some(access), Some(_)) if access.is_empty() => {
                        fault(format!("lets nothing through to `{other}`: `access` is empty"));
                    }
                    (Some(access), Some(lets)) => self.check_access(access, &lets, &mut fault),
                    (_, _) => {}
                }
            }
            if agent.kind == AgentKind::Broker && !agent.known_as.is_empty() {
                fault("known_as", "a broker opens no task, so that no user token is for it".into());
            }
            for (issuer, names) in &agent.known_as {
                match self.issuers.get(issuer) {
                    None => fault("known_as", format!("there is no issuer `{issuer}`")),
                    // Else every user token of the issuer would point at this agent, whoever it was issued to.
                    Some(issuer) if names.iter().any(|name| issuer.audiences.contains(name)) => {
                        let reason =
                            "names an audience that means this server: every user token would point at the agent";
                        fault("known_as", reason.into());
                    }
                    Some(_) => {}
                }
                let portal = self.issuers.get(issuer).map(|issuer| &issuer.portal_clients);
                // Else the agent could consent to what it does itself.
                if let Some(name) = portal.and_then(|portal| names.iter().find(|name| portal.contains(name))) {
                    fault(
                        "known_as",
                        format!("`{name}` is a portal at `{issuer}`, where requesters grant: no agent may be one"),
                    );
                }
                let api = self.issuers.get(issuer).map(|issuer| &issuer.api_audiences);
                if api.is_some_and(|api| names.iter().any(|name| api.contains(name))) {
                    fault("known_as", "names an audience that means this server's own API".into());
                }
                if names.iter().any(String::is_empty) {
                    fault("known_as", format!("a name at `{issuer}` is empty"));
                }
                // A token that names the one must not be one that the other may act with.
                for other in self.agents.values().filter(|other| other.id < agent.id) {
                    let theirs = other.known_as.get(issuer).map(Vec::as_slice).unwrap_or_default();
                    for name in names.iter().filter(|name| theirs.contains(name)) {
                        fault("known_as", format!("`{issuer}` knows `{}` as `{name}` already", other.id));
                    }
                }
            }
        }
    }

    pub(super) fn check_clients(&self, faults: &mut Vec<RegistryError>) {
        for client in self.clients() {
            let Authentication::PrivateKeyJwt { algorithms, .. } = client.authentication() else { continue };
            if algorithms.is_empty() {
                faults.push(RegistryError {
                    kind: object_kind(client),
                    id: client.id().to_string(),
                    key: "authentication",
                    reason: "names no algorithm: no assertion could ever be taken".into(),
                });
            }
        }
    }

    /// Whether what is named is there; `whole` is what the entries amount to all in all.
    fn check_access(&self, access: &[Access], whole: &Authority, fault: &mut impl FnMut(String)) {
        for part in access {
            let Some(resource) = self.resources.get(&part.resource) else {
                fault(format!("there is no resource `{}`", part.resource));
                continue;
            };
            if part.scopes.is_empty() && part.tools.is_empty() {
                fault(format!("names neither scopes nor tools of `{}`", resource.id));
            }
            for scope in &part.scopes {
                if !resource.has_scope(scope) {
                    fault(format!("no tool of `{}` has the scope `{scope}`", resource.id));
                }
            }
            for ToolUse { tool: name, .. } in &part.tools {
                if !resource.tools.iter().any(|tool| tool.name == *name) {
                    fault(format!("`{}` has no tool `{name}`", resource.id));
                }
            }
            check_rules(&part.tools, resource, whole, fault);
        }
    }
}

/// Rules beside which every call of the tool is allowed anyway say something that does not hold.
fn check_rules(uses: &[ToolUse], resource: &Resource, whole: &Authority, fault: &mut impl FnMut(String)) {
    for ToolUse { tool, constraints } in uses {
        if !constraints.is_none() && whole.allows_every_call(&resource.uri, tool) {
            fault(format!(
                "the rules for `{tool}` of `{}` mean nothing: every call of it is allowed beside them",
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

/// No token lives longer than the cap, and one that lives no time is none.
fn check_lifetime(life: Option<Lifetime>, fault: &mut impl FnMut(&'static str, String)) {
    if life.is_some_and(|life| life < MIN_TOKEN_LIFETIME_CAP || life > TOKEN_LIFETIME_CAP) {
        let (least, most) = (MIN_TOKEN_LIFETIME_CAP.as_seconds(), TOKEN_LIFETIME_CAP.as_seconds());
        fault("max_token_lifetime", format!("must be {least} to {most} seconds"));
    }
}

/// A token of a requester for our own API is good for nothing else, and nothing else is good for that.
fn check_portal(issuer: &TrustedIssuer, fault: &mut impl FnMut(&'static str, String)) {
    let (api, portals) = (&issuer.api_audiences, &issuer.portal_clients);
    if api.is_empty() != portals.is_empty() {
        let key = if api.is_empty() { "api_audiences" } else { "portal_clients" };
        fault(key, "`api_audiences` and `portal_clients` go together: neither is of use without the other".into());
    }
    if api.iter().chain(portals).any(String::is_empty) {
        fault("api_audiences", "a name in it or in `portal_clients` is empty".into());
    }
    if api.iter().any(|audience| issuer.audiences.contains(audience)) {
        let reason =
            "must differ from every one of `audiences`: agents hold tokens with those, and could grant themselves";
        fault("api_audiences", reason.into());
    }
    let takes_access =
        issuer.token_types.iter().any(|t| matches!(t, SubjectTokenType::AccessToken | SubjectTokenType::Jwt));
    if !api.is_empty() && !takes_access {
        fault("api_audiences", "`token_types` has neither \"access_token\" nor \"jwt\"".into());
    }
}

/// Where the keys are fetched from: https, or this machine if the issuer's networks say so.
fn check_keys(issuer: &TrustedIssuer) -> Result<(), &'static str> {
    let url = match &issuer.keys {
        KeySource::Inline(_) => return Ok(()),
        KeySource::JwksUri(url) => url.clone(),
        KeySource::Discovery => Url::parse(issuer.issuer.as_str()).map_err(|_| "the issuer is not a URL")?,
    };
    if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(&url)) {
        return Err("https is needed (http is for loopback addresses only)");
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err("user information and fragments are not allowed in the URL");
    }
    if is_loopback(&url) && !loopback_addresses(&url).iter().any(|ip| is_network_allowed(issuer, *ip)) {
        return Err(
            "its keys would be fetched from this machine, which is refused: name the network in `allowed_networks`",
        );
    }
    Ok(())
}

fn is_network_allowed(issuer: &TrustedIssuer, ip: IpAddr) -> bool {
    issuer.allowed_networks.iter().any(|network| network.contains(&ip))
}

/// The addresses that a loopback host may mean.
fn loopback_addresses(url: &Url) -> Vec<IpAddr> {
    match url.host() {
        Some(Host::Ipv4(ip)) => vec![ip.into()],
        Some(Host::Ipv6(ip)) => vec![ip.into()],
        Some(Host::Domain(_)) | None => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
    }
}
