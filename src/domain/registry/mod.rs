//! Whom and what Errand knows: issuers, agents, resources, admins. A [`Registry`] that exists is consistent.

pub mod access;
mod activity;
pub mod admin;
pub mod agent;
pub mod authentication;
mod block;
mod catalogue;
mod check;
pub mod client;
pub mod edge;
pub mod issuer;
pub mod policy;
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
pub use catalogue::{KnownTools, UnacceptedTool};
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

/// One object of the registry, as it is stored and as it goes over REST.
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

/// The kinds of object.
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
    /// The word for it, in the store, in paths and in messages.
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
    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Issuer(_) => ObjectKind::Issuer,
            Self::Agent(_) => ObjectKind::Agent,
            Self::Resource(_) => ObjectKind::Resource,
            Self::Admin(_) => ObjectKind::Admin,
        }
    }

    /// Its client id; an issuer has none.
    #[must_use]
    pub fn client_id(&self) -> Option<&ClientId> {
        match self {
            Self::Issuer(_) => None,
            Self::Agent(agent) => Some(&agent.id),
            Self::Resource(resource) => Some(&resource.id),
            Self::Admin(admin) => Some(&admin.id),
        }
    }

    /// How it proves who it is; an issuer does not.
    #[must_use]
    pub fn authentication(&self) -> Option<&Authentication> {
        match self {
            Self::Issuer(_) => None,
            Self::Agent(agent) => Some(&agent.authentication),
            Self::Resource(resource) => Some(&resource.authentication),
            Self::Admin(admin) => Some(&admin.authentication),
        }
    }

    /// Its name among its kind: an issuer's URL, a client's id.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Issuer(issuer) => issuer.issuer.as_str(),
            Self::Agent(agent) => agent.id.as_str(),
            Self::Resource(resource) => resource.id.as_str(),
            Self::Admin(admin) => admin.id.as_str(),
        }
    }

    /// What ends with it when it is removed: another one of its name is another one.
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

/// Who may change an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The configuration file; over REST it is read-only.
    File,
    /// Admins, over REST.
    Api,
}

impl Source {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
        }
    }
}

/// An object with its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The object.
    pub object: RegistryObject,
    /// Who may change it.
    pub source: Source,
}

/// What is kept in place of a client's secret, with who gave the secret.
#[derive(Clone, Debug)]
pub struct StoredSecretTag {
    /// The tag.
    pub tag: SecretTag,
    /// Who may change it: of a client that the file declares, an admin may, as long as the file gives no secret.
    pub source: Source,
}

/// What is wrong with a set of objects: which one, at which key, why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind} `{id}`: {key}: {reason}")]
pub struct RegistryError {
    /// The kind of the object that is to be mended.
    pub kind: ObjectKind,
    /// Its name.
    pub id: String,
    /// The key in it.
    pub key: &'static str,
    /// What is wrong, and what would be right.
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
    admins: BTreeMap<ClientId, Admin>,
    secret_tags: BTreeMap<ClientId, StoredSecretTag>,
    known_tools: KnownTools,
    blocks: Vec<Block>,
    blocked_requesters: HashSet<Requester>,
    registered_at: RegistrationPositions,
}

/// From which place of the log on an object is the one that it is: where the log stood before it was put for the first time.
/// What was done under its name before that was done by another one.
pub type RegistrationPositions = BTreeMap<(ObjectKind, String), LogPosition>;

impl Registry {
    /// Builds a registry of objects that fit together; otherwise says everything that does not.
    pub fn build(
        version: u64,
        entries: Vec<Entry>,
        tags: BTreeMap<ClientId, StoredSecretTag>,
    ) -> Result<Self, Vec<RegistryError>> {
        let mut registry = Self { version, secret_tags: tags, ..Self::default() };
        let mut faults = Vec::new();
        for Entry { object, .. } in &entries {
            registry.add(object, &mut faults);
        }
        registry.entries = entries;
        registry.check_issuers(&mut faults);
        registry.check_resources(&mut faults);
        registry.check_agents(&mut faults);
        registry.check_clients(&mut faults);
        if faults.is_empty() { Ok(registry) } else { Err(faults) }
    }

    /// Which version of the stored registry this is.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// All objects with their owners.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The same registry, with when its objects came into it.
    #[must_use]
    pub fn with_registrations(self, since: RegistrationPositions) -> Self {
        Self { registered_at: since, ..self }
    }

    /// Whether the object of this name is the one that it was when the log stood at `rev`.
    #[must_use]
    pub fn existed_at(&self, kind: ObjectKind, id: &str, rev: LogPosition) -> bool {
        self.registered_at.get(&(kind, id.to_owned())).is_some_and(|since| *since <= rev)
    }

    /// Whether the agent that opened a task, and the issuer of its requester, are those that are registered now. A task of
    /// others of the same names is nobody's any more.
    #[must_use]
    pub fn is_current_task(&self, task: &Task) -> bool {
        self.existed_at(ObjectKind::Agent, task.root_agent.as_str(), task.rev)
            && self.existed_at(ObjectKind::Issuer, task.requester.issuer.as_str(), task.rev)
    }

    /// One object with its owner.
    #[must_use]
    pub fn entry(&self, kind: ObjectKind, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.object.kind() == kind && e.object.id() == id)
    }

    /// The issuer with exactly this identifier; shared, for who holds it longer than a look.
    #[must_use]
    pub fn issuer(&self, issuer: &str) -> Option<&Arc<TrustedIssuer>> {
        self.issuers.iter().find(|(url, _)| url.as_str() == issuer).map(|(_, issuer)| issuer)
    }

    /// All issuers.
    pub fn issuers(&self) -> impl Iterator<Item = &TrustedIssuer> {
        self.issuers.values().map(AsRef::as_ref)
    }

    /// The agent with this client id.
    #[must_use]
    pub fn agent(&self, id: &ClientId) -> Option<&Agent> {
        self.agents.get(id)
    }

    /// The resource with this client id.
    #[must_use]
    pub fn resource(&self, id: &ClientId) -> Option<&Resource> {
        self.resources.get(id)
    }

    /// The resource with this canonical URI.
    #[must_use]
    pub fn resource_at(&self, uri: &ResourceUri) -> Option<&Resource> {
        self.by_uri.get(uri).and_then(|id| self.resources.get(id))
    }

    /// All resources.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> {
        self.resources.values()
    }

    /// The client with this id, of whichever kind.
    #[must_use]
    pub fn client(&self, id: &ClientId) -> Option<Client<'_>> {
        let agent = self.agents.get(id).map(Client::Agent);
        let resource = || self.resources.get(id).map(Client::Resource);
        let admin = || self.admins.get(id).map(Client::Admin);
        agent.or_else(resource).or_else(admin)
    }

    /// All clients that can authenticate.
    pub fn clients(&self) -> impl Iterator<Item = Client<'_>> {
        let agents = self.agents.values().map(Client::Agent);
        agents.chain(self.resources.values().map(Client::Resource)).chain(self.admins.values().map(Client::Admin))
    }

    /// The tag of a client's secret, if it has one.
    #[must_use]
    pub fn secret_tag(&self, id: &ClientId) -> Option<&StoredSecretTag> {
        self.secret_tags.get(id)
    }

    /// The clients that have a secret, with its tag.
    pub fn secret_tags(&self) -> impl Iterator<Item = (&ClientId, &StoredSecretTag)> {
        self.secret_tags.iter()
    }

    /// The subject prefixes of all issuers but this one: a subject of `issuer` may not begin with one of them.
    pub fn foreign_prefixes<'a>(&'a self, issuer: &'a TrustedIssuer) -> impl Iterator<Item = &'a str> {
        self.issuers.values().filter(|other| other.issuer != issuer.issuer).filter_map(|i| i.subject_prefix.as_deref())
    }

    /// Everything that the resources at such places offer: that part of the catalogue, as an authority.
    #[must_use]
    pub fn catalogue(&self, at: impl Fn(&ResourceUri) -> bool) -> Authority {
        self.resources
            .values()
            .filter(|r| !r.disabled && at(&r.uri))
            .flat_map(|r| offered_permissions(r, |_| true, |_| true))
            .collect()
    }

    /// What an agent may ever have at such places, within today's catalogue.
    #[must_use]
    pub fn ceiling(&self, agent: &Agent, at: impl Fn(&ResourceUri) -> bool) -> Authority {
        self.resolve_access(&agent.access, at)
    }

    /// What an edge lets through at such places, within today's catalogue; `None` when it lets through whatever the token allows.
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

    /// What entitlement rules give to the holders of `rules` at such places.
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

    /// The scopes that something is offered under at such places.
    #[must_use]
    pub fn offered_scopes(&self, at: impl Fn(&ResourceUri) -> bool) -> BTreeSet<&ScopeToken> {
        let resources = self.resources.values().filter(|r| !r.disabled && at(&r.uri));
        resources.flat_map(|r| r.tools.iter().map(|tool| &tool.scope).chain(&r.discovery_scope)).collect()
    }

    /// All tools under these scopes that are offered at such places.
    #[must_use]
    pub fn tools_under_scopes(&self, scopes: &ScopeSet, at: impl Fn(&ResourceUri) -> bool) -> Authority {
        self.resources
            .values()
            .filter(|r| !r.disabled && at(&r.uri))
            .flat_map(|r| offered_permissions(r, |scope| scopes.contains(scope), |_| false))
            .collect()
    }

    /// The scopes whose every tool is in `authority`: what a token with it may say in `scope`, so that a resource
    /// which only knows scopes never reads more into it than was given. The token is read by one resource, or (a
    /// transaction token) by anybody in the trust domain: then a tool of any of them counts.
    #[must_use]
    pub fn covered_scopes(&self, authority: &Authority, by: Option<&ResourceUri>) -> ScopeSet {
        let covered = self.scope_coverage(authority, by).into_iter().filter(|(_, is_covered)| *is_covered);
        covered.map(|(scope, _)| scope.clone()).collect()
    }

    /// Whether all of these scopes are [covered](Self::scopes_covered).
    #[must_use]
    pub fn covers_scopes(&self, scopes: &ScopeSet, authority: &Authority, by: Option<&ResourceUri>) -> bool {
        let covered = self.scope_coverage(authority, by);
        scopes.iter().all(|scope| covered.get(scope).copied().unwrap_or_default())
    }

    /// The scopes that something stands under, with whether `authority` has all of that.
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

/// The part of what a resource offers that stands under these scopes, and those of these uses that it has.
fn select_permissions(resource: &Resource, scopes: &[ScopeToken], uses: &[ToolUse]) -> Vec<Permission> {
    let there = uses.iter().filter(|some| resource.tools.iter().any(|tool| tool.name == some.tool));
    let uses = there.map(|some| some.permission_at(&resource.uri)).collect::<Vec<_>>();
    offered_permissions(resource, |scope| scopes.contains(scope), |_| false).into_iter().chain(uses).collect()
}
