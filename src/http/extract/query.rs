//! Query strings of lists. Each parameter has a known name, occurs once, and has a value of its
//! type.

use std::str::FromStr;

use serde::de::{DeserializeOwned, value::StrDeserializer};

use crate::{
    app::RequestError,
    domain::{id::Subject, time::Timestamp, uri::IssuerUrl},
    http::extract::form::Form,
    ports::PageRequest,
};

const DEFAULT_LIMIT: u32 = 100;
const MAX_LIMIT: u32 = 1000;
/// Maximum number of characters in a parameter.
const MAX_TEXT_LENGTH: usize = 2048;

/// The parameters of a query string.
pub(in crate::http) struct Query(Form);

impl Query {
    /// Parses a query string that may have these parameters.
    pub(in crate::http) fn parse(query: Option<&str>, names: &[&str]) -> Result<Self, RequestError> {
        let query = query.unwrap_or_default();
        // A filter without a value, such as an unset variable in a script, must not widen the
        // result.
        let has_value = |pair: &str| pair.split_once('=').is_some_and(|(_, value)| !value.is_empty());
        if !query.split('&').filter(|pair| !pair.is_empty()).all(has_value) {
            return Err(RequestError::InvalidParameter("query", "a parameter has no value; remove it or give it one"));
        }
        let form = Form::parse(query.as_bytes()).map_err(|_| {
            RequestError::InvalidParameter("query", "not a valid query string, or a duplicate parameter")
        })?;
        if !form.names().all(|name| names.contains(&name)) {
            return Err(RequestError::InvalidParameter(
                "query",
                "unknown parameter; the API description lists the supported ones",
            ));
        }
        // A store may be unable to search for U+0000 in a text.
        let is_text = |text: &str| text.chars().count() <= MAX_TEXT_LENGTH && !text.chars().any(char::is_control);
        if !names.iter().filter_map(|name| form.get(name)).all(is_text) {
            return Err(RequestError::InvalidParameter(
                "query",
                "a parameter contains a control character or exceeds 2048 characters",
            ));
        }
        Ok(Self(form))
    }

    /// Returns the value of a parameter.
    pub(in crate::http) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)
    }

    /// Parses the value of a parameter.
    pub(in crate::http) fn parse_value<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, RequestError> {
        self.text(name)
            .map(|text| text.parse().map_err(|_| RequestError::InvalidParameter(name, "not a valid value")))
            .transpose()
    }

    /// Parses the value of a parameter as a variant of an enum. `rule` is the error text for an
    /// unknown value.
    pub(in crate::http) fn parse_word<T: DeserializeOwned>(
        &self,
        name: &'static str,
        rule: &'static str,
    ) -> Result<Option<T>, RequestError> {
        let word = |text| T::deserialize(StrDeserializer::<serde::de::value::Error>::new(text));
        self.text(name).map(word).transpose().map_err(|_| RequestError::InvalidParameter(name, rule))
    }

    /// Parses the value of a parameter as an RFC 3339 time.
    pub(in crate::http) fn parse_time(&self, name: &'static str) -> Result<Option<Timestamp>, RequestError> {
        let time = |text| {
            Timestamp::parse_rfc3339(text).ok_or(RequestError::InvalidParameter(name, "must be an RFC 3339 time"))
        };
        self.text(name).map(time).transpose()
    }

    /// Parses the issuer and the subject of a requester. The query must have both or neither.
    pub(in crate::http) fn parse_requester(&self) -> Result<Option<(IssuerUrl, String)>, RequestError> {
        match (self.parse_value("issuer")?, self.parse_value::<Subject>("subject")?) {
            (None, None) => Ok(None),
            (Some(issuer), Some(subject)) => Ok(Some((issuer, subject.into()))),
            (Some(_), None) => Err(RequestError::MissingParameter("subject")),
            (None, Some(_)) => Err(RequestError::MissingParameter("issuer")),
        }
    }

    /// Parses the cursor and the limit of a page.
    pub(in crate::http) fn parse_page(&self) -> Result<PageRequest, RequestError> {
        let limit = self.parse_value::<u32>("limit")?.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(RequestError::InvalidParameter("limit", "must be 1 to 1000"));
        }
        Ok(PageRequest { cursor: self.text("after").map(str::to_owned), limit })
    }
}
