//! Tokens for Errand's own APIs: `client_credentials` (RFC 6749 §4.4) gives one, and a bearer of one may call.

use std::sync::Arc;

use crate::{
    app::{
        AuthError, AuthenticatedClient, Error, RequestContext, RequestError, Service, Snapshot, UnredeemedClient,
        exchange::evidence::IssuedToken, introspection::cache::CachedToken,
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
        token::{ApiTokenClaims, TokenDigest, TokenKind, check_expiry},
    },
    ports::{Outage, ReplayGuard, TokenRecord, WriteSet},
};

/// The client id of the token that `errand admin token` makes: no registered client can have it.
const BOOTSTRAP_CLIENT_ID: &str = "errand-bootstrap";

/// An issued API token.
#[derive(Debug)]
pub struct ApiToken {
    /// The token.
    pub token: Secret,
    /// How long it lives.
    pub expires_in: Lifetime,
    /// What it is good for.
    pub scope: ScopeSet,
}

/// Proof that a request's bearer token is a live API token with the scope that was asked for.
#[derive(Debug)]
pub struct ApiCaller {
    client: AuthenticatedClient,
}

impl ApiCaller {
    /// Who calls, for records: `admin:ID`.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("admin:{}", self.client.id())
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &AuthenticatedClient {
        &self.client
    }

    /// The client, for endpoints that take other credentials too.
    #[must_use]
    pub fn into_client(self) -> AuthenticatedClient {
        self.client
    }
}

impl Service {
    /// Gives a client an API token with the scopes it asks for, or with all that it may have.
    pub async fn issue_client_credentials_token(
        &self,
        caller: UnredeemedClient,
        scope: Option<ScopeSet>,
        cx: &RequestContext,
    ) -> Result<ApiToken, Error> {
        let (caller, once) = caller.into_parts();
        let allowed = caller.client()?.api_scopes();
        let scope = scope.unwrap_or_else(|| allowed.clone());
        if scope.is_subset_of(&allowed) {
            return self.issue_api_token(caller.id().clone(), scope, caller.snapshot().seq, once, cx).await;
        }
        let refusal = RequestError::ScopeNotAllowed;
        let record = Record {
            client: Some(caller.id().clone()),
            reason: Some(refusal.to_string()),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, Event::TokenIssue, Outcome::Refused)
        };
        self.redeem(
            caller.id(),
            WriteSet { replay_guards: once, audit_records: vec![record], ..WriteSet::default() },
            cx,
        )
        .await?;
        Err(refusal.into())
    }

    /// An admin token for whoever can read the server's own keys: `errand admin token`.
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
            }),
            ..WriteSet::default()
        };
        self.redeem(&client, write, cx).await?;
        Ok(ApiToken { token: Secret::new(token), expires_in, scope })
    }

    /// Whether a bearer token is a live API token with one of these scopes, of a client that may still have it. `call` is
    /// what it is wanted for, for the record when it is not enough.
    pub async fn authorize(
        &self,
        bearer: &Secret,
        required_scopes: &[&str],
        call: &str,
        cx: &RequestContext,
    ) -> Result<ApiCaller, Error> {
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let known = self.verify_api_token(bearer.expose(), &snapshot, cx)?;
        let claims = &known.claims;
        let current_scopes = if claims.sub.as_str() == BOOTSTRAP_CLIENT_ID {
            claims.scope.clone()
        } else {
            let client = snapshot.registry.client(&claims.sub).filter(|client| !client.is_disabled());
            client.ok_or(AuthError::InvalidBearer)?.api_scopes()
        };
        let fits = |scope: &&str| {
            scope.parse().is_ok_and(|scope| claims.scope.contains(&scope) && current_scopes.contains(&scope))
        };
        if !required_scopes.iter().any(fits) {
            self.inner.writer.enqueue_audit(Record {
                client: Some(claims.sub.clone()),
                token: Some(claims.jti),
                requested: Some(serde_json::json!({"call": call, "scopes": required_scopes})),
                reason: Some(AuthError::InsufficientScope.to_string()),
                request_id: Some(cx.request_id.clone()),
                ..Record::new(cx.now, Event::ClientAuthenticate, Outcome::Refused)
            });
            return Err(AuthError::InsufficientScope.into());
        }
        Ok(ApiCaller { client: AuthenticatedClient::from_api_token(claims.sub.clone(), snapshot) })
    }

    /// A live API token: from memory if it was found good before, or else verified. What is found and not good any more
    /// is verified all the same, so that the time it takes tells nothing.
    fn verify_api_token(
        &self,
        bearer: &str,
        snapshot: &Snapshot,
        cx: &RequestContext,
    ) -> Result<Arc<CachedToken<ApiTokenClaims>>, AuthError> {
        let is_live = |names: &RevocationKeys| snapshot.standing(names) == Standing::Live;
        let digest = TokenDigest::of(bearer);
        if let Some(known) = digest.and_then(|digest| self.inner.token_cache.get_api(&digest))
            && self.inner.ports.signer.is_published(&known.key, cx.now)
            && check_expiry(known.claims.exp, cx.now).is_ok()
            && is_live(&known.revocation_keys)
        {
            return Ok(known);
        }
        let jws = CompactJws::parse(bearer).map_err(|_| AuthError::InvalidBearer)?;
        let Ok((IssuedToken::Api(claims), key)) = self.verify_issued_with_key(jws, cx.now) else {
            return Err(AuthError::InvalidBearer);
        };
        let names = claims.revocation_keys();
        if claims.aud != self.settings().issuer.as_str() || !is_live(&names) {
            return Err(AuthError::InvalidBearer);
        }
        let known = Arc::new(CachedToken::from_api(*claims, names, key, bearer.len()));
        if let Some(digest) = digest {
            self.inner.token_cache.insert_api(digest, Arc::clone(&known));
        }
        Ok(known)
    }
}
