//! Signed introspection responses (RFC 9701).

use serde::Serialize;

use crate::{
    app::{AuthError, AuthenticatedClient, Error, RequestContext, Service},
    domain::{registry::client::Client, time::Timestamp, token::TYP_INTROSPECTION},
    ports::Outage,
};

/// The claims of a signed response (RFC 9701 §5). There is no `sub` and no `exp` at the top level,
/// so that a response can't be mistaken for a token.
#[derive(Serialize)]
struct SignedResponse<'a, B> {
    iss: &'a str,
    aud: &'a str,
    iat: Timestamp,
    token_introspection: B,
}

impl Service {
    /// Signs an introspection response for the resource that asks (RFC 9701). `body` is the
    /// response of RFC 7662.
    pub fn sign_introspection(
        &self,
        caller: &AuthenticatedClient,
        body: impl Serialize,
        cx: &RequestContext,
    ) -> Result<String, Error> {
        let Client::Resource(resource) = caller.client()? else {
            return Err(AuthError::ClientNotAllowed.into());
        };
        let settings = self.settings();
        let response = SignedResponse {
            iss: settings.issuer.as_str(),
            aud: resource.id.as_str(),
            iat: cx.now,
            token_introspection: body,
        };
        let payload = serde_json::to_vec(&response).map_err(Outage::during("write the introspection response"))?;
        let algorithm = self.select_signing_algorithm(resource.signing_algorithm, cx);
        Ok(self.0.ports.signer.sign(algorithm, TYP_INTROSPECTION, &payload, cx.now)?)
    }
}
