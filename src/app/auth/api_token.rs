//! API tokens: bearer tokens for Errand's own APIs, issued by the `client_credentials` grant (RFC
//! 6749 §4.4).

use std::sync::Arc;

use crate::{
    app::{
        AuthError, AuthenticatedClient, Error, LogicError, RequestContext, RequestError, Service, Snapshot,
        UnredeemedClient, auth::issued_token::IssuedToken, introspection::cache::CachedToken,
    },
    domain::{
        audit::{Event, Outcome, Record},
        authority::Authority,
        id::{ClientId, TokenId},
        jose::jws::CompactJws,
        registry::client::ADMIN_SCOPE,
        revocation::{LogPosition, RevocationKeys, Standing},
        scope::ScopeSet,
        secret::Secret,
        time::Lifetime,
        token::{ApiTokenClaims, TokenDigest, TokenKind, check_expiry, foreign_claims::ClaimError},
    },
    ports::{Outage, ReplayGuard, TokenRecord, WriteOutcome, WriteSet},
};

/// The client id of the token that `errand admin token` issues. It is reserved: no client can be
/// registered under it.
const BOOTSTRAP_CLIENT_ID: &str = "errand-bootstrap";

/// An issued API token.
#[derive(Debug)]
pub struct ApiToken {
    /// The token.
    pub token: Secret,
    /// Its lifetime.
    pub expires_in: Lifetime,
    /// The scopes it is valid for.
    pub scope: ScopeSet,
}

/// Proof that a request's bearer token is a live API token with the required scope.
#[derive(Debug)]
pub struct ApiCaller {
    client: AuthenticatedClient,
    approval: Option<String>,
}

impl ApiCaller {
    /// Returns the identity for records: `admin:ID`.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("admin:{}", self.client.id())
    }

    /// Adds the approval of a second person, as it was sent.
    #[must_use]
    pub fn with_approval(self, approval: Option<String>) -> Self {
        Self { approval, ..self }
    }

    /// Returns the approval of a second person, not verified.
    pub(in crate::app) fn approval(&self) -> Option<&str> {
        self.approval.as_deref()
    }

    /// Returns the client.
    #[must_use]
    pub fn client(&self) -> &AuthenticatedClient {
        &self.client
    }

    /// Returns the client, for endpoints that accept other credentials too.
    #[must_use]
    pub fn into_client(self) -> AuthenticatedClient {
        self.client
    }
}

impl Service {
    /// Issues an API token to a client, with the requested scopes, or with all scopes that the
    /// client is allowed.
    pub async fn issue_client_credentials_token(
        &self,
        caller: UnredeemedClient,
        scope: Option<ScopeSet>,
        cx: &RequestContext,
    ) -> Result<ApiToken, Error> {
        let (caller, replay_guards) = caller.into_parts();
        let allowed = caller.client()?.api_scopes();
        let scope = scope.unwrap_or_else(|| allowed.clone());
        if scope.is_subset_of(&allowed) {
            let rev = caller.snapshot().seq;
            return self.issue_api_token(caller.id().clone(), scope, rev, replay_guards, cx).await;
        }
        let error = RequestError::ScopeNotAllowed;
        let record = Record {
            client: Some(caller.id().clone()),
            reason: Some(error.to_string()),
            request_id: Some(cx.request_id.clone()),
            source: cx.source_text(),
            ..Record::new(cx.now, Event::TokenIssue, Outcome::Refused)
        };
        let audit_records = self.inner.refusals.sample(record);
        let write = WriteSet { replay_guards, audit_records, ..WriteSet::default() };
        self.redeem_refused(caller.id(), write, cx).await?;
        Err(error.into())
    }

    /// Issues an admin token to an operator who can read the server's own keys: `errand admin
    /// token`.
    pub async fn issue_bootstrap_token(&self, cx: &RequestContext) -> Result<ApiToken, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let client = BOOTSTRAP_CLIENT_ID.parse::<ClientId>().map_err(Outage::during("name the bootstrap client"))?;
        let scope = ADMIN_SCOPE.parse::<ScopeSet>().map_err(Outage::during("name the admin scope"))?;
        self.issue_api_token(client, scope, snapshot.seq, Vec::new(), cx).await
    }

    async fn issue_api_token(
        &self,
        client: ClientId,
        scope: ScopeSet,
        rev: LogPosition,
        replay_guards: Vec<ReplayGuard>,
        cx: &RequestContext,
    ) -> Result<ApiToken, Error> {
        let settings = self.settings();
        let expires_in = settings.tokens.api_token_lifetime;
        let claims = ApiTokenClaims {
            iss: settings.issuer.clone(),
            aud: settings.issuer.to_string(),
            sub: client.clone(),
            client_id: client.clone(),
            iat: cx.now,
            exp: cx.now.saturating_add(expires_in),
            jti: TokenId::new(self.inner.ports.entropy.new_uuid()),
            rev,
            scope: scope.clone(),
        };
        let payload = serde_json::to_vec(&claims).map_err(Outage::during("write the claims"))?;
        let token = self.inner.ports.signer.sign(settings.algorithm, TokenKind::Api.typ(), &payload, cx.now)?;
        let write = WriteSet {
            replay_guards,
            audit_records: vec![Record {
                client: Some(client.clone()),
                token: Some(claims.jti),
                resource: Some(claims.aud.clone()),
                granted: Some(serde_json::json!({"kind": TokenKind::Api, "scope": scope, "expires": claims.exp})),
                request_id: Some(cx.request_id.clone()),
                source: cx.source_text(),
                ..Record::new(cx.now, Event::TokenIssue, Outcome::Done)
            }],
            token: Some(TokenRecord {
                id: claims.jti,
                kind: TokenKind::Api,
                task: None,
                grant: None,
                break_glass: false,
                requester: None,
                client: client.clone(),
                agents: Vec::new(),
                audience: claims.aud,
                lineage: Vec::new(),
                authority: Authority::default(),
                issued: cx.now,
                expires: claims.exp,
                rev,
                status_index: None,
                evidence: None,
            }),
            ..WriteSet::default()
        };
        match self.redeem(&client, write, cx).await? {
            WriteOutcome::Committed { .. } => Ok(ApiToken { token: Secret::new(token), expires_in, scope }),
            // The client was disabled while the write was queued, so nothing was written.
            WriteOutcome::Conflict => Err(AuthError::UnknownClient.into()),
            WriteOutcome::AlreadyApplied { .. } | WriteOutcome::Replayed => {
                Err(LogicError::ImpossibleOutcome("already applied or replayed").into())
            }
        }
    }

    /// Authorizes a bearer token: it must be a live API token with one of these scopes, of a client
    /// that is still allowed that scope. `call` names the request in the record of a refusal.
    #[tracing::instrument(target = "errand::trace", level = "trace", name = "authenticate", skip_all)]
    pub async fn authorize(
        &self,
        bearer: &Secret,
        required_scopes: &[&str],
        call: &str,
        cx: &RequestContext,
    ) -> Result<ApiCaller, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let token = self.verify_api_token(bearer.expose(), &snapshot, cx)?;
        let claims = &token.claims;
        let current_scopes = if claims.sub.as_str() == BOOTSTRAP_CLIENT_ID {
            claims.scope.clone()
        } else {
            let client = snapshot.registry.client(&claims.sub).filter(|client| !client.is_disabled());
            client.ok_or(AuthError::InvalidBearer)?.api_scopes()
        };
        let has_scope = |scope: &&str| {
            scope.parse().is_ok_and(|scope| claims.scope.contains(&scope) && current_scopes.contains(&scope))
        };
        if !required_scopes.iter().any(has_scope) {
            self.enqueue_sampled(Record {
                client: Some(claims.sub.clone()),
                token: Some(claims.jti),
                requested: Some(serde_json::json!({"call": call, "scopes": required_scopes})),
                reason: Some(AuthError::InsufficientScope.to_string()),
                request_id: Some(cx.request_id.clone()),
                source: cx.source_text(),
                ..Record::new(cx.now, Event::ClientAuthenticate, Outcome::Refused)
            });
            return Err(AuthError::InsufficientScope.into());
        }
        Ok(ApiCaller { client: AuthenticatedClient::from_api_token(claims.sub.clone(), snapshot), approval: None })
    }

    /// Returns a live API token: from the cache if it was valid before, or else verified. A cached
    /// token that is no longer valid is verified all the same, so that the response time reveals
    /// nothing.
    fn verify_api_token(
        &self,
        bearer: &str,
        snapshot: &Snapshot,
        cx: &RequestContext,
    ) -> Result<Arc<CachedToken<ApiTokenClaims>>, AuthError> {
        let is_live = |keys: &RevocationKeys| snapshot.standing(keys) == Standing::Live;
        let digest = TokenDigest::of(bearer);
        if let Some(cached) = digest.and_then(|digest| self.inner.token_cache.get_api(&digest))
            && self.inner.ports.signer.is_published(&cached.key, cx.now)
            && check_expiry(cached.claims.exp, cx.now).is_ok()
            && is_live(&cached.revocation_keys)
        {
            return Ok(cached);
        }
        let jws = CompactJws::parse(bearer).map_err(|_| AuthError::InvalidBearer)?;
        let (claims, key) = match self.verify_own_signature(jws, cx.now) {
            Ok((IssuedToken::Api(claims), key)) => (claims, key),
            Ok((IssuedToken::Task(..), _)) => return Err(AuthError::TaskTokenAsBearer),
            Err(_) => return Err(AuthError::InvalidBearer),
        };
        check_expiry(claims.exp, cx.now).map_err(|error| match error {
            ClaimError::Expired => AuthError::ExpiredBearer,
            _ => AuthError::InvalidBearer,
        })?;
        let revocation_keys = claims.revocation_keys();
        if claims.aud != self.settings().issuer.as_str() || !is_live(&revocation_keys) {
            return Err(AuthError::InvalidBearer);
        }
        let cached = Arc::new(CachedToken::from_api(*claims, revocation_keys, key, bearer.len()));
        if let Some(digest) = digest {
            self.inner.token_cache.insert_api(digest, Arc::clone(&cached));
        }
        Ok(cached)
    }
}
