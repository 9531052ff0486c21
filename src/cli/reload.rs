//! Reload of the configuration by a running server: what can change at run time is applied, and the
//! rest is named.

use std::path::Path;

use errand::{
    adapters::system::OsEntropy,
    app::ApplyOptions,
    bootstrap::Application,
    config::{
        Config, DEV_LISTEN, LISTEN_VARIABLE, OPERATIONS_LISTEN_VARIABLE, REPLICA_NAME_VARIABLE, env_var,
        keys_that_need_restart, warnings,
    },
    http::Tls,
};

use super::{CliError, ServeArgs, log::SetLogLevel};

/// Loads the configuration. An option takes precedence over the environment, and that over the
/// file.
pub(super) fn load_config(arguments: &ServeArgs) -> Result<Config, CliError> {
    let Some(file) = arguments.config_args.path() else {
        let listen = arguments.listen.unwrap_or(DEV_LISTEN);
        return Config::dev(Path::new("."), listen, &OsEntropy::new()?).map_err(CliError::new);
    };
    let environment = |name: &str| {
        let option = match name {
            LISTEN_VARIABLE => arguments.listen.map(|address| address.to_string()),
            OPERATIONS_LISTEN_VARIABLE => arguments.operations_listen.map(|address| address.to_string()),
            REPLICA_NAME_VARIABLE => arguments.replica_name.clone(),
            _ => None,
        };
        option.or_else(|| env_var(name))
    };
    Config::load(file, &environment).map_err(CliError::new)
}

/// The parts of a running server that a reload changes.
pub(super) struct Reloader<'a> {
    pub(super) arguments: &'a ServeArgs,
    pub(super) application: &'a Application,
    /// The configuration with which the server started.
    pub(super) started_with: &'a Config,
    pub(super) tls: Option<Tls>,
    pub(super) set_log_level: &'a SetLogLevel,
}

impl Reloader<'_> {
    /// Reads the configuration file again and applies what can change at run time. The server goes
    /// on whatever the file contains.
    pub(super) async fn reload(&self, trigger: &'static str) {
        tracing::info!(trigger, "reloading the configuration");
        match self.try_reload().await {
            Ok(needs_restart) if needs_restart.is_empty() => tracing::info!("configuration reloaded"),
            Ok(needs_restart) => {
                let keys = needs_restart.join(", ");
                tracing::warn!(keys, "configuration reloaded; these keys take effect after a restart only");
            }
            Err(error) => tracing::error!(%error, "configuration not reloaded, or not completely"),
        }
    }

    async fn try_reload(&self) -> Result<Vec<String>, CliError> {
        let config = load_config(self.arguments)?;
        if config.issuer != self.started_with.issuer {
            return Err(CliError::new("`issuer` has changed, which needs another database and a restart"));
        }
        for notice in warnings(&config) {
            tracing::warn!(notice, "configuration");
        }
        let needs_restart = keys_that_need_restart(self.started_with, &config);
        let needs_restart = needs_restart.into_iter().map(str::to_owned).collect::<Vec<_>>();
        self.application.describe_file(&config, needs_restart.clone());
        // First: a file that is refused changes nothing.
        if !self.arguments.no_apply {
            let options = ApplyOptions::for_replica(&self.application.service.settings().lease.replica_name);
            self.application.apply_file(&config, &options).await?;
        }
        let mut failed = Vec::new();
        if let Err(error) = (self.set_log_level)(&config.log.level) {
            failed.push(error.to_string());
        }
        if let (Some(tls), Some(files)) = (&self.tls, &config.tls)
            && let Err(error) = tls.replace_files(&files.certificate_file, &files.key_file)
        {
            failed.push(error.to_string());
        }
        self.application.replace_limits(&config);
        if failed.is_empty() { Ok(needs_restart) } else { Err(CliError::new(failed.join("; "))) }
    }
}
