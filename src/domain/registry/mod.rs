//! Registry of issuers, agents, resources and admins. A [`Registry`] is consistent by construction.

pub mod access;
mod activity;
pub mod admin;
pub mod agent;
pub mod authentication;
mod block;
mod catalogue;
mod check;
pub mod client;
mod diff;
pub mod edge;
pub mod issuer;
pub mod policy;
mod replacement;
pub mod resource;
mod self_reference;
#[cfg(test)]
mod tests;
pub mod tool;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fmt,
    sync::Arc,
};

pub use activity::parties_are_active;
pub use block::{Block, BlockAction, BlockError, BlockKind, BlockSubject};
pub(crate) use catalogue::find_definition_mismatch;
pub use catalogue::{KnownTools, Reduction, UnacceptedTool};
pub use diff::{Difference, MemberDifference, ObjectDifference, diff_entries};
use ipnet::IpNet;
pub use replacement::targets_ended_by_replacement;
pub use self_reference::collides_with_issuer;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use catalogue::{offered_permissions, resource_scope_coverage};

use crate::domain::{
    authority::{Authority, Permission, ToolUse},
    id::ClientId,
    registry::{
        access::Access,
        admin::Admin,
        agent::Agent,
        authentication::Authentication,
        client::Client,
        edge::Edge,
        issuer::{Entitlement, TrustedIssuer},
        resource::Resource,
    },
    requester::Requester,
    revocation::{LogPosition, Target},
    scope::{ScopeSet, ScopeToken},
    secret::SecretTag,
    task::Task,
    uri::{IssuerUrl, ResourceUri},
};

/// One object of the registry, as stored and as transferred over REST.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "body", rename_all = "snake_case")]
pub enum RegistryObject {
    /// A trusted identity provider.
    Issuer(TrustedIssuer),
    /// An agent.
    Agent(Agent),
    /// A resource.
    Resource(Resource),
    /// An admin.
    Admin(Admin),
}

/// The kinds of registry object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ObjectKind {
    /// [`TrustedIssuer`]
    Issuer,
    /// [`Agent`]
    Agent,
    /// [`Resource`]
    Resource,
    /// [`Admin`]
    Admin,
}

impl ObjectKind {
    /// Returns the word used in the store, in paths and in messages.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::Agent => "agent",
            Self::Resource => "resource",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl RegistryObject {
    /// Returns the kind.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Issuer(_) => ObjectKind::Issuer,
            Self::Agent(_) => ObjectKind::Agent,
            Self::Resource(_) => ObjectKind::Resource,
            Self::Admin(_) => ObjectKind::Admin,
        }
    }

    /// Returns the client id; `None` for an issuer.
    #[must_use]
    pub fn client_id(&self) -> Option<&ClientId> {
        match self {
            Self::Issuer(_) => None,
            Self::Agent(agent) => Some(&agent.id),
            Self::Resource(resource) => Some(&resource.id),
            Self::Admin(admin) => Some(&admin.id),
        }
    }

    /// Returns the authentication method; `None` for an issuer.
    #[must_use]
    pub fn authentication(&self) -> Option<&Authentication> {
        match self {
            Self::Issuer(_) => None,
            Self::Agent(agent) => Some(&agent.authentication),
            Self::Resource(resource) => Some(&resource.authentication),
            Self::Admin(admin) => Some(&admin.authentication),
        }
    }

    /// Returns the name within its kind: an issuer's URL or a client's id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Issuer(issuer) => issuer.issuer.as_str(),
            Self::Agent(agent) => agent.id.as_str(),
            Self::Resource(resource) => resource.id.as_str(),
            Self::Admin(admin) => admin.id.as_str(),
        }
    }

    /// Returns the object as a client; `None` for an issuer.
    #[must_use]
    pub fn client(&self) -> Option<Client<'_>> {
        match self {
            Self::Issuer(_) => None,
            Self::Agent(agent) => Some(Client::Agent(agent)),
            Self::Resource(resource) => Some(Client::Resource(resource)),
            Self::Admin(admin) => Some(Client::Admin(admin)),
        }
    }

    /// Returns whether the object is declared as disabled.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        match self {
            Self::Issuer(issuer) => issuer.disabled,
            Self::Agent(agent) => agent.disabled,
            Self::Resource(resource) => resource.disabled,
            Self::Admin(admin) => admin.disabled,
        }
    }

    /// Returns what is revoked when the object is removed. A later object of the same name is a
    /// different one.
    #[must_use]
    pub fn revocation_targets(&self) -> Vec<Target> {
        match self {
            Self::Issuer(issuer) => vec![Target::Issuer(issuer.issuer.clone())],
            Self::Agent(Agent { id, .. }) | Self::Admin(Admin { id, .. }) => vec![Target::Agent(id.clone())],
            Self::Resource(Resource { id, uri, .. }) => {
                vec![Target::Agent(id.clone()), Target::Resource(uri.clone())]
            }
        }
    }
}

/// The source of an object, which decides who may change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The configuration file; read-only over REST.
    File,
    /// Admins, over REST.
    Api,
}

impl Source {
    /// Returns the wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
        }
    }
}

/// An object with its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The object.
    pub object: RegistryObject,
    /// The source.
    pub source: Source,
}

/// The stored tag of a client secret, with the source of the secret.
#[derive(Clone, Debug)]
pub struct StoredSecretTag {
    /// The tag.
    pub tag: SecretTag,
    /// The source. An admin may set the secret of a client that the file declares, as long as the
    /// file sets none.
    pub source: Source,
}

/// An inconsistency between objects: the object, the key in it, and the reason.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind} `{id}`: {key}: {reason}")]
pub struct RegistryError {
    /// The kind of the object to fix.
    pub kind: ObjectKind,
    /// The name of the object.
    pub id: String,
    /// The key in the object.
    pub key: &'static str,
    /// What is wrong and how to fix it.
    pub reason: String,
}

/// A consistent snapshot of the registry.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    version: u64,
    entries: Vec<Entry>,
    issuers: BTreeMap<IssuerUrl, Arc<TrustedIssuer>>,
    agents: BTreeMap<ClientId, Agent>,
    resources: BTreeMap<ClientId, Resource>,
    by_uri: BTreeMap<ResourceUri, ClientId>,
    by_alias: BTreeMap<ResourceUri, ClientId>,
    admins: BTreeMap<ClientId, Admin>,
    secret_tags: BTreeMap<ClientId, StoredSecretTag>,
    known_tools: KnownTools,
    blocks: Vec<Block>,
    blocked_requesters: HashSet<Requester>,
    registered_at: RegistrationPositions,
}

/// The log position before each object was registered. Tokens and tasks with an older position
/// belong to an earlier object of the same name.
pub type RegistrationPositions = BTreeMap<(ObjectKind, String), LogPosition>;

impl Registry {
    /// Builds a registry from consistent objects, or returns all inconsistencies.
    pub fn build(
        version: u64,
        entries: Vec<Entry>,
        tags: BTreeMap<ClientId, StoredSecretTag>,
    ) -> Result<Self, Vec<RegistryError>> {
        let mut registry = Self { version, secret_tags: tags, ..Self::default() };
        let mut errors = Vec::new();
        for Entry { object, .. } in &entries {
            registry.add(object, &mut errors);
        }
        registry.entries = entries;
        registry.check_issuers(&mut errors);
        registry.check_resources(&mut errors);
        registry.check_agents(&mut errors);
        registry.check_clients(&mut errors);
        if errors.is_empty() { Ok(registry) } else { Err(errors) }
    }

    /// Returns the agents.
    pub fn agents(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values()
    }

    /// Returns the version of the stored registry.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns all objects with their sources.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the registry in which objects that admins registered name no special network outside
    /// these. Objects of the configuration file are not changed.
    #[must_use]
    pub fn within_networks(mut self, networks: &[IpNet]) -> Self {
        let is_allowed = |network: &IpNet| is_within(network, networks);
        let api = self.entries.iter().filter(|entry| entry.source == Source::Api);
        for Entry { object, .. } in api {
            match object {
                RegistryObject::Issuer(issuer) if !issuer.allowed_networks.iter().all(is_allowed) => {
                    // Only the networks change: the issuer may be blocked.
                    if let Some(issuer) = self.issuers.get_mut(&issuer.issuer) {
                        Arc::make_mut(issuer).allowed_networks.retain(is_allowed);
                    }
                }
                RegistryObject::Resource(resource) if !resource.allowed_networks.iter().all(is_allowed) => {
                    if let Some(resource) = self.resources.get_mut(&resource.id) {
                        resource.allowed_networks.retain(is_allowed);
                    }
                }
                RegistryObject::Issuer(_)
                | RegistryObject::Resource(_)
                | RegistryObject::Agent(_)
                | RegistryObject::Admin(_) => {}
            }
        }
        self
    }

    /// Returns the registry with the registration positions of its objects.
    #[must_use]
    pub fn with_registrations(self, since: RegistrationPositions) -> Self {
        Self { registered_at: since, ..self }
    }

    /// Returns whether the object registered now under this name was already registered at log
    /// position `rev`.
    #[must_use]
    pub fn existed_at(&self, kind: ObjectKind, id: &str, rev: LogPosition) -> bool {
        self.registered_at.get(&(kind, id.to_owned())).is_some_and(|since| *since <= rev)
    }

    /// Returns whether the agent that opened a task and the issuer of its requester are still the
    /// registered ones. After re-registration under the same names, the task belongs to neither.
    #[must_use]
    pub fn is_current_task(&self, task: &Task) -> bool {
        self.existed_at(ObjectKind::Agent, task.root_agent.as_str(), task.rev)
            && self.existed_at(ObjectKind::Issuer, task.requester.issuer.as_str(), task.rev)
    }

    /// Returns an object with its source.
    #[must_use]
    pub fn entry(&self, kind: ObjectKind, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.object.kind() == kind && e.object.id() == id)
    }

    /// Returns the issuer with exactly this identifier, shared so that callers may keep it.
    #[must_use]
    pub fn issuer(&self, issuer: &str) -> Option<&Arc<TrustedIssuer>> {
        self.issuers.iter().find(|(url, _)| url.as_str() == issuer).map(|(_, issuer)| issuer)
    }

    /// Returns the enabled issuer whose identifier is another spelling of this URL, such as with or
    /// without a slash at its end. Tokens of it are not accepted under this name.
    #[must_use]
    pub fn issuer_in_other_spelling(&self, issuer: &str) -> Option<&TrustedIssuer> {
        self.issuers()
            .find(|known| !known.disabled && known.issuer.as_str() != issuer && known.issuer.is_same_location(issuer))
    }

    /// Returns all issuers.
    pub fn issuers(&self) -> impl Iterator<Item = &TrustedIssuer> {
        self.issuers.values().map(AsRef::as_ref)
    }

    /// Returns the agent with this client id.
    #[must_use]
    pub fn agent(&self, id: &ClientId) -> Option<&Agent> {
        self.agents.get(id)
    }

    /// Returns the resource with this client id.
    #[must_use]
    pub fn resource(&self, id: &ClientId) -> Option<&Resource> {
        self.resources.get(id)
    }

    /// Returns the resource with this canonical URI.
    #[must_use]
    pub fn resource_at(&self, uri: &ResourceUri) -> Option<&Resource> {
        self.by_uri.get(uri).and_then(|id| self.resources.get(id))
    }

    /// Returns the resource that a request names by this URI: its canonical one or an alias.
    #[must_use]
    pub fn find_resource(&self, uri: &ResourceUri) -> Option<&Resource> {
        self.resource_at(uri).or_else(|| self.by_alias.get(uri).and_then(|id| self.resources.get(id)))
    }

    /// Returns the canonical URI of the resource that has this URI or this alias, or else the URI
    /// itself.
    #[must_use]
    pub fn canonical_uri(&self, uri: &ResourceUri) -> ResourceUri {
        self.find_resource(uri).map_or_else(|| uri.clone(), |resource| resource.uri.clone())
    }

    /// Returns the resource that a client most likely means by an unknown URI, among those that the
    /// client has access to.
    #[must_use]
    pub fn nearest_resource(&self, client: Client<'_>, sent: &str) -> Option<&ResourceUri> {
        let Client::Agent(agent) = client else { return None };
        let ids = agent.access.iter().map(|access| &access.resource).collect::<BTreeSet<_>>();
        let uris = ids.into_iter().filter_map(|id| self.resources.get(id)).filter(|r| !r.disabled).map(|r| &r.uri);
        nearest_uri(uris, sent)
    }

    /// Returns all resources.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.resources.values()
    }

    /// Returns the client of any kind with this id.
    #[must_use]
    pub fn client(&self, id: &ClientId) -> Option<Client<'_>> {
        let agent = self.agents.get(id).map(Client::Agent);
        let resource = || self.resources.get(id).map(Client::Resource);
        let admin = || self.admins.get(id).map(Client::Admin);
        agent.or_else(resource).or_else(admin)
    }

    /// Returns all clients that can authenticate.
    pub fn clients(&self) -> impl Iterator<Item = Client<'_>> {
        let agents = self.agents.values().map(Client::Agent);
        agents.chain(self.resources.values().map(Client::Resource)).chain(self.admins.values().map(Client::Admin))
    }

    /// Returns the tag of a client's secret, if it has one.
    #[must_use]
    pub fn secret_tag(&self, id: &ClientId) -> Option<&StoredSecretTag> {
        self.secret_tags.get(id)
    }

    /// Returns the clients that have a secret, with its tag.
    pub fn secret_tags(&self) -> impl Iterator<Item = (&ClientId, &StoredSecretTag)> {
        self.secret_tags.iter()
    }

    /// Returns the subject prefixes of all other issuers. A subject of `issuer` may not begin with
    /// one of them.
    pub fn foreign_prefixes<'a>(&'a self, issuer: &'a TrustedIssuer) -> impl Iterator<Item = &'a str> {
        self.issuers.values().filter(|other| other.issuer != issuer.issuer).filter_map(|i| i.subject_prefix.as_deref())
    }

    /// Returns everything that the resources at the selected URIs offer, as an authority.
    #[must_use]
    pub fn catalogue(&self, at: impl Fn(&ResourceUri) -> bool) -> Authority {
        self.resources
            .values()
            .filter(|r| !r.disabled && at(&r.uri))
            .flat_map(|r| offered_permissions(r, |_| true, |_| true))
            .collect()
    }

    /// Returns the ceiling of an agent at the selected URIs, within the current catalogue.
    #[must_use]
    pub fn ceiling(&self, agent: &Agent, at: impl Fn(&ResourceUri) -> bool) -> Authority {
        self.resolve_access(&agent.access, at)
    }

    /// Returns the ceiling of an edge at the selected URIs, within the current catalogue. `None`
    /// means that the edge does not limit what the token allows.
    #[must_use]
    pub fn edge_ceiling(&self, edge: &Edge, at: impl Fn(&ResourceUri) -> bool) -> Option<Authority> {
        edge.access.as_deref().map(|access| self.resolve_access(access, at))
    }

    fn resolve_access(&self, access: &[Access], at: impl Fn(&ResourceUri) -> bool) -> Authority {
        let known = access.iter().filter_map(|part| Some((part, self.resources.get(&part.resource)?)));
        known
            .filter(|(_, resource)| at(&resource.uri))
            .flat_map(|(part, resource)| select_permissions(resource, &part.scopes, &part.tools))
            .collect()
    }

    /// Returns what the entitlement rules permit at the selected URIs.
    #[must_use]
    pub fn resolve_entitlements<'a>(
        &'a self,
        rules: impl Iterator<Item = &'a Entitlement>,
        at: impl Fn(&ResourceUri) -> bool,
    ) -> Authority {
        let resources = self.resources.values().filter(|r| at(&r.uri)).collect::<Vec<_>>();
        rules
            .flat_map(|rule| {
                let concerned = |r: &&&Resource| rule.resource.as_ref().is_none_or(|id| *id == r.id);
                resources
                    .iter()
                    .filter(concerned)
                    .flat_map(|resource| select_permissions(resource, &rule.scopes, &rule.tools))
            })
            .collect()
    }

    /// Returns the scopes under which the resources at the selected URIs offer something.
    #[must_use]
    pub fn offered_scopes(&self, at: impl Fn(&ResourceUri) -> bool) -> BTreeSet<&ScopeToken> {
        let resources = self.resources.values().filter(|r| !r.disabled && at(&r.uri));
        resources.flat_map(|r| r.tools.iter().map(|tool| &tool.scope).chain(&r.discovery_scope)).collect()
    }

    /// Returns all tools under these scopes that are offered at the selected URIs.
    #[must_use]
    pub fn tools_under_scopes(&self, scopes: &ScopeSet, at: impl Fn(&ResourceUri) -> bool) -> Authority {
        self.resources
            .values()
            .filter(|r| !r.disabled && at(&r.uri))
            .flat_map(|r| offered_permissions(r, |scope| scopes.contains(scope), |_| false))
            .collect()
    }

    /// Returns the scopes whose tools `authority` allows completely. Only these may go into
    /// `scope`, so that a resource that knows only scopes never infers more than was granted.
    ///
    /// An access token is read by one resource, `reader`. A transaction token may be read by any
    /// resource in the trust domain; then the tools of all of them count.
    #[must_use]
    pub fn covered_scopes(&self, authority: &Authority, by: Option<&ResourceUri>) -> ScopeSet {
        let covered = self.scope_coverage(authority, by).into_iter().filter(|(_, is_covered)| *is_covered);
        covered.map(|(scope, _)| scope.clone()).collect()
    }

    /// Returns whether all of these scopes are [covered](Self::covered_scopes).
    #[must_use]
    pub fn covers_scopes(&self, scopes: &ScopeSet, authority: &Authority, by: Option<&ResourceUri>) -> bool {
        let covered = self.scope_coverage(authority, by);
        scopes.iter().all(|scope| covered.get(scope).copied().unwrap_or_default())
    }

    /// Returns the offered scopes, with whether `authority` allows everything under each.
    fn scope_coverage<'a>(
        &'a self,
        authority: &'a Authority,
        by: Option<&ResourceUri>,
    ) -> BTreeMap<&'a ScopeToken, bool> {
        let mut covered = BTreeMap::new();
        for resource in self.resources.values().filter(|r| by.is_none_or(|uri| *uri == r.uri)) {
            for (scope, is_allowed) in resource_scope_coverage(resource, authority) {
                *covered.entry(scope).or_insert(true) &= is_allowed;
            }
        }
        covered
    }
}

/// Returns whether a network is part of the others, taken together.
fn is_within(network: &IpNet, others: &[IpNet]) -> bool {
    IpNet::aggregate(&others.to_vec()).iter().any(|other| other.contains(network))
}

/// Returns a network of the object that is not part of these: an admin may name only what the
/// configuration file allows.
#[must_use]
pub fn network_outside<'a>(object: &'a RegistryObject, networks: &[IpNet]) -> Option<&'a IpNet> {
    let named = match object {
        RegistryObject::Issuer(issuer) => &issuer.allowed_networks[..],
        RegistryObject::Resource(resource) => &resource.allowed_networks[..],
        RegistryObject::Agent(_) | RegistryObject::Admin(_) => &[],
    };
    named.iter().find(|network| !is_within(network, networks))
}

/// Returns the URI with the same host that has the longest beginning in common with the one that
/// was sent. Case, a trailing slash and a scheme do not count.
fn nearest_uri<'a>(registered: impl Iterator<Item = &'a ResourceUri>, sent: &str) -> Option<&'a ResourceUri> {
    fn bare(uri: &str) -> String {
        let uri = uri.split_once("://").map_or(uri, |(_, rest)| rest);
        uri.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/').to_ascii_lowercase()
    }
    fn host(bare: &str) -> &str {
        bare.split(['/', ':']).next().unwrap_or_default()
    }
    let sent = bare(sent);
    let common = |uri: &str| uri.bytes().zip(sent.bytes()).take_while(|(a, b)| a == b).count();
    registered
        .map(|uri| (bare(uri.as_str()), uri))
        .filter(|(bare, _)| host(bare) == host(&sent))
        .max_by_key(|(bare, _)| (common(bare), usize::MAX - bare.len()))
        .map(|(_, uri)| uri)
}

/// Returns the permissions under these scopes, and those of `uses` whose tools the resource has.
fn select_permissions(resource: &Resource, scopes: &[ScopeToken], uses: &[ToolUse]) -> Vec<Permission> {
    let there = uses.iter().filter(|some| resource.tools.iter().any(|tool| tool.name == some.tool));
    let uses = there.map(|some| some.permission_at(&resource.uri)).collect::<Vec<_>>();
    offered_permissions(resource, |scope| scopes.contains(scope), |_| false).into_iter().chain(uses).collect()
}
