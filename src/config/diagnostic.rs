//! Configuration errors: position, key, reason and remedy.

use std::{error::Error, fmt};

/// One error. Displays on one line as `file:line:column: key: reason (remedy)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as the operator named it; `environment` for a variable.
    pub file: String,
    /// Line and column, starting at 1; `None` for an error that concerns the whole file.
    pub position: Option<(usize, usize)>,
    /// Dotted path of the key with its indexes, followed by the object it belongs to; the name of
    /// the variable for the environment.
    pub key: String,
    /// What is wrong. Never contains a secret.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {} ({})", self.reason, self.remedy)
    }
}

/// All errors of one run, in the order of the file. Displays one error per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Returns the errors; at least one.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }

    /// Sorts errors by position; those without a position come last.
    pub(super) fn sorted(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(|error| error.position.unwrap_or((usize::MAX, 0)));
        errors.dedup();
        Self(errors)
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            let line_break = if n == 0 { "" } else { "\n" };
            write!(f, "{line_break}{error}")?;
        }
        Ok(())
    }
}

impl Error for ConfigErrors {}
