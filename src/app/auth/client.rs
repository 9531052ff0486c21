//! Client authentication: HTTP Basic (RFC 6749 §2.3.1) and signed assertions (RFC 7523, with the
//! rules of rfc7523bis).
//!
//! An unknown client and a wrong credential get the same response for the same work.

use crate::{
    app::{AuthError, Error, RequestContext, RequestError, Service, Snapshot},
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

/// The credentials in a request, of exactly one method. The HTTP layer rejects requests with more
/// than one.
#[derive(Debug)]
pub enum Credentials {
    /// `client_secret_basic`
    Basic {
        /// The client id, form-decoded.
        client: String,
        /// The secret, form-decoded.
        secret: Secret,
    },
    /// `client_secret_basic` with a secret that form encoding would have changed. Some clients,
    /// such as `curl -u`, do not encode it.
    AmbiguousBasic {
        /// The client id, form-decoded.
        client: String,
        /// The secret, form-decoded if that is possible, and as sent.
        secrets: Vec<Secret>,
    },
    /// `client_secret_post`
    Post {
        /// The client id.
        client: String,
        /// The secret.
        secret: Secret,
    },
    /// `private_key_jwt`
    Assertion {
        /// `client_id`, if the request has one in addition to the assertion.
        client: Option<String>,
        /// The assertion.
        assertion: Secret,
    },
}

/// A client with valid credentials. Whether they were used before is not known yet, so this is not
/// a proof of authentication: it does not leave the use-cases, and its effects are in the write
/// that redeems the credentials.
#[derive(Debug)]
pub(in crate::app) struct IdentifiedClient {
    id: ClientId,
    snapshot: Snapshot,
}

impl IdentifiedClient {
    /// Returns its client id.
    pub(in crate::app) fn id(&self) -> &ClientId {
        &self.id
    }

    /// Returns the snapshot at which it was authenticated.
    pub(in crate::app) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Returns its registration.
    pub(in crate::app) fn client(&self) -> Result<Client<'_>, AuthError> {
        self.snapshot.registry.client(&self.id).ok_or(AuthError::UnknownClient)
    }

    /// Returns the same client at a later snapshot, if its authentication method and its secret are
    /// unchanged.
    pub(in crate::app) fn revalidate(&self, snapshot: Snapshot) -> Result<Self, AuthError> {
        let current = snapshot
            .registry
            .client(&self.id)
            .filter(|client| !client.is_disabled())
            .ok_or(AuthError::UnknownClient)?;
        let tag =
            |snapshot: &Snapshot| snapshot.registry.secret_tag(&self.id).map(|owned| owned.tag.as_bytes().to_vec());
        if current.authentication() != self.client()?.authentication() || tag(&snapshot) != tag(&self.snapshot) {
            return Err(AuthError::CredentialsChanged);
        }
        Ok(Self { id: self.id.clone(), snapshot })
    }
}

/// Proof that a client is authenticated, with no credentials left to redeem. Only
/// [`UnredeemedClient::redeem`] and [`Service::authorize`] create one.
#[derive(Debug)]
pub struct AuthenticatedClient {
    client: IdentifiedClient,
}

impl AuthenticatedClient {
    /// Returns its client id.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        &self.client.id
    }

    /// Returns the snapshot at which it was authenticated.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.client.snapshot
    }

    /// Returns its registration.
    pub(in crate::app) fn client(&self) -> Result<Client<'_>, AuthError> {
        self.client.client()
    }

    /// Creates the proof for the bearer of a verified API token.
    pub(in crate::app) fn from_api_token(id: ClientId, snapshot: Snapshot) -> Self {
        Self { client: IdentifiedClient { id, snapshot } }
    }
}

/// A client whose assertion is not redeemed yet. It is redeemed on its own by
/// [`redeem`](Self::redeem), in the write of the request, or with the request's rejection
/// ([`Service::reject_request`]). If the value is dropped, the assertion can be used again.
#[derive(Debug)]
#[must_use = "its assertion is not redeemed yet"]
pub struct UnredeemedClient {
    client: IdentifiedClient,
    replay_guards: Vec<ReplayGuard>,
}

impl UnredeemedClient {
    /// Returns the client's id.
    #[must_use]
    pub fn id(&self) -> &ClientId {
        &self.client.id
    }

    /// Redeems the assertion on its own. Rejects one that was used before.
    pub async fn redeem(self, service: &Service, cx: &RequestContext) -> Result<AuthenticatedClient, Error> {
        if !self.replay_guards.is_empty() {
            service
                .redeem(&self.client.id, WriteSet { replay_guards: self.replay_guards, ..WriteSet::default() }, cx)
                .await?;
        }
        Ok(AuthenticatedClient { client: self.client })
    }

    /// Returns the client, and the one-time ids to redeem in the transaction of its request.
    pub(in crate::app) fn into_parts(self) -> (IdentifiedClient, Vec<ReplayGuard>) {
        (self.client, self.replay_guards)
    }
}

/// A client that is not authenticated.
struct RejectedClient {
    error: AuthError,
    /// The client that the request claims, if one is registered under that id.
    registered: Option<ClientId>,
}

impl Service {
    /// Authenticates a client against the current registry.
    #[tracing::instrument(target = "errand::trace", level = "trace", name = "authenticate", skip_all)]
    pub async fn authenticate(&self, credentials: Credentials, cx: &RequestContext) -> Result<UnredeemedClient, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let checked = match credentials {
            Credentials::Basic { client, secret } => {
                let method = Authentication::ClientSecretBasic {};
                self.check_secret(&snapshot, &client, &[secret], &method).map(|id| (id, Vec::new()))
            }
            Credentials::AmbiguousBasic { client, secrets } => {
                let method = Authentication::ClientSecretBasic {};
                self.check_secret(&snapshot, &client, &secrets, &method).map(|id| (id, Vec::new()))
            }
            Credentials::Post { client, secret } => {
                let method = Authentication::ClientSecretPost {};
                self.check_secret(&snapshot, &client, &[secret], &method).map(|id| (id, Vec::new()))
            }
            Credentials::Assertion { client, assertion } => self
                .check_client_assertion(&snapshot, client.as_deref(), &assertion, cx)
                .map(|(id, guard)| (id, vec![guard])),
        };
        // An unauthenticated request causes these records, so they do not wait for the store, and
        // are dropped when the queue is full.
        let (id, replay_guards) = checked.map_err(|RejectedClient { error, registered }| {
            self.enqueue_sampled(auth_failure_record(&error, registered, cx));
            error
        })?;
        Ok(UnredeemedClient { client: IdentifiedClient { id, snapshot }, replay_guards })
    }

    /// Returns whether a client may be registered with `client_secret_post`: also if the registry
    /// can't be read now, because naming a method that is supported is harmless.
    pub async fn has_client_secret_post(&self, cx: &RequestContext) -> bool {
        let snapshot = self.inner.follower.snapshot(cx.now).await;
        let is_post = |client: Client<'_>| *client.authentication() == Authentication::ClientSecretPost {};
        snapshot.map_or(true, |snapshot| snapshot.registry.clients().any(is_post))
    }

    /// Commits a write with the one-time ids of a client. If one of them was used before, nothing
    /// is written except a record of the replay: the client's assertion may be stolen.
    pub(in crate::app) async fn redeem(
        &self,
        client: &ClientId,
        write: WriteSet,
        cx: &RequestContext,
    ) -> Result<WriteOutcome, Error> {
        let replay_guards = write.replay_guards.clone();
        match self.inner.writer.commit(write).await? {
            WriteOutcome::Replayed => Err(self.reject_replayed_client(client, &replay_guards, cx).await),
            written => Ok(written),
        }
    }

    /// Rejects a client that has no other one-time ids than these, of which one was used before,
    /// and records that.
    pub(in crate::app) async fn reject_replayed_client(
        &self,
        client: &ClientId,
        replay_guards: &[ReplayGuard],
        cx: &RequestContext,
    ) -> Error {
        if let [guard] = replay_guards {
            self.inner.replays.insert(guard);
        }
        // A captured assertion can be replayed at will.
        let records = self.inner.refusals.sample(auth_failure_record(&AuthError::Replayed, Some(client.clone()), cx));
        match self.commit_records(records).await {
            Ok(()) => AuthError::Replayed.into(),
            Err(outage) => outage.into(),
        }
    }

    /// Rejects a malformed request of an identified client: records the refusal and redeems the
    /// assertion.
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
            source: cx.source_text(),
            ..Record::new(cx.now, event, Outcome::Refused)
        };
        let audit_records = self.inner.refusals.sample(record);
        let write = WriteSet { replay_guards: caller.replay_guards, audit_records, ..WriteSet::default() };
        match self.redeem_refused(&caller.client.id, write, cx).await {
            Ok(()) => error.into(),
            Err(failure) => failure,
        }
    }

    /// Commits the write of a refused request with the one-time ids of a client. A refusal that was
    /// only counted, of a request without one-time ids, needs no write.
    pub(in crate::app) async fn redeem_refused(
        &self,
        client: &ClientId,
        write: WriteSet,
        cx: &RequestContext,
    ) -> Result<(), Error> {
        if write.replay_guards.is_empty() && write.audit_records.is_empty() {
            return Ok(());
        }
        self.redeem(client, write, cx).await.map(|_| ())
    }

    /// Checks the secret of a client that is registered with this method. It is one of `secrets`,
    /// which are two readings of the same text.
    fn check_secret(
        &self,
        snapshot: &Snapshot,
        client: &str,
        secrets: &[Secret],
        method: &Authentication,
    ) -> Result<ClientId, RejectedClient> {
        let id = client.parse::<ClientId>().ok();
        let registered = id.as_ref().and_then(|id| snapshot.registry.client(id));
        let enabled = registered.filter(|client| !client.is_disabled());
        let tag = enabled
            .filter(|client| client.authentication() == method)
            .and_then(|client| snapshot.registry.secret_tag(client.id()))
            .map(|owned| &owned.tag);
        // The same work whether the client has a tag or not: a tag of 32 zeros matches no secret.
        let dummy = SecretTag::from_bytes(vec![0; 32]);
        let tag_or_dummy = tag.unwrap_or(&dummy);
        let is_match = |secret: &&Secret| self.inner.ports.pepper.matches(client, secret, tag_or_dummy);
        // Each reading is checked, so that the time does not depend on which one is right.
        let matches = secrets.iter().filter(is_match).count() > 0;
        let error = match (enabled, tag) {
            (Some(client), Some(_)) if matches => return Ok(client.id().clone()),
            (Some(_), Some(_)) => AuthError::WrongSecret,
            (Some(_), None) => AuthError::WrongMethod,
            (None, _) => AuthError::UnknownClient,
        };
        Err(RejectedClient { error, registered: registered.map(|client| client.id().clone()) })
    }

    fn check_client_assertion(
        &self,
        snapshot: &Snapshot,
        client: Option<&str>,
        assertion: &Secret,
        cx: &RequestContext,
    ) -> Result<(ClientId, ReplayGuard), RejectedClient> {
        let jws = UnverifiedJws::parse(assertion.expose())
            .map_err(|error| RejectedClient { error: AuthError::MalformedAssertion(error), registered: None })?;
        let claimed = jws.claimed_subject().map(str::to_owned);
        // RFC 7521 §4.2: `client_id` is optional, and must name the same client if present.
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
            Some(client) => self.check_assertion_of(client, jws, cx).and_then(|guard| {
                let is_replayed = self.inner.replays.contains(&guard, cx.now);
                if is_replayed { Err(AuthError::Replayed) } else { Ok((client.id().clone(), guard)) }
            }),
        };
        checked.map_err(|error| RejectedClient { error, registered: registered.map(|client| client.id().clone()) })
    }

    /// Checks an assertion that `client` should have signed. An actor token of type `jwt` must pass
    /// the same checks.
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
        // rfc7523bis requires an explicit type. Older libraries send no `typ`, or `JWT`, which
        // states nothing and is treated as absent.
        let has_wrong_typ = !matches!(jws.header().typ.as_deref(), None | Some("jwt" | "client-authentication+jwt"));
        let claims =
            self.inner.ports.trusted_keys.verify_with_keys(jwks, algorithms, jws).map_err(|error| match error {
                SignatureError::UnknownKey
                | SignatureError::WithdrawnKey
                | SignatureError::AlgorithmNotAllowed
                | SignatureError::InvalidSignature
                | SignatureError::Outage(_) => AuthError::BadSignature,
            })?;
        if has_wrong_typ {
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

/// Builds the record of a failed authentication. `client` is the claimed client, if it is
/// registered; other claims are not repeated.
pub(in crate::app) fn auth_failure_record(error: &AuthError, client: Option<ClientId>, cx: &RequestContext) -> Record {
    Record {
        client,
        reason: Some(error.to_string()),
        request_id: Some(cx.request_id.clone()),
        source: cx.source_text(),
        ..Record::new(cx.now, Event::ClientAuthenticate, Outcome::Refused)
    }
}
