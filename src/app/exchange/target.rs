//! The target of an exchange: exactly one registered resource (RFC 8707), or the trust domain.

use crate::{
    app::{Error, ExchangeRequest, RequestError, RequestedTokenType, Service, auth::client::IdentifiedClient},
    domain::{
        exchange::{Denial, Evidence, RequestedToken},
        id::ClientId,
        registry::{
            Registry,
            client::{Agent, Client, Resource},
        },
        token::TokenKind,
        uri::ResourceUri,
    },
};

/// Returns whether the agent may use the resource at all. Others look as if they did not exist.
fn is_usable(agent: &Agent, resource: &Resource) -> bool {
    agent.access.iter().any(|access| access.resource == resource.id)
}

impl Service {
    /// Resolves the target of a request (RFC 8707): a resource by its URI or its registered name,
    /// or the trust domain.
    pub(super) fn resolve_target<'a>(
        &self,
        caller: &'a IdentifiedClient,
        request: &ExchangeRequest,
        subject: Evidence<'_>,
    ) -> Result<RequestedToken<'a>, Error> {
        let registry = &caller.snapshot().registry;
        let client = caller.client().map_err(Error::from)?;
        let target = |text| Error::Request(RequestError::InvalidTarget(text));
        if request.requested_token_type == RequestedTokenType::TxnToken {
            let is_domain = request.audience.as_deref() == Some(self.settings().trust_domain.as_str());
            return if is_domain && request.resource.is_none() && request.requested_actor.is_none() {
                Ok(RequestedToken::Txn)
            } else {
                Err(target(
                    "a transaction token is for the trust domain; send it as `audience`, without `resource` and `requested_actor`",
                ))
            };
        }
        let Client::Agent(agent) = client else { return Err(Denial::ResourceLimitedToTxnToken.into()) };
        let by_uri = match &request.resource {
            None => None,
            Some(text) => {
                let uri = text.parse::<ResourceUri>().map_err(RequestError::InvalidResource)?;
                let found = registry.find_resource(&uri).filter(|resource| is_usable(agent, resource));
                Some(found.ok_or_else(|| {
                    unknown_target("no resource that the agent may use has the URI in `resource`", caller, text)
                })?)
            }
        };
        let by_name = match &request.audience {
            None => None,
            Some(name) => {
                // A registered name contains no `:`, so it is never a URI.
                let by_name = name.parse::<ClientId>().ok().and_then(|id| registry.resource(&id));
                let by_uri = || name.parse::<ResourceUri>().ok().and_then(|uri| registry.find_resource(&uri));
                let found = by_name.or_else(by_uri).filter(|resource| is_usable(agent, resource));
                Some(found.ok_or_else(|| {
                    unknown_target("no resource that the agent may use has the name in `audience`", caller, name)
                })?)
            }
        };
        let resource = match (by_uri, by_name) {
            (Some(uri), Some(name)) if uri.id != name.id => {
                return Err(target("`resource` and `audience` name different resources"));
            }
            (Some(resource), _) | (None, Some(resource)) => resource,
            (None, None) => Self::implied_resource(registry, request, subject).ok_or(target("name one `resource`"))?,
        };
        match &request.requested_actor {
            None => Ok(RequestedToken::Access(resource)),
            Some(id) => {
                // An unknown agent is denied like one to which this agent may not delegate.
                let next = registry.agent(id).filter(|_| agent.edge_to(id).is_some());
                Ok(RequestedToken::HandOver(next.ok_or(Denial::DelegationNotAllowed)?, resource))
            }
        }
    }

    /// Returns the resource of the presented token, for a hand-over that does not name one.
    fn implied_resource<'a>(
        registry: &'a Registry,
        request: &ExchangeRequest,
        subject: Evidence<'_>,
    ) -> Option<&'a Resource> {
        match subject {
            Evidence::Own(own, TokenKind::Access) if request.requested_actor.is_some() => {
                own.aud.parse().ok().and_then(|uri| registry.resource_at(&uri))
            }
            Evidence::Own(..) | Evidence::User(..) => None,
        }
    }
}

/// Describes an unknown target, and names the registered URI that the client most likely means: one
/// of a resource that the client has access to.
fn unknown_target(rule: &'static str, caller: &IdentifiedClient, sent: &str) -> Error {
    let nearest =
        caller.client().ok().and_then(|client| caller.snapshot().registry.nearest_resource(client, sent).cloned());
    RequestError::UnknownTarget { rule, nearest }.into()
}
