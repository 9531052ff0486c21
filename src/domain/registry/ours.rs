//! What no object may be: Errand itself, or taken for it.

use super::{Inconsistency, Object};
use crate::domain::uri::IssuerUrl;

/// What speaks against an object beside this server. `issuer` and `trust_domain` are the audiences of tokens that are not
/// for a resource; a client's id is a name in records beside Errand's own.
#[must_use]
pub fn taken_for_us(object: &Object, issuer: &IssuerUrl, trust_domain: &str) -> Option<Inconsistency> {
    let (key, reason) = match object {
        Object::Issuer(theirs) if issuer.is_place_of(theirs.issuer.as_str()) => ("issuer", "is Errand itself"),
        Object::Resource(resource) if issuer.is_place_of(resource.uri.as_str()) => ("uri", "is Errand itself"),
        Object::Resource(resource) if resource.uri.as_str() == trust_domain => ("uri", "is the trust domain"),
        Object::Agent(_) | Object::Resource(_) | Object::Admin(_) if has_reserved_id(object) => {
            ("id", "names that begin with `errand` are Errand's own")
        }
        Object::Issuer(_) | Object::Agent(_) | Object::Resource(_) | Object::Admin(_) => return None,
    };
    Some(Inconsistency { kind: object.kind(), id: object.id().to_owned(), key, reason: reason.to_owned() })
}

fn has_reserved_id(object: &Object) -> bool {
    match object {
        Object::Issuer(_) => false,
        Object::Agent(agent) => agent.id.is_reserved(),
        Object::Resource(resource) => resource.id.is_reserved(),
        Object::Admin(admin) => admin.id.is_reserved(),
    }
}
