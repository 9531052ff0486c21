//! The file being parsed: its text, the errors found so far, and positions in it.

use std::{cell::RefCell, collections::BTreeSet, fmt::Display, ops::Range, path::Path};

use toml::de::DeTable;

use super::diagnostic::ConfigError;

/// Looks up an environment variable.
pub(super) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A file being parsed and the errors found in it so far.
pub(super) struct Document<'a> {
    /// The file as the operator named it.
    file: &'a str,
    /// Directory at which relative paths start.
    pub(super) base_dir: &'a Path,
    pub(super) environment: Environment<'a>,
    text: &'a str,
    errors: RefCell<Vec<ConfigError>>,
    requested_keys: RefCell<BTreeSet<String>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(file: &'a str, base: &'a Path, text: &'a str, environment: Environment<'a>) -> Self {
        Self { file, base_dir: base, environment, text, errors: RefCell::default(), requested_keys: RefCell::default() }
    }

    /// Parses the text. Returns nothing if it has syntax errors, because later errors would be
    /// noise.
    pub(super) fn parse(&self) -> Option<DeTable<'a>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let remedy = "fix the TOML syntax: https://toml.io";
            self.add_error(error.span(), String::new(), error.message().replace('\n', ", "), remedy.into());
        }
        errors.is_empty().then(|| table.into_inner())
    }

    fn add_error(&self, span: Option<Range<usize>>, key: String, reason: String, remedy: String) {
        let position = span.map(|span| self.line_and_column(span.start));
        let error = ConfigError { file: self.file.to_owned(), position, key, reason, remedy };
        // Two checks may read the same value.
        if !self.errors.borrow().contains(&error) {
            self.errors.borrow_mut().push(error);
        }
    }

    /// Records an error about an environment variable.
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

    /// Records that the parser looked up the key at `path`. Indexes are removed.
    pub(super) fn record_request(&self, path: &str) {
        let mut path = path.to_owned();
        while let Some((before, rest)) = path.split_once('[') {
            let after = rest.split_once(']').map_or("", |(_, after)| after);
            path = format!("{before}{after}");
        }
        self.requested_keys.borrow_mut().insert(path);
    }

    /// Returns every key that the parser looked up, without indexes: the keys that
    /// `errand.example.toml` must document.
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

/// Position of a key or value in the document, for error messages.
#[derive(Clone)]
pub(super) struct Location<'a> {
    pub(super) document: &'a Document<'a>,
    /// Dotted path with indexes.
    pub(super) key: String,
    /// The object that the key belongs to.
    pub(super) label: Option<String>,
    pub(super) span: Option<Range<usize>>,
}

impl<'a> Location<'a> {
    /// The location of the whole document.
    pub(super) fn of_document(document: &'a Document<'a>) -> Self {
        Self { document, key: String::new(), label: None, span: None }
    }
}

impl Location<'_> {
    /// Records an error about this key.
    pub(super) fn error(&self, reason: impl Display, remedy: impl Display) {
        let object = self.label.as_ref().map(|id| format!(" of `{id}`")).unwrap_or_default();
        let key = format!("{}{object}", self.key);
        self.document.add_error(self.span.clone(), key, reason.to_string(), remedy.to_string());
    }

    /// Returns the location of a key below this one.
    pub(super) fn child(&self, key: &str, span: Option<Range<usize>>) -> Self {
        let dot = if self.key.is_empty() { "" } else { "." };
        Self { key: format!("{}{dot}{key}", self.key), span, ..self.clone() }
    }
}
