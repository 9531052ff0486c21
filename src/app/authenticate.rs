//! Who is the client? RFC 6749 §2.3.1 (Basic) and RFC 7523 as 7523bis has it (signed assertion).
//!
//! An unknown client and a wrong credential get the same answer for the same work.

use crate::{
    app::{AuthFault, Cx, Failure, Service, View, follow},
    domain::{
        audit::{Event, Outcome, Record},
        claims::{AssertionRules, check_assertion},
        client::{AssertionAudience, Authentication, Client},
        id::ClientId,
        jws::Unverified,
        secret::{Secret, SecretTag},
    },
    ports::{KeyFault, OneTimeId, Write, Written},
};

/// What a request brings to prove who its client is. Exactly one method; the edge refuses more.
#[derive(Debug)]
pub enum Credentials {
    /// `client_secret_basic`
    Basic {
        /// The client id, form-decoded.
        client: String,
        /// The secret, form-decoded.
        secret: Secret,
    },
    /// `private_key_jwt`
    Assertion {
        /// `client_id`, where the request says it beside the assertion.
        client: Option<String>,
        /// The assertion.
        assertion: Secret,
    },
}

/// Proof that [`Service::authenticate`] said yes and that nothing is left to be redeemed. No other code can make one.
#[derive(Debug)]
pub struct AuthenticatedClient {
    id: ClientId,
    view: View,
}

impl AuthenticatedClient {
    /// Its client id.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        &self.id
    }

    /// What was known when it authenticated.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// The client itself.
    pub(super) fn client(&self) -> Result<Client<'_>, AuthFault> {
        self.view.registry.client(&self.id).ok_or(AuthFault::Unknown)
    }

    /// Used by the one other way to authenticate: an API token.
    pub(super) fn by_api_token(id: ClientId, view: follow::View) -> Self {
        Self { id, view }
    }
}

/// An authenticated client whose assertion has yet to be redeemed: either on its own, by [`settle`](Self::settle), or
/// together with what the request does.
#[derive(Debug)]
pub struct Unsettled {
    client: AuthenticatedClient,
    once: Vec<OneTimeId>,
}

impl Unsettled {
    /// Redeems the assertion on its own. A replayed one is refused here.
    pub async fn settle(self, service: &Service) -> Result<AuthenticatedClient, Failure> {
        if !self.once.is_empty() {
            let write = Write { once: self.once, ..Write::default() };
            if service.0.journal.commit(write).await? == Written::Replayed {
                return Err(AuthFault::Replayed.into());
            }
        }
        Ok(self.client)
    }

    /// The client, and what has to be redeemed in the transaction of what it does.
    pub(super) fn into_parts(self) -> (AuthenticatedClient, Vec<OneTimeId>) {
        (self.client, self.once)
    }
}

impl Service {
    /// Finds out who the client is, against the registry of this moment.
    pub async fn authenticate(&self, credentials: Credentials, cx: &Cx) -> Result<Unsettled, Failure> {
        let view = self.0.follower.current(cx.now).await?;
        let checked = match credentials {
            Credentials::Basic { client, secret } => {
                self.check_secret(&view, &client, &secret).map(|id| (id, Vec::new()))
            }
            Credentials::Assertion { client, assertion } => {
                self.check_client_assertion(&view, client.as_deref(), &assertion, cx).map(|(id, once)| (id, vec![once]))
            }
        };
        let (id, once) = checked.inspect_err(|fault| self.note_refused_client(*fault, cx))?;
        Ok(Unsettled { client: AuthenticatedClient { id, view }, once })
    }

    /// Notes a refused client. Anybody can cause one, so it never waits and is dropped first when there are too many;
    /// and what was claimed is not repeated.
    fn note_refused_client(&self, fault: AuthFault, cx: &Cx) {
        self.0.journal.note(Record {
            reason: Some(fault.to_string()),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, Event::ClientAuthenticate, Outcome::Refused)
        });
    }

    fn check_secret(&self, view: &View, client: &str, secret: &Secret) -> Result<ClientId, AuthFault> {
        let id = client.parse::<ClientId>().ok();
        let known = id.as_ref().and_then(|id| view.registry.client(id)).filter(|client| !client.is_disabled());
        let tag = known
            .filter(|client| matches!(client.authentication(), Authentication::ClientSecretBasic {}))
            .and_then(|client| view.registry.tag(client.id()));
        // The same work whether there is a tag or not: a tag of 32 zeros fits no secret.
        let nothing = SecretTag::from_bytes(vec![0; 32]);
        let right = self.0.parts.pepper.matches(client, secret, tag.unwrap_or(&nothing));
        match (id, known, tag) {
            (Some(id), Some(_), Some(_)) if right => Ok(id),
            (_, Some(_), Some(_)) => Err(AuthFault::Secret),
            (_, Some(_), None) => Err(AuthFault::Method),
            (_, None, _) => Err(AuthFault::Unknown),
        }
    }

    fn check_client_assertion(
        &self,
        view: &View,
        client: Option<&str>,
        assertion: &Secret,
        cx: &Cx,
    ) -> Result<(ClientId, OneTimeId), AuthFault> {
        let jws = Unverified::parse(assertion.expose()).map_err(|_| AuthFault::Malformed)?;
        let claimed = jws.claimed_subject().map(str::to_owned);
        // RFC 7521 §4.2: `client_id` is not needed, and must be the same when it is there.
        let named = match (client, claimed) {
            (Some(client), Some(claimed)) if client != claimed => None,
            (_, claimed) => claimed,
        };
        let id = named.and_then(|name| name.parse::<ClientId>().ok());
        let known = id.as_ref().and_then(|id| view.registry.client(id)).filter(|client| !client.is_disabled());
        match known {
            None => {
                self.0.parts.trusted.verify_nothing(jws);
                Err(AuthFault::Unknown)
            }
            Some(client) => {
                let once = self.check_assertion_of(client, jws, cx)?;
                Ok((client.id().clone(), once))
            }
        }
    }

    /// Checks an assertion that `client` should have signed. Also what an actor token of type `jwt` has to stand.
    pub(super) fn check_assertion_of(
        &self,
        client: Client<'_>,
        jws: Unverified<'_>,
        cx: &Cx,
    ) -> Result<OneTimeId, AuthFault> {
        let Authentication::PrivateKeyJwt { jwks, algorithms, assertion_audience } = client.authentication() else {
            self.0.parts.trusted.verify_nothing(jws);
            return Err(AuthFault::Method);
        };
        // rfc7523bis: explicit typing, or none in what older libraries make. `JWT` says nothing and is let in as none.
        let typed = !matches!(jws.header().typ.as_deref(), None | Some("jwt" | "client-authentication+jwt"));
        let claims = self.0.parts.trusted.verify_with(jwks, algorithms, jws).map_err(|fault| match fault {
            KeyFault::UnknownKey | KeyFault::Algorithm | KeyFault::Signature | KeyFault::Outage(_) => {
                AuthFault::Signature
            }
        })?;
        if typed {
            return Err(AuthFault::Type);
        }
        let settings = self.settings();
        let rules = AssertionRules {
            issuer: settings.issuer.as_str(),
            token_endpoint: match assertion_audience {
                AssertionAudience::Issuer => None,
                AssertionAudience::TokenEndpointToo => Some(settings.token_endpoint()),
            },
            leeway: settings.tokens.leeway,
            max_life: settings.tokens.max_assertion_lifetime,
        };
        let checked = check_assertion(&claims, client.id(), &rules, cx.now).map_err(AuthFault::Claim)?;
        Ok(OneTimeId { party: format!("client:{}", client.id()), id: checked.jti, keep_until: checked.remember_until })
    }
}
