//! Idempotency keys: a repeated request is carried out once, and gets the stored response of the
//! first one.

use std::{marker::PhantomData, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    app::{ConflictError, Error, LogicError, RequestContext, Service},
    domain::{replication::Propagation, time::Lifetime},
    ports::{IdempotentRequest, Outage, WriteOutcome},
};

/// How long the response to an idempotency key is kept.
pub(in crate::app) const IDEMPOTENCY_RETENTION: Lifetime = Lifetime::hours(24);

/// A request that may be repeated with an idempotency key; `R` is the response that is stored for
/// it.
pub(in crate::app) struct Idempotent<R> {
    request: Option<IdempotentRequest>,
    response: PhantomData<fn() -> R>,
}

/// The response type of a request that never has a key: it has no value, so such a request can't be
/// a replay.
#[derive(Debug, Deserialize)]
pub(in crate::app) enum NoResponse {}

/// The stored response of an earlier request with the same key.
pub(in crate::app) struct Replay<R> {
    /// The response.
    pub(in crate::app) response: R,
    /// How far the log entries of the first request are propagated. `None` if it wrote no entry.
    pub(in crate::app) propagation: Option<Propagation>,
}

impl<R> Idempotent<R> {
    /// Describes a request of a caller. Without a key, every repetition is a new request.
    pub(in crate::app) fn new(caller: String, key: Option<String>, fingerprint: String, cx: &RequestContext) -> Self {
        let keep_until = cx.now.saturating_add(IDEMPOTENCY_RETENTION);
        let request =
            key.map(|key| IdempotentRequest { caller, key, fingerprint, response: String::new(), keep_until });
        Self { request, response: PhantomData }
    }

    /// Describes a request that never has a key.
    pub(in crate::app) fn without_key() -> Self {
        Self { request: None, response: PhantomData }
    }
}

impl<R> From<IdempotentRequest> for Idempotent<R> {
    fn from(request: IdempotentRequest) -> Self {
        Self { request: Some(request), response: PhantomData }
    }
}

impl<R: Serialize> Idempotent<R> {
    /// Returns what the write stores, so that a repetition gets this response.
    pub(in crate::app) fn storing(&self, response: &R) -> Result<Option<IdempotentRequest>, Outage> {
        let Some(request) = &self.request else { return Ok(None) };
        let response = serde_json::to_string(response).map_err(Outage::during("serialize a response"))?;
        Ok(Some(IdempotentRequest { response, ..request.clone() }))
    }
}

impl<R: DeserializeOwned> Idempotent<R> {
    /// Parses a stored response. A key that was used for another request is a conflict.
    pub(super) fn parse_response(&self, fingerprint: &str, response: &str) -> Result<R, Error> {
        let Some(request) = &self.request else {
            return Err(LogicError::ImpossibleOutcome("already applied").into());
        };
        if request.fingerprint != fingerprint {
            return Err(ConflictError::IdempotencyKeyReused.into());
        }
        Ok(serde_json::from_str(response).map_err(Outage::during("read a stored response"))?)
    }
}

impl Service {
    /// Returns the stored response if the request was carried out before.
    ///
    /// The caller may not have received the first response, so this waits until the log entries of
    /// the first request are propagated, at most for `max_wait`.
    pub(in crate::app) async fn find_replay<R: DeserializeOwned>(
        &self,
        request: &Idempotent<R>,
        max_wait: Option<Duration>,
    ) -> Result<Option<Replay<R>>, Error> {
        let Some(IdempotentRequest { caller, key, .. }) = &request.request else { return Ok(None) };
        // What an admin or a requester repeats may be a revocation.
        let store = if caller.starts_with("client:") { self.store() } else { self.reserved_store() };
        let (response, seq) = match store.find_idempotent_response(caller, key).await? {
            None => return Ok(None),
            Some(WriteOutcome::AlreadyApplied { fingerprint, response, seq }) => {
                (request.parse_response(&fingerprint, &response)?, seq)
            }
            Some(WriteOutcome::Committed { .. } | WriteOutcome::Replayed | WriteOutcome::Conflict) => {
                return Err(LogicError::ImpossibleOutcome("not a stored response").into());
            }
        };
        let propagation = match seq {
            Some(seq) => Some(self.inner.writer.await_propagation(seq, max_wait).await?),
            None => None,
        };
        Ok(Some(Replay { response, propagation }))
    }
}
