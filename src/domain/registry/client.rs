//! Clients of any kind: agents, resources and admins.

pub use super::{
    access::Access,
    admin::{Admin, Role},
    agent::{Agent, AgentKind},
    authentication::{AssertionAudience, Authentication, default_assertion_algorithms},
    edge::Edge,
    policy::{Effect, Risk},
    resource::{Resource, Tool},
};
use crate::domain::{
    id::ClientId,
    scope::{ScopeSet, ScopeToken},
};

/// A client of any kind.
#[derive(Clone, Copy, Debug)]
pub enum Client<'a> {
    /// An agent.
    Agent(&'a Agent),
    /// A resource.
    Resource(&'a Resource),
    /// An admin.
    Admin(&'a Admin),
}

impl Client<'_> {
    /// Returns the client id.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        match self {
            Self::Agent(agent) => &agent.id,
            Self::Resource(resource) => &resource.id,
            Self::Admin(admin) => &admin.id,
        }
    }

    /// Returns the authentication method.
    #[must_use]
    pub fn authentication(&self) -> &Authentication {
        match self {
            Self::Agent(agent) => &agent.authentication,
            Self::Resource(resource) => &resource.authentication,
            Self::Admin(admin) => &admin.authentication,
        }
    }

    /// Returns whether the client is blocked.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        match self {
            Self::Agent(agent) => agent.disabled,
            Self::Resource(resource) => resource.disabled,
            Self::Admin(admin) => admin.disabled,
        }
    }

    /// Returns the scopes of this server's APIs that the client may request in an API token.
    #[must_use]
    pub fn api_scopes(&self) -> ScopeSet {
        let names: &[&str] = match self {
            Self::Agent(_) => &[TASKS_SCOPE],
            Self::Resource(_) => &[INTROSPECT_SCOPE, EVALUATE_SCOPE, TASKS_SCOPE, REVOCATIONS_SCOPE],
            Self::Admin(Admin { role: Role::Operator, .. }) => &[ADMIN_SCOPE, AUDIT_SCOPE],
            Self::Admin(Admin { role: Role::Auditor, .. }) => &[AUDIT_SCOPE],
        };
        names.iter().filter_map(|name| name.parse::<ScopeToken>().ok()).collect()
    }
}

/// Introspection of tokens for the client's own audience.
pub const INTROSPECT_SCOPE: &str = "errand:introspect";
/// Evaluation of calls with tokens for the client's own audience.
pub const EVALUATE_SCOPE: &str = "errand:evaluate";
/// Tasks in which the client participates: read access and call reports.
pub const TASKS_SCOPE: &str = "errand:tasks";
/// The revocation feed, for offline verification of tokens for the client's own audience.
pub const REVOCATIONS_SCOPE: &str = "errand:revocations";
/// Changes to the registry, revocations and key rotation.
pub const ADMIN_SCOPE: &str = "errand:admin";
/// Read access to the registry, tokens, tasks, revocations and the audit trail.
pub const AUDIT_SCOPE: &str = "errand:audit";
