//! Call reports to Errand, so that the trail of the task has intent, permission, call and outcome
//! in one place. Optional; to use it, copy this file too. In addition to `guard.rs`, it needs
//! base64, ring and `serde_json_canonicalizer`.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use errand::{adapters::system::OsEntropy, ports::Entropy};
use ring::digest;
use rmcp::model::JsonObject;
use serde_json::{Value, json};

use crate::{
    guard::{REQUEST_TIMEOUT, ResourceGuard, VerifiedToken},
    output::BoxError,
};

/// Outcome of a call.
pub(crate) enum CallOutcome {
    /// The call succeeded and accessed so many records of this data class.
    Succeeded(&'static str, u64),
    /// The tool failed.
    Failed,
    /// The call was refused: the token does not allow it.
    Refused,
}

impl ResourceGuard {
    /// Reports a call. Errand gets only a digest of the arguments (SHA-256 of their canonical JSON,
    /// RFC 8785).
    pub(crate) async fn report(
        &self,
        token: &VerifiedToken,
        tool: &str,
        arguments: &JsonObject,
        outcome: &CallOutcome,
    ) -> Result<(), BoxError> {
        let canonical = serde_json_canonicalizer::to_vec(arguments)?;
        let digest = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &canonical));
        let (outcome, data) = match outcome {
            CallOutcome::Succeeded(class, count) => ("succeeded", json!([{"class": class, "count": count}])),
            CallOutcome::Failed => ("failed", json!([])),
            CallOutcome::Refused => ("refused", json!([])),
        };
        let report = json!({
            "id": OsEntropy::new()?.new_uuid(),
            "jti": token.jti,
            "tool": tool,
            "arguments": format!("sha-256:{digest}"),
            "outcome": outcome,
            "data": data,
        });
        let url = format!("{}/v1/tasks/{}/calls", self.errand, token.txn);
        let api_token = self.api_token().await?;
        let request = self.http.post(url).bearer_auth(api_token).json(&report).timeout(REQUEST_TIMEOUT);
        request.send().await?.error_for_status()?;
        Ok(())
    }

    /// Gets a token for Errand's own API. It is valid for minutes; a server with many calls should
    /// cache it.
    async fn api_token(&self) -> Result<String, BoxError> {
        let form = [("grant_type", "client_credentials"), ("scope", "errand:tasks")];
        let request = self.http.post(format!("{}/oauth2/token", self.errand)).form(&form);
        let request = request.basic_auth(&self.client_id, Some(&self.client_secret)).timeout(REQUEST_TIMEOUT);
        let response = request.send().await?.error_for_status()?.json::<Value>().await?;
        let token = response.get("access_token").and_then(Value::as_str);
        Ok(token.ok_or("the response contains no access token")?.to_owned())
    }
}
