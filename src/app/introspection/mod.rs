//! Introspection (RFC 7662): is a token active, now, for the resource that asks?
//!
//! Every inactive token gets the same result, for the same work as far as possible: see
//! [`presented_token`].

pub(super) mod audit;
pub(super) mod cache;
pub(super) mod presented_token;
mod signing;

use crate::{
    app::{
        AuthError, AuthenticatedClient, Error, RequestContext, Service,
        introspection::presented_token::{ActiveToken, PresentedToken},
    },
    domain::{audit::Outcome, registry::client::Client},
};

/// The result of an introspection.
#[derive(Debug)]
pub enum Introspection {
    /// The token is active for the resource that asks.
    Active(ActiveToken),
    /// Any other token.
    Inactive,
}

impl Service {
    /// Introspects a token for a resource. Other clients are not allowed to introspect.
    pub async fn introspect(
        &self,
        caller: &AuthenticatedClient,
        token: &str,
        cx: &RequestContext,
    ) -> Result<Introspection, Error> {
        let Client::Resource(resource) = caller.client()? else {
            return Err(AuthError::ClientNotAllowed.into());
        };
        match self.verify_presented(token, resource, caller.snapshot(), cx) {
            PresentedToken::Active(token) => {
                self.audit_introspection(resource, Some(token.claims()), Outcome::Active, cx).await?;
                Ok(Introspection::Active(token))
            }
            PresentedToken::Inactive(claims) => {
                self.audit_introspection(resource, claims.as_deref(), Outcome::Inactive, cx).await?;
                Ok(Introspection::Inactive)
            }
        }
    }
}
