//! Revocation by clients (RFC 7009): of their own tokens, and of tokens derived from these.

use crate::{
    app::{
        AuthenticatedClient, Error, RequestContext, RequestError, Service, Snapshot, TokenError,
        auth::issued_token::IssuedToken,
    },
    domain::{
        audit::{Event, Outcome, Record},
        jose::jws::UnverifiedJws,
        replication::Propagation,
        revocation::{LogAction, NewEntry, Target, retain_until},
        settings::MAX_CLOCK_SKEW,
        time::Timestamp,
        token::TaskTokenClaims,
    },
    ports::WriteSet,
};

impl Service {
    /// Revokes a token for its client, or for the client of an ancestor. A string that is not a
    /// live token of Errand needs no revocation (RFC 7009 §2.2). Returns how far the revocation is
    /// propagated.
    pub async fn revoke_token(
        &self,
        caller: &AuthenticatedClient,
        token: &str,
        cx: &RequestContext,
    ) -> Result<Option<Propagation>, Error> {
        let Some((token, snapshot)) = self.resolve_token_to_revoke(caller, token, cx).await? else { return Ok(None) };
        let (keys, expires, may_revoke, record) = match &token {
            IssuedToken::Api(claims) => {
                let record = Record::new(cx.now, Event::Revocation, Outcome::Done);
                (claims.revocation_keys(), claims.exp, claims.client_id == *caller.id(), record)
            }
            IssuedToken::Task(claims, _) => {
                (claims.revocation_keys(), claims.exp, self.may_revoke(caller, claims), audit_record(claims, cx))
            }
        };
        if expires.has_passed(earliest_peer_time(cx)) {
            return Ok(None);
        }
        let id = keys.token;
        let record = Record {
            client: Some(caller.id().clone()),
            token: Some(id),
            request_id: Some(cx.request_id.clone()),
            source: cx.source_text(),
            ..record
        };
        if !may_revoke {
            let refusal = RequestError::NotTokenOwner;
            let record = Record { outcome: Outcome::Refused, reason: Some(refusal.to_string()), ..record };
            self.commit_records(self.inner.refusals.sample(record)).await?;
            return Err(refusal.into());
        }
        if snapshot.is_revoked(&keys) {
            // Revoked as far as this replica knows. A client that retries after a lost answer must
            // find the token revoked everywhere.
            return Ok(Some(self.inner.writer.await_propagation(self.applied_seq(), None).await?));
        }
        let entry = NewEntry {
            verb: LogAction::Revoke,
            target: Target::Token(id),
            reason: "revoked by its client".into(),
            by: format!("client:{}", caller.id()),
            at: cx.now,
            forget_after: retain_until(expires, cx.now),
        };
        let write = WriteSet { log_entries: vec![entry], audit_records: vec![record], ..WriteSet::default() };
        Ok(self.inner.writer.commit_and_propagate(write, None).await?.1)
    }

    /// Parses and verifies a token of Errand, and returns it with a snapshot of the log. A token
    /// that only other replicas still accept counts too. `None` means that no replica accepts the
    /// string as a token when this returns.
    async fn resolve_token_to_revoke(
        &self,
        caller: &AuthenticatedClient,
        token: &str,
        cx: &RequestContext,
    ) -> Result<Option<(IssuedToken, Snapshot)>, Error> {
        let parse = || UnverifiedJws::parse(token).map_err(TokenError::from);
        let verify = || self.verify_own_signature(parse()?.into(), earliest_peer_time(cx));
        let error = match verify() {
            Ok((issued, _)) => return Ok(Some((issued, caller.snapshot().clone()))),
            Err(error) => error,
        };
        let claims_own_issuer = parse().is_ok_and(|jws| jws.claimed_issuer() == Some(self.settings().issuer.as_str()));
        if !matches!(error, TokenError::BadSignature) || !claims_own_issuer {
            return Ok(None);
        }
        // Another replica may have created the key a moment ago.
        let snapshot = self.inner.follower.committed_snapshot(cx.now).await?;
        if let Ok((issued, _)) = verify() {
            return Ok(Some((issued, snapshot)));
        }
        // The key may have been revoked, and another replica may not have applied that yet.
        self.inner.writer.await_barrier().await?;
        Ok(None)
    }

    /// Returns whether the client received the token or an ancestor of it: the actor chain names
    /// the client of every ancestor.
    fn may_revoke(&self, caller: &AuthenticatedClient, claims: &TaskTokenClaims) -> bool {
        let settings = self.settings();
        let issuer = settings.issuer.as_str();
        claims.client_id == *caller.id()
            || claims.act.actors().any(|actor| actor.iss == issuer && actor.sub == caller.id().as_str())
    }
}

/// Returns the earliest time that the clock of another replica may show. There, the token may be
/// unexpired, and its key published.
fn earliest_peer_time(cx: &RequestContext) -> Timestamp {
    cx.now.saturating_sub(MAX_CLOCK_SKEW)
}

fn audit_record(claims: &TaskTokenClaims, cx: &RequestContext) -> Record {
    Record {
        requester: Some(claims.requester()),
        agents: claims.act.audit_names(&claims.iss),
        task: Some(claims.txn),
        purpose: Some(claims.tctx.purpose.to_string()),
        authority_hash: Some(claims.task.authority_hash.clone()),
        resource: Some(claims.aud.clone()),
        ..Record::new(cx.now, Event::Revocation, Outcome::Done)
    }
}
