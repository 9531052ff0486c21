//! The declared registry objects (issuers, agents, resources, admins) and their consistency.

use std::collections::BTreeMap;

use crate::config::{
    document::Location,
    node::{Node, Section, StringOrSection},
    sections::{
        access::{CLIENT_ID_HINT, TOOL_NAME_HINT, read_access},
        authentication::{self, ClientCredentials},
        fetch::read_networks,
        issuers, secrets,
    },
};
use crate::domain::{
    id::ClientId,
    registry::{
        Entry, ObjectKind, Registry, RegistryError, RegistryObject, Source,
        client::{Admin, Agent, AgentKind, Edge, Resource, Tool},
    },
    secret::Secret,
    settings::TOKEN_LIFETIME_CAP,
    time::Lifetime,
    uri::{IssuerUrl, ResourceUri},
};

/// The objects and secrets that a file declares.
pub(in crate::config) struct DeclaredRegistry {
    pub(in crate::config) objects: Vec<RegistryObject>,
    pub(in crate::config) secrets: Vec<(ClientId, Secret)>,
    /// The bearer tokens for fetching tool catalogues, by resource.
    pub(in crate::config) catalogue_tokens: Vec<(ClientId, Secret)>,
}

/// A declared object and its location.
struct ParsedObject<'a> {
    kind: ObjectKind,
    id: Option<String>,
    /// `None` if errors were reported in it.
    object: Option<RegistryObject>,
    location: Location<'a>,
    key_locations: BTreeMap<&'static str, Location<'a>>,
}

pub(in crate::config) fn read_registry(root: &mut Section<'_>, own_issuer: Option<&IssuerUrl>) -> DeclaredRegistry {
    let mut parsed = Vec::new();
    let mut credentials = Vec::new();
    let mut catalogue_tokens = Vec::new();
    for section in root.sections("issuers") {
        parsed.push(parse_object(ObjectKind::Issuer, "issuer", section, |s| {
            issuers::read_issuer(s, own_issuer).map(RegistryObject::Issuer)
        }));
    }
    for section in root.sections("agents") {
        parsed.push(parse_object(ObjectKind::Agent, "id", section, |s| {
            read_agent(s, &mut credentials).map(RegistryObject::Agent)
        }));
    }
    for section in root.sections("resources") {
        parsed.push(parse_object(ObjectKind::Resource, "id", section, |s| {
            let token = read_catalogue_token(s);
            let resource = read_resource(s, own_issuer, &mut credentials)?;
            catalogue_tokens.extend(token.map(|token| (resource.id.clone(), token)));
            Some(RegistryObject::Resource(resource))
        }));
    }
    for section in root.sections("admins") {
        parsed.push(parse_object(ObjectKind::Admin, "id", section, |s| {
            read_admin(s, &mut credentials).map(RegistryObject::Admin)
        }));
    }
    check_consistency(&parsed);
    authentication::check_unique_secrets(&credentials);
    let secrets = credentials.into_iter().filter_map(|one| Some((one.client?, one.secret?))).collect();
    let objects = parsed.into_iter().filter_map(|parsed| parsed.object).collect();
    DeclaredRegistry { objects, secrets, catalogue_tokens }
}

fn parse_object<'a>(
    kind: ObjectKind,
    label_key: &'static str,
    mut section: Section<'a>,
    read: impl FnOnce(&mut Section<'a>) -> Option<RegistryObject>,
) -> ParsedObject<'a> {
    let document = section.location.document;
    section.label_from(label_key);
    let error_count = document.error_count();
    let object = read(&mut section);
    let key_locations = section.requested_keys().iter().map(|key| (*key, section.location_of(key))).collect();
    let (location, id) = (section.location.clone(), section.location.label.clone());
    // Reports unknown keys.
    drop(section);
    ParsedObject { kind, id, object: object.filter(|_| document.error_count() == error_count), location, key_locations }
}

fn read_agent<'a>(section: &mut Section<'a>, credentials: &mut Vec<ClientCredentials<'a>>) -> Option<Agent> {
    let id = read_client_id(section, "\"planner\"");
    let name = section.optional("name", |node| node.non_empty_string());
    let kind = section.optional("kind", |node| node.parse_keyword()).unwrap_or_default();
    let authentication = authentication::read_authentication(section, id.as_ref(), credentials);
    let known_as = section.optional("known_as", |node| read_known_as(&node)).unwrap_or_default();
    let access = section.sections("access").into_iter().filter_map(read_access).collect();
    let may_delegate_to =
        section.optional("may_delegate_to", |node| node.elements(|item| read_edge(&item))).unwrap_or_default();
    let max_token_lifetime = read_max_token_lifetime(section);
    let disabled = section.optional("disabled", |node| node.boolean()).unwrap_or_default();
    let (id, authentication) = (id?, authentication?);
    Some(Agent { id, name, kind, authentication, known_as, access, may_delegate_to, max_token_lifetime, disabled })
}

fn read_known_as(node: &Node<'_>) -> Option<BTreeMap<IssuerUrl, Vec<String>>> {
    let entry = |(node, issuer): (Node<'_>, &str)| {
        let issuer = issuer.parse::<IssuerUrl>().map_err(|error| {
            node.error(error, "write the `issuer` of one of the `[[issuers]]`, exactly as it is declared");
        });
        let names = node.elements(|name| name.non_empty_string())?;
        if names.is_empty() {
            node.error("is empty", "list the client ids of the agent at this issuer");
        }
        Some((issuer.ok()?, names))
    };
    Some(node.entries()?.into_iter().filter_map(entry).collect())
}

/// Reads an entry of `may_delegate_to`: an agent's id, or a table with limits on the delegation.
fn read_edge(node: &Node<'_>) -> Option<Edge> {
    let mut section = match node.string_or_section()? {
        StringOrSection::String(_) => return node.parse::<ClientId>(CLIENT_ID_HINT).map(Into::into),
        StringOrSection::Section(section) => section,
    };
    let agent = section.required("agent", "\"reader\"", |node| node.parse(CLIENT_ID_HINT));
    let depths = u32::from(*Edge::DEPTH_RANGE.start())..=u32::from(*Edge::DEPTH_RANGE.end());
    let depth = section
        .optional("depth", |node| node.integer(depths, "maximum number of agents that may follow, this one included"));
    let access = section.optional("access", |node| node.elements(|item| item.section().and_then(read_access)));
    Some(Edge { agent: agent?, depth: depth.and_then(|depth| depth.try_into().ok()), access })
}

fn read_resource<'a>(
    section: &mut Section<'a>,
    own_issuer: Option<&IssuerUrl>,
    credentials: &mut Vec<ClientCredentials<'a>>,
) -> Option<Resource> {
    let id = read_client_id(section, "\"files\"");
    let uri = section.required("uri", "\"https://files.example.com/mcp\"", |node| {
        let remedy = "write the URL at which clients reach the MCP server: https, or http on a loopback address or with `allow_http`";
        let uri = node.parse::<ResourceUri>(remedy)?;
        if own_issuer.is_some_and(|own| own.is_same_location(uri.as_str())) {
            node.error(
                "is Errand's own URL",
                "give the MCP server its own URL: its tokens must not be valid at Errand",
            );
        }
        Some(uri)
    });
    let uri_aliases = section
        .optional("uri_aliases", |node| node.elements(|item| item.parse("write a URI that clients use for the server")))
        .unwrap_or_default();
    let allow_http = section.optional("allow_http", |node| node.boolean()).unwrap_or_default();
    let name = section.optional("name", |node| node.non_empty_string());
    let authentication = authentication::read_authentication(section, id.as_ref(), credentials);
    let tools = section.sections("tools").into_iter().filter_map(read_tool).collect();
    let discovery_scope =
        section.optional("discovery_scope", |node| node.parse("write a scope that no tool uses, such as `files:list`"));
    let allowed_networks = section.optional("allowed_networks", |node| read_networks(&node));
    let catalogue_refresh = section
        .optional("catalogue_refresh", |node| node.integer(60..=86_400, "seconds; at least a minute, at most a day"));
    let max_token_lifetime = read_max_token_lifetime(section);
    let signing_algorithm = section.optional("signing_algorithm", |node| node.parse_keyword());
    let consent = section.optional("consent", |node| node.parse_keyword()).unwrap_or_default();
    let break_glass = section.optional("break_glass", |node| node.parse_keyword()).unwrap_or_default();
    let disabled = section.optional("disabled", |node| node.boolean()).unwrap_or_default();
    let (id, uri, authentication) = (id?, uri?, authentication?);
    Some(Resource {
        id,
        uri,
        uri_aliases,
        allow_http,
        name,
        authentication,
        tools,
        discovery_scope,
        allowed_networks: allowed_networks.unwrap_or_default(),
        catalogue_refresh: catalogue_refresh.map(Lifetime::seconds),
        max_token_lifetime,
        signing_algorithm,
        consent,
        break_glass,
        disabled,
    })
}

/// Reads the bearer token for fetching the tool catalogue of a server that requires one.
fn read_catalogue_token(section: &mut Section<'_>) -> Option<Secret> {
    match section.exclusive(&["catalogue_token_file", "catalogue_token_env"])? {
        ("catalogue_token_file", node) => secrets::read_bearer_file(&node),
        (_, node) => secrets::read_bearer_variable(&node),
    }
}

fn read_tool(mut section: Section<'_>) -> Option<Tool> {
    let name = section.required("name", "\"read_file\"", |node| node.parse(TOOL_NAME_HINT));
    let scope = section.required("scope", "\"files:read\"", |node| node.parse("write one scope, such as `files:read`"));
    let effect = section.required("effect", "\"read\"", |node| node.parse_keyword());
    let risk = section.optional("risk", |node| node.parse_keyword()).unwrap_or_default();
    let data_class = section.optional("data_class", |node| node.non_empty_string());
    Some(Tool { name: name?, scope: scope?, effect: effect?, risk, data_class })
}

fn read_admin<'a>(section: &mut Section<'a>, credentials: &mut Vec<ClientCredentials<'a>>) -> Option<Admin> {
    let id = read_client_id(section, "\"ops\"");
    let role = section.required("role", "\"operator\"", |node| node.parse_keyword());
    let authentication = authentication::read_authentication(section, id.as_ref(), credentials);
    let disabled = section.optional("disabled", |node| node.boolean()).unwrap_or_default();
    Some(Admin { id: id?, role: role?, authentication: authentication?, disabled })
}

fn read_client_id(section: &mut Section<'_>, example: &str) -> Option<ClientId> {
    section.required("id", example, |node| {
        let id = node.parse::<ClientId>("choose a short name, such as `planner`")?;
        if id.is_reserved() {
            node.error("ids that begin with `errand` are reserved", "choose another id");
        }
        Some(id)
    })
}

fn read_max_token_lifetime(section: &mut Section<'_>) -> Option<Lifetime> {
    let range = 10..=TOKEN_LIFETIME_CAP.as_seconds();
    let seconds =
        section.optional("max_token_lifetime", |node| node.integer(range, "seconds; the maximum is 15 minutes"));
    seconds.map(Lifetime::seconds)
}

/// Reports inconsistencies between objects. Invalid objects are left out, and so are errors of
/// other objects that mention them: their own errors come first.
fn check_consistency(parsed: &[ParsedObject<'_>]) {
    let (valid, invalid) = parsed.iter().partition::<Vec<_>, _>(|parsed| parsed.object.is_some());
    let hidden =
        invalid.iter().map(|parsed| parsed.id.as_ref().map(|id| format!("`{id}`"))).collect::<Option<Vec<_>>>();
    let Some(hidden) = hidden else { return };
    let entry = |parsed: &&ParsedObject<'_>| Some(Entry { object: parsed.object.clone()?, source: Source::File });
    let entries = valid.iter().filter_map(entry).collect::<Vec<_>>();
    let errors = Registry::build(0, entries, BTreeMap::new()).err().unwrap_or_default();
    for RegistryError { kind, id, key, reason } in errors {
        if hidden.iter().any(|hidden| reason.contains(hidden)) {
            continue;
        }
        let is_subject = |parsed: &&&ParsedObject<'_>| {
            parsed.kind == kind && parsed.object.as_ref().is_some_and(|object| object.id() == id)
        };
        // An error about the id itself is about its second declaration.
        let is_duplicate = matches!(key, "id" | "issuer");
        let found = if is_duplicate { valid.iter().rfind(is_subject) } else { valid.iter().find(is_subject) };
        if let Some(ParsedObject { object: Some(object), location, key_locations, .. }) = found {
            let remedy = remedy_for(object, key, &reason);
            key_locations.get(key).unwrap_or(location).error(reason, remedy);
        }
    }
}

/// Returns the remedy for a [`RegistryError`], by its key. Where a key can be wrong in several
/// ways, the object decides.
fn remedy_for(object: &RegistryObject, key: &str, reason: &str) -> &'static str {
    let is_redundant = reason.contains("every call");
    match (object, key) {
        (RegistryObject::Agent(_), "access" | "may_delegate_to") | (RegistryObject::Issuer(_), "entitlements")
            if is_redundant =>
        {
            "remove the constraints, or the scope or bare tool name that already allows every call"
        }
        (RegistryObject::Agent(_), "access") => {
            "name resources, scopes and tools that `[[resources]]` declares, or declare them there"
        }
        (RegistryObject::Agent(agent), "may_delegate_to") => remedy_for_edges(&agent.may_delegate_to),
        (RegistryObject::Agent(Agent { kind: AgentKind::Broker, .. }), "known_as") => {
            "remove `known_as`, or remove `kind` if the agent opens tasks"
        }
        (RegistryObject::Agent(_), "known_as") => {
            "list, by `issuer` of the `[[issuers]]`, the client ids that identify this agent alone"
        }
        (RegistryObject::Issuer(_), "subject_prefix") => "for example, `subject_prefix = \"partner:\"`",
        (RegistryObject::Issuer(_), "algorithms") => "look up the `alg` of its keys",
        (RegistryObject::Issuer(_), "token_types") => "look up which tokens your agents get from it",
        (RegistryObject::Issuer(_), "audiences") => "look up `aud` in one of its access tokens",
        (RegistryObject::Issuer(_), "subject_scopes") => {
            "add `[[issuers.entitlements]]`, or leave `subject_scopes` out"
        }
        (RegistryObject::Issuer(_), "api_audiences" | "portal_clients") => {
            "use an `aud` for this purpose only, and list the client ids of the portals that get tokens with it"
        }
        (RegistryObject::Issuer(_), "entitlements") => {
            "name declared scopes or tools in each rule, and a declared resource or none"
        }
        (RegistryObject::Issuer(_), "audience_from" | "required_claims") => {
            "look up the claims that its access tokens have and its ID tokens lack, such as `{ token_use = \"access\" }`"
        }
        (RegistryObject::Issuer(_), "key_max_age") => "write a number of seconds from `key_refresh` to a week",
        (RegistryObject::Resource(resource), "uri") if !resource.uri.is_secure() && !resource.allow_http => {
            "write the https URL; inside a network that you trust, add `allow_http = true`"
        }
        (RegistryObject::Resource(_), "uri_aliases") => "remove the alias from one of the two resources",
        (RegistryObject::Resource(_), "uri") => "remove one of the two resources: tokens are for one of them",
        (RegistryObject::Resource(_), "tools") => "remove one of the two",
        (RegistryObject::Resource(_), "discovery_scope") => "write a separate scope, such as `files:list`",
        (_, "max_token_lifetime") => "write a number of seconds in this range, or leave the key out",
        (_, "authentication") => "list the client's signature algorithms in `algorithms`, or leave `algorithms` out",
        (_, "id" | "issuer") => "rename or remove one of the two",
        _ => "see errand.example.toml",
    }
}

fn remedy_for_edges(edges: &[Edge]) -> &'static str {
    let is_repeated = |(n, edge): (usize, &Edge)| edges.iter().take(n).any(|earlier| earlier.agent == edge.agent);
    if edges.iter().any(|edge| edge.access.as_ref().is_some_and(Vec::is_empty)) {
        "list in `access` what may be delegated, or leave `access` out to delegate whatever the token allows"
    } else if edges.iter().enumerate().any(is_repeated) {
        "remove one of the two"
    } else {
        "name other `[[agents]]`, and in `access` what `[[resources]]` declares"
    }
}
