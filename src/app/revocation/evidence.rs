//! The end of evidence: log entries by which no exchange accepts a user token any more.

use crate::{
    app::{RequestContext, Service},
    domain::{
        requester::Requester,
        revocation::{
            LogAction, NewEntry, Target,
            evidence::{EndedEvidence, EvidenceDigest},
            retain_until,
        },
        task::{Initiator, TaskAction},
        time::Timestamp,
    },
    ports::{EvidenceSelector, Outage},
};

impl Service {
    /// Returns the entries that end the selected user tokens for the agents that exchanged them.
    pub(in crate::app) async fn end_evidence_for_agents(
        &self,
        selector: &EvidenceSelector,
        by: &str,
        reason: &str,
        cx: &RequestContext,
    ) -> Result<Vec<NewEntry>, Outage> {
        let seen = self.reserved_store().list_evidence(selector, cx.now).await?;
        let entries = seen.into_iter().map(|seen| {
            let ended = EndedEvidence::ForAgent(seen.client, seen.token);
            entry(ended, retain_until(seen.expires, cx.now), by, reason, cx)
        });
        Ok(entries.collect())
    }

    /// Returns the entries that end all evidence of a requester: the tokens that were issued before
    /// now, those of this second that were exchanged, and every session that is known.
    pub(in crate::app) async fn end_evidence_of_requester(
        &self,
        requester: &Requester,
        by: &str,
        reason: &str,
        cx: &RequestContext,
    ) -> Result<Vec<NewEntry>, Outage> {
        let selector = EvidenceSelector::Requester(requester.clone(), cx.now);
        let seen = self.reserved_store().list_evidence(&selector, cx.now).await?;
        let sessions = self.reserved_store().list_sessions(requester).await?;
        // How long a session lasts, or a token of another issuer, is unknown.
        let forever = |ended| entry(ended, Timestamp::MAX, by, reason, cx);
        let token = |token: EvidenceDigest, expires: Timestamp| {
            entry(EndedEvidence::Token(token), retain_until(expires, cx.now), by, reason, cx)
        };
        let before = forever(EndedEvidence::Requester(Box::new(requester.clone())));
        // A session ends for good, so the next end of the requester need not end it again.
        let snapshot = self.inner.follower.snapshot(cx.now).await?;
        let sessions = sessions.into_iter().map(EndedEvidence::Session);
        let sessions = sessions.filter(|session| !snapshot.has_ended(session)).map(forever);
        let tokens = seen.into_iter().map(|seen| token(seen.token, seen.expires));
        Ok(std::iter::once(before).chain(sessions).chain(tokens).collect())
    }
}

/// Returns whether a transition ends the evidence of its task: a person or an admin ended it. An
/// agent that ends its own task may open the next one with the same user token.
pub(in crate::app) fn ends_evidence(action: TaskAction, by: &Initiator) -> bool {
    let is_end = match action {
        TaskAction::Complete | TaskAction::Fail | TaskAction::Revoke => true,
        TaskAction::Suspend | TaskAction::Resume | TaskAction::Expire => false,
    };
    is_end && matches!(by, Initiator::Requester(_) | Initiator::Admin(_))
}

fn entry(ended: EndedEvidence, forget_after: Timestamp, by: &str, reason: &str, cx: &RequestContext) -> NewEntry {
    NewEntry {
        verb: LogAction::Revoke,
        target: Target::Evidence(ended),
        reason: reason.to_owned(),
        by: by.to_owned(),
        at: cx.now,
        forget_after,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_by_person_or_admin_ends_evidence() {
        let requester =
            Requester { issuer: "https://login.example.com".parse().unwrap(), subject: "alice".parse().unwrap() };
        for (by, ends) in [
            (Initiator::Agent("planner".parse().unwrap()), false),
            (Initiator::Requester(requester), true),
            (Initiator::Admin("admin:ops".into()), true),
            (Initiator::Removal, false),
            (Initiator::Revocation, false),
            (Initiator::Deadline, false),
        ] {
            for action in TaskAction::ALL {
                let is_end = !matches!(action, TaskAction::Suspend | TaskAction::Resume | TaskAction::Expire);
                assert_eq!(ends_evidence(action, &by), ends && is_end, "{action:?} {by:?}");
            }
        }
    }
}
