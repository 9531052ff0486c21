//! Query strings of lists: known names only, each once, each of its type.

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
/// How many characters a parameter may have.
const MAX_TEXT_LENGTH: usize = 2048;

pub(in crate::http) struct Query(Form);

impl Query {
    /// Reads a query whose parameters may be these.
    pub(in crate::http) fn parse(query: Option<&str>, names: &[&str]) -> Result<Self, RequestError> {
        let query = query.unwrap_or_default();
        // A filter that lost its value on the way, such as an unset variable in a script, must not widen the answer.
        let has_value = |pair: &str| pair.split_once('=').is_some_and(|(_, value)| !value.is_empty());
        if !query.split('&').filter(|pair| !pair.is_empty()).all(has_value) {
            return Err(RequestError::InvalidParameter("query", "has a parameter without a value"));
        }
        let form = Form::parse(query.as_bytes()).map_err(|_| {
            RequestError::InvalidParameter("query", "is not a query string, or a parameter stands in it twice")
        })?;
        if !form.names().all(|name| names.contains(&name)) {
            return Err(RequestError::InvalidParameter("query", "has a parameter that is not known here"));
        }
        // A store may not even be able to look for U+0000 in a text.
        let is_text = |text: &str| text.chars().count() <= MAX_TEXT_LENGTH && !text.chars().any(char::is_control);
        if !names.iter().filter_map(|name| form.get(name)).all(is_text) {
            return Err(RequestError::InvalidParameter(
                "query",
                "has a control character, or over 2048 characters in a parameter",
            ));
        }
        Ok(Self(form))
    }

    pub(in crate::http) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)
    }

    pub(in crate::http) fn parse_value<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, RequestError> {
        self.text(name)
            .map(|text| text.parse().map_err(|_| RequestError::InvalidParameter(name, "is malformed")))
            .transpose()
    }

    /// One of an enum's words.
    pub(in crate::http) fn parse_word<T: DeserializeOwned>(
        &self,
        name: &'static str,
    ) -> Result<Option<T>, RequestError> {
        let word = |text| T::deserialize(StrDeserializer::<serde::de::value::Error>::new(text));
        self.text(name)
            .map(word)
            .transpose()
            .map_err(|_| RequestError::InvalidParameter(name, "is not a word that it can be"))
    }

    pub(in crate::http) fn parse_time(&self, name: &'static str) -> Result<Option<Timestamp>, RequestError> {
        let time = |text| {
            Timestamp::parse_rfc3339(text).ok_or(RequestError::InvalidParameter(name, "must be an RFC 3339 time"))
        };
        self.text(name).map(time).transpose()
    }

    /// A requester is named by both or not at all.
    pub(in crate::http) fn parse_requester(&self) -> Result<Option<(IssuerUrl, String)>, RequestError> {
        match (self.parse_value("issuer")?, self.parse_value::<Subject>("subject")?) {
            (None, None) => Ok(None),
            (Some(issuer), Some(subject)) => Ok(Some((issuer, subject.into()))),
            (Some(_), None) => Err(RequestError::MissingParameter("subject")),
            (None, Some(_)) => Err(RequestError::MissingParameter("issuer")),
        }
    }

    pub(in crate::http) fn parse_page(&self) -> Result<PageRequest, RequestError> {
        let limit = self.parse_value::<u32>("limit")?.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(RequestError::InvalidParameter("limit", "must be 1 to 1000"));
        }
        Ok(PageRequest { cursor: self.text("after").map(str::to_owned), limit })
    }
}
