//! `errand check-config`, and reading the configuration for all other commands.

use std::path::Path;

use errand::{
    adapters::system::Dice,
    config::{Config, dev_address, environment, explain},
};

use super::{CliFault, With, say};

/// Reads the file, or says everything that is wrong with it.
pub(super) fn load(file: &Path) -> Result<Config, CliFault> {
    Config::load(file, &environment).map_err(CliFault::new)
}

/// The configuration of this server: of the file, or of the one for development in this folder, where it was last.
pub(super) fn of(with: &With) -> Result<Config, CliFault> {
    if let Some(file) = &with.config {
        return load(file);
    }
    let here = Path::new(".");
    let Some(address) = dev_address(here) else {
        return Err(CliFault::new(
            "no server for development was started in this folder: `errand serve --dev` does it",
        ));
    };
    Config::dev(here, address, &Dice::new()?).map_err(CliFault::new)
}

pub(super) fn check(file: &Path) -> Result<(), CliFault> {
    let config = load(file)?;
    say(explain(&config))?;
    say(format!("{}: good", file.display()))
}
