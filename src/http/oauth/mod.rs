//! The OAuth endpoints: token, introspection, revocation, metadata.

pub(super) mod introspect;
pub(super) mod metadata;
pub(super) mod revoke;
pub(super) mod token;
mod token_request;
