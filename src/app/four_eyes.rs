//! Acts of admins that need a second person: one admin requests the act, and another approves it.
//!
//! Nothing is stored between the two. The refusal of the act has the request for approval, which
//! names the act in full. The approval is bound to a digest of the act, the requesting admin and a
//! time, and it is used once.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    app::{
        ApiCaller, ConflictError, Error, RequestContext, RequestError, Service,
        commit::approval::{APPROVAL_PARTY, Approval},
    },
    domain::{
        audit::{Event, Outcome, Record},
        decode_base64url, encode_base64url,
        four_eyes::{act_digest, check_person, check_requester, check_two_persons, is_declared},
        id::ClientId,
        registry::Registry,
        settings::MAX_BODY_BYTES,
        time::{Lifetime, Timestamp},
    },
    ports::{Outage, ReplayGuard, WriteSet},
};

/// How long after the refusal an act can be approved and carried out.
const APPROVAL_LIFETIME: Lifetime = Lifetime::minutes(15);
/// What the MACs of the two texts are about, so that neither passes for the other.
const REQUEST: &str = "approval request";
const APPROVAL: &str = "approval";
/// The room that the body of a request for approval needs beside the request.
const APPROVAL_BODY_OVERHEAD: usize = 256;

/// An act that waits for a second person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestedAct {
    /// The act: the event, its object, and what is requested.
    pub act: Value,
    /// The admin who requests it.
    pub by: ClientId,
    /// When the request expires.
    pub expires: Timestamp,
    /// The id of the request. An approval of it is used once.
    id: String,
    /// The digest of the act, as the server computes it when the act is repeated.
    act_digest: String,
}

/// The party that carries out an act.
#[derive(Clone, Copy, Debug)]
pub enum Actor<'a> {
    /// An admin, over REST.
    Admin(&'a ApiCaller),
    /// A command on the host, by the name in the audit trail. It needs no second person.
    Host(&'a str),
}

impl Actor<'_> {
    /// Returns the name of the party in the audit trail.
    pub(in crate::app) fn identity(self) -> String {
        match self {
            Self::Admin(admin) => admin.identity(),
            Self::Host(name) => name.to_owned(),
        }
    }
}

/// What a second person approved.
#[derive(Debug, Serialize, Deserialize)]
struct ApprovedAct {
    act_digest: String,
    approver: ClientId,
    by: ClientId,
    expires: Timestamp,
    id: String,
}

impl RequestedAct {
    /// Checks that the act can still be approved.
    fn check(&self, now: Timestamp) -> Result<(), &'static str> {
        if self.expires.has_passed(now) { Err("has expired; repeat the request") } else { Ok(()) }
    }
}

impl ApprovedAct {
    /// Checks that the approval is for this act of this admin, and can still be used.
    fn check(&self, act: &str, first: &ClientId, now: Timestamp) -> Result<(), &'static str> {
        if self.act_digest != act || self.by != *first {
            return Err("is for another request or another admin");
        }
        if self.expires.has_passed(now) { Err("has expired") } else { Ok(()) }
    }
}

/// The approval of an act.
#[derive(Debug)]
pub struct ApprovalReceipt {
    /// The act.
    pub request: RequestedAct,
    /// The text that the requesting admin sends with the act; `None` for a dry run.
    pub approval: Option<String>,
}

impl Service {
    /// Returns the approval of an act; `None` where acts need no second person. Without a valid
    /// approval, the error has the request for one.
    pub(in crate::app) fn find_approval(
        &self,
        admin: &ApiCaller,
        registry: &Registry,
        act: &Value,
        cx: &RequestContext,
    ) -> Result<Option<Approval>, ConflictError> {
        if !self.settings().four_eyes.is_in_effect(registry) {
            return Ok(None);
        }
        let first = admin.client().id();
        check_requester(registry, first)?;
        let Some(text) = admin.approval() else {
            let id = self.inner.ports.entropy.new_uuid().to_string();
            let expires = cx.now.saturating_add(APPROVAL_LIFETIME);
            let request =
                RequestedAct { act: act.clone(), by: first.clone(), expires, id, act_digest: act_digest(act) };
            let request = self.seal(REQUEST, &request);
            if request.len().saturating_add(APPROVAL_BODY_OVERHEAD) > MAX_BODY_BYTES {
                let text = "the act needs a second person, and is too large to be approved; change or accept fewer tools at a time, or declare the object in the configuration file";
                return Err(ConflictError::Inconsistent(text.into()));
            }
            return Err(ConflictError::ApprovalRequired(request.into()));
        };
        let act = act_digest(act);
        let approved = self.open::<ApprovedAct>(APPROVAL, text);
        let approved = approved.ok_or(ConflictError::ApprovalInvalid("is not one of this server"))?;
        approved.check(&act, first, cx.now).map_err(ConflictError::ApprovalInvalid)?;
        check_two_persons(registry, first, &approved.approver)?;
        let guard = |id: String, keep_until| ReplayGuard { party: APPROVAL_PARTY.into(), id, keep_until };
        let one = guard(approved.id, approved.expires.saturating_add(APPROVAL_LIFETIME));
        // What was requested before this use expires within this time.
        let same_act = guard(format!("{first} {act}"), cx.now.saturating_add(APPROVAL_LIFETIME));
        Ok(Some(Approval { by: format!("admin:{}", approved.approver), guards: [one, same_act] }))
    }

    /// Approves what another admin requests. A dry run only shows it.
    pub async fn approve_act(
        &self,
        admin: &ApiCaller,
        request: &str,
        is_dry_run: bool,
        cx: &RequestContext,
    ) -> Result<ApprovalReceipt, Error> {
        let invalid = |text| RequestError::InvalidParameter("request", text);
        let text = "is not the `approval_request` of a refused request";
        let request = self.open::<RequestedAct>(REQUEST, request).ok_or(invalid(text))?;
        if is_dry_run {
            return Ok(ApprovalReceipt { request, approval: None });
        }
        request.check(cx.now).map_err(invalid)?;
        let approver = admin.client().id();
        let record = Record {
            admin: Some(admin.identity()),
            requested: Some(json!({"act": request.act, "by": format!("admin:{}", request.by)})),
            request_id: Some(cx.request_id.clone()),
            source: cx.source_text(),
            ..Record::new(cx.now, Event::AdminApprove, Outcome::Done)
        };
        let snapshot = self.inner.follower.committed_snapshot(cx.now).await?;
        if let Err(error) = check_two_persons(&snapshot.registry, &request.by, approver) {
            return Err(self.record_refusal(record, ConflictError::from(error)).await);
        }
        let approved = ApprovedAct {
            act_digest: request.act_digest.clone(),
            approver: approver.clone(),
            by: request.by.clone(),
            expires: request.expires,
            id: request.id.clone(),
        };
        let write = WriteSet { audit_records: vec![record], ..WriteSet::default() };
        self.inner.writer.commit(write).await?;
        Ok(ApprovalReceipt { request, approval: Some(self.seal(APPROVAL, &approved)) })
    }

    /// Checks that an admin may review the use of an emergency grant: where acts need a second
    /// person, the reviewer is one. If no person made the grant, the reviewer may be the one who
    /// acted in the name of its maker, so the review needs an approval too.
    pub(in crate::app) fn find_review_approval(
        &self,
        admin: &ApiCaller,
        registry: &Registry,
        maker: &str,
        act: &Value,
        cx: &RequestContext,
    ) -> Result<Option<Approval>, ConflictError> {
        if !self.settings().four_eyes.is_in_effect(registry) {
            return Ok(None);
        }
        check_person(registry, admin.client().id())?;
        if maker.strip_prefix("admin:").is_some_and(|id| is_declared(registry, id)) {
            return Ok(None);
        }
        self.find_approval(admin, registry, act, cx)
    }

    fn seal(&self, kind: &str, value: &impl Serialize) -> String {
        // Plain structures of texts always serialize.
        let payload = encode_base64url(&serde_json::to_vec(value).unwrap_or_default());
        let mac = self.inner.ports.pepper.mac(&format!("{kind}\0{payload}"));
        format!("{payload}.{}", encode_base64url(&mac))
    }

    fn open<T: DeserializeOwned>(&self, kind: &str, text: &str) -> Option<T> {
        let (payload, mac) = text.split_once('.')?;
        let is_own = self.inner.ports.pepper.verify_mac(&format!("{kind}\0{payload}"), &decode_base64url(mac)?);
        if !is_own {
            return None;
        }
        serde_json::from_slice(&decode_base64url(payload)?).ok()
    }
}

/// Returns the act that a record describes, as both persons see it, with the state that it changes:
/// an approval does not cover the act on another state.
pub(in crate::app) fn act_of(record: &Record, current: Option<&Value>) -> Result<Value, Outage> {
    let event = serde_json::to_value(record.event).map_err(Outage::during("describe an act"))?;
    let Record { resource, requested, reason, .. } = record;
    Ok(json!({"event": event, "resource": resource, "requested": requested, "reason": reason, "current": current}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_and_approval_are_for_one_act_and_a_time() {
        let id = |text: &str| text.parse::<ClientId>().unwrap();
        let (at, expires) = (Timestamp::from_unix, Timestamp::from_unix(100));
        let (by, act_digest) = (id("ops"), "act".to_owned());
        let request =
            RequestedAct { act: json!({}), by: by.clone(), expires, id: "1".into(), act_digest: act_digest.clone() };
        assert_eq!(request.check(at(99)), Ok(()));
        assert_eq!(request.check(at(100)), Err("has expired; repeat the request"));
        let approved = ApprovedAct { act_digest, approver: id("boss"), by, expires, id: "1".into() };
        for (act, first, now, want) in [
            ("act", "ops", 99, Ok(())),
            ("act", "ops", 100, Err("has expired")),
            ("other", "ops", 99, Err("is for another request or another admin")),
            ("act", "boss", 99, Err("is for another request or another admin")),
        ] {
            assert_eq!(approved.check(act, &id(first), at(now)), want, "{act} {first} {now}");
        }
    }
}
