//! Objects that would collide with Errand itself.

use super::{RegistryError, RegistryObject};
use crate::domain::uri::IssuerUrl;

/// Returns an error if an object has an identifier of this server. `issuer` and `trust_domain` are
/// the audiences of tokens that are not for a resource.
#[must_use]
pub fn collides_with_issuer(object: &RegistryObject, issuer: &IssuerUrl, trust_domain: &str) -> Option<RegistryError> {
    let (key, reason) = match object {
        RegistryObject::Issuer(trusted) if issuer.is_same_location(trusted.issuer.as_str()) => {
            ("issuer", "is the URL of this server")
        }
        RegistryObject::Resource(resource) if issuer.is_same_location(resource.uri.as_str()) => {
            ("uri", "is the URL of this server")
        }
        RegistryObject::Resource(resource)
            if resource.uri_aliases.iter().any(|alias| issuer.is_same_location(alias.as_str())) =>
        {
            ("uri_aliases", "contain the URL of this server")
        }
        RegistryObject::Resource(resource) if resource.uri.as_str() == trust_domain => {
            ("uri", "is the trust domain of this server")
        }
        RegistryObject::Issuer(_)
        | RegistryObject::Agent(_)
        | RegistryObject::Resource(_)
        | RegistryObject::Admin(_) => return None,
    };
    Some(RegistryError { kind: object.kind(), id: object.id().to_owned(), key, reason: reason.to_owned() })
}
