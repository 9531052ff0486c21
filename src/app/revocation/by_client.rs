//! Taking back by clients (RFC 7009): what they hold themselves, and what came of it.

use crate::{
    app::{
        AuthenticatedClient, Error, RequestContext, RequestError, Service, Snapshot, TokenError,
        exchange::evidence::IssuedToken,
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
    /// Takes back a token for its client, or for the client of a token that it was derived from. What is no live token
    /// of ours is already what was wanted (RFC 7009 §2.2). Says how far it got, once that is everywhere.
    pub async fn revoke_token(
        &self,
        caller: &AuthenticatedClient,
        token: &str,
        cx: &RequestContext,
    ) -> Result<Option<Propagation>, Error> {
        let Some((ours, view)) = self.resolve_token_to_revoke(caller, token, cx).await? else { return Ok(None) };
        let (names, expires, may, record) = match &ours {
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
        let id = names.token;
        let record = Record {
            client: Some(caller.id().clone()),
            token: Some(id),
            request_id: Some(cx.request_id.clone()),
            ..record
        };
        if !may {
            let refusal = RequestError::NotTokenOwner;
            let record = Record { outcome: Outcome::Refused, reason: Some(refusal.to_string()), ..record };
            self.0.writer.commit(WriteSet { audit_records: vec![record], ..WriteSet::default() }).await?;
            return Err(refusal.into());
        }
        if view.is_revoked(&names) {
            // Here; whoever asks again because the first answer got lost must find it so everywhere.
            return Ok(Some(self.0.writer.await_propagation(self.applied_seq(), None).await?));
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
        Ok(self.0.writer.commit_and_propagate(write, None).await?.1)
    }

    /// A token of ours, also one that only others may still take for good, and what is known of the log then. What is none is
    /// good nowhere when this returns.
    async fn resolve_token_to_revoke(
        &self,
        caller: &AuthenticatedClient,
        token: &str,
        cx: &RequestContext,
    ) -> Result<Option<(IssuedToken, Snapshot)>, Error> {
        let read = || UnverifiedJws::parse(token).map_err(TokenError::from);
        let look = || self.verify_own_signature(read()?.into(), earliest_peer_time(cx));
        let fault = match look() {
            Ok((ours, _)) => return Ok(Some((ours, caller.snapshot().clone()))),
            Err(fault) => fault,
        };
        let says_ours = read().is_ok_and(|jws| jws.claimed_issuer() == Some(self.settings().issuer.as_str()));
        if !matches!(fault, TokenError::BadSignature) || !says_ours {
            return Ok(None);
        }
        // Its key may be one that we have not heard of yet.
        let snapshot = self.0.follower.committed_snapshot(cx.now).await?;
        if let Ok((ours, _)) = look() {
            return Ok(Some((ours, snapshot)));
        }
        // Or one that was taken back, and not everybody has heard of that.
        self.0.writer.await_barrier().await?;
        Ok(None)
    }

    /// The client of the token, or of an ancestor: every ancestor's client stands in its chain.
    fn may_revoke(&self, caller: &AuthenticatedClient, claims: &TaskTokenClaims) -> bool {
        let ours = self.settings().issuer.as_str();
        claims.client_id == *caller.id()
            || claims.act.actors().any(|hop| hop.iss == ours && hop.sub == caller.id().as_str())
    }
}

/// What somebody else's clock may say: for them a token may live on, and its key be published.
fn earliest_peer_time(cx: &RequestContext) -> Timestamp {
    cx.now.saturating_sub(MAX_CLOCK_SKEW)
}

fn audit_record(claims: &TaskTokenClaims, cx: &RequestContext) -> Record {
    Record {
        requester: Some(claims.requester()),
        agents: claims.act.actors().map(|hop| hop.sub.clone()).collect(),
        task: Some(claims.txn),
        purpose: Some(claims.tctx.purpose.to_string()),
        authority_hash: Some(claims.task.authority_hash.clone()),
        resource: Some(claims.aud.clone()),
        ..Record::new(cx.now, Event::Revocation, Outcome::Done)
    }
}
