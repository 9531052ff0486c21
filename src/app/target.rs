//! What a token is to be for: exactly one registered target (RFC 8707).

use serde_json::{Map, Value, json};

use crate::{
    app::{BadRequest, ExchangeRequest, Failure, RequestedType, Service, authenticate::Identified},
    domain::{
        client::{Agent, Resource},
        exchange::{Evidence, Output},
        id::ClientId,
        registry::Registry,
        token::TokenKind,
        uri::ResourceUri,
    },
};

impl Service {
    /// Exactly one registered target (RFC 8707): a resource by its URI or its registered name, or the trust domain.
    pub(super) fn output<'a>(
        &self,
        caller: &'a Identified,
        request: &ExchangeRequest,
        subject: Evidence<'_>,
    ) -> Result<Output<'a>, Failure> {
        let registry = &caller.view().registry;
        let target = |text| Failure::Request(BadRequest::Target(text));
        if request.requested == RequestedType::TxnToken {
            let is_domain = request.audience.as_deref() == Some(self.settings().trust_domain.as_str());
            return if is_domain && request.resource.is_none() && request.requested_actor.is_none() {
                Ok(Output::Txn)
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
            (None, None) => Self::implied(registry, request, subject).ok_or(target("name one `resource`"))?,
        };
        match &request.requested_actor {
            None => Ok(Output::Access(resource)),
            Some(id) => {
                let to: &Agent = registry.agent(id).ok_or(target("no agent is registered as `requested_actor`"))?;
                Ok(Output::HandOver(to, resource))
            }
        }
    }

    /// Who hands over a token for a resource need not name the resource again.
    fn implied<'a>(registry: &'a Registry, request: &ExchangeRequest, subject: Evidence<'_>) -> Option<&'a Resource> {
        match subject {
            Evidence::Own(own, TokenKind::Access) if request.requested_actor.is_some() => {
                own.aud.parse().ok().and_then(|uri| registry.resource_at(&uri))
            }
            Evidence::Own(..) | Evidence::User(..) => None,
        }
    }
}

impl ExchangeRequest {
    /// What was asked, as far as it is ours to repeat: parsed values, never a token.
    pub(super) fn asked(&self) -> Value {
        let mut asked = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                asked.insert(name.to_owned(), value);
            }
        };
        put("scope", self.scope.as_ref().map(|scope| json!(scope)));
        put("authorization_details", self.authorization_details.as_ref().map(|details| json!(details)));
        put("task_id", self.task_id.map(|id| json!(id)));
        put("requested_actor", self.requested_actor.as_ref().map(|id| json!(id)));
        put("expires_in", self.expires_in.map(|life| json!(life)));
        put("task_deadline", self.task_deadline.map(|life| json!(life)));
        if self.requested == RequestedType::TxnToken {
            put("requested_token_type", Some(json!("txn_token")));
        }
        Value::Object(asked)
    }
}
