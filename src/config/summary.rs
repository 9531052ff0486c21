//! Summary of a configuration for `errand check-config`.

use std::{collections::BTreeSet, fmt::Display};

use super::{
    Config, ForwardedHeader, InProgress, Limits, LogFormat,
    format::{format_list, format_permissions},
    warnings,
};
use crate::domain::{
    four_eyes::{FourEyes, is_active_operator},
    id::ClientId,
    jose::jwk::JwkSet,
    registry::{
        RegistryObject,
        client::{Access, Agent, AgentKind, Authentication, Effect, Resource, Role},
        issuer::{
            AudienceSource, ClaimMatcher, Entitlement, KeySource, MatchMode, SubjectScopes, SubjectTokenType,
            TrustedIssuer, UserMatcher, is_default_key_max_age, is_default_key_refresh,
        },
    },
    settings::{AdmissionLimits, MemoryLimits, Quotas, RateLimit, Retention},
    status_list::StatusListSettings,
    time::Lifetime,
    uri::is_loopback,
};

/// Summarizes a configuration: the server, the issuers that it trusts, and what each client may do.
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
                text.push(format_line("role", role));
                text.push(format_line(
                    "authentication",
                    describe_authentication(&admin.id, &admin.authentication, config),
                ));
            }
        }
    }
    let warnings = warnings(config);
    if !warnings.is_empty() {
        text.push(String::new());
        text.push("WARNINGS: settings that weaken security or look unintended".to_owned());
        text.extend(warnings.iter().map(|warning| format!("  ! {warning}")));
    }
    text.join("\n") + "\n"
}

fn summarize_server(config: &Config, text: &mut Vec<String>) {
    let tls = match &config.tls {
        Some(tls) => format!("https, certificate {}", tls.certificate_file.display()),
        None => "plain HTTP, for a proxy that terminates TLS".to_owned(),
    };
    let operations = config.operations_listen.unwrap_or(config.listen.address);
    let rotation = &config.keys.rotation;
    let (tokens, tasks) = (&config.tokens, &config.tasks);
    text.push(format!("Errand at {}", config.issuer));
    text.push(format_line("trust domain", &config.trust_domain));
    if let Some(generation) = config.generation {
        text.push(format_line("generation", format_args!("{generation}; a file with a lower one is refused")));
    }
    text.push(format_line("listener", format_args!("{} ({tls})", config.listen.address)));
    if !config.listen.trusted_proxies.is_empty() {
        let header = match config.listen.forwarded_header {
            ForwardedHeader::XForwardedFor => "X-Forwarded-For",
            ForwardedHeader::Forwarded => "Forwarded",
        };
        let proxies = format_list(&config.listen.trusted_proxies);
        text.push(format_line("proxies", format_args!("{proxies} report source addresses in {header}")));
    }
    text.push(format_line("health, metrics", operations));
    text.push(format_line(
        "store",
        format_args!(
            "{} ({} connections, {} more for lists of at most {} s)",
            config.store.url,
            config.store.max_connections,
            config.store.list_connections,
            config.store.list_timeout_seconds
        ),
    ));
    text.push(format_line(
        "signing keys",
        format_args!(
            "{}; rotated every {}, published {} ahead, kept {} after",
            config.keys.algorithm,
            format_lifetime(rotation.every),
            format_lifetime(rotation.publish_ahead),
            format_lifetime(rotation.keep_retired)
        ),
    ));
    let previous = config.keys.previous_encryption_keys.len();
    if previous > 0 {
        text.push(format_line("previous key-encryption keys", previous));
    }
    text.push(format_line(
        "tokens",
        format_args!(
            "{}; API tokens {}; at most {} agents in the chain; leeway {}; assertions {}",
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
    text.push(format_line("four eyes", describe_four_eyes(config)));
    let (introspections, evaluations) = (config.audit.introspections.as_str(), config.audit.evaluations.as_str());
    text.push(format_line("audit", format_args!("introspections: {introspections}; evaluations: {evaluations}")));
    let format = match config.log.format {
        LogFormat::Json => "json",
        LogFormat::Pretty => "pretty",
    };
    text.push(format_line("log", format_args!("{format}, {}", config.log.level)));
    let traces = config.tracing.as_ref().map_or_else(
        || "not exported".to_owned(),
        |tracing| format!("{} % to {}", tracing.sample_percent, tracing.endpoint),
    );
    text.push(format_line("traces", traces));
    summarize_limits(config, text);
    text.push(format_line("retention", summarize_retention(config)));
    let requests = &config.requests;
    let replicas = &config.replicas;
    let name = replicas.name.as_deref().unwrap_or("named after the host");
    text.push(format_line(
        "replicas",
        format_args!("{name}; lease {} ms, heartbeat every {} ms", replicas.lease_ms, replicas.heartbeat_ms),
    ));
    text.push(format_line(
        "requests",
        format_args!(
            "timeout {} s, at most {} queued writes, {} lists per client at a time",
            requests.timeout_seconds, requests.write_queue, requests.lists_per_client
        ),
    ));
    let MemoryLimits { verified_tokens, verified_megabytes } = config.memory;
    text.push(format_line(
        "memory",
        format_args!("at most {verified_tokens} verified tokens and {verified_megabytes} MiB"),
    ));
    text.push(format_line("status lists", summarize_status_list(config)));
    summarize_fetch(config, text);
}

fn describe_four_eyes(config: &Config) -> String {
    let operators = config.objects.iter().filter(|object| is_active_operator(object)).count();
    let declared = format!("operators that this file declares: {operators}");
    match config.four_eyes {
        FourEyes::WithTwoOperators if operators >= 2 => format!("in effect ({declared})"),
        FourEyes::WithTwoOperators => format!("not in effect ({declared})"),
        FourEyes::Always if operators >= 2 => format!("required ({declared})"),
        FourEyes::Always => format!("required, and impossible over REST ({declared})"),
        FourEyes::Never => "not required".to_owned(),
    }
}

fn summarize_fetch(config: &Config, text: &mut Vec<String>) {
    if !config.fetch.networks.is_empty() {
        text.push(format_line("fetch networks", format_list(&config.fetch.networks)));
    }
    if let Some(proxy) = &config.fetch.proxy {
        let except = match &proxy.no_proxy[..] {
            [] => String::new(),
            hosts => format!(", except for {}", format_list(hosts)),
        };
        text.push(format_line("fetch proxy", format_args!("{}{except}", proxy.url)));
    }
    if config.fetch.ca_pem.is_some() {
        text.push(format_line("fetch trust", "the system's certificate authorities and those of `ca_file`"));
    }
}

fn summarize_limits(config: &Config, text: &mut Vec<String>) {
    let Limits {
        connections,
        connections_per_peer,
        keep_alive,
        headers,
        unread,
        unread_megabytes,
        incomplete_megabytes,
        refusals_per_second,
        in_progress,
    } = &config.limits;
    text.push(format_line(
        "connections",
        format_args!(
            "at most {connections}, {connections_per_peer} per peer; kept alive {} s, headers within {} s",
            keep_alive.as_secs(),
            headers.as_secs()
        ),
    ));
    text.push(format_line(
        "unread",
        format_args!("at most {unread_megabytes} MiB of responses; 16 KiB must be read within {} s", unread.as_secs()),
    ));
    text.push(format_line("incomplete", format_args!("at most {incomplete_megabytes} MiB of requests")));
    text.push(format_line("refusals", format_args!("at most {refusals_per_second}/s to one source address")));
    let InProgress {
        token,
        introspection,
        evaluation,
        revocation,
        self_service,
        admin_revocation,
        administration,
        documents,
    } = in_progress;
    text.push(format_line(
        "in progress",
        format_args!(
            "at most {token} token requests, {introspection} introspections, {evaluation} evaluations, {revocation} \
             revocations, {self_service} of self-service, {admin_revocation} revocations by admins, {administration} \
             of administration, {documents} documents"
        ),
    ));
    let AdmissionLimits { exchange, introspection, evaluation, tasks, requester, admin, feed } = config.admission;
    let families = [
        ("exchange", exchange),
        ("introspection", introspection),
        ("evaluation", evaluation),
        ("tasks", tasks),
        ("requester", requester),
        ("admin", admin),
        ("feed", feed),
    ];
    let rates = families.map(|(family, RateLimit { per_second, burst, in_flight })| {
        format!("{family} {per_second}/s, burst {burst}, {in_flight} in progress")
    });
    text.push(format_line("each caller", rates.join("; ")));
    let Quotas { open_tasks_per_agent, open_tasks_per_requester, live_tokens_per_task } = config.quotas;
    text.push(format_line(
        "quotas",
        format_args!(
            "{open_tasks_per_agent} open tasks of an agent, {open_tasks_per_requester} of a requester, \
             {live_tokens_per_task} live tokens of a task"
        ),
    ));
}

fn summarize_retention(config: &Config) -> String {
    let Retention { tokens, tasks, idempotency, one_time_ids } = config.retention;
    let [tokens, tasks, idempotency, one_time_ids] = [tokens, tasks, idempotency, one_time_ids].map(format_lifetime);
    format!(
        "records of tokens {tokens}, tasks {tasks}, idempotency keys {idempotency}, one-time ids {one_time_ids} after \
         their end"
    )
}

fn summarize_status_list(config: &Config) -> String {
    let StatusListSettings { enabled, ttl } = config.status_list;
    let tokens = if enabled { "referenced by task tokens" } else { "not referenced by new tokens" };
    format!("{tokens}; TTL {}", format_lifetime(ttl))
}

fn summarize_issuer(issuer: &TrustedIssuer, text: &mut Vec<String>) {
    let keys = match &issuer.keys {
        KeySource::Discovery => "discovery".to_owned(),
        KeySource::JwksUri(url) => {
            format!("from {url}{}", if is_loopback(url) { " (loopback)" } else { "" })
        }
        KeySource::Inline(keys) => format!("{} in the configuration", format_key_count(keys)),
    };
    let types = issuer.token_types.iter().map(|kind| match kind {
        SubjectTokenType::AccessToken => "access tokens",
        SubjectTokenType::IdToken => "ID tokens",
        SubjectTokenType::Jwt => "JWTs",
    });
    let types = types.collect::<Vec<_>>();
    text.push(format!("issuer {}{}", issuer.issuer, disabled_suffix(issuer.disabled)));
    text.push(format_line("keys", format_args!("{keys}; {}", format_list(&issuer.algorithms))));
    let has_default_ages = is_default_key_refresh(&issuer.key_refresh) && is_default_key_max_age(&issuer.key_max_age);
    if !has_default_ages || issuer.ca_pem.is_some() {
        let trust = if issuer.ca_pem.is_some() { "; trusts the authorities in its `ca_file` alone" } else { "" };
        text.push(format_line(
            "key ages",
            format_args!(
                "fetched again after {}, used for up to {} while it can't be reached{trust}",
                format_lifetime(issuer.key_refresh),
                format_lifetime(issuer.key_max_age)
            ),
        ));
    }
    text.push(format_line("accepts", format_args!("{} for {}", types.join(", "), format_audiences(issuer))));
    for (name, value) in &issuer.required_claims {
        text.push(format_line("required claim", format_args!("`{name}` = {value}")));
    }
    if !issuer.optional_claims.is_empty() {
        let names = issuer.optional_claims.iter().map(|claim| claim.as_str()).collect::<Vec<_>>();
        text.push(format_line("may lack", format_args!("`{}`", names.join("`, `"))));
    }
    if let Some(prefix) = &issuer.subject_prefix {
        text.push(format_line("subjects", format_args!("prefixed with `{prefix}`")));
    }
    let scopes = match issuer.subject_scopes {
        SubjectScopes::Ceiling => "the scope of the user token limits grants",
        SubjectScopes::Ignore => "the scope of the user token has NO EFFECT",
    };
    text.push(format_line("scope", scopes));
    for Entitlement { to, resource, scopes, tools } in &issuer.entitlements {
        let users = match to {
            UserMatcher::Everyone => "every user".to_owned(),
            UserMatcher::Claim(ClaimMatcher { path, value, mode }) => {
                let has = match mode {
                    MatchMode::Value => "contains",
                    MatchMode::Key => "has the member",
                    MatchMode::Word => "contains the word",
                };
                format!("users whose `{}` {has} `{value}`", path.join("` > `"))
            }
        };
        let resource = resource.as_ref().map_or_else(|| "every resource".to_owned(), ToString::to_string);
        text.push(format_line(
            "entitlement",
            format_args!("{users}: {} at {resource}", format_permissions(scopes, tools)),
        ));
    }
}

fn summarize_agent(agent: &Agent, config: &Config, text: &mut Vec<String>) {
    let kind = match agent.kind {
        AgentKind::Agent => "agent",
        AgentKind::Broker => "broker",
    };
    text.push(format!("{kind} {}{}", agent.id, disabled_suffix(agent.disabled)));
    text.push(format_line("authentication", describe_authentication(&agent.id, &agent.authentication, config)));
    for (issuer, names) in &agent.known_as {
        text.push(format_line("known as", format_args!("{} at {issuer}", format_list(names))));
    }
    if agent.known_as.is_empty() && agent.kind == AgentKind::Agent {
        text.push(format_line("known as", "no client of an issuer; acts on delegation or on a grant only"));
    }
    for access in &agent.access {
        text.push(format_line("access", format_access(access)));
    }
    if agent.access.is_empty() {
        text.push(format_line("access", "none"));
    }
    for edge in &agent.may_delegate_to {
        let access = edge.access.as_ref().map_or_else(
            || "whatever its token allows".to_owned(),
            |access| access.iter().map(format_access).collect::<Vec<_>>().join("; "),
        );
        let depth = match edge.depth {
            None => String::new(),
            Some(1) => ", no further delegation".to_owned(),
            Some(depth) => format!(", further delegation to at most {} agents", depth - 1),
        };
        text.push(format_line("delegates to", format_args!("{}: {access}{depth}", edge.agent)));
    }
}

fn format_access(access: &Access) -> String {
    format!("{} at {}", format_permissions(&access.scopes, &access.tools), access.resource)
}

fn summarize_resource(resource: &Resource, config: &Config, text: &mut Vec<String>) {
    text.push(format!("resource {} at {}{}", resource.id, resource.uri, disabled_suffix(resource.disabled)));
    if !resource.uri_aliases.is_empty() {
        text.push(format_line("aliases", format_list(&resource.uri_aliases)));
    }
    text.push(format_line("authentication", describe_authentication(&resource.id, &resource.authentication, config)));
    let scopes = resource.tools.iter().map(|tool| &tool.scope).collect::<BTreeSet<_>>();
    for scope in scopes {
        let tools = resource.tools.iter().filter(|tool| tool.scope == *scope).map(|tool| {
            let effect = match tool.effect {
                Effect::Read => "read",
                Effect::Write => "write",
                Effect::Destructive => "DESTRUCTIVE",
            };
            format!("{} ({effect})", tool.name)
        });
        text.push(format_line("tools", format_args!("{scope}: {}", tools.collect::<Vec<_>>().join(", "))));
    }
    if resource.tools.is_empty() {
        text.push(format_line("tools", "none"));
    }
    if let Some(scope) = &resource.discovery_scope {
        text.push(format_line("discovery", format_args!("{scope}: list tools and resources")));
    }
    if let Some(interval) = resource.catalogue_refresh {
        text.push(format_line("catalogue", format_args!("compared every {} s", interval.as_seconds())));
    }
}

fn describe_authentication(id: &ClientId, authentication: &Authentication, config: &Config) -> String {
    match authentication {
        Authentication::PrivateKeyJwt { jwks, algorithms, .. } => {
            format!("{}, {}, {}", authentication.method(), format_key_count(jwks), format_list(algorithms))
        }
        Authentication::ClientSecretBasic {} | Authentication::ClientSecretPost {}
            if config.secrets.iter().any(|(client, _)| client == id) =>
        {
            format!("{}, secret from file or environment", authentication.method())
        }
        Authentication::ClientSecretBasic {} | Authentication::ClientSecretPost {} => {
            format!("{}, secret created over REST", authentication.method())
        }
    }
}

fn format_audiences(issuer: &TrustedIssuer) -> String {
    let mut accepted = Vec::new();
    if !issuer.audiences.is_empty() {
        accepted.push(format_list(&issuer.audiences));
    }
    match issuer.audience_from {
        AudienceSource::Aud if issuer.audiences.is_empty() => accepted.push("the agent's own client id".to_owned()),
        AudienceSource::Aud => {}
        AudienceSource::ClientId => accepted.push("the agent's own client id, without `aud`".to_owned()),
    }
    accepted.join(", or ")
}

fn format_key_count(keys: &JwkSet) -> String {
    match keys.keys().count() {
        1 => "1 key".to_owned(),
        n => format!("{n} keys"),
    }
}

fn disabled_suffix(disabled: bool) -> &'static str {
    if disabled { " (DISABLED)" } else { "" }
}

fn format_line(name: &str, value: impl Display) -> String {
    format!("  {name:<16}{value}")
}

/// Formats a duration in the largest unit that divides it.
fn format_lifetime(life: Lifetime) -> String {
    let seconds = life.as_seconds();
    let units = [(86_400, "d"), (3600, "h"), (60, "min")];
    let unit = units.into_iter().find(|(unit, _)| seconds != 0 && seconds.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{seconds} s"), |(unit, name)| format!("{} {name}", seconds / unit))
}
