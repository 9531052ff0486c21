//! The objects that the file declares: issuers, agents, resources, admins; and whether they fit together.

use std::collections::BTreeMap;

use crate::config::{
    node::{Location, Node, Section},
    sections::{
        access::{CLIENT_ID_HINT, TOOL_NAME_HINT, read_access},
        authentication::{self, ClientCredentials},
        issuers, secrets,
    },
};
use crate::domain::{
    id::ClientId,
    registry::{
        Entry, ObjectKind, Registry, RegistryError, RegistryObject, Source,
        client::{Admin, Agent, Edge, Resource, Tool},
    },
    secret::Secret,
    settings::TOKEN_LIFETIME_CAP,
    time::Lifetime,
    uri::{IssuerUrl, ResourceUri},
};

/// What a file declares.
pub(in crate::config) struct DeclaredRegistry {
    pub(in crate::config) objects: Vec<RegistryObject>,
    pub(in crate::config) secrets: Vec<(ClientId, Secret)>,
    /// What resources are asked for their tools with.
    pub(in crate::config) catalogue_tokens: Vec<(ClientId, Secret)>,
}

/// An object of the file and where it stands.
struct ParsedObject<'a> {
    kind: ObjectKind,
    id: Option<String>,
    /// None if something in it is wrong, and told.
    object: Option<RegistryObject>,
    location: Location<'a>,
    key_locations: BTreeMap<&'static str, Location<'a>>,
}

pub(in crate::config) fn read_registry(root: &mut Section<'_>, ours: Option<&IssuerUrl>) -> DeclaredRegistry {
    let mut readings = Vec::new();
    let mut proofs = Vec::new();
    let mut catalogue_tokens = Vec::new();
    for section in root.sections("issuers") {
        readings.push(parse_object(ObjectKind::Issuer, "issuer", section, |s| {
            issuers::read_issuer(s, ours).map(RegistryObject::Issuer)
        }));
    }
    for section in root.sections("agents") {
        readings.push(parse_object(ObjectKind::Agent, "id", section, |s| {
            read_agent(s, &mut proofs).map(RegistryObject::Agent)
        }));
    }
    for section in root.sections("resources") {
        readings.push(parse_object(ObjectKind::Resource, "id", section, |s| {
            let token = read_catalogue_token(s);
            let resource = read_resource(s, ours, &mut proofs)?;
            catalogue_tokens.extend(token.map(|token| (resource.id.clone(), token)));
            Some(RegistryObject::Resource(resource))
        }));
    }
    for section in root.sections("admins") {
        readings.push(parse_object(ObjectKind::Admin, "id", section, |s| {
            read_admin(s, &mut proofs).map(RegistryObject::Admin)
        }));
    }
    check_consistency(&readings);
    authentication::check_unique_secrets(&proofs);
    let secrets = proofs.into_iter().filter_map(|proof| Some((proof.client?, proof.secret?))).collect();
    let objects = readings.into_iter().filter_map(|reading| reading.object).collect();
    DeclaredRegistry { objects, secrets, catalogue_tokens }
}

fn parse_object<'a>(
    kind: ObjectKind,
    name: &'static str,
    mut section: Section<'a>,
    read: impl FnOnce(&mut Section<'a>) -> Option<RegistryObject>,
) -> ParsedObject<'a> {
    let document = section.location.document;
    section.label_from(name);
    let before = document.error_count();
    let object = read(&mut section);
    let keys = section.requested_keys().iter().map(|key| (*key, section.location_of(key))).collect();
    let (here, id) = (section.location.clone(), section.location.label.clone());
    drop(section);
    ParsedObject {
        kind,
        id,
        object: object.filter(|_| document.error_count() == before),
        location: here,
        key_locations: keys,
    }
}

fn read_agent<'a>(section: &mut Section<'a>, proofs: &mut Vec<ClientCredentials<'a>>) -> Option<Agent> {
    let id = read_client_id(section, "\"planner\"");
    let name = section.optional("name", |at| at.non_empty_string());
    let kind = section.optional("kind", |at| at.parse_keyword()).unwrap_or_default();
    let authentication = authentication::read_authentication(section, id.as_ref(), proofs);
    let known_as = section.optional("known_as", |at| read_known_as(&at)).unwrap_or_default();
    let access = section.sections("access").into_iter().filter_map(read_access).collect();
    let may_delegate_to =
        section.optional("may_delegate_to", |at| at.elements(|item| read_edge(&item))).unwrap_or_default();
    let max_token_lifetime = read_max_token_lifetime(section);
    let disabled = section.optional("disabled", |at| at.boolean()).unwrap_or_default();
    let (id, authentication) = (id?, authentication?);
    Some(Agent { id, name, kind, authentication, known_as, access, may_delegate_to, max_token_lifetime, disabled })
}

fn read_known_as(at: &Node<'_>) -> Option<BTreeMap<IssuerUrl, Vec<String>>> {
    let entry = |(at, issuer): (Node<'_>, &str)| {
        let issuer = issuer.parse::<IssuerUrl>().map_err(|fault| {
            at.error(fault, "write the `issuer` of one of the `[[issuers]]` as it stands there");
        });
        let names = at.elements(|name| name.non_empty_string())?;
        if names.is_empty() {
            at.error("is empty", "name the client ids that the agent has there");
        }
        Some((issuer.ok()?, names))
    };
    Some(at.entries()?.into_iter().filter_map(entry).collect())
}

/// `may_delegate_to`: an agent's id, or a table with it that says what may go there, and how far on.
fn read_edge(at: &Node<'_>) -> Option<Edge> {
    if at.is_string() {
        return at.parse::<ClientId>(CLIENT_ID_HINT).map(Into::into);
    }
    let mut section = at.section()?;
    let agent = section.required("agent", "\"reader\"", |at| at.parse(CLIENT_ID_HINT));
    let depths = u32::from(*Edge::DEPTH_RANGE.start())..=u32::from(*Edge::DEPTH_RANGE.end());
    let depth = section.optional("depth", |at| at.integer(depths, "how many agents may follow, that one included"));
    let access = section.optional("access", |at| at.elements(|item| item.section().and_then(read_access)));
    Some(Edge { agent: agent?, depth: depth.and_then(|depth| depth.try_into().ok()), access })
}

fn read_resource<'a>(
    section: &mut Section<'a>,
    ours: Option<&IssuerUrl>,
    proofs: &mut Vec<ClientCredentials<'a>>,
) -> Option<Resource> {
    let id = read_client_id(section, "\"files\"");
    let uri = section.required("uri", "\"https://files.example.com/mcp\"", |at| {
        let remedy = "write the URL of the MCP server as its clients use it; https, unless it is on this machine";
        let uri = at.parse::<ResourceUri>(remedy)?;
        if ours.is_some_and(|ours| ours.is_same_location(uri.as_str())) {
            at.error("is Errand itself", "an MCP server has a URL of its own: its tokens must not be good here");
        }
        Some(uri)
    });
    let name = section.optional("name", |at| at.non_empty_string());
    let authentication = authentication::read_authentication(section, id.as_ref(), proofs);
    let tools = section.sections("tools").into_iter().filter_map(read_tool).collect();
    let discovery_scope =
        section.optional("discovery_scope", |at| at.parse("write one scope that no tool has, such as `files:list`"));
    let allowed_networks = section.optional("allowed_networks", |at| {
        at.elements(|item| item.parse("write a network with the length of its prefix, such as `10.0.0.0/8`"))
    });
    let catalogue_refresh = section
        .optional("catalogue_refresh", |at| at.integer(60..=86_400, "seconds; at least a minute, at most a day"));
    let max_token_lifetime = read_max_token_lifetime(section);
    let signing_algorithm = section.optional("signing_algorithm", |at| at.parse_keyword());
    let consent = section.optional("consent", |at| at.parse_keyword()).unwrap_or_default();
    let break_glass = section.optional("break_glass", |at| at.parse_keyword()).unwrap_or_default();
    let disabled = section.optional("disabled", |at| at.boolean()).unwrap_or_default();
    let (id, uri, authentication) = (id?, uri?, authentication?);
    Some(Resource {
        id,
        uri,
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

/// What the server is asked for its tools with, where it wants to know who asks.
fn read_catalogue_token(section: &mut Section<'_>) -> Option<Secret> {
    match section.exclusive(&["catalogue_token_file", "catalogue_token_env"])? {
        ("catalogue_token_file", at) => secrets::read_bearer_file(&at),
        (_, at) => secrets::read_bearer_variable(&at),
    }
}

fn read_tool(mut section: Section<'_>) -> Option<Tool> {
    let name = section.required("name", "\"read_file\"", |at| at.parse(TOOL_NAME_HINT));
    let scope = section.required("scope", "\"files:read\"", |at| at.parse("write one scope, such as `files:read`"));
    let effect = section.required("effect", "\"read\"", |at| at.parse_keyword());
    let risk = section.optional("risk", |at| at.parse_keyword()).unwrap_or_default();
    let data_class = section.optional("data_class", |at| at.non_empty_string());
    Some(Tool { name: name?, scope: scope?, effect: effect?, risk, data_class })
}

fn read_admin<'a>(section: &mut Section<'a>, proofs: &mut Vec<ClientCredentials<'a>>) -> Option<Admin> {
    let id = read_client_id(section, "\"ops\"");
    let role = section.required("role", "\"operator\"", |at| at.parse_keyword());
    let authentication = authentication::read_authentication(section, id.as_ref(), proofs);
    let disabled = section.optional("disabled", |at| at.boolean()).unwrap_or_default();
    Some(Admin { id: id?, role: role?, authentication: authentication?, disabled })
}

fn read_client_id(section: &mut Section<'_>, example: &str) -> Option<ClientId> {
    section.required("id", example, |at| {
        let id = at.parse::<ClientId>("choose a short name, such as `planner`")?;
        if id.is_reserved() {
            at.error("names that begin with `errand` are Errand's own", "choose another one");
        }
        Some(id)
    })
}

fn read_max_token_lifetime(section: &mut Section<'_>) -> Option<Lifetime> {
    let range = 10..=TOKEN_LIFETIME_CAP.as_seconds();
    let life = section
        .optional("max_token_lifetime", |at| at.integer(range, "seconds; no token lives longer than 15 minutes"));
    life.map(Lifetime::seconds)
}

/// Tells what does not fit together. An object in which something is wrong is not looked at, and neither is what is
/// said about it elsewhere: its other mistakes come first.
fn check_consistency(readings: &[ParsedObject<'_>]) {
    let (whole, broken) = readings.iter().partition::<Vec<_>, _>(|reading| reading.object.is_some());
    let hidden =
        broken.iter().map(|reading| reading.id.as_ref().map(|id| format!("`{id}`"))).collect::<Option<Vec<_>>>();
    let Some(hidden) = hidden else { return };
    let entry = |reading: &&ParsedObject<'_>| Some(Entry { object: reading.object.clone()?, source: Source::File });
    let entries = whole.iter().filter_map(entry).collect::<Vec<_>>();
    let faults = Registry::build(0, entries, BTreeMap::new()).err().unwrap_or_default();
    for RegistryError { kind, id, key, reason } in faults {
        if hidden.iter().any(|hidden| reason.contains(hidden)) {
            continue;
        }
        let is_it = |reading: &&&ParsedObject<'_>| {
            reading.kind == kind && reading.object.as_ref().is_some_and(|o| o.id() == id)
        };
        let twice = reason.starts_with("duplicate ");
        let found = if twice { whole.iter().rfind(is_it) } else { whole.iter().find(is_it) };
        if let Some(reading) = found {
            let remedy = remedy_for(kind, key, &reason);
            reading.key_locations.get(key).unwrap_or(&reading.location).error(reason, remedy);
        }
    }
}

/// What to do about an [`Inconsistency`], by the key that it is at; where a key can be wrong in several ways, by the reason.
fn remedy_for(kind: ObjectKind, key: &str, reason: &str) -> &'static str {
    let unknown = reason.ends_with(" does not exist");
    let idle = reason.starts_with("the constraints for ");
    match (kind, key) {
        (ObjectKind::Agent, "access" | "may_delegate_to") | (ObjectKind::Issuer, "entitlements") if idle => {
            "leave the rules out, or what stands beside them: a scope of the tool, or its bare name"
        }
        (ObjectKind::Agent, "access") => {
            "name what stands in `[[resources]]` and its `[[resources.tools]]`, or add it there"
        }
        (ObjectKind::Agent, "may_delegate_to") if reason.ends_with(" is empty") => {
            "name in `access` what may go there, or leave it out for whatever the token allows"
        }
        (ObjectKind::Agent, "may_delegate_to") if reason.starts_with("duplicate ") => "remove one of the two",
        (ObjectKind::Agent, "may_delegate_to") if reason.contains("agent") => "name other `[[agents]]`",
        (ObjectKind::Agent, "may_delegate_to") => "name what stands in `[[resources]]` and its `[[resources.tools]]`",
        (ObjectKind::Agent, "known_as") if reason.starts_with("a broker ") => {
            "leave `known_as` out, or `kind` if it does open tasks"
        }
        (ObjectKind::Agent, "known_as") if unknown => {
            "write the `issuer` of one of the `[[issuers]]` as it stands there"
        }
        (ObjectKind::Agent, "known_as") => "name client ids that stand for this agent alone there",
        (ObjectKind::Issuer, "subject_prefix") => "such as `subject_prefix = \"partner:\"`",
        (ObjectKind::Issuer, "algorithms") => "see which `alg` its keys have",
        (ObjectKind::Issuer, "token_types") => "see which tokens your agents get from it",
        (ObjectKind::Issuer, "audiences") => "see `aud` in one of its access tokens",
        (ObjectKind::Issuer, "subject_scopes") => "add `[[issuers.entitlements]]`, or leave `subject_scopes` out",
        (ObjectKind::Issuer, "api_audiences" | "portal_clients") => {
            "name an `aud` that is for this alone, and the client ids of the portals that get tokens with it"
        }
        (ObjectKind::Issuer, "entitlements") if unknown => {
            "name what stands in `[[resources]]`, or leave `resource` out"
        }
        (ObjectKind::Issuer, "entitlements") => "name `scopes` or `tools` in each rule",
        (ObjectKind::Resource, "uri") => "one of the two has to go: a token is for one of them",
        (ObjectKind::Resource, "tools") => "remove one of the two",
        (ObjectKind::Resource, "discovery_scope") => "write a scope of its own, such as `files:list`",
        (_, "max_token_lifetime") => "write a number of seconds in this range, or leave it out",
        (_, "authentication") => "name in `algorithms` what it signs with, or leave `algorithms` out",
        (_, "id" | "issuer") => "rename or remove one of the two",
        _ => "see errand.example.toml",
    }
}
