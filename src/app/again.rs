//! Requests that may come again, by their `Idempotency-Key`: carried out once, and answered the same.

use serde::de::DeserializeOwned;

use crate::{
    app::{Conflict, Cx, Failure, Service, revoke::IDEMPOTENCY},
    ports::{Idempotency, Outage, Written},
};

/// A request that has a key. What it is answered is filled in by whoever knows.
pub(super) fn request(caller: String, key: Option<String>, fingerprint: String, cx: &Cx) -> Option<Idempotency> {
    let keep_until = cx.now.after(IDEMPOTENCY);
    key.map(|key| Idempotency { caller, key, fingerprint, answer: String::new(), keep_until })
}

/// What this request was answered the first time, if that is what kept it from happening.
pub(super) fn first_answer<T: DeserializeOwned>(
    request: Option<&Idempotency>,
    written: &Written,
) -> Result<Option<T>, Failure> {
    let Written::Before { fingerprint, answer, .. } = written else { return Ok(None) };
    if request.is_none_or(|request| request.fingerprint != *fingerprint) {
        return Err(Conflict::KeyReused.into());
    }
    Ok(Some(serde_json::from_str(answer).map_err(Outage::during("read an answer"))?))
}

impl Service {
    /// The same, before anything is done.
    pub(super) async fn answered<T: DeserializeOwned>(
        &self,
        request: Option<&Idempotency>,
    ) -> Result<Option<T>, Failure> {
        let Some(asked) = request else { return Ok(None) };
        let Some(before) = self.store().answered(&asked.caller, &asked.key).await? else { return Ok(None) };
        let answer = first_answer(request, &before)?;
        // Who hears the first answer again may not have heard it then: it holds now as well.
        if let Written::Before { seq: Some(seq), .. } = before {
            self.0.journal.spread(seq, None).await?;
        }
        Ok(answer)
    }
}
