//! The grammar of a token exchange request: from a form to an [`ExchangeRequest`].

use std::str::FromStr;

use serde_json::{Map, Value};

use crate::{
    app::{BadRequest, ExchangeRequest, RequestedType, SubjectType},
    domain::{
        authority::AskedDetails,
        json,
        limits::{MAX_CONTEXT, MAX_CONTEXT_DEPTH},
        secret::Secret,
        time::Lifetime,
        uri::ResourceUri,
    },
    http::form::Form,
};

/// RFC 8693 §3
const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:";

/// Reads a request. What it means, and whether it may be, is decided elsewhere.
pub(super) fn parse(form: &Form) -> Result<ExchangeRequest, BadRequest> {
    let resource = at_most_one(form, "resource", "one `resource`, and only one: a token has one audience")?;
    let audience = at_most_one(form, "audience", "one `audience`, and only one: a token has one audience")?;
    let target = resource.as_deref().and_then(|uri| uri.parse::<ResourceUri>().ok());
    let actor = match (form.one("actor_token"), form.one("actor_token_type")) {
        (None, None) => None,
        (Some(_), None) => return Err(BadRequest::Missing("actor_token_type")),
        (None, Some(_)) => return Err(BadRequest::Invalid("actor_token_type", "stands there without `actor_token`")),
        (Some(token), Some(said)) => Some((Secret::new(token.to_owned()), presented("actor_token_type", said)?)),
    };
    Ok(ExchangeRequest {
        subject_token: Secret::new(form.required("subject_token")?.to_owned()),
        subject_token_type: presented("subject_token_type", form.required("subject_token_type")?)?,
        actor,
        scope: form.one("scope").map(str::parse).transpose()?,
        authorization_details: form
            .one("authorization_details")
            .map(|text| details(text, target.as_ref()))
            .transpose()?,
        requested: form.one("requested_token_type").map(requested).transpose()?.unwrap_or_default(),
        requested_actor: name(form, "requested_actor", "not a client id")?,
        task_id: name(form, "task_id", "not the id of a task")?,
        purpose: name(form, "purpose", "must be 1 to 500 characters without control characters")?,
        task_deadline: seconds(form, "task_deadline")?,
        expires_in: seconds(form, "expires_in")?,
        request_details: object(form, "request_details")?,
        request_context: object(form, "request_context")?,
        resource,
        audience,
    })
}

/// What is wrong is said at once, where the target is known: it may be named otherwise, or be implied.
fn details(text: &str, target: Option<&ResourceUri>) -> Result<AskedDetails, BadRequest> {
    let details = AskedDetails::parse(text)?;
    if target.is_some() {
        details.at(target)?;
    }
    Ok(details)
}

fn at_most_one(form: &Form, name: &str, rule: &'static str) -> Result<Option<String>, BadRequest> {
    let mut values = form.all(name);
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(BadRequest::Target(rule)),
        (value, None) => Ok(value.map(str::to_owned)),
    }
}

fn presented(name: &'static str, uri: &str) -> Result<SubjectType, BadRequest> {
    match uri.strip_prefix(TOKEN_TYPE) {
        Some("access_token") => Ok(SubjectType::AccessToken),
        Some("id_token") => Ok(SubjectType::IdToken),
        Some("jwt") => Ok(SubjectType::Jwt),
        Some("txn_token") => Ok(SubjectType::TxnToken),
        _ => Err(BadRequest::Invalid(name, "must be the URN of access_token, id_token, jwt or txn_token")),
    }
}

fn requested(uri: &str) -> Result<RequestedType, BadRequest> {
    match uri.strip_prefix(TOKEN_TYPE) {
        Some("access_token") => Ok(RequestedType::AccessToken),
        Some("txn_token") => Ok(RequestedType::TxnToken),
        _ => Err(BadRequest::Invalid("requested_token_type", "must be the URN of access_token or txn_token")),
    }
}

fn name<T: FromStr>(form: &Form, name: &'static str, rule: &'static str) -> Result<Option<T>, BadRequest> {
    form.one(name).map(|text| text.parse().map_err(|_| BadRequest::Invalid(name, rule))).transpose()
}

/// A whole number of seconds, from 1 on. Digits only: no sign, no fraction, no blank.
fn seconds(form: &Form, name: &'static str) -> Result<Option<Lifetime>, BadRequest> {
    let Some(text) = form.one(name) else { return Ok(None) };
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    let seconds = text.parse::<u32>().ok().filter(|n| digits && *n > 0);
    seconds.map(|n| Some(Lifetime::seconds(n))).ok_or(BadRequest::Invalid(name, "must be a whole number of seconds"))
}

fn object(form: &Form, name: &'static str) -> Result<Option<Map<String, Value>>, BadRequest> {
    let Some(text) = form.one(name) else { return Ok(None) };
    let value = (text.len() <= MAX_CONTEXT).then(|| json::parse(text.as_bytes(), MAX_CONTEXT_DEPTH));
    match value {
        Some(Ok(Value::Object(object))) if !has_nul(&object) => Ok(Some(object)),
        _ => Err(BadRequest::Invalid(name, "must be a JSON object of at most 4096 bytes, 8 levels deep, without NUL")),
    }
}

/// A store may not be able to keep U+0000 in a text.
fn has_nul(object: &Map<String, Value>) -> bool {
    fn in_value(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(list) => list.iter().any(in_value),
            Value::Object(object) => has_nul(object),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    object.iter().any(|(name, value)| name.contains('\0') || in_value(value))
}
