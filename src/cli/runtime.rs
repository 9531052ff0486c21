//! Async runtime of the commands, and access to the application behind a configuration.

use std::future::Future;

use errand::bootstrap::{Application, MigrationPolicy};

use super::{CliError, ConfigArgs, check_config};

/// Runs `command` with the application of a configuration, on its store. A running server may use
/// the same store.
pub(super) fn with_application<F: Future<Output = Result<(), CliError>>>(
    config_args: &ConfigArgs,
    command: impl FnOnce(Application) -> F,
) -> Result<(), CliError> {
    let config = check_config::load_selected(config_args)?;
    block_on(async {
        let application = Application::build_for_command(&config, MigrationPolicy::IfEmbedded).await?;
        if !config_args.dev {
            application.check_issuer().await?;
        }
        command(application).await
    })
}

/// Runs a future to completion on a new multi-threaded runtime.
pub(super) fn block_on<F: Future<Output = Result<(), CliError>>>(future: F) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(future)
}
