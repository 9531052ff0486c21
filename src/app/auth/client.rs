//! Who is the client? RFC 6749 §2.3.1 (Basic) and RFC 7523 as 7523bis has it (signed assertion).
//!
//! An unknown client and a wrong credential get the same answer for the same work.

use crate::{
    app::{AuthError, Error, RequestContext, RequestError, Service, Snapshot, auth::failures::auth_failure_record},
    domain::{
        audit::{Event, Outcome, Record},
        id::ClientId,
        jose::jws::UnverifiedJws,
        registry::client::{AssertionAudience, Authentication, Client},
        secret::{Secret, SecretTag},
        token::foreign_claims::{AssertionRules, check_assertion},
    },
    ports::{ReplayGuard, SignatureError, WriteOutcome, WriteSet},
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
pub(in crate::app) struct IdentifiedClient {
    id: ClientId,
    snapshot: Snapshot,
}

impl IdentifiedClient {
    /// Its client id.
    pub(in crate::app) fn id(&self) -> &ClientId {
        &self.id
    }

    /// What was known when it authenticated.
    pub(in crate::app) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The client itself.
    pub(in crate::app) fn client(&self) -> Result<Client<'_>, AuthError> {
        self.snapshot.registry.client(&self.id).ok_or(AuthError::UnknownClient)
    }

    /// The same client by what is known later: as long as it proves who it is in the same way, with the same secret.
    pub(in crate::app) fn revalidate(&self, snapshot: Snapshot) -> Result<Self, AuthError> {
        let now = snapshot
            .registry
            .client(&self.id)
            .filter(|client| !client.is_disabled())
            .ok_or(AuthError::UnknownClient)?;
        let tag =
            |snapshot: &Snapshot| snapshot.registry.secret_tag(&self.id).map(|owned| owned.tag.as_bytes().to_vec());
        if now.authentication() != self.client()?.authentication() || tag(&snapshot) != tag(&self.snapshot) {
            return Err(AuthError::CredentialsChanged);
        }
        Ok(Self { id: self.id.clone(), snapshot })
    }
}

/// Proof that a client is who it says, and that nothing is left to be redeemed. Only [`Unsettled::settle`] and
/// [`Service::authorize`] make one.
#[derive(Debug)]
pub struct AuthenticatedClient(IdentifiedClient);

impl AuthenticatedClient {
    /// Its client id.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        &self.0.id
    }

    /// What was known when it authenticated.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.0.snapshot
    }

    /// The client itself.
    pub(in crate::app) fn client(&self) -> Result<Client<'_>, AuthError> {
        self.0.client()
    }

    /// Used by the one other way to authenticate: an API token.
    pub(in crate::app) fn from_api_token(id: ClientId, snapshot: Snapshot) -> Self {
        Self(IdentifiedClient { id, snapshot })
    }
}

/// A client whose assertion has yet to be redeemed: on its own, by [`settle`](Self::settle), together with what the
/// request does, or with its refusal ([`Service::refuse_request`]). Whoever drops one lets the assertion be used again.
#[derive(Debug)]
#[must_use = "its assertion is not redeemed yet"]
pub struct UnredeemedClient {
    client: IdentifiedClient,
    replay_guards: Vec<ReplayGuard>,
}

impl UnredeemedClient {
    /// Redeems the assertion on its own. A replayed one is refused here.
    pub async fn redeem(self, service: &Service, cx: &RequestContext) -> Result<AuthenticatedClient, Error> {
        if !self.replay_guards.is_empty() {
            service
                .redeem(&self.client.id, WriteSet { replay_guards: self.replay_guards, ..WriteSet::default() }, cx)
                .await?;
        }
        Ok(AuthenticatedClient(self.client))
    }

    /// The client, and what has to be redeemed in the transaction of what it does.
    pub(in crate::app) fn into_parts(self) -> (IdentifiedClient, Vec<ReplayGuard>) {
        (self.client, self.replay_guards)
    }
}

/// Why it is not a client, and which one it claims to be, if there is one of this name.
type RejectedClient = (AuthError, Option<ClientId>);

impl Service {
    /// Finds out who the client is, against the registry of this moment.
    pub async fn authenticate(&self, credentials: Credentials, cx: &RequestContext) -> Result<UnredeemedClient, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let checked = match credentials {
            Credentials::Basic { client, secret } => {
                self.check_secret(&snapshot, &client, &secret).map(|id| (id, Vec::new()))
            }
            Credentials::Assertion { client, assertion } => self
                .check_client_assertion(&snapshot, client.as_deref(), &assertion, cx)
                .map(|(id, once)| (id, vec![once])),
        };
        // Anybody can cause this, so it never waits and is dropped first when there are too many.
        let (id, once) = checked.map_err(|(fault, known)| {
            for record in self.inner.auth_failures.add(fault, known, cx) {
                self.inner.writer.enqueue_audit(record);
            }
            fault
        })?;
        Ok(UnredeemedClient { client: IdentifiedClient { id, snapshot }, replay_guards: once })
    }

    /// Commits a write with the one-time ids that a client brought. If one of them was used before, nothing of it
    /// happens, and that is on record: somebody may have got hold of the client's assertion.
    pub(in crate::app) async fn redeem(
        &self,
        client: &ClientId,
        write: WriteSet,
        cx: &RequestContext,
    ) -> Result<WriteOutcome, Error> {
        match self.inner.writer.commit(write).await? {
            WriteOutcome::Replayed => Err(self.reject_replayed_client(client, cx).await),
            written => Ok(written),
        }
    }

    /// Refuses a client whose one-time id was used before: that is on record.
    pub(in crate::app) async fn reject_replayed_client(&self, client: &ClientId, cx: &RequestContext) -> Error {
        let audit = vec![auth_failure_record(AuthError::Replayed, Some(client.clone()), cx)];
        match self.inner.writer.commit(WriteSet { audit_records: audit, ..WriteSet::default() }).await {
            Ok(_) => AuthError::Replayed.into(),
            Err(outage) => outage.into(),
        }
    }

    /// Refuses a request whose client is known but which is none: the refusal is on record, and the assertion is used up.
    pub async fn reject_request(
        &self,
        caller: UnredeemedClient,
        event: Event,
        error: RequestError,
        cx: &RequestContext,
    ) -> Error {
        let record = Record {
            client: Some(caller.client.id.clone()),
            reason: Some(error.to_string()),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, event, Outcome::Refused)
        };
        let write =
            WriteSet { replay_guards: caller.replay_guards, audit_records: vec![record], ..WriteSet::default() };
        match self.redeem(&caller.client.id, write, cx).await {
            Ok(_) => error.into(),
            Err(failure) => failure,
        }
    }

    fn check_secret(&self, snapshot: &Snapshot, client: &str, secret: &Secret) -> Result<ClientId, RejectedClient> {
        let id = client.parse::<ClientId>().ok();
        let registered = id.as_ref().and_then(|id| snapshot.registry.client(id));
        let known = registered.filter(|client| !client.is_disabled());
        let tag = known
            .filter(|client| matches!(client.authentication(), Authentication::ClientSecretBasic {}))
            .and_then(|client| snapshot.registry.secret_tag(client.id()))
            .map(|owned| &owned.tag);
        // The same work whether there is a tag or not: a tag of 32 zeros fits no secret.
        let nothing = SecretTag::from_bytes(vec![0; 32]);
        let right = self.inner.ports.pepper.matches(client, secret, tag.unwrap_or(&nothing));
        let fault = match (known, tag) {
            (Some(client), Some(_)) if right => return Ok(client.id().clone()),
            (Some(_), Some(_)) => AuthError::WrongSecret,
            (Some(_), None) => AuthError::WrongMethod,
            (None, _) => AuthError::UnknownClient,
        };
        Err((fault, registered.map(|client| client.id().clone())))
    }

    fn check_client_assertion(
        &self,
        snapshot: &Snapshot,
        client: Option<&str>,
        assertion: &Secret,
        cx: &RequestContext,
    ) -> Result<(ClientId, ReplayGuard), RejectedClient> {
        let jws = UnverifiedJws::parse(assertion.expose()).map_err(|_| (AuthError::Malformed, None))?;
        let claimed = jws.claimed_subject().map(str::to_owned);
        // RFC 7521 §4.2: `client_id` is not needed, and must be the same when it is there.
        let named = match (client, claimed) {
            (Some(client), Some(claimed)) if client != claimed => None,
            (_, claimed) => claimed,
        };
        let id = named.and_then(|name| name.parse::<ClientId>().ok());
        let registered = id.as_ref().and_then(|id| snapshot.registry.client(id));
        let checked = match registered.filter(|client| !client.is_disabled()) {
            None => {
                self.inner.ports.trusted_keys.verify_dummy(jws);
                Err(AuthError::UnknownClient)
            }
            Some(client) => self.check_assertion_of(client, jws, cx).map(|once| (client.id().clone(), once)),
        };
        checked.map_err(|fault| (fault, registered.map(|client| client.id().clone())))
    }

    /// Checks an assertion that `client` should have signed. Also what an actor token of type `jwt` has to stand.
    pub(in crate::app) fn check_assertion_of(
        &self,
        client: Client<'_>,
        jws: UnverifiedJws<'_>,
        cx: &RequestContext,
    ) -> Result<ReplayGuard, AuthError> {
        let Authentication::PrivateKeyJwt { jwks, algorithms, assertion_audience } = client.authentication() else {
            self.inner.ports.trusted_keys.verify_dummy(jws);
            return Err(AuthError::WrongMethod);
        };
        // rfc7523bis: explicit typing, or none in what older libraries make. `JWT` says nothing and is let in as none.
        let typed = !matches!(jws.header().typ.as_deref(), None | Some("jwt" | "client-authentication+jwt"));
        let claims =
            self.inner.ports.trusted_keys.verify_with_keys(jwks, algorithms, jws).map_err(|fault| match fault {
                SignatureError::UnknownKey
                | SignatureError::AlgorithmNotAllowed
                | SignatureError::InvalidSignature
                | SignatureError::Outage(_) => AuthError::BadSignature,
            })?;
        if typed {
            return Err(AuthError::WrongTyp);
        }
        let settings = self.settings();
        let rules = AssertionRules {
            issuer: settings.issuer.as_str(),
            token_endpoint: match assertion_audience {
                AssertionAudience::Issuer => None,
                AssertionAudience::TokenEndpointToo => Some(settings.token_endpoint_url()),
            },
            leeway: settings.tokens.leeway,
            max_lifetime: settings.tokens.max_assertion_lifetime,
        };
        let checked = check_assertion(&claims, client.id(), &rules, cx.now).map_err(AuthError::BadClaim)?;
        Ok(ReplayGuard {
            party: format!("client:{}", client.id()),
            id: checked.jti,
            keep_until: checked.remember_until,
        })
    }
}
