//! `errand check-config`, and reading the configuration for all other commands.

use std::path::Path;

use errand::config::{Config, environment, explain};

use super::{CliFault, say};

/// Reads the file, or says everything that is wrong with it.
pub(super) fn load(file: &Path) -> Result<Config, CliFault> {
    Config::load(file, &environment).map_err(CliFault::new)
}

pub(super) fn check(file: &Path) -> Result<(), CliFault> {
    let config = load(file)?;
    say(explain(&config))?;
    say(format!("{}: good", file.display()))
}
