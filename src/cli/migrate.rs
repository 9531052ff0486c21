//! `errand migrate`: the schema of the store.

use errand::bootstrap;

use super::{CliError, ConfigArgs, check_config, print_line, runtime::block_on};

pub(super) fn migrate(config_args: &ConfigArgs) -> Result<(), CliError> {
    let config = check_config::load_selected(config_args)?;
    block_on(async {
        let store = bootstrap::connect_store(&config).await?;
        store.migrate().await?;
        store.ping().await?;
        print_line("the database schema is up to date")
    })
}
