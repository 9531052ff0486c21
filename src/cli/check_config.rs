//! `errand check-config`, and loading of the configuration for all commands.

use std::path::Path;

use errand::{
    adapters::system::OsEntropy,
    config::{Config, dev_address, env_var, summarize, warnings},
};

use super::{CliError, ConfigArgs, print_line};

/// Loads a configuration file. The error lists everything that is wrong with it.
pub(super) fn load(file: &Path) -> Result<Config, CliError> {
    Config::load(file, &env_var).map_err(CliError::new)
}

/// Loads the selected configuration: the file, or that of the development server in this directory
/// at its last address.
pub(super) fn load_selected(config_args: &ConfigArgs) -> Result<Config, CliError> {
    if let Some(file) = config_args.path() {
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

/// Validates a configuration file and prints its summary. With `strict`, a warning is an error.
pub(super) fn check(file: &Path, strict: bool) -> Result<(), CliError> {
    let config = load(file)?;
    print_line(summarize(&config))?;
    let count = warnings(&config).len();
    let verdict = match count {
        0 => format!("{}: valid", file.display()),
        1 => format!("{}: valid, with 1 warning", file.display()),
        _ => format!("{}: valid, with {count} warnings", file.display()),
    };
    if strict && count > 0 { Err(CliError::new(verdict)) } else { print_line(verdict) }
}
