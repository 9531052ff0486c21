//! TOML values and tables with their positions.
//!
//! serde stops at the first error and cannot tell where the second one is. These readers record an
//! error with its position and continue. A [`Section`] reports its unknown keys when it is dropped,
//! so that no reader can forget to.

use std::{fmt::Display, ops::RangeInclusive, path::PathBuf, str::FromStr};

use serde::{
    de::DeserializeOwned,
    de::value::{Error as KeywordError, StrDeserializer},
};
use serde_json::Value;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    document::{Document, Location},
    example::find_example,
};
use crate::domain::{
    authority::{Arg, Decimal},
    time::Lifetime,
};

/// A value and its location.
pub(super) struct Node<'a> {
    pub(super) location: Location<'a>,
    value: &'a DeValue<'a>,
}

impl<'a> Node<'a> {
    /// Records an error about this value.
    pub(super) fn error(&self, reason: impl Display, remedy: impl Display) {
        self.location.error(reason, remedy);
    }

    /// Reads a string.
    pub(super) fn string(&self) -> Option<&'a str> {
        self.expect_kind("a string", self.value.as_str())
    }

    /// Reads a string that is not blank.
    pub(super) fn non_empty_string(&self) -> Option<String> {
        let text = self.string()?;
        if text.trim().is_empty() {
            self.error("is empty", "set a value, or leave the key out");
            return None;
        }
        Some(text.to_owned())
    }

    /// Parses a string as a `T`.
    pub(super) fn parse<T: FromStr<Err: Display>>(&self, remedy: &str) -> Option<T> {
        let text = self.string()?;
        text.parse().map_err(|error| self.error(format_args!("`{}`: {error}", text.escape_debug()), remedy)).ok()
    }

    /// Parses a string as a variant of an enum.
    pub(super) fn parse_keyword<T: DeserializeOwned>(&self) -> Option<T> {
        let text = self.string()?;
        let keyword = T::deserialize(StrDeserializer::<KeywordError>::new(text));
        keyword
            .map_err(|error| {
                let error = error.to_string();
                let known = error.split_once(", expected ").map_or("see errand.example.toml", |(_, known)| known);
                self.error(format_args!("unknown value `{}`", text.escape_debug()), format_args!("write {known}"));
            })
            .ok()
    }

    /// Reads an integer in a range. `hint` explains the unit and the limits.
    pub(super) fn integer(&self, range: RangeInclusive<u32>, hint: &str) -> Option<u32> {
        let Some(integer) = self.value.as_integer() else {
            self.report_non_integer(hint);
            return None;
        };
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number));
        if number.is_none() {
            let (min, max) = (range.start(), range.end());
            self.error(format_args!("`{integer}` is not between {min} and {max}"), hint);
        }
        number
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        let is_quoted = matches!(self.value.as_str(), Some("true" | "false"));
        let expected = if is_quoted { "true or false without quotes" } else { "true or false" };
        self.expect_kind(expected, self.value.as_bool())
    }

    /// Reads each element of an array with `read`, which reports and omits invalid elements.
    pub(super) fn elements<T>(&self, read: impl FnMut(Node<'a>) -> Option<T>) -> Option<Vec<T>> {
        let is_single = !matches!(self.value, DeValue::Array(_) | DeValue::Table(_));
        let expected = if is_single { "an array in brackets" } else { "an array" };
        let items = self.expect_kind(expected, self.value.as_array())?;
        let node = |(n, item): (usize, &'a Spanned<DeValue<'a>>)| {
            let location = Location {
                key: format!("{}[{n}]", self.location.key),
                span: Some(item.span()),
                ..self.location.clone()
            };
            Node { location, value: item.get_ref() }
        };
        Some(items.iter().enumerate().map(node).filter_map(read).collect())
    }

    /// Reads a table.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        let table = self.expect_kind("a table", self.value.as_table())?;
        Some(Section::new(self.location.clone(), Some(table)))
    }

    /// Reads a table whose keys the operator chose.
    pub(super) fn entries(&self) -> Option<Vec<(Node<'a>, &'a str)>> {
        let table = self.expect_kind("a table", self.value.as_table())?;
        let entry = |(name, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let name: &'a std::borrow::Cow<'a, str> = name.get_ref();
            let location = self.location.child(&format!("\"{name}\""), Some(value.span()));
            (Node { location, value: value.get_ref() }, name.as_ref())
        };
        Some(table.iter().map(entry).collect())
    }

    /// Reads a path. Relative paths start at the directory of the configuration file.
    pub(super) fn path(&self) -> Option<PathBuf> {
        Some(self.location.document.base_dir.join(self.non_empty_string()?))
    }

    /// Reads a string or a table, for keys that accept either.
    pub(super) fn string_or_section(&self) -> Option<StringOrSection<'a>> {
        if let Some(text) = self.value.as_str() {
            return Some(StringOrSection::String(text));
        }
        let table = self.expect_kind("a string or a table", self.value.as_table())?;
        Some(StringOrSection::Section(Section::new(self.location.clone(), Some(table))))
    }

    /// Reads a string, a whole number, or true or false.
    pub(super) fn scalar(&self) -> Option<Value> {
        let is_scalar = matches!(self.value, DeValue::String(_) | DeValue::Integer(_) | DeValue::Boolean(_));
        let value = is_scalar.then(|| self.to_json()).filter(|value| !value.is_null());
        self.expect_kind("a string, a whole number, or true or false", value)
    }

    /// Converts the value to JSON.
    pub(super) fn to_json(&self) -> Value {
        to_json(self.value)
    }

    /// Converts the value to a call argument without losing digits of numbers. `depth` limits the
    /// levels of nesting.
    pub(super) fn to_arg(&self, depth: usize) -> Option<Arg> {
        let number = |text: &str| Decimal::parse(text.trim_start_matches('+')).map(Arg::Number);
        let nested_depth =
            || depth.checked_sub(1).or_else(|| self.reject("is nested too deeply", "reduce the nesting"));
        match self.value {
            DeValue::String(text) => Some(Arg::Text(text.to_string())),
            DeValue::Integer(integer) => {
                let digits = i64::from_str_radix(integer.as_str(), integer.radix()).map(|number| number.to_string());
                let arg = digits.ok().and_then(|digits| number(&digits));
                arg.or_else(|| self.reject("the integer is too large", "write a smaller number, or a string"))
            }
            DeValue::Float(float) => number(float.as_str()).or_else(|| {
                self.reject("`inf` and `nan` are not valid JSON numbers", "write a finite number, or a string")
            }),
            DeValue::Boolean(flag) => Some(Arg::Bool(*flag)),
            DeValue::Datetime(_) => self.expect_kind("a string", None),
            DeValue::Array(items) => {
                let depth = nested_depth()?;
                let list = self.elements(|item| item.to_arg(depth))?;
                (list.len() == items.len()).then_some(Arg::List(list))
            }
            DeValue::Table(table) => {
                let depth = nested_depth()?;
                let member = |(name, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
                    let name: &'a std::borrow::Cow<'a, str> = name.get_ref();
                    let location = self.location.child(&name.escape_debug().to_string(), Some(value.span()));
                    Some((name.to_string(), Node { location, value: value.get_ref() }.to_arg(depth)?))
                };
                table.iter().map(member).collect::<Option<_>>().map(Arg::Object)
            }
        }
    }

    fn reject<T>(&self, reason: &str, remedy: &str) -> Option<T> {
        self.error(reason, remedy);
        None
    }

    /// Reports a value where an integer belongs. A duration is converted to the unit of the key.
    fn report_non_integer(&self, hint: &str) {
        let text = self.value.as_str().unwrap_or_default().trim();
        if let Some(number) = convert_duration(text, hint) {
            // A duration is not a secret, so that it may be shown.
            self.error(format_args!("`{text}` is a string"), format_args!("write {number} without quotes: {hint}"));
        } else {
            let example = self.example();
            self.error(format_args!("found {}", self.kind()), format_args!("write a whole number{example}: {hint}"));
        }
    }

    fn expect_kind<T>(&self, expected: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            // The value is not shown: it may be a secret at the wrong key, and errors are logged.
            self.error(format_args!("found {}", self.kind()), format_args!("write {expected}{}", self.example()));
        }
        value
    }

    fn kind(&self) -> &'static str {
        match self.value {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        }
    }

    /// Returns how the key is written in `errand.example.toml`, for a remedy.
    fn example(&self) -> String {
        find_example(&self.location.key).map_or_else(String::new, |example| format!(", for example {example}"))
    }
}

/// A value that may be a string or a table.
pub(super) enum StringOrSection<'a> {
    /// A string.
    String(&'a str),
    /// A table.
    Section(Section<'a>),
}

/// A table and its location. An absent table yields the defaults of its keys.
pub(super) struct Section<'a> {
    pub(super) location: Location<'a>,
    table: Option<&'a DeTable<'a>>,
    requested_keys: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// Returns the top level of a document.
    pub(super) fn top_level(document: &'a Document<'a>, table: &'a DeTable<'a>) -> Self {
        Self::new(Location::of_document(document), Some(table))
    }

    pub(super) fn new(location: Location<'a>, table: Option<&'a DeTable<'a>>) -> Self {
        Self { location, table, requested_keys: Vec::new() }
    }

    /// Labels every later message with the value of `key`: the object that the table declares.
    pub(super) fn label_from(&mut self, key: &str) {
        let id = self.table.and_then(|table| table.get(key)).and_then(|value| value.get_ref().as_str());
        self.location.label = id.map(|id| id.escape_debug().to_string());
    }

    /// Returns the value of a key, if present.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.requested_keys.push(key);
        self.location.document.record_request(&self.location.child(key, None).key);
        let value = self.table?.get(key)?;
        let location = self.location.child(key, Some(value.span()));
        Some(Node { location, value: value.get_ref() })
    }

    /// Returns the value of a required key.
    pub(super) fn required_node(&mut self, key: &'static str, example: &str) -> Option<Node<'a>> {
        let node = self.get(key);
        if node.is_none() {
            let location = self.location.child(key, self.location.span.clone());
            location.error("is missing", format_args!("for example, `{key} = {example}`"));
        }
        node
    }

    /// Reads an optional key.
    pub(super) fn optional<T>(&mut self, key: &'static str, read: impl FnOnce(Node<'a>) -> Option<T>) -> Option<T> {
        self.get(key).and_then(read)
    }

    /// Reads a required key.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(Node<'a>) -> Option<T>,
    ) -> Option<T> {
        self.required_node(key, example).and_then(read)
    }

    /// Reads an optional integer with a default.
    pub(super) fn number(&mut self, key: &'static str, default: u32, range: RangeInclusive<u32>, hint: &str) -> u32 {
        self.optional(key, |node| node.integer(range, hint)).unwrap_or(default)
    }

    /// Reads an optional number of seconds with a default.
    pub(super) fn lifetime(
        &mut self,
        key: &'static str,
        default: Lifetime,
        range: RangeInclusive<u32>,
        hint: &str,
    ) -> Lifetime {
        self.optional(key, |node| node.integer(range, hint)).map_or(default, Lifetime::seconds)
    }

    /// Returns the keys that were looked up.
    pub(super) fn requested_keys(&self) -> &[&'static str] {
        &self.requested_keys
    }

    /// Returns the location of a key, or of the table if the key is absent.
    pub(super) fn location_of(&self, key: &str) -> Location<'a> {
        let span = self.table.and_then(|table| table.get(key)).map(Spanned::span);
        self.location.child(key, span.or_else(|| self.location.span.clone()))
    }

    /// Returns the one key that is present among mutually exclusive keys.
    pub(super) fn exclusive(&mut self, keys: &[&'static str]) -> Option<(&'static str, Node<'a>)> {
        let found = keys.iter().filter_map(|key| self.get(key).map(|node| (*key, node))).collect::<Vec<_>>();
        let names = found.iter().map(|(key, _)| format!("`{key}`")).collect::<Vec<_>>().join(" and ");
        if found.len() > 1 {
            self.location.error(format_args!("{names} are mutually exclusive"), "keep one of them");
        }
        found.into_iter().next()
    }

    /// Reads an optional table.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let node = self.get(key);
        let location = node.as_ref().map_or_else(|| self.location.child(key, None), |node| node.location.clone());
        node.and_then(|node| node.section()).unwrap_or_else(|| Section::new(location, None))
    }

    /// Reads an optional array of tables. A single table, such as `[issuers]` for `[[issuers]]`, is
    /// an error, and its keys are checked like those of an array.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(node) = self.get(key) else { return Vec::new() };
        if let Some(table) = node.value.as_table() {
            let _: Option<()> = node.expect_kind("an array of tables", None);
            return vec![Section::new(node.location, Some(table))];
        }
        node.elements(|item| item.section()).unwrap_or_default()
    }

    /// Returns whether the table is present.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Suppresses errors about unknown keys, when an earlier error hides which keys belong here.
    pub(super) fn ignore_unknown_keys(&mut self) {
        self.table = None;
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        const SECRET_KEYS: [&str; 6] =
            ["secret", "client_secret", "password", "passphrase", "private_key", "encryption_key"];
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            let name = key.get_ref().as_ref();
            if self.requested_keys.contains(&name) {
                continue;
            }
            let location = self.location.child(&name.escape_debug().to_string(), Some(key.span()));
            let is_similar = |known: &&&str| strsim::levenshtein(known, name) <= 2;
            if SECRET_KEYS.contains(&name) {
                location.error(
                    "secrets must not be in this file",
                    "name a file or an environment variable that holds the secret, and treat this one as leaked",
                );
            } else if let Some(similar) = self.requested_keys.iter().find(is_similar) {
                location.error("unknown key", format_args!("did you mean `{similar}`?"));
            } else {
                location.error("unknown key", format_args!("known keys: {}", self.requested_keys.join(", ")));
            }
        }
    }
}

/// Converts a duration such as `2m` or `500 ms` to the unit that the hint of a key begins with. A
/// number without a unit is in the unit of the key.
fn convert_duration(text: &str, hint: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number = number.parse::<u64>().ok()?;
    let milliseconds = match unit.trim() {
        "" => return Some(number),
        "ms" => 1,
        "s" | "sec" | "secs" | "second" | "seconds" => 1000,
        "m" | "min" | "mins" | "minute" | "minutes" => 60_000,
        "h" | "hour" | "hours" => 3_600_000,
        "d" | "day" | "days" => 86_400_000,
        _ => return None,
    };
    let divisor = match hint.split([';', ' ']).next() {
        Some("seconds") => 1000,
        Some("milliseconds") => 1,
        _ => return None,
    };
    let total = number.checked_mul(milliseconds)?;
    total.is_multiple_of(divisor).then(|| total / divisor)
}

fn to_json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Null, |number| Value::Number(number.into())),
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(Value::Null, Value::from),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(date) => Value::String(date.to_string()),
        DeValue::Array(items) => items.iter().map(|item| to_json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            table.iter().map(|(name, value)| (name.get_ref().to_string(), to_json(value.get_ref()))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_converted_to_the_unit_of_the_key() {
        for (text, hint, want) in [
            ("2m", "seconds; the maximum is 15 minutes", Some(120)),
            ("300", "seconds; the maximum is 15 minutes", Some(300)),
            ("1 h", "seconds", Some(3600)),
            ("30 days", "seconds", Some(2_592_000)),
            ("2s", "milliseconds; at most a third", Some(2000)),
            ("500ms", "seconds", None),
            ("10", "connections; 10 are enough", Some(10)),
            ("2m", "connections; 10 are enough", None),
            ("", "seconds", None),
            ("m", "seconds", None),
            ("2 moons", "seconds", None),
            ("99999999999999999999", "seconds", None),
        ] {
            assert_eq!(convert_duration(text, hint), want, "{text} {hint}");
        }
    }
}
