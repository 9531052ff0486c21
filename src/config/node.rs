//! TOML, read key by key. serde stops at its first mistake and can't say where in the file the second one is; this goes
//! on, and knows of every value where it stands. A table complains about the keys that nobody asked for when it is dropped,
//! so that no reader of a table can forget to.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    fmt::Display,
    ops::{Range, RangeInclusive},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{
    de::DeserializeOwned,
    de::value::{Error as WordError, StrDeserializer},
};
use serde_json::Value;
use toml::de::{DeTable, DeValue};

use super::diagnostic::ConfigError;
use crate::domain::authority::{Arg, Decimal};

/// Where variables of the environment come from.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One file under reading, and what was found wrong so far.
pub(super) struct Document<'a> {
    /// The file as the operator named it.
    pub(super) file: &'a str,
    /// What relative paths in it are relative to.
    pub(super) base_dir: &'a Path,
    /// The environment.
    pub(super) environment: Environment<'a>,
    text: &'a str,
    errors: RefCell<Vec<ConfigError>>,
    requested_keys: RefCell<BTreeSet<String>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(file: &'a str, base: &'a Path, text: &'a str, environment: Environment<'a>) -> Self {
        Self { file, base_dir: base, environment, text, errors: RefCell::default(), requested_keys: RefCell::default() }
    }

    /// Parses the text. Only a text without syntax errors is worth reading further.
    pub(super) fn parse(&self) -> Option<DeTable<'a>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let remedy = "mend the TOML here: https://toml.io";
            self.add_error(error.span(), String::new(), error.message().replace('\n', ", "), remedy.into());
        }
        errors.is_empty().then(|| table.into_inner())
    }

    pub(super) fn top_level(&'a self, table: &'a DeTable<'a>) -> Section<'a> {
        let here = Location { document: self, key: String::new(), label: None, span: None };
        Section { location: here, table: Some(table), requested_keys: Vec::new() }
    }

    pub(super) fn add_error(&self, span: Option<Range<usize>>, key: String, reason: String, remedy: String) {
        let position = span.map(|span| self.line_and_column(span.start));
        self.errors.borrow_mut().push(ConfigError { file: self.file.to_owned(), position, key, reason, remedy });
    }

    /// A mistake in a variable of the environment.
    pub(super) fn add_environment_error(&self, variable: &str, reason: String, remedy: String) {
        let (file, key) = ("environment".to_owned(), variable.to_owned());
        self.errors.borrow_mut().push(ConfigError { file, position: None, key, reason, remedy });
    }

    pub(super) fn error_count(&self) -> usize {
        self.errors.borrow().len()
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }

    /// Every key that was looked for, without indexes: what `errand.example.toml` has to document.
    #[cfg(test)]
    pub(super) fn requested_keys(&self) -> BTreeSet<String> {
        self.requested_keys.borrow().clone()
    }

    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).map_or(0, |line| line.chars().count());
        (before.matches('\n').count() + 1, column + 1)
    }
}

/// Where something stands: for messages.
#[derive(Clone)]
pub(super) struct Location<'a> {
    pub(super) document: &'a Document<'a>,
    key: String,
    /// The object that it belongs to.
    pub(super) label: Option<String>,
    span: Option<Range<usize>>,
}

impl Location<'_> {
    /// Records a mistake about this key.
    pub(super) fn error(&self, reason: impl Display, remedy: impl Display) {
        let of = self.label.as_ref().map(|id| format!(" of `{id}`")).unwrap_or_default();
        let key = format!("{}{of}", self.key);
        self.document.add_error(self.span.clone(), key, reason.to_string(), remedy.to_string());
    }

    /// The place of a key below this one.
    fn child(&self, key: &str, span: Option<Range<usize>>) -> Self {
        let dot = if self.key.is_empty() { "" } else { "." };
        Self { key: format!("{}{dot}{key}", self.key), span, ..self.clone() }
    }
}

/// A value, and where it stands.
pub(super) struct Node<'a> {
    pub(super) location: Location<'a>,
    value: &'a DeValue<'a>,
}

impl<'a> Node<'a> {
    /// Records a mistake about this value.
    pub(super) fn error(&self, reason: impl Display, remedy: impl Display) {
        self.location.error(reason, remedy);
    }

    /// A string.
    pub(super) fn string(&self) -> Option<&'a str> {
        self.expect_kind("a string", self.value.as_str())
    }

    /// A string that is not empty.
    pub(super) fn non_empty_string(&self) -> Option<String> {
        let text = self.string()?;
        if text.trim().is_empty() {
            self.error("is empty", "write something, or leave the key out");
            return None;
        }
        Some(text.to_owned())
    }

    /// A string that is a `T`.
    pub(super) fn parse<T: FromStr<Err: Display>>(&self, remedy: &str) -> Option<T> {
        let text = self.string()?;
        text.parse().map_err(|fault| self.error(format_args!("`{}`: {fault}", text.escape_debug()), remedy)).ok()
    }

    /// A string that is one of the words of an enum.
    pub(super) fn parse_keyword<T: DeserializeOwned>(&self) -> Option<T> {
        let text = self.string()?;
        let word = T::deserialize(StrDeserializer::<WordError>::new(text));
        word.map_err(|fault| {
            let fault = fault.to_string();
            let known = fault.split_once(", expected ").map_or("see errand.example.toml", |(_, known)| known);
            self.error(format_args!("`{}` is not known here", text.escape_debug()), format_args!("write {known}"));
        })
        .ok()
    }

    /// A whole number within a range.
    pub(super) fn integer(&self, range: RangeInclusive<u32>, why: &str) -> Option<u32> {
        let integer = self.expect_kind("a whole number", self.value.as_integer())?;
        let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number.and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number));
        if number.is_none() {
            let (from, to) = (range.start(), range.end());
            self.error(format_args!("`{integer}` is not within {from} to {to}"), why);
        }
        number
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Option<bool> {
        self.expect_kind("true or false", self.value.as_bool())
    }

    /// The items of an array, each read by `read`; those that are wrong are told and left out.
    pub(super) fn elements<T>(&self, read: impl FnMut(Node<'a>) -> Option<T>) -> Option<Vec<T>> {
        let items = self.expect_kind("an array", self.value.as_array())?;
        let item = |(n, item): (usize, &'a toml::Spanned<DeValue<'a>>)| {
            let here = Location {
                key: format!("{}[{n}]", self.location.key),
                span: Some(item.span()),
                ..self.location.clone()
            };
            Node { location: here, value: item.get_ref() }
        };
        Some(items.iter().enumerate().map(item).filter_map(read).collect())
    }

    /// A table.
    pub(super) fn section(&self) -> Option<Section<'a>> {
        let table = self.expect_kind("a table", self.value.as_table())?;
        Some(Section { location: self.location.clone(), table: Some(table), requested_keys: Vec::new() })
    }

    /// A table whose keys are names that the operator chose.
    pub(super) fn entries(&self) -> Option<Vec<(Node<'a>, &'a str)>> {
        let table = self.expect_kind("a table", self.value.as_table())?;
        let entry = |(name, value): (&'a toml::Spanned<_>, &'a toml::Spanned<DeValue<'a>>)| {
            let name: &'a std::borrow::Cow<'a, str> = name.get_ref();
            let here = self.location.child(&format!("\"{name}\""), Some(value.span()));
            (Node { location: here, value: value.get_ref() }, name.as_ref())
        };
        Some(table.iter().map(entry).collect())
    }

    /// A path, made absolute or relative to the file that names it.
    pub(super) fn path(&self) -> Option<PathBuf> {
        Some(self.location.document.base_dir.join(self.non_empty_string()?))
    }

    /// Whether it is a string, for keys that take a string or a table.
    pub(super) fn is_string(&self) -> bool {
        self.value.is_str()
    }

    /// The value as JSON.
    pub(super) fn to_json(&self) -> Value {
        to_json(self.value)
    }

    /// The value as an argument of a call, no digit of a number lost. `depth`: how many levels it may have.
    pub(super) fn to_arg(&self, depth: usize) -> Option<Arg> {
        let number = |text: &str| {
            let number = Decimal::parse(text.trim_start_matches('+')).map(Arg::Number);
            number.or_else(|| self.reject("a number that JSON has not stands here", "write a number, or a string"))
        };
        let below = || depth.checked_sub(1).or_else(|| self.reject("is nested too deep", "write less into it"));
        match self.value {
            DeValue::String(text) => Some(Arg::Text(text.to_string())),
            DeValue::Integer(whole) => {
                let whole = i64::from_str_radix(whole.as_str(), whole.radix()).map(|whole| whole.to_string());
                number(whole.as_deref().unwrap_or("too large"))
            }
            DeValue::Float(fraction) => number(fraction.as_str()),
            DeValue::Boolean(flag) => Some(Arg::Bool(*flag)),
            DeValue::Datetime(_) => self.reject("a date stands here", "write it as a string"),
            DeValue::Array(items) => {
                let below = below()?;
                let list = self.elements(|item| item.to_arg(below))?;
                (list.len() == items.len()).then_some(Arg::List(list))
            }
            DeValue::Table(table) => {
                let below = below()?;
                let member = |(name, value): (&'a toml::Spanned<_>, &'a toml::Spanned<DeValue<'a>>)| {
                    let name: &'a std::borrow::Cow<'a, str> = name.get_ref();
                    let here = self.location.child(&name.escape_debug().to_string(), Some(value.span()));
                    Some((name.to_string(), Node { location: here, value: value.get_ref() }.to_arg(below)?))
                };
                table.iter().map(member).collect::<Option<_>>().map(Arg::Object)
            }
        }
    }

    fn reject<T>(&self, reason: &str, remedy: &str) -> Option<T> {
        self.error(reason, remedy);
        None
    }

    fn expect_kind<T>(&self, wanted: &str, value: Option<T>) -> Option<T> {
        if value.is_none() {
            // Not the value itself: who wrote a secret where none belongs shall not find it in a log.
            let found = match self.value {
                DeValue::String(_) => "a string",
                DeValue::Integer(_) => "a whole number",
                DeValue::Float(_) => "a fraction",
                DeValue::Boolean(_) => "true or false",
                DeValue::Datetime(_) => "a date",
                DeValue::Array(_) => "an array",
                DeValue::Table(_) => "a table",
            };
            self.error(format_args!("{found} stands here"), format_args!("write {wanted}"));
        }
        value
    }
}

/// A table, and where it stands; perhaps one that is not there and so has only defaults.
pub(super) struct Section<'a> {
    pub(super) location: Location<'a>,
    table: Option<&'a DeTable<'a>>,
    requested_keys: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// Says whose table this is in every message from here on.
    pub(super) fn label_from(&mut self, key: &str) {
        let id = self.table.and_then(|table| table.get(key)).and_then(|value| value.get_ref().as_str());
        self.location.label = id.map(|id| id.escape_debug().to_string());
    }

    /// The value of a key, if it is there.
    pub(super) fn get(&mut self, key: &'static str) -> Option<Node<'a>> {
        self.requested_keys.push(key);
        let mut path = self.location.child(key, None).key;
        while let Some((before, rest)) = path.split_once('[') {
            let after = rest.split_once(']').map_or("", |(_, after)| after);
            path = format!("{before}{after}");
        }
        self.location.document.requested_keys.borrow_mut().insert(path);
        let value = self.table?.get(key)?;
        let here = self.location.child(key, Some(value.span()));
        Some(Node { location: here, value: value.get_ref() })
    }

    /// The value of a key that has to be there.
    pub(super) fn required_node(&mut self, key: &'static str, example: &str) -> Option<Node<'a>> {
        let at = self.get(key);
        if at.is_none() {
            let here = self.location.child(key, self.location.span.clone());
            here.error("is missing", format_args!("such as `{key} = {example}`"));
        }
        at
    }

    /// Reads a key that may be left out.
    pub(super) fn optional<T>(&mut self, key: &'static str, read: impl FnOnce(Node<'a>) -> Option<T>) -> Option<T> {
        self.get(key).and_then(read)
    }

    /// Reads a key that has to be there.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(Node<'a>) -> Option<T>,
    ) -> Option<T> {
        self.required_node(key, example).and_then(read)
    }

    /// The keys that were looked for.
    pub(super) fn requested_keys(&self) -> &[&'static str] {
        &self.requested_keys
    }

    /// Where a key stands, or would stand.
    pub(super) fn location_of(&self, key: &str) -> Location<'a> {
        let span = self.table.and_then(|table| table.get(key)).map(toml::Spanned::span);
        self.location.child(key, span.or_else(|| self.location.span.clone()))
    }

    /// Of keys of which at most one may be there, that one.
    pub(super) fn exclusive(&mut self, keys: &[&'static str]) -> Option<(&'static str, Node<'a>)> {
        let found = keys.iter().filter_map(|key| self.get(key).map(|at| (*key, at))).collect::<Vec<_>>();
        let names = found.iter().map(|(key, _)| format!("`{key}`")).collect::<Vec<_>>().join(" and ");
        if found.len() > 1 {
            self.location.error(format_args!("{names} exclude each other"), "keep one of them");
        }
        found.into_iter().next()
    }

    /// A table that may be left out.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'a> {
        let at = self.get(key);
        let here = at.as_ref().map_or_else(|| self.location.child(key, None), |at| at.location.clone());
        let table = at.and_then(|at| at.section());
        table.unwrap_or(Section { location: here, table: None, requested_keys: Vec::new() })
    }

    /// An array of tables; empty when it is not there.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        self.get(key).and_then(|at| at.elements(|item| item.section())).unwrap_or_default()
    }

    /// Whether the table is there.
    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    /// Lets the keys that nobody has asked for pass: when the table is wrong in a way that hides which belong there.
    pub(super) fn ignore_unknown_keys(&mut self) {
        self.table = None;
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        for key in self.table.into_iter().flat_map(|table| table.keys()) {
            let name = key.get_ref().as_ref();
            if self.requested_keys.contains(&name) {
                continue;
            }
            let here = self.location.child(&name.escape_debug().to_string(), Some(key.span()));
            if ["secret", "client_secret", "password", "passphrase", "private_key", "encryption_key"].contains(&name) {
                here.error(
                    "a secret never stands in this file",
                    "name a file or a variable of the environment that holds it; take this one for leaked",
                );
            } else if let Some(near) = self.requested_keys.iter().find(|asked| edit_distance(asked, name) <= 2) {
                here.error("is not known here", format_args!("`{near}` is"));
            } else {
                here.error("is not known here", format_args!("known are {}", self.requested_keys.join(", ")));
            }
        }
    }
}

/// How many characters have to be put, taken or changed to make one word of the other (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row = (0..=b.chars().count()).collect::<Vec<_>>();
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for ((y, over), diagonal) in b.chars().zip(row.iter().skip(1)).zip(&row) {
            let left = next.last().copied().unwrap_or_default();
            next.push((left + 1).min(over + 1).min(diagonal + usize::from(x != y)));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
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
