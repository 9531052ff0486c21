//! Strict parsing of `application/x-www-form-urlencoded` (RFC 6749 §3.2, appendix B). A duplicate
//! parameter is an error, except for `resource` and `audience` (RFC 8693 §2.1). A parameter without
//! a value is treated as omitted.

use std::fmt;

use percent_encoding::percent_decode;

use crate::{app::RequestError, domain::settings::MAX_PARAMETERS};

/// The parameters of a form. Values may be tokens and secrets, so `Debug` shows only names.
pub struct Form(Vec<(String, String)>);

/// The parameters that an error about a duplicate names. Any other name may be a misplaced value.
const NAMED_PARAMETERS: [&str; 20] = [
    "actor_token",
    "actor_token_type",
    "authorization_details",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "expires_in",
    "grant_type",
    "purpose",
    "request_context",
    "request_details",
    "requested_actor",
    "requested_token_type",
    "scope",
    "subject_token",
    "subject_token_type",
    "task_deadline",
    "task_id",
    "token",
];

fn duplicate_error(name: &str) -> RequestError {
    match NAMED_PARAMETERS.iter().find(|known| **known == name) {
        Some(name) => RequestError::InvalidParameter(name, "sent more than once; send it once"),
        None => RequestError::DuplicateParameter,
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl Form {
    /// Returns the form of a request whose body is not one.
    pub(in crate::http) fn empty() -> Self {
        Self(Vec::new())
    }

    /// Parses a body.
    pub fn parse(body: &[u8]) -> Result<Self, RequestError> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for (n, pair) in body.split(|b| *b == b'&').filter(|pair| !pair.is_empty()).enumerate() {
            if n >= MAX_PARAMETERS {
                return Err(RequestError::MalformedForm);
            }
            let mut halves = pair.splitn(2, |b| *b == b'=');
            let name = decode_component(halves.next().unwrap_or_default())?;
            let value = decode_component(halves.next().unwrap_or_default())?;
            let repeatable = matches!(name.as_str(), "resource" | "audience");
            if !repeatable && parameters.iter().any(|(other, _)| *other == name) {
                return Err(duplicate_error(&name));
            }
            parameters.push((name, value));
        }
        parameters.retain(|(_, value)| !value.is_empty());
        Ok(Self(parameters))
    }

    /// Returns the value of a parameter that is not repeatable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Returns the value of a required parameter.
    pub fn required(&self, name: &'static str) -> Result<&str, RequestError> {
        self.get(name).ok_or(RequestError::MissingParameter(name))
    }

    /// Returns the names of the parameters.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Returns all values of a repeatable parameter.
    pub fn get_all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// Decodes a form-encoded name or value. HTTP Basic uses the same encoding for client id and secret
/// (RFC 6749 §2.3.1).
pub(in crate::http) fn decode_component(text: &[u8]) -> Result<String, RequestError> {
    // Most names and values need no decoding.
    if !text.iter().any(|b| matches!(b, b'%' | b'+')) {
        return String::from_utf8(text.to_vec()).map_err(|_| RequestError::MalformedForm);
    }
    let mut rest = text;
    while let Some(at) = rest.iter().position(|b| *b == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => rest = rest.get(at + 3..).unwrap_or_default(),
            _ => return Err(RequestError::MalformedForm),
        }
    }
    let spaced = text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect::<Vec<_>>();
    percent_decode(&spaced).decode_utf8().map(String::from).map_err(|_| RequestError::MalformedForm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_forms_are_rejected() {
        let form = Form::parse(b"a=1&b=x+y%2Bz&resource=r1&resource=r2&empty=&flag&%C3%A4=%F0%9F%98%80").unwrap();
        assert_eq!(form.get("b"), Some("x y+z"));
        assert_eq!(form.get("ä"), Some("😀"));
        assert_eq!((form.get("empty"), form.get("flag")), (None, None));
        assert_eq!(form.get_all("resource").collect::<Vec<_>>(), ["r1", "r2"]);
        assert_eq!(format!("{form:?}"), r#"{"a", "b", "resource", "resource", "ä"}"#);
        for bad in [&b"a=1&a=2"[..], b"a=1&%61=2", b"a=&a=", b"a=%zz", b"a=%4", b"a=%", b"a=\xff", b"a=%ff"] {
            assert!(Form::parse(bad).is_err(), "{bad:?}");
        }
        let error = |body: &str| Form::parse(body.as_bytes()).unwrap_err();
        for name in NAMED_PARAMETERS {
            let want = RequestError::InvalidParameter(name, "sent more than once; send it once");
            assert_eq!(error(&format!("{name}=a&{name}=a")), want);
        }
        assert_eq!(error("s3cret=a&s3cret=a"), RequestError::DuplicateParameter);
        let many = (0..=MAX_PARAMETERS).map(|n| format!("p{n}=1")).collect::<Vec<_>>().join("&");
        assert_eq!(Form::parse(many.as_bytes()).err(), Some(RequestError::MalformedForm));
    }
}
