//! Taking back by clients (RFC 7009): what they hold themselves, and what came of it.

use crate::{
    app::{
        AuthenticatedClient, BadRequest, Cx, Failure, Service, SubjectFault, View, evidence::Ours, revoke::forgotten,
    },
    domain::{
        audit::{Event, Outcome, Record},
        jws::Unverified,
        limits::CLOCKS_MAY_DIFFER,
        replica::Spread,
        revocation::{NewEntry, Target, Verb},
        time::Timestamp,
        token::TaskTokenClaims,
    },
    ports::Write,
};

impl Service {
    /// Takes back a token for its client, or for the client of a token that it was derived from. What is no live token
    /// of ours is already what was wanted (RFC 7009 §2.2). Says how far it got, once that is everywhere.
    pub async fn revoke_own(
        &self,
        caller: &AuthenticatedClient,
        token: &str,
        cx: &Cx,
    ) -> Result<Option<Spread>, Failure> {
        let Some((ours, view)) = self.known_for_revocation(caller, token, cx).await? else { return Ok(None) };
        let (names, expires, may, record) = match &ours {
            Ours::Api(claims) => {
                let record = Record::new(cx.now, Event::Revocation, Outcome::Done);
                (claims.names(), claims.exp, claims.client_id == *caller.id(), record)
            }
            Ours::Task(claims, _) => (claims.names(), claims.exp, self.may_revoke(caller, claims), about(claims, cx)),
        };
        if expires.is_past(as_others_may_see_it(cx)) {
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
            let refusal = BadRequest::NotYourToken;
            let record = Record { outcome: Outcome::Refused, reason: Some(refusal.to_string()), ..record };
            self.0.journal.commit(Write { audit: vec![record], ..Write::default() }).await?;
            return Err(refusal.into());
        }
        if view.is_ended(&names) {
            // Here; whoever asks again because the first answer got lost must find it so everywhere.
            return Ok(Some(self.0.journal.spread(self.log_applied(), None).await?));
        }
        let entry = NewEntry {
            verb: Verb::Revoke,
            target: Target::Token(id),
            reason: "revoked by its client".into(),
            by: format!("client:{}", caller.id()),
            at: cx.now,
            forget_after: forgotten(expires, cx.now),
        };
        let write = Write { log: vec![entry], audit: vec![record], ..Write::default() };
        Ok(self.0.journal.publish(write, None).await?.1)
    }

    /// A token of ours, also one that only others may still take for good, and what is known of the log then. What is none is
    /// good nowhere when this returns.
    async fn known_for_revocation(
        &self,
        caller: &AuthenticatedClient,
        token: &str,
        cx: &Cx,
    ) -> Result<Option<(Ours, View)>, Failure> {
        let read = || Unverified::parse(token).map_err(SubjectFault::from);
        let look = || self.issued_here(read()?.into(), as_others_may_see_it(cx));
        let fault = match look() {
            Ok((ours, _)) => return Ok(Some((ours, caller.view().clone()))),
            Err(fault) => fault,
        };
        let says_ours = read().is_ok_and(|jws| jws.claimed_issuer() == Some(self.settings().issuer.as_str()));
        if !matches!(fault, SubjectFault::Signature) || !says_ours {
            return Ok(None);
        }
        // Its key may be one that we have not heard of yet.
        let view = self.0.follower.latest(cx.now).await?;
        if let Ok((ours, _)) = look() {
            return Ok(Some((ours, view)));
        }
        // Or one that was taken back, and not everybody has heard of that.
        self.0.journal.settle().await?;
        Ok(None)
    }

    /// The client of the token, or of an ancestor: every ancestor's client stands in its chain.
    fn may_revoke(&self, caller: &AuthenticatedClient, claims: &TaskTokenClaims) -> bool {
        let ours = self.settings().issuer.as_str();
        claims.client_id == *caller.id()
            || claims.act.hops().any(|hop| hop.iss == ours && hop.sub == caller.id().as_str())
    }
}

/// What somebody else's clock may say: for them a token may live on, and its key be published.
fn as_others_may_see_it(cx: &Cx) -> Timestamp {
    cx.now.before(CLOCKS_MAY_DIFFER)
}

fn about(claims: &TaskTokenClaims, cx: &Cx) -> Record {
    Record {
        requester: Some(claims.requester()),
        agents: claims.act.hops().map(|hop| hop.sub.clone()).collect(),
        task: Some(claims.txn),
        purpose: Some(claims.tctx.purpose.to_string()),
        authority_hash: Some(claims.task.authority_hash.clone()),
        resource: Some(claims.aud.clone()),
        ..Record::new(cx.now, Event::Revocation, Outcome::Done)
    }
}
