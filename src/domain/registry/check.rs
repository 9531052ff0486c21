//! What makes a registry consistent. Every rule is one [`Inconsistency`].

use std::collections::BTreeSet;

use super::{Inconsistency, Kind, Object, Registry};
use crate::domain::{
    client::{Access, Admin, Agent, Resource},
    id::ClientId,
    issuer::{SubjectScopes, SubjectTokenType},
};

impl Registry {
    pub(super) fn add(&mut self, object: &Object, faults: &mut Vec<Inconsistency>) {
        let fault = |key, reason: &str| Inconsistency {
            kind: object.kind(),
            id: object.id().to_owned(),
            key,
            reason: reason.to_owned(),
        };
        if let Object::Issuer(issuer) = object {
            if self.issuers.insert(issuer.issuer.clone(), issuer.clone()).is_some() {
                faults.push(fault("issuer", "stands twice"));
            }
            return;
        }
        let taken = |id: &ClientId| self.client(id).is_some();
        match object {
            Object::Agent(Agent { id, .. })
            | Object::Resource(Resource { id, .. })
            | Object::Admin(Admin { id, .. })
                if taken(id) =>
            {
                faults.push(fault("id", "stands twice: agents, resources and admins share one set of client ids"));
            }
            Object::Agent(agent) => {
                self.agents.insert(agent.id.clone(), agent.clone());
            }
            Object::Resource(resource) => {
                if self.by_uri.insert(resource.uri.clone(), resource.id.clone()).is_some() {
                    faults.push(fault("uri", "another resource has the same canonical URI"));
                }
                self.resources.insert(resource.id.clone(), resource.clone());
            }
            Object::Admin(admin) => {
                self.admins.insert(admin.id.clone(), admin.clone());
            }
            Object::Issuer(_) => {}
        }
    }

    pub(super) fn check_issuers(&self, faults: &mut Vec<Inconsistency>) {
        for issuer in self.issuers.values() {
            let mut fault = |key, reason: String| {
                faults.push(Inconsistency { kind: Kind::Issuer, id: issuer.issuer.to_string(), key, reason });
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
            for rule in &issuer.entitlements {
                if let Some(id) = &rule.resource
                    && !self.resources.contains_key(id)
                {
                    fault("entitlements", format!("there is no resource `{id}`"));
                }
            }
        }
    }

    pub(super) fn check_resources(&self, faults: &mut Vec<Inconsistency>) {
        for resource in self.resources.values() {
            let names = resource.tools.iter().map(|t| &t.name).collect::<BTreeSet<_>>();
            if names.len() != resource.tools.len() {
                faults.push(Inconsistency {
                    kind: Kind::Resource,
                    id: resource.id.to_string(),
                    key: "tools",
                    reason: "two tools have the same name".into(),
                });
            }
        }
    }

    pub(super) fn check_agents(&self, faults: &mut Vec<Inconsistency>) {
        for agent in self.agents.values() {
            let mut fault = |key, reason: String| {
                faults.push(Inconsistency { kind: Kind::Agent, id: agent.id.to_string(), key, reason });
            };
            for access in &agent.access {
                let Some(resource) = self.resources.get(&access.resource) else {
                    fault("access", format!("there is no resource `{}`", access.resource));
                    continue;
                };
                self.check_access(access, resource, &mut fault);
            }
            for other in &agent.may_delegate_to {
                if !self.agents.contains_key(other) {
                    fault("may_delegate_to", format!("there is no agent `{other}`"));
                } else if *other == agent.id {
                    fault("may_delegate_to", "an agent does not delegate to itself".into());
                }
            }
            for issuer in agent.known_as.keys() {
                if !self.issuers.contains_key(issuer) {
                    fault("known_as", format!("there is no issuer `{issuer}`"));
                }
            }
        }
    }

    #[expect(clippy::unused_self, reason = "reads as one of the checks, and stands among them")]
    fn check_access(&self, access: &Access, resource: &Resource, fault: &mut impl FnMut(&'static str, String)) {
        if access.scopes.is_empty() && access.tools.is_empty() {
            fault("access", format!("names neither scopes nor tools of `{}`", resource.id));
        }
        for scope in &access.scopes {
            if !resource.tools.iter().any(|tool| tool.scope == *scope) {
                fault("access", format!("no tool of `{}` has the scope `{scope}`", resource.id));
            }
        }
        for name in &access.tools {
            if !resource.tools.iter().any(|tool| tool.name == *name) {
                fault("access", format!("`{}` has no tool `{name}`", resource.id));
            }
        }
    }
}
