//! Requests that may come again, by their `Idempotency-Key`: carried out once, and answered the same.

use serde::de::DeserializeOwned;

use crate::{
    app::{ConflictError, Error, RequestContext, Service, revocation::admin::IDEMPOTENCY_RETENTION},
    ports::{IdempotentRequest, Outage, WriteOutcome},
};

/// A request that has a key. What it is answered is filled in by whoever knows.
pub(in crate::app) fn build_idempotency(
    caller: String,
    key: Option<String>,
    fingerprint: String,
    cx: &RequestContext,
) -> Option<IdempotentRequest> {
    let keep_until = cx.now.saturating_add(IDEMPOTENCY_RETENTION);
    key.map(|key| IdempotentRequest { caller, key, fingerprint, response: String::new(), keep_until })
}

/// What this request was answered the first time, if that is what kept it from happening.
pub(in crate::app) fn read_stored_response<T: DeserializeOwned>(
    request: Option<&IdempotentRequest>,
    written: &WriteOutcome,
) -> Result<Option<T>, Error> {
    let WriteOutcome::AlreadyApplied { fingerprint, response: answer, .. } = written else { return Ok(None) };
    if request.is_none_or(|request| request.fingerprint != *fingerprint) {
        return Err(ConflictError::IdempotencyKeyReused.into());
    }
    Ok(Some(serde_json::from_str(answer).map_err(Outage::during("read an answer"))?))
}

impl Service {
    /// The same, before anything is done.
    pub(in crate::app) async fn find_stored_response<T: DeserializeOwned>(
        &self,
        request: Option<&IdempotentRequest>,
    ) -> Result<Option<T>, Error> {
        let Some(idempotency) = request else { return Ok(None) };
        let Some(before) = self.store().find_idempotent_response(&idempotency.caller, &idempotency.key).await? else {
            return Ok(None);
        };
        let answer = read_stored_response(request, &before)?;
        // Who hears the first answer again may not have heard it then: it holds now as well.
        if let WriteOutcome::AlreadyApplied { seq: Some(seq), .. } = before {
            self.inner.writer.await_propagation(seq, None).await?;
        }
        Ok(answer)
    }
}
