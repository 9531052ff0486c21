//! What no object may be: Errand itself.

use super::{Inconsistency, Object};
use crate::domain::uri::IssuerUrl;

/// What speaks against an object beside this server. `issuer` and `trust_domain` are the audiences of tokens that are not
/// for a resource.
#[must_use]
pub fn taken_for_us(object: &Object, issuer: &IssuerUrl, trust_domain: &str) -> Option<Inconsistency> {
    let (key, reason) = match object {
        Object::Issuer(theirs) if issuer.is_place_of(theirs.issuer.as_str()) => ("issuer", "is Errand itself"),
        Object::Resource(resource) if issuer.is_place_of(resource.uri.as_str()) => ("uri", "is Errand itself"),
        Object::Resource(resource) if resource.uri.as_str() == trust_domain => ("uri", "is the trust domain"),
        Object::Issuer(_) | Object::Agent(_) | Object::Resource(_) | Object::Admin(_) => return None,
    };
    Some(Inconsistency { kind: object.kind(), id: object.id().to_owned(), key, reason: reason.to_owned() })
}
