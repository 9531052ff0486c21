//! The syntax of a token request: from a form to an [`ExchangeRequest`] or a client credentials
//! request.

use std::str::FromStr;

use serde_json::{Map, Value};

use crate::{
    app::{ExchangeRequest, PresentedTokenType, RequestError, RequestedTokenType},
    domain::{
        audit::Event,
        authority::{Arg, AuthorizationDetails},
        encoding::strict_json,
        scope::ScopeSet,
        secret::Secret,
        settings::{MAX_CONTEXT_BYTES, MAX_CONTEXT_DEPTH},
        time::Lifetime,
        uri::ResourceUri,
    },
    http::extract::{auth::ClientRequest, form::Form},
};

/// RFC 8693 §3
const TOKEN_TYPE_PREFIX: &str = "urn:ietf:params:oauth:token-type:";

/// A token request, by grant type.
pub(in crate::http) enum TokenRequest {
    /// Token exchange (RFC 8693).
    Exchange(Box<ExchangeRequest>),
    /// Client credentials (RFC 6749 §4.4), with the requested scopes.
    ClientCredentials(Option<ScopeSet>),
}

impl ClientRequest for TokenRequest {
    const EVENT: Event = Event::TokenIssue;

    fn parse(form: &Form) -> Result<Self, RequestError> {
        match form.required("grant_type")? {
            "urn:ietf:params:oauth:grant-type:token-exchange" => Ok(Self::Exchange(Box::new(parse_exchange(form)?))),
            "client_credentials" => Ok(Self::ClientCredentials(form.get("scope").map(str::parse).transpose()?)),
            _ => Err(RequestError::UnsupportedGrantType),
        }
    }
}

/// Parses an exchange request. The use case decides what it means and whether it is allowed.
fn parse_exchange(form: &Form) -> Result<ExchangeRequest, RequestError> {
    let resource = parse_single_value(form, "resource", "name only one `resource`; a token has one audience")?;
    let audience = parse_single_value(form, "audience", "name only one `audience`; a token has one audience")?;
    let target = resource.as_deref().and_then(|uri| uri.parse::<ResourceUri>().ok());
    let actor = match (form.get("actor_token"), form.get("actor_token_type")) {
        (None, None) => None,
        (Some(_), None) => return Err(RequestError::MissingParameter("actor_token_type")),
        (None, Some(_)) => {
            return Err(RequestError::InvalidParameter("actor_token_type", "not allowed without `actor_token`"));
        }
        (Some(token), Some(token_type)) => {
            Some((Secret::new(token.to_owned()), parse_presented_token_type("actor_token_type", token_type)?))
        }
    };
    Ok(ExchangeRequest {
        subject_token: Secret::new(form.required("subject_token")?.to_owned()),
        subject_token_type: parse_presented_token_type("subject_token_type", form.required("subject_token_type")?)?,
        actor,
        scope: form.get("scope").map(str::parse).transpose()?,
        authorization_details: form
            .get("authorization_details")
            .map(|text| parse_authorization_details(text, target.as_ref()))
            .transpose()?,
        requested_token_type: form
            .get("requested_token_type")
            .map(parse_requested_token_type)
            .transpose()?
            .unwrap_or_default(),
        requested_actor: parse_optional(form, "requested_actor", "not a client id")?,
        task_id: parse_optional(form, "task_id", "not a task id")?,
        purpose: parse_optional(form, "purpose", "must be 1 to 500 characters without control characters")?,
        task_deadline: parse_seconds(form, "task_deadline")?,
        expires_in: parse_seconds(form, "expires_in")?,
        request_details: parse_object(form, "request_details")?,
        request_context: parse_object(form, "request_context")?,
        resource,
        audience,
    })
}

/// Parses the details, and resolves them if `resource` names the target. Otherwise the use case
/// does so later: the target may be named by `audience` or be implied.
fn parse_authorization_details(text: &str, target: Option<&ResourceUri>) -> Result<AuthorizationDetails, RequestError> {
    let details = AuthorizationDetails::parse(text)?;
    if target.is_some() {
        details.resolve(target)?;
    }
    Ok(details)
}

fn parse_single_value(form: &Form, name: &str, rule: &'static str) -> Result<Option<String>, RequestError> {
    let mut values = form.get_all(name);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(RequestError::InvalidTarget(rule)),
        (value, None) => Ok(value.map(str::to_owned)),
    }
}

fn parse_presented_token_type(name: &'static str, uri: &str) -> Result<PresentedTokenType, RequestError> {
    match uri.strip_prefix(TOKEN_TYPE_PREFIX) {
        Some("access_token") => Ok(PresentedTokenType::AccessToken),
        Some("id_token") => Ok(PresentedTokenType::IdToken),
        Some("jwt") => Ok(PresentedTokenType::Jwt),
        Some("txn_token") => Ok(PresentedTokenType::TxnToken),
        _ => Err(RequestError::InvalidParameter(name, "must be the URN of access_token, id_token, jwt or txn_token")),
    }
}

fn parse_requested_token_type(uri: &str) -> Result<RequestedTokenType, RequestError> {
    match uri.strip_prefix(TOKEN_TYPE_PREFIX) {
        Some("access_token") => Ok(RequestedTokenType::AccessToken),
        Some("txn_token") => Ok(RequestedTokenType::TxnToken),
        _ => {
            Err(RequestError::InvalidParameter("requested_token_type", "must be the URN of access_token or txn_token"))
        }
    }
}

fn parse_optional<T: FromStr>(form: &Form, name: &'static str, rule: &'static str) -> Result<Option<T>, RequestError> {
    form.get(name).map(|text| text.parse().map_err(|_| RequestError::InvalidParameter(name, rule))).transpose()
}

/// Parses a positive whole number of seconds. Only digits are allowed: no sign, fraction or space.
fn parse_seconds(form: &Form, name: &'static str) -> Result<Option<Lifetime>, RequestError> {
    let Some(text) = form.get(name) else { return Ok(None) };
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let seconds = text.parse::<u32>().ok().filter(|n| digits && *n > 0);
    seconds
        .map(|n| Some(Lifetime::seconds(n)))
        .ok_or(RequestError::InvalidParameter(name, "must be a positive whole number of seconds"))
}

fn parse_object(form: &Form, name: &'static str) -> Result<Option<Map<String, Value>>, RequestError> {
    let Some(text) = form.get(name) else { return Ok(None) };
    let value = (text.len() <= MAX_CONTEXT_BYTES).then(|| strict_json::parse(text.as_bytes(), MAX_CONTEXT_DEPTH));
    match value {
        Some(Ok(value)) if !Arg::is_lossless(text, MAX_CONTEXT_DEPTH, &value) => {
            Err(RequestError::InvalidParameter(name, "contains a number that would be rounded; send it as a string"))
        }
        Some(Ok(Value::Object(object))) if !has_nul(&object) => Ok(Some(object)),
        _ => Err(RequestError::InvalidParameter(
            name,
            "must be a JSON object of at most 4096 bytes, 8 levels deep, without NUL",
        )),
    }
}

/// Returns whether the object contains U+0000, which a store may be unable to save in a text.
fn has_nul(object: &Map<String, Value>) -> bool {
    fn value_has_nul(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(list) => list.iter().any(value_has_nul),
            Value::Object(object) => has_nul(object),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    object.iter().any(|(name, value)| name.contains('\0') || value_has_nul(value))
}
