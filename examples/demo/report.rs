//! Tells Errand what the calls of tools did, so that intent, privilege, call and outcome stand in one place: the trail of the
//! task. Copy this file too, if you want that; it needs base64, ring and `serde_json_canonicalizer` beside what `guard.rs`
//! needs.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use errand::{adapters::system::OsEntropy, ports::Entropy};
use ring::digest;
use rmcp::model::JsonObject;
use serde_json::{Value, json};

use crate::{
    guard::{REQUEST_TIMEOUT, ResourceGuard, VerifiedToken},
    output::BoxError,
};

/// What a call did.
pub(crate) enum CallOutcome {
    /// It touched so many things of this class.
    Succeeded(&'static str, u64),
    /// The tool tried, in vain.
    Failed,
    /// It was not tried: the token is not for it.
    Refused,
}

impl ResourceGuard {
    /// Reports a call. The arguments stay here: their digest is what goes (SHA-256 of the canonical JSON, RFC 8785).
    pub(crate) async fn report(
        &self,
        permit: &VerifiedToken,
        tool: &str,
        arguments: &JsonObject,
        did: &CallOutcome,
    ) -> Result<(), BoxError> {
        let canonical = serde_json_canonicalizer::to_vec(arguments)?;
        let digest = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &canonical));
        let (outcome, data) = match did {
            CallOutcome::Succeeded(class, count) => ("succeeded", json!([{"class": class, "count": count}])),
            CallOutcome::Failed => ("failed", json!([])),
            CallOutcome::Refused => ("refused", json!([])),
        };
        let report = json!({
            "id": OsEntropy::new()?.new_uuid(),
            "jti": permit.jti,
            "tool": tool,
            "arguments": format!("sha-256:{digest}"),
            "outcome": outcome,
            "data": data,
        });
        let url = format!("{}/v1/tasks/{}/calls", self.errand, permit.txn);
        let token = self.api_token().await?;
        let answer = self.http.post(url).bearer_auth(token).json(&report).timeout(REQUEST_TIMEOUT).send().await?;
        answer.error_for_status()?;
        Ok(())
    }

    /// A token for Errand's own API. It is good for some minutes: a server with many calls keeps it for as long.
    async fn api_token(&self) -> Result<String, BoxError> {
        let form = [("grant_type", "client_credentials"), ("scope", "errand:tasks")];
        let question = self.http.post(format!("{}/oauth2/token", self.errand)).form(&form);
        let question = question.basic_auth(&self.client_id, Some(&self.client_secret)).timeout(REQUEST_TIMEOUT);
        let answer = question.send().await?.error_for_status()?.json::<Value>().await?;
        let token = answer.get("access_token").and_then(Value::as_str);
        Ok(token.ok_or("Errand's answer has no token")?.to_owned())
    }
}
