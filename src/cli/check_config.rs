//! `errand check-config`, and loading of the configuration for all commands.

use std::path::Path;

use errand::{
    adapters::system::OsEntropy,
    config::{Config, dev_address, env_var, summarize},
};

use super::{CliError, ConfigArgs, print_line};

/// Loads a configuration file. The error lists everything that is wrong with it.
pub(super) fn load(file: &Path) -> Result<Config, CliError> {
    Config::load(file, &env_var).map_err(CliError::new)
}

/// Loads the selected configuration: the file, or that of the development server in this directory
/// at its last address.
pub(super) fn load_selected(config_args: &ConfigArgs) -> Result<Config, CliError> {
    if let Some(file) = &config_args.config {
        return load(file);
    }
    let here = Path::new(".");
    let Some(address) = dev_address(here) else {
        return Err(CliError::new(
            "no development server was started in this directory; start one with `errand serve --dev`",
        ));
    };
    Config::dev(here, address, &OsEntropy::new()?).map_err(CliError::new)
}

/// Validates a configuration file and prints its summary.
pub(super) fn check(file: &Path) -> Result<(), CliError> {
    let config = load(file)?;
    print_line(summarize(&config))?;
    print_line(format!("{}: valid", file.display()))
}
