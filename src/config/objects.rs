//! The objects that the file declares: issuers, agents, resources, admins; and whether they fit together.

use std::collections::BTreeMap;

use super::{
    authentication::{self, Proof},
    issuers,
    names::{ID, TOOL, access},
    reader::{At, Place, Section},
    secrets,
};
use crate::domain::{
    client::{Admin, Agent, Edge, Resource, Tool},
    id::ClientId,
    limits::TOKEN_LIFETIME_CAP,
    registry::{Entry, Inconsistency, Kind, Object, Owner, Registry},
    secret::Secret,
    time::Lifetime,
    uri::{IssuerUrl, ResourceUri},
};

/// What a file declares.
pub(super) struct Declared {
    pub(super) objects: Vec<Object>,
    pub(super) secrets: Vec<(ClientId, Secret)>,
    /// What resources are asked for their tools with.
    pub(super) catalogue_tokens: Vec<(ClientId, Secret)>,
}

/// An object of the file and where it stands.
struct Reading<'a> {
    kind: Kind,
    id: Option<String>,
    /// None if something in it is wrong, and told.
    object: Option<Object>,
    here: Place<'a>,
    keys: BTreeMap<&'static str, Place<'a>>,
}

pub(super) fn read(root: &mut Section<'_>, ours: Option<&IssuerUrl>) -> Declared {
    let mut readings = Vec::new();
    let mut proofs = Vec::new();
    let mut catalogue_tokens = Vec::new();
    for section in root.sections("issuers") {
        readings.push(reading(Kind::Issuer, "issuer", section, |s| issuers::issuer(s, ours).map(Object::Issuer)));
    }
    for section in root.sections("agents") {
        readings.push(reading(Kind::Agent, "id", section, |s| agent(s, &mut proofs).map(Object::Agent)));
    }
    for section in root.sections("resources") {
        readings.push(reading(Kind::Resource, "id", section, |s| {
            let token = catalogue_token(s);
            let resource = resource(s, ours, &mut proofs)?;
            catalogue_tokens.extend(token.map(|token| (resource.id.clone(), token)));
            Some(Object::Resource(resource))
        }));
    }
    for section in root.sections("admins") {
        readings.push(reading(Kind::Admin, "id", section, |s| admin(s, &mut proofs).map(Object::Admin)));
    }
    check_together(&readings);
    authentication::check_secrets(&proofs);
    let secrets = proofs.into_iter().filter_map(|proof| Some((proof.client?, proof.secret?))).collect();
    let objects = readings.into_iter().filter_map(|reading| reading.object).collect();
    Declared { objects, secrets, catalogue_tokens }
}

fn reading<'a>(
    kind: Kind,
    name: &'static str,
    mut section: Section<'a>,
    read: impl FnOnce(&mut Section<'a>) -> Option<Object>,
) -> Reading<'a> {
    let document = section.here.document;
    section.name_by(name);
    let before = document.count();
    let object = read(&mut section);
    let keys = section.asked().iter().map(|key| (*key, section.place_of(key))).collect();
    let (here, id) = (section.here.clone(), section.here.of.clone());
    drop(section);
    Reading { kind, id, object: object.filter(|_| document.count() == before), here, keys }
}

fn agent<'a>(section: &mut Section<'a>, proofs: &mut Vec<Proof<'a>>) -> Option<Agent> {
    let id = client_id(section, "\"planner\"");
    let name = section.read("name", |at| at.words());
    let kind = section.read("kind", |at| at.word()).unwrap_or_default();
    let authentication = authentication::read(section, id.as_ref(), proofs);
    let known_as = section.read("known_as", |at| known_as(&at)).unwrap_or_default();
    let access = section.sections("access").into_iter().filter_map(access).collect();
    let may_delegate_to = section.read("may_delegate_to", |at| at.each(|item| edge(&item))).unwrap_or_default();
    let max_token_lifetime = max_token_lifetime(section);
    let disabled = section.read("disabled", |at| at.flag()).unwrap_or_default();
    let (id, authentication) = (id?, authentication?);
    Some(Agent { id, name, kind, authentication, known_as, access, may_delegate_to, max_token_lifetime, disabled })
}

fn known_as(at: &At<'_>) -> Option<BTreeMap<IssuerUrl, Vec<String>>> {
    let entry = |(at, issuer): (At<'_>, &str)| {
        let issuer = issuer.parse::<IssuerUrl>().map_err(|fault| {
            at.wrong(fault, "write the `issuer` of one of the `[[issuers]]` as it stands there");
        });
        let names = at.each(|name| name.words())?;
        if names.is_empty() {
            at.wrong("is empty", "name the client ids that the agent has there");
        }
        Some((issuer.ok()?, names))
    };
    Some(at.entries()?.into_iter().filter_map(entry).collect())
}

/// `may_delegate_to`: an agent's id, or a table with it that says what may go there, and how far on.
fn edge(at: &At<'_>) -> Option<Edge> {
    if at.is_text() {
        return at.parse::<ClientId>(ID).map(Into::into);
    }
    let mut section = at.section()?;
    let agent = section.must("agent", "\"reader\"", |at| at.parse(ID));
    let depths = u32::from(*Edge::DEPTHS.start())..=u32::from(*Edge::DEPTHS.end());
    let depth = section.read("depth", |at| at.number(depths, "how many agents may follow, that one included"));
    let access = section.read("access", |at| at.each(|item| item.section().and_then(access)));
    Some(Edge { agent: agent?, depth: depth.and_then(|depth| depth.try_into().ok()), access })
}

fn resource<'a>(section: &mut Section<'a>, ours: Option<&IssuerUrl>, proofs: &mut Vec<Proof<'a>>) -> Option<Resource> {
    let id = client_id(section, "\"files\"");
    let uri = section.must("uri", "\"https://files.example.com/mcp\"", |at| {
        let remedy = "write the URL of the MCP server as its clients use it; https, unless it is on this machine";
        let uri = at.parse::<ResourceUri>(remedy)?;
        if ours.is_some_and(|ours| ours.is_place_of(uri.as_str())) {
            at.wrong("is Errand itself", "an MCP server has a URL of its own: its tokens must not be good here");
        }
        Some(uri)
    });
    let name = section.read("name", |at| at.words());
    let authentication = authentication::read(section, id.as_ref(), proofs);
    let tools = section.sections("tools").into_iter().filter_map(tool).collect();
    let discovery_scope =
        section.read("discovery_scope", |at| at.parse("write one scope that no tool has, such as `files:list`"));
    let allowed_networks = section.read("allowed_networks", |at| {
        at.each(|item| item.parse("write a network with the length of its prefix, such as `10.0.0.0/8`"))
    });
    let catalogue_refresh =
        section.read("catalogue_refresh", |at| at.number(60..=86_400, "seconds; at least a minute, at most a day"));
    let max_token_lifetime = max_token_lifetime(section);
    let signing_algorithm = section.read("signing_algorithm", |at| at.word());
    let consent = section.read("consent", |at| at.word()).unwrap_or_default();
    let break_glass = section.read("break_glass", |at| at.word()).unwrap_or_default();
    let disabled = section.read("disabled", |at| at.flag()).unwrap_or_default();
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
fn catalogue_token(section: &mut Section<'_>) -> Option<Secret> {
    match section.one_of(&["catalogue_token_file", "catalogue_token_env"])? {
        ("catalogue_token_file", at) => secrets::bearer_from_file(&at),
        (_, at) => secrets::bearer_from_environment(&at),
    }
}

fn tool(mut section: Section<'_>) -> Option<Tool> {
    let name = section.must("name", "\"read_file\"", |at| at.parse(TOOL));
    let scope = section.must("scope", "\"files:read\"", |at| at.parse("write one scope, such as `files:read`"));
    let effect = section.must("effect", "\"read\"", |at| at.word());
    let risk = section.read("risk", |at| at.word()).unwrap_or_default();
    let data_class = section.read("data_class", |at| at.words());
    Some(Tool { name: name?, scope: scope?, effect: effect?, risk, data_class })
}

fn admin<'a>(section: &mut Section<'a>, proofs: &mut Vec<Proof<'a>>) -> Option<Admin> {
    let id = client_id(section, "\"ops\"");
    let role = section.must("role", "\"operator\"", |at| at.word());
    let authentication = authentication::read(section, id.as_ref(), proofs);
    let disabled = section.read("disabled", |at| at.flag()).unwrap_or_default();
    Some(Admin { id: id?, role: role?, authentication: authentication?, disabled })
}

fn client_id(section: &mut Section<'_>, example: &str) -> Option<ClientId> {
    section.must("id", example, |at| {
        let id = at.parse::<ClientId>("choose a short name, such as `planner`")?;
        if id.is_reserved() {
            at.wrong("names that begin with `errand` are Errand's own", "choose another one");
        }
        Some(id)
    })
}

fn max_token_lifetime(section: &mut Section<'_>) -> Option<Lifetime> {
    let range = 10..=TOKEN_LIFETIME_CAP.as_seconds();
    let life =
        section.read("max_token_lifetime", |at| at.number(range, "seconds; no token lives longer than 15 minutes"));
    life.map(Lifetime::seconds)
}

/// Tells what does not fit together. An object in which something is wrong is not looked at, and neither is what is
/// said about it elsewhere: its other mistakes come first.
fn check_together(readings: &[Reading<'_>]) {
    let (whole, broken) = readings.iter().partition::<Vec<_>, _>(|reading| reading.object.is_some());
    let hidden =
        broken.iter().map(|reading| reading.id.as_ref().map(|id| format!("`{id}`"))).collect::<Option<Vec<_>>>();
    let Some(hidden) = hidden else { return };
    let entry = |reading: &&Reading<'_>| Some(Entry { object: reading.object.clone()?, owner: Owner::File });
    let entries = whole.iter().filter_map(entry).collect::<Vec<_>>();
    let faults = Registry::build(0, entries, BTreeMap::new()).err().unwrap_or_default();
    for Inconsistency { kind, id, key, reason } in faults {
        if hidden.iter().any(|hidden| reason.contains(hidden)) {
            continue;
        }
        let is_it =
            |reading: &&&Reading<'_>| reading.kind == kind && reading.object.as_ref().is_some_and(|o| o.id() == id);
        let twice = reason.starts_with("stands twice");
        let found = if twice { whole.iter().rfind(is_it) } else { whole.iter().find(is_it) };
        if let Some(reading) = found {
            let remedy = remedy(kind, key, &reason);
            reading.keys.get(key).unwrap_or(&reading.here).wrong(reason, remedy);
        }
    }
}

/// What to do about an [`Inconsistency`], by the key that it is at; where a key can be wrong in several ways, by the reason.
fn remedy(kind: Kind, key: &str, reason: &str) -> &'static str {
    let unknown = reason.starts_with("there is no ");
    let idle = reason.starts_with("the rules for ");
    match (kind, key) {
        (Kind::Agent, "access" | "may_delegate_to") | (Kind::Issuer, "entitlements") if idle => {
            "leave the rules out, or what stands beside them: a scope of the tool, or its bare name"
        }
        (Kind::Agent, "access") => "name what stands in `[[resources]]` and its `[[resources.tools]]`, or add it there",
        (Kind::Agent, "may_delegate_to") if reason.contains("`access` is empty") => {
            "name in `access` what may go there, or leave it out for whatever the token allows"
        }
        (Kind::Agent, "may_delegate_to") if reason.contains(" stands there twice") => "remove one of the two",
        (Kind::Agent, "may_delegate_to") if reason.contains(" agent ") => "name other `[[agents]]`",
        (Kind::Agent, "may_delegate_to") => "name what stands in `[[resources]]` and its `[[resources.tools]]`",
        (Kind::Agent, "known_as") if reason.starts_with("a broker ") => {
            "leave `known_as` out, or `kind` if it does open tasks"
        }
        (Kind::Agent, "known_as") if unknown => "write the `issuer` of one of the `[[issuers]]` as it stands there",
        (Kind::Agent, "known_as") => "name client ids that stand for this agent alone there",
        (Kind::Issuer, "subject_prefix") => "such as `subject_prefix = \"partner:\"`",
        (Kind::Issuer, "algorithms") => "see which `alg` its keys have",
        (Kind::Issuer, "token_types") => "see which tokens your agents get from it",
        (Kind::Issuer, "audiences") => "see `aud` in one of its access tokens",
        (Kind::Issuer, "subject_scopes") => "add `[[issuers.entitlements]]`, or leave `subject_scopes` out",
        (Kind::Issuer, "api_audiences" | "portal_clients") => {
            "name an `aud` that is for this alone, and the client ids of the portals that get tokens with it"
        }
        (Kind::Issuer, "entitlements") if unknown => "name what stands in `[[resources]]`, or leave `resource` out",
        (Kind::Issuer, "entitlements") => "name `scopes` or `tools` in each rule",
        (Kind::Resource, "uri") => "one of the two has to go: a token is for one of them",
        (Kind::Resource, "tools") => "remove one of the two",
        (Kind::Resource, "discovery_scope") => "write a scope of its own, such as `files:list`",
        (_, "max_token_lifetime") => "write a number of seconds in this range, or leave it out",
        (_, "authentication") => "name in `algorithms` what it signs with, or leave `algorithms` out",
        (_, "id" | "issuer") => "rename or remove one of the two",
        _ => "see errand.example.toml",
    }
}
