//! What no object may be: Errand itself.

use super::{RegistryError, RegistryObject};
use crate::domain::uri::IssuerUrl;

/// What speaks against an object beside this server. `issuer` and `trust_domain` are the audiences of tokens that are not
/// for a resource.
#[must_use]
pub fn collides_with_issuer(object: &RegistryObject, issuer: &IssuerUrl, trust_domain: &str) -> Option<RegistryError> {
    let (key, reason) = match object {
        RegistryObject::Issuer(theirs) if issuer.is_same_location(theirs.issuer.as_str()) => {
            ("issuer", "is Errand itself")
        }
        RegistryObject::Resource(resource) if issuer.is_same_location(resource.uri.as_str()) => {
            ("uri", "is Errand itself")
        }
        RegistryObject::Resource(resource) if resource.uri.as_str() == trust_domain => ("uri", "is the trust domain"),
        RegistryObject::Issuer(_)
        | RegistryObject::Agent(_)
        | RegistryObject::Resource(_)
        | RegistryObject::Admin(_) => return None,
    };
    Some(RegistryError { kind: object.kind(), id: object.id().to_owned(), key, reason: reason.to_owned() })
}
