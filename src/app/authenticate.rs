//! Who is the client? RFC 6749 §2.3.1 (Basic) and RFC 7523 as 7523bis has it (signed assertion).
//!
//! An unknown client and a wrong credential get the same answer for the same work.

use crate::{
    app::{AuthFault, BadRequest, Cx, Failure, Service, View, follow},
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

/// A client whose credentials are right. Whether they were used before is not known yet, so it is no proof: it does not
/// leave the use-cases, and what is done for it is done in the write that redeems them.
#[derive(Debug)]
pub(super) struct Identified {
    id: ClientId,
    view: View,
}

impl Identified {
    /// Its client id.
    pub(super) fn id(&self) -> &ClientId {
        &self.id
    }

    /// What was known when it authenticated.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// The client itself.
    pub(super) fn client(&self) -> Result<Client<'_>, AuthFault> {
        self.view.registry.client(&self.id).ok_or(AuthFault::Unknown)
    }

    /// The same client by what is known later: as long as it proves who it is in the same way, with the same secret.
    pub(super) fn later(&self, view: View) -> Result<Self, AuthFault> {
        let now = view.registry.client(&self.id).filter(|client| !client.is_disabled()).ok_or(AuthFault::Unknown)?;
        let tag = |view: &View| view.registry.tag(&self.id).map(|owned| owned.tag.as_bytes().to_vec());
        if now.authentication() != self.client()?.authentication() || tag(&view) != tag(&self.view) {
            return Err(AuthFault::Changed);
        }
        Ok(Self { id: self.id.clone(), view })
    }
}

/// Proof that a client is who it says, and that nothing is left to be redeemed. Only [`Unsettled::settle`] and
/// [`Service::authorize`] make one.
#[derive(Debug)]
pub struct AuthenticatedClient(Identified);

impl AuthenticatedClient {
    /// Its client id.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        &self.0.id
    }

    /// What was known when it authenticated.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.0.view
    }

    /// The client itself.
    pub(super) fn client(&self) -> Result<Client<'_>, AuthFault> {
        self.0.client()
    }

    /// Used by the one other way to authenticate: an API token.
    pub(super) fn by_api_token(id: ClientId, view: follow::View) -> Self {
        Self(Identified { id, view })
    }
}

/// A client whose assertion has yet to be redeemed: on its own, by [`settle`](Self::settle), together with what the
/// request does, or with its refusal ([`Service::refuse_request`]). Whoever drops one lets the assertion be used again.
#[derive(Debug)]
#[must_use = "its assertion is not redeemed yet"]
pub struct Unsettled {
    client: Identified,
    once: Vec<OneTimeId>,
}

impl Unsettled {
    /// Redeems the assertion on its own. A replayed one is refused here.
    pub async fn settle(self, service: &Service, cx: &Cx) -> Result<AuthenticatedClient, Failure> {
        if !self.once.is_empty() {
            service.redeem(&self.client.id, Write { once: self.once, ..Write::default() }, cx).await?;
        }
        Ok(AuthenticatedClient(self.client))
    }

    /// The client, and what has to be redeemed in the transaction of what it does.
    pub(super) fn into_parts(self) -> (Identified, Vec<OneTimeId>) {
        (self.client, self.once)
    }
}

/// Why it is not a client, and which one it claims to be, if there is one of this name.
type NotAuthenticated = (AuthFault, Option<ClientId>);

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
        // Anybody can cause this, so it never waits and is dropped first when there are too many.
        let (id, once) = checked.map_err(|(fault, known)| {
            self.0.journal.note(refused_client(fault, known, cx));
            fault
        })?;
        Ok(Unsettled { client: Identified { id, view }, once })
    }

    /// Commits a write with the one-time ids that a client brought. If one of them was used before, nothing of it
    /// happens, and that is on record: somebody may have got hold of the client's assertion.
    pub(super) async fn redeem(&self, client: &ClientId, write: Write, cx: &Cx) -> Result<Written, Failure> {
        match self.0.journal.commit(write).await? {
            Written::Replayed => Err(self.replayed(client, cx).await),
            written => Ok(written),
        }
    }

    /// Refuses a client whose one-time id was used before: that is on record.
    pub(super) async fn replayed(&self, client: &ClientId, cx: &Cx) -> Failure {
        let audit = vec![refused_client(AuthFault::Replayed, Some(client.clone()), cx)];
        match self.0.journal.commit(Write { audit, ..Write::default() }).await {
            Ok(_) => AuthFault::Replayed.into(),
            Err(outage) => outage.into(),
        }
    }

    /// Refuses a request whose client is known but which is none: the refusal is on record, and the assertion is used up.
    pub async fn refuse_request(&self, caller: Unsettled, event: Event, bad: BadRequest, cx: &Cx) -> Failure {
        let record = Record {
            client: Some(caller.client.id.clone()),
            reason: Some(bad.to_string()),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, event, Outcome::Refused)
        };
        let write = Write { once: caller.once, audit: vec![record], ..Write::default() };
        match self.redeem(&caller.client.id, write, cx).await {
            Ok(_) => bad.into(),
            Err(failure) => failure,
        }
    }

    fn check_secret(&self, view: &View, client: &str, secret: &Secret) -> Result<ClientId, NotAuthenticated> {
        let id = client.parse::<ClientId>().ok();
        let registered = id.as_ref().and_then(|id| view.registry.client(id));
        let known = registered.filter(|client| !client.is_disabled());
        let tag = known
            .filter(|client| matches!(client.authentication(), Authentication::ClientSecretBasic {}))
            .and_then(|client| view.registry.tag(client.id()))
            .map(|owned| &owned.tag);
        // The same work whether there is a tag or not: a tag of 32 zeros fits no secret.
        let nothing = SecretTag::from_bytes(vec![0; 32]);
        let right = self.0.parts.pepper.matches(client, secret, tag.unwrap_or(&nothing));
        let fault = match (known, tag) {
            (Some(client), Some(_)) if right => return Ok(client.id().clone()),
            (Some(_), Some(_)) => AuthFault::Secret,
            (Some(_), None) => AuthFault::Method,
            (None, _) => AuthFault::Unknown,
        };
        Err((fault, registered.map(|client| client.id().clone())))
    }

    fn check_client_assertion(
        &self,
        view: &View,
        client: Option<&str>,
        assertion: &Secret,
        cx: &Cx,
    ) -> Result<(ClientId, OneTimeId), NotAuthenticated> {
        let jws = Unverified::parse(assertion.expose()).map_err(|_| (AuthFault::Malformed, None))?;
        let claimed = jws.claimed_subject().map(str::to_owned);
        // RFC 7521 §4.2: `client_id` is not needed, and must be the same when it is there.
        let named = match (client, claimed) {
            (Some(client), Some(claimed)) if client != claimed => None,
            (_, claimed) => claimed,
        };
        let id = named.and_then(|name| name.parse::<ClientId>().ok());
        let registered = id.as_ref().and_then(|id| view.registry.client(id));
        let checked = match registered.filter(|client| !client.is_disabled()) {
            None => {
                self.0.parts.trusted.verify_nothing(jws);
                Err(AuthFault::Unknown)
            }
            Some(client) => self.check_assertion_of(client, jws, cx).map(|once| (client.id().clone(), once)),
        };
        checked.map_err(|fault| (fault, registered.map(|client| client.id().clone())))
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

/// What was claimed is not repeated: a client is named when there is one of this name.
fn refused_client(fault: AuthFault, known: Option<ClientId>, cx: &Cx) -> Record {
    Record {
        client: known,
        reason: Some(fault.to_string()),
        request_id: Some(cx.request_id.clone()),
        ..Record::new(cx.now, Event::ClientAuthenticate, Outcome::Refused)
    }
}
