//! Tokens for Errand's own APIs: `client_credentials` (RFC 6749 §4.4) gives one, and a bearer of one may call.

use std::sync::Arc;

use crate::{
    app::{
        AuthFault, AuthenticatedClient, BadRequest, Cx, Failure, Service, Unsettled, View, evidence::Ours,
        verified::Known,
    },
    domain::{
        audit::{Event, Outcome, Record},
        authority::Authority,
        client::API_ADMIN,
        id::{ClientId, TokenId},
        jws::Unread,
        revocation::{Names, Seq, Standing},
        scope::ScopeSet,
        secret::Secret,
        time::Lifetime,
        token::{ApiTokenClaims, TokenDigest, TokenKind, check_end},
    },
    ports::{OneTimeId, Outage, TokenRecord, Write},
};

/// The client id of the token that `errand admin token` makes: no registered client can have it.
const BOOTSTRAP: &str = "errand-bootstrap";

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
    pub fn name(&self) -> String {
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
    pub async fn client_credentials(
        &self,
        caller: Unsettled,
        scope: Option<ScopeSet>,
        cx: &Cx,
    ) -> Result<ApiToken, Failure> {
        let (caller, once) = caller.into_parts();
        let allowed = caller.client()?.api_scopes();
        let scope = scope.unwrap_or_else(|| allowed.clone());
        if scope.is_within(&allowed) {
            return self.issue_api_token(caller.id().clone(), scope, caller.view().seq, once, cx).await;
        }
        let refusal = BadRequest::ApiScope;
        let record = Record {
            client: Some(caller.id().clone()),
            reason: Some(refusal.to_string()),
            request_id: Some(cx.request_id.clone()),
            ..Record::new(cx.now, Event::TokenIssue, Outcome::Refused)
        };
        self.redeem(caller.id(), Write { once, audit: vec![record], ..Write::default() }, cx).await?;
        Err(refusal.into())
    }

    /// An admin token for whoever can read the server's own keys: `errand admin token`.
    pub async fn bootstrap_token(&self, cx: &Cx) -> Result<ApiToken, Failure> {
        let view = self.0.follower.current(cx.now).await?;
        let client = BOOTSTRAP.parse::<ClientId>().map_err(Outage::during("name the bootstrap client"))?;
        let scope = API_ADMIN.parse::<ScopeSet>().map_err(Outage::during("name the admin scope"))?;
        self.issue_api_token(client, scope, view.seq, Vec::new(), cx).await
    }

    async fn issue_api_token(
        &self,
        client: ClientId,
        scope: ScopeSet,
        rev: Seq,
        once: Vec<OneTimeId>,
        cx: &Cx,
    ) -> Result<ApiToken, Failure> {
        let settings = self.settings();
        let expires_in = settings.tokens.api_token_lifetime;
        let claims = ApiTokenClaims {
            iss: settings.issuer.clone(),
            aud: settings.issuer.to_string(),
            sub: client.clone(),
            client_id: client.clone(),
            iat: cx.now,
            exp: cx.now.after(expires_in),
            jti: TokenId::new(self.0.parts.entropy.uuid()),
            rev,
            scope: scope.clone(),
        };
        let payload = serde_json::to_vec(&claims).map_err(Outage::during("write the claims"))?;
        let token = self.0.parts.signer.sign(settings.algorithm, TokenKind::Api.typ(), &payload, cx.now)?;
        let write = Write {
            once,
            audit: vec![Record {
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
                status: None,
            }),
            ..Write::default()
        };
        self.redeem(&client, write, cx).await?;
        Ok(ApiToken { token: Secret::new(token), expires_in, scope })
    }

    /// Whether a bearer token is a live API token with one of these scopes, of a client that may still have it. `call` is
    /// what it is wanted for, for the record when it is not enough.
    pub async fn authorize(&self, bearer: &Secret, wanted: &[&str], call: &str, cx: &Cx) -> Result<ApiCaller, Failure> {
        let view = self.0.follower.current(cx.now).await?;
        let known = self.live_api_token(bearer.expose(), &view, cx)?;
        let claims = &known.claims;
        let may_still = if claims.sub.as_str() == BOOTSTRAP {
            claims.scope.clone()
        } else {
            let client = view.registry.client(&claims.sub).filter(|client| !client.is_disabled());
            client.ok_or(AuthFault::Bearer)?.api_scopes()
        };
        let fits =
            |scope: &&str| scope.parse().is_ok_and(|scope| claims.scope.contains(&scope) && may_still.contains(&scope));
        if !wanted.iter().any(fits) {
            self.0.journal.note(Record {
                client: Some(claims.sub.clone()),
                token: Some(claims.jti),
                asked: Some(serde_json::json!({"call": call, "scopes": wanted})),
                reason: Some(AuthFault::Scope.to_string()),
                request_id: Some(cx.request_id.clone()),
                ..Record::new(cx.now, Event::ClientAuthenticate, Outcome::Refused)
            });
            return Err(AuthFault::Scope.into());
        }
        Ok(ApiCaller { client: AuthenticatedClient::by_api_token(claims.sub.clone(), view) })
    }

    /// A live API token: from memory if it was found good before, or else verified. What is found and not good any more
    /// is verified all the same, so that the time it takes tells nothing.
    fn live_api_token(&self, bearer: &str, view: &View, cx: &Cx) -> Result<Arc<Known<ApiTokenClaims>>, AuthFault> {
        let is_live = |names: &Names| view.standing(names) == Standing::Live;
        let digest = TokenDigest::of(bearer);
        if let Some(known) = digest.and_then(|digest| self.0.verified.api(&digest))
            && self.0.parts.signer.publishes(&known.key, cx.now)
            && check_end(known.claims.exp, cx.now).is_ok()
            && is_live(&known.names)
        {
            return Ok(known);
        }
        let jws = Unread::parse(bearer).map_err(|_| AuthFault::Bearer)?;
        let Ok((Ours::Api(claims), key)) = self.own_by_key(jws, cx.now) else {
            return Err(AuthFault::Bearer);
        };
        let names = claims.names();
        if claims.aud != self.settings().issuer.as_str() || !is_live(&names) {
            return Err(AuthFault::Bearer);
        }
        let known = Arc::new(Known::api(*claims, names, key, bearer.len()));
        if let Some(digest) = digest {
            self.0.verified.keep_api(digest, Arc::clone(&known));
        }
        Ok(known)
    }
}
