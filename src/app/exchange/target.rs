//! What a token is to be for: exactly one registered target (RFC 8707).

use crate::{
    app::{Error, ExchangeRequest, RequestError, RequestedTokenType, Service, auth::client::IdentifiedClient},
    domain::{
        exchange::{Evidence, RequestedToken},
        id::ClientId,
        registry::{
            Registry,
            client::{Agent, Resource},
        },
        token::TokenKind,
        uri::ResourceUri,
    },
};

impl Service {
    /// Exactly one registered target (RFC 8707): a resource by its URI or its registered name, or the trust domain.
    pub(in crate::app) fn resolve_target<'a>(
        &self,
        caller: &'a IdentifiedClient,
        request: &ExchangeRequest,
        subject: Evidence<'_>,
    ) -> Result<RequestedToken<'a>, Error> {
        let registry = &caller.snapshot().registry;
        let target = |text| Error::Request(RequestError::InvalidTarget(text));
        if request.requested_token_type == RequestedTokenType::TxnToken {
            let is_domain = request.audience.as_deref() == Some(self.settings().trust_domain.as_str());
            return if is_domain && request.resource.is_none() && request.requested_actor.is_none() {
                Ok(RequestedToken::Txn)
            } else {
                Err(target("a transaction token is for the trust domain: say that in `audience`, and nothing else"))
            };
        }
        let by_uri = match &request.resource {
            None => None,
            Some(text) => {
                let uri = text.parse::<ResourceUri>().map_err(|_| target("`resource` is not the URI of a resource"))?;
                Some(registry.resource_at(&uri).ok_or(target("no resource is registered with this URI"))?)
            }
        };
        let by_name = match &request.audience {
            None => None,
            Some(name) => {
                let id = name.parse::<ClientId>().ok();
                let found = id.as_ref().and_then(|id| registry.resource(id));
                Some(found.ok_or(target("no resource is registered with this name"))?)
            }
        };
        let resource = match (by_uri, by_name) {
            (Some(uri), Some(name)) if uri.id != name.id => {
                return Err(target("`resource` and `audience` are not the same resource"));
            }
            (Some(resource), _) | (None, Some(resource)) => resource,
            (None, None) => Self::implied_resource(registry, request, subject).ok_or(target("name one `resource`"))?,
        };
        match &request.requested_actor {
            None => Ok(RequestedToken::Access(resource)),
            Some(id) => {
                let to: &Agent = registry.agent(id).ok_or(target("no agent is registered as `requested_actor`"))?;
                Ok(RequestedToken::HandOver(to, resource))
            }
        }
    }

    /// Who hands over a token for a resource need not name the resource again.
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
