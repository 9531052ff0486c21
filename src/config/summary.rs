//! What a configuration amounts to, in words: for `errand check-config`, and for the log at start.

use std::{collections::BTreeSet, fmt::Display};

use super::{Config, LogFormat};
use crate::domain::{
    id::ClientId,
    jose::jwk::JwkSet,
    registry::{
        RegistryObject,
        client::{Access, Agent, AgentKind, AssertionAudience, Authentication, Effect, Resource, Role},
        issuer::{Entitlement, KeySource, OtherAudiences, SubjectScopes, SubjectTokenType, TrustedIssuer, UserMatcher},
    },
    settings::MemoryLimits,
    status_list::StatusListSettings,
    time::Lifetime,
    uri::is_loopback,
};

/// A summary that somebody can read before they start the server: what it is, whom it trusts, who may have what.
#[must_use]
pub fn summarize(config: &Config) -> String {
    let mut text = Vec::new();
    summarize_server(config, &mut text);
    for object in &config.objects {
        text.push(String::new());
        match object {
            RegistryObject::Issuer(issuer) => summarize_issuer(issuer, &mut text),
            RegistryObject::Agent(agent) => summarize_agent(agent, config, &mut text),
            RegistryObject::Resource(resource) => summarize_resource(resource, config, &mut text),
            RegistryObject::Admin(admin) => {
                let role = match admin.role {
                    Role::Operator => "operator: changes the registry, revokes, rotates keys, reads everything",
                    Role::Auditor => "auditor: reads everything, changes nothing",
                };
                text.push(format!("admin {}{}", admin.id, disabled_suffix(admin.disabled)));
                text.push(format_line("may", role));
                text.push(format_line(
                    "proves itself",
                    describe_authentication(&admin.id, &admin.authentication, config),
                ));
            }
        }
    }
    let notices = warnings(config);
    if !notices.is_empty() {
        text.push(String::new());
        text.push("NOTICE: chosen in this file, and worth a second look".to_owned());
        text.extend(notices.iter().map(|notice| format!("  ! {notice}")));
    }
    text.join("\n") + "\n"
}

/// The choices that weaken something or surprise, one sentence each. `errand serve` logs them.
#[must_use]
pub fn warnings(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    if config.tls.is_none() && !config.listen.ip().is_loopback() {
        found.push(format!("{} is plain HTTP: only a proxy that ends TLS may reach it", config.listen));
    }
    if config.operations_listen.is_none() && !config.listen.ip().is_loopback() {
        found.push("health and metrics are where the clients are: `operations_listen` is not set".to_owned());
    }
    if config.store.url.has_optional_tls() {
        found.push("the store is asked without TLS being required: add `?sslmode=verify-full` to its URL".to_owned());
    }
    for object in &config.objects {
        match object {
            RegistryObject::Issuer(issuer) => {
                collect_issuer_warnings(issuer, &mut found);
                collect_entitlement_warnings(issuer, config, &mut found);
            }
            RegistryObject::Agent(agent) => {
                collect_client_warnings(&agent.id, &agent.authentication, &mut found);
                collect_delegation_warnings(agent, config, &mut found);
            }
            RegistryObject::Resource(resource) => {
                collect_client_warnings(&resource.id, &resource.authentication, &mut found);
                if !resource.allowed_networks.is_empty() {
                    let networks = format_list(&resource.allowed_networks);
                    found.push(format!(
                        "{}: allowed_networks: it may be asked for its tools at {networks}",
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
            "{name}: subject_scopes = \"ignore\": the scope of its users' tokens limits nothing; entitlement rules and the agents' ceilings decide"
        )),
    }
    match issuer.other_audiences {
        OtherAudiences::Refuse => {}
        OtherAudiences::Accept => found.push(format!(
            "{name}: other_audiences = \"accept\": a token that its user gave to somebody else can be exchanged here too"
        )),
    }
    if !issuer.allowed_networks.is_empty() {
        let networks = format_list(&issuer.allowed_networks);
        found.push(format!("{name}: allowed_networks: its keys may be fetched from {networks}"));
    }
    for rule in issuer.entitlements.iter().filter(|rule| rule.to == UserMatcher::Everyone) {
        let at = rule.resource.as_ref().map_or_else(|| "every resource".to_owned(), ToString::to_string);
        found.push(format!(
            "{name}: every user of it is entitled to {} at {at}",
            format_permissions(&rule.scopes, &rule.tools)
        ));
    }
}

/// A rule may be about a resource that is declared over REST, so this is no mistake; but it may be a slip of the pen.
fn collect_entitlement_warnings(issuer: &TrustedIssuer, config: &Config, found: &mut Vec<String>) {
    let resources = config.objects.iter().filter_map(|object| match object {
        RegistryObject::Resource(resource) => Some(resource),
        RegistryObject::Issuer(_) | RegistryObject::Agent(_) | RegistryObject::Admin(_) => None,
    });
    let resources = resources.collect::<Vec<_>>();
    for rule in &issuer.entitlements {
        let concerned = resources.iter().filter(|r| rule.resource.as_ref().is_none_or(|id| *id == r.id));
        let concerned = concerned.collect::<Vec<_>>();
        let scopes = rule.scopes.iter().filter(|scope| !concerned.iter().any(|resource| resource.has_scope(scope)));
        let tools = concerned.iter().flat_map(|resource| &resource.tools).collect::<Vec<_>>();
        let names = rule.tools.iter().filter(|some| !tools.iter().any(|tool| tool.name == some.tool));
        for missing in scopes.map(ToString::to_string).chain(names.map(|some| format!("tool {}", some.tool))) {
            found.push(format!("{}: entitlements: {missing} is at no resource of this file", issuer.issuer));
        }
    }
}

/// An edge along which nothing could ever go, and a broker that no edge leads to, do no harm; but somebody meant something.
fn collect_delegation_warnings(agent: &Agent, config: &Config, found: &mut Vec<String>) {
    let agents = config.objects.iter().filter_map(|object| match object {
        RegistryObject::Agent(agent) => Some(agent),
        RegistryObject::Issuer(_) | RegistryObject::Resource(_) | RegistryObject::Admin(_) => None,
    });
    let agents = agents.collect::<Vec<_>>();
    for edge in &agent.may_delegate_to {
        let to = agents.iter().find(|other| other.id == edge.agent);
        let has = |who: &Agent, part: &Access| who.access.iter().any(|theirs| theirs.resource == part.resource);
        for part in edge.access.iter().flatten() {
            for who in [Some(&agent), to].into_iter().flatten().filter(|who| !has(who, part)) {
                found.push(format!(
                    "{}: may_delegate_to {}: {} has no access to {}, so nothing of it can go there",
                    agent.id, edge.agent, who.id, part.resource
                ));
            }
        }
    }
    let is_reached = agents.iter().any(|other| other.edge_to(&agent.id).is_some());
    if agent.kind == AgentKind::Broker && !is_reached {
        found.push(format!("{}: is a broker, and no agent of this file may delegate to it", agent.id));
    }
}

fn collect_client_warnings(id: &ClientId, authentication: &Authentication, found: &mut Vec<String>) {
    if let Authentication::PrivateKeyJwt { assertion_audience: AssertionAudience::TokenEndpointToo, .. } =
        authentication
    {
        found.push(format!(
            "{id}: assertion_audience = \"token_endpoint_too\": an assertion that another server tricked it into making could be used here"
        ));
    }
}

fn summarize_server(config: &Config, text: &mut Vec<String>) {
    let tls = match &config.tls {
        Some(tls) => format!("https, certificate {}", tls.certificate_file.display()),
        None => "plain HTTP, for a proxy that ends TLS".to_owned(),
    };
    let operations = config.operations_listen.unwrap_or(config.listen);
    let rotation = &config.keys.rotation;
    let (tokens, tasks) = (&config.tokens, &config.tasks);
    text.push(format!("Errand at {}", config.issuer));
    text.push(format_line("trust domain", &config.trust_domain));
    text.push(format_line("listens", format_args!("{} ({tls})", config.listen)));
    text.push(format_line("health, metrics", operations));
    text.push(format_line(
        "store",
        format_args!("{} ({} connections)", config.store.url, config.store.max_connections),
    ));
    text.push(format_line(
        "keys",
        format_args!(
            "{}; a new one every {}, published {} ahead, kept {} after",
            config.keys.algorithm,
            format_lifetime(rotation.every),
            format_lifetime(rotation.publish_ahead),
            format_lifetime(rotation.keep_retired)
        ),
    ));
    text.push(format_line(
        "tokens",
        format_args!(
            "{}; API tokens {}; chain of {} agents; leeway {}; assertions {}",
            format_lifetime(tokens.lifetime),
            format_lifetime(tokens.api_token_lifetime),
            tokens.max_chain,
            format_lifetime(tokens.leeway),
            format_lifetime(tokens.max_assertion_lifetime)
        ),
    ));
    text.push(format_line(
        "tasks",
        format_args!("{}, at most {}", format_lifetime(tasks.lifetime), format_lifetime(tasks.max_lifetime)),
    ));
    text.push(format_line("audit", format_args!("introspections: {}", config.audit.introspections.as_str())));
    let form = match config.log.format {
        LogFormat::Json => "json",
        LogFormat::Pretty => "pretty",
    };
    text.push(format_line("log", format_args!("{form}, {}", config.log.level)));
    let requests = &config.requests;
    let replicas = &config.replicas;
    let name = replicas.name.as_deref().unwrap_or("named as the machine");
    text.push(format_line(
        "replicas",
        format_args!(
            "{name}; answers from memory for {} ms, renewed every {} ms",
            replicas.lease_ms, replicas.heartbeat_ms
        ),
    ));
    text.push(format_line("requests", format_args!("{} s, {} at once", requests.timeout_seconds, requests.queue)));
    let MemoryLimits { verified_tokens, verified_megabytes } = config.memory;
    text.push(format_line(
        "memory",
        format_args!("{verified_tokens} verified tokens, {verified_megabytes} MiB of them at most"),
    ));
    text.push(format_line("status lists", format_args!("{}", summarize_status_list(config))));
}

fn summarize_status_list(config: &Config) -> String {
    let StatusListSettings { enabled, ttl } = config.status_list;
    let tokens = if enabled { "every token has a place" } else { "no token gets a place" };
    format!("{tokens}; read again every {}", format_lifetime(ttl))
}

fn summarize_issuer(issuer: &TrustedIssuer, text: &mut Vec<String>) {
    let keys = match &issuer.keys {
        KeySource::Discovery => "by discovery".to_owned(),
        KeySource::JwksUri(url) => {
            format!("from {url}{}", if is_loopback(url) { " (this machine)" } else { "" })
        }
        KeySource::Inline(keys) => format!("{}, which change by configuration only", format_key_count(keys)),
    };
    let types = issuer.token_types.iter().map(|kind| match kind {
        SubjectTokenType::AccessToken => "access tokens",
        SubjectTokenType::IdToken => "ID tokens",
        SubjectTokenType::Jwt => "JWTs",
    });
    let types = types.collect::<Vec<_>>();
    text.push(format!("issuer {}{}", issuer.issuer, disabled_suffix(issuer.disabled)));
    text.push(format_line("keys", format_args!("{keys}; {}", format_list(&issuer.algorithms))));
    text.push(format_line("takes", format_args!("{} for {}", types.join(", "), format_audiences(issuer))));
    if let Some(prefix) = &issuer.subject_prefix {
        text.push(format_line("subjects", format_args!("get `{prefix}` before them")));
    }
    let scopes = match issuer.subject_scopes {
        SubjectScopes::Ceiling => "what the user's token has in scope is the ceiling",
        SubjectScopes::Ignore => "the user's token says NOTHING about what can be had",
    };
    text.push(format_line("scope", scopes));
    for Entitlement { to, resource, scopes, tools } in &issuer.entitlements {
        let whom = match to {
            UserMatcher::Everyone => "everyone".to_owned(),
            UserMatcher::Claim { name, value } => format!("`{name}` has `{value}`"),
        };
        let at = resource.as_ref().map_or_else(|| "every resource".to_owned(), ToString::to_string);
        text.push(format_line("entitles", format_args!("{whom}: {} at {at}", format_permissions(scopes, tools))));
    }
}

fn summarize_agent(agent: &Agent, config: &Config, text: &mut Vec<String>) {
    let kind = match agent.kind {
        AgentKind::Agent => "agent",
        AgentKind::Broker => "broker",
    };
    text.push(format!("{kind} {}{}", agent.id, disabled_suffix(agent.disabled)));
    text.push(format_line("proves itself", describe_authentication(&agent.id, &agent.authentication, config)));
    for (issuer, names) in &agent.known_as {
        text.push(format_line("known as", format_args!("{} at {issuer}", format_list(names))));
    }
    for part in &agent.access {
        text.push(format_line("may have", format_access(part)));
    }
    if agent.access.is_empty() {
        text.push(format_line("may have", "nothing"));
    }
    for edge in &agent.may_delegate_to {
        let what = edge.access.as_ref().map_or_else(
            || "whatever its token allows".to_owned(),
            |access| access.iter().map(format_access).collect::<Vec<_>>().join("; "),
        );
        let depth = match edge.depth {
            None => String::new(),
            Some(1) => ", and no further".to_owned(),
            Some(depth) => format!(", and on to at most {} more", depth - 1),
        };
        text.push(format_line("may hand on to", format_args!("{}: {what}{depth}", edge.agent)));
    }
}

fn format_access(part: &Access) -> String {
    format!("{} at {}", format_permissions(&part.scopes, &part.tools), part.resource)
}

fn summarize_resource(resource: &Resource, config: &Config, text: &mut Vec<String>) {
    text.push(format!("resource {} at {}{}", resource.id, resource.uri, disabled_suffix(resource.disabled)));
    text.push(format_line("proves itself", describe_authentication(&resource.id, &resource.authentication, config)));
    let scopes = resource.tools.iter().map(|tool| &tool.scope).collect::<BTreeSet<_>>();
    for scope in scopes {
        let tools = resource.tools.iter().filter(|tool| tool.scope == *scope).map(|tool| {
            let effect = match tool.effect {
                Effect::Read => "reads",
                Effect::Write => "writes",
                Effect::Destructive => "DESTROYS",
            };
            format!("{} ({effect})", tool.name)
        });
        text.push(format_line("offers", format_args!("{scope}: {}", tools.collect::<Vec<_>>().join(", "))));
    }
    if resource.tools.is_empty() {
        text.push(format_line("offers", "nothing"));
    }
    if let Some(scope) = &resource.discovery_scope {
        text.push(format_line("offers", format_args!("{scope}: to list its tools and resources")));
    }
    if let Some(pace) = resource.catalogue_refresh {
        text.push(format_line("is asked", format_args!("for its tools every {} s", pace.as_seconds())));
    }
}

fn describe_authentication(id: &ClientId, authentication: &Authentication, config: &Config) -> String {
    match authentication {
        Authentication::PrivateKeyJwt { jwks, algorithms, .. } => {
            format!("{}, {}, {}", authentication.method(), format_key_count(jwks), format_list(algorithms))
        }
        Authentication::ClientSecretBasic {} if config.secrets.iter().any(|(client, _)| client == id) => {
            format!("{}, secret by file or environment", authentication.method())
        }
        Authentication::ClientSecretBasic {} => format!("{}, secret made over REST", authentication.method()),
    }
}

fn format_audiences(issuer: &TrustedIssuer) -> String {
    if issuer.audiences.is_empty() { "the agent's own client id".to_owned() } else { format_list(&issuer.audiences) }
}

fn format_key_count(keys: &JwkSet) -> String {
    match keys.keys().count() {
        1 => "1 key".to_owned(),
        n => format!("{n} keys"),
    }
}

fn format_permissions(scopes: &[impl Display], tools: &[impl Display]) -> String {
    let names = scopes.iter().map(ToString::to_string).chain(tools.iter().map(|tool| format!("tool {tool}")));
    names.collect::<Vec<_>>().join(", ")
}

fn disabled_suffix(disabled: bool) -> &'static str {
    if disabled { " (DISABLED)" } else { "" }
}

fn format_line(name: &str, value: impl Display) -> String {
    format!("  {name:<16}{value}")
}

fn format_list(items: &[impl Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// A length of time in the largest unit that leaves nothing over.
fn format_lifetime(life: Lifetime) -> String {
    let seconds = life.as_seconds();
    let units = [(86_400, "d"), (3600, "h"), (60, "min")];
    let unit = units.into_iter().find(|(unit, _)| seconds != 0 && seconds.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{seconds} s"), |(unit, name)| format!("{} {name}", seconds / unit))
}
