//! `errand check-config`, and reading the configuration for all other commands.

use std::path::Path;

use errand::{
    adapters::system::OsEntropy,
    config::{Config, dev_address, env_var, summarize},
};

use super::{CliError, ConfigArgs, print_line};

/// Reads the file, or says everything that is wrong with it.
pub(super) fn load(file: &Path) -> Result<Config, CliError> {
    Config::load(file, &env_var).map_err(CliError::new)
}

/// The configuration of this server: of the file, or of the one for development in this folder, where it was last.
pub(super) fn load_selected(with: &ConfigArgs) -> Result<Config, CliError> {
    if let Some(file) = &with.config {
        return load(file);
    }
    let here = Path::new(".");
    let Some(address) = dev_address(here) else {
        return Err(CliError::new(
            "no server for development was started in this folder: `errand serve --dev` does it",
        ));
    };
    Config::dev(here, address, &OsEntropy::new()?).map_err(CliError::new)
}

pub(super) fn check(file: &Path) -> Result<(), CliError> {
    let config = load(file)?;
    print_line(summarize(&config))?;
    print_line(format!("{}: good", file.display()))
}
