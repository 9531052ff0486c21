//! Bodies: what they are said to be, how long they may be, and JSON of exactly the wanted form.

use std::error::Error;

use axum::{
    body::{Bytes, to_bytes},
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;

use crate::{
    app::RequestError,
    domain::settings::MAX_BODY_BYTES,
    http::{AppState, error::problem::Problem},
};

/// A JSON object in the body, of exactly the wanted form.
#[derive(Debug)]
pub(in crate::http) struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &AppState) -> Result<Self, Problem> {
        let is_json = parse_media_type(request.headers()).is_some_and(|media| media == "application/json");
        if !is_json {
            return Err(Problem::unsupported_media_type());
        }
        let body = read_body(request).await?.ok_or_else(Problem::too_large)?;
        let value = crate::domain::encoding::strict_json::parse(&body, 16)
            .map_err(|fault| RequestError::MalformedJson(fault.to_string()))?;
        // serde names the field and what it wants there; the value it quotes is cut off.
        serde_json::from_value(value)
            .map(Self)
            .map_err(|e| RequestError::MalformedJson(redact_serde_error(&e.to_string())).into())
    }
}

/// The same, read from the text itself: for what must not lose a digit on the way.
#[derive(Debug)]
pub(in crate::http) struct RawJsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<AppState> for RawJsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &AppState) -> Result<Self, Problem> {
        if parse_media_type(request.headers()).is_none_or(|media| media != "application/json") {
            return Err(Problem::unsupported_media_type());
        }
        let body = read_body(request).await?.ok_or_else(Problem::too_large)?;
        crate::domain::encoding::strict_json::parse(&body, 16)
            .map_err(|fault| RequestError::MalformedJson(fault.to_string()))?;
        serde_json::from_slice(&body).map(Self).map_err(|fault| {
            // Where it is wrong is said by line and column at the end.
            let text = fault.to_string();
            let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
            RequestError::MalformedJson(redact_serde_error(text)).into()
        })
    }
}

/// serde's messages quote what was sent before they say what was expected; only what comes last, which is ours, may
/// stay. What was sent may have the word in it as well.
pub(in crate::http) fn redact_serde_error(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown field `") {
        return match rest.split_once('`') {
            Some((name, _)) if is_plain_name(name) => format!("unknown member `{name}`"),
            _ => "unknown member".to_owned(),
        };
    }
    let quotes = ["invalid type: ", "invalid value: ", "unknown variant `"];
    match message.rsplit_once(", expected ") {
        Some((_, expected))
            if quotes.iter().any(|start| message.starts_with(start)) && !has_no_expected_list(message) =>
        {
            format!("expected {expected}")
        }
        _ if message.starts_with("missing field") => message.to_owned(),
        _ => "a member has a value that it can't have".to_owned(),
    }
}

/// Whether a member's name is safe to repeat: a short identifier, and not a secret that was sent as a name.
fn is_plain_name(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Where nothing could stand, serde says so in place of the list, and the quote is the last to say "expected".
fn has_no_expected_list(message: &str) -> bool {
    message.ends_with("there are no fields") || message.ends_with("there are no variants")
}

/// The body; `None` when it is over the limit.
pub(in crate::http) async fn read_body(request: Request) -> Result<Option<Bytes>, RequestError> {
    match to_bytes(request.into_body(), MAX_BODY_BYTES).await {
        Ok(body) => Ok(Some(body)),
        Err(fault) if fault.source().is_some_and(<dyn Error>::is::<LengthLimitError>) => Ok(None),
        Err(_) => Err(RequestError::InvalidParameter("body", "it broke off, or its framing is wrong")),
    }
}

/// The media type, if the body's charset, where one is said, is UTF-8.
pub(in crate::http) fn parse_media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?.to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().map(str::to_owned);
    let utf8 = parts.filter_map(|p| p.strip_prefix("charset=")).all(|set| set.trim_matches('"') == "utf-8");
    media.filter(|_| utf8)
}
