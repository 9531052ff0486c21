//! What is wrong with a configuration, said so that the operator can mend it: where, what, why, and what to do.

use std::{error::Error, fmt};

/// One mistake. Displays as `file:line:column: key: reason (remedy)`, one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file as the operator named it; `environment` for a variable.
    pub file: String,
    /// Line and column, from 1; none for what concerns the whole file.
    pub position: Option<(usize, usize)>,
    /// The dotted path of the key with indexes, and the object it belongs to; the variable's name in the environment.
    pub key: String,
    /// What is wrong. Never a secret.
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

/// All mistakes of one run, in the order of the file. Displays one line a mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The mistakes; at least one.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.0.iter()
    }

    /// Those of the file by their place in it, then what has no place.
    pub(super) fn sorted(mut mistakes: Vec<ConfigError>) -> Self {
        mistakes.sort_by_key(|mistake| mistake.position.unwrap_or((usize::MAX, 0)));
        mistakes.dedup();
        Self(mistakes)
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(mistake: ConfigError) -> Self {
        Self(vec![mistake])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, mistake) in self.0.iter().enumerate() {
            let line_break = if n == 0 { "" } else { "\n" };
            write!(f, "{line_break}{mistake}")?;
        }
        Ok(())
    }
}

impl Error for ConfigErrors {}
