//! `errand status`: the replicas, and the configuration in force.

use super::{CliError, ConfigArgs, print_line, runtime::with_application};

/// Prints the configuration in force, and each replica with its lease and its file.
pub(super) fn print_status(config_args: &ConfigArgs) -> Result<(), CliError> {
    with_application(config_args, |application| async move {
        let cx = application.system_context()?;
        let service = &application.service;
        let replicas = service.list_replicas(&cx).await?;
        let history = service.configuration_history().await?;
        print_line(format!("issuer {}", service.settings().issuer))?;
        match history.in_force() {
            None => print_line("no configuration file was applied yet; `errand serve` applies the first one")?,
            Some(applied) => print_line(format!(
                "configuration file {}{}, applied {} by {}",
                applied.version.short_digest(),
                applied.version.generation.map(|number| format!(" (generation {number})")).unwrap_or_default(),
                applied.at,
                applied.by
            ))?,
        }
        if replicas.is_empty() {
            print_line("no replica is running")?;
        }
        for status in replicas {
            let replica = &status.heartbeat.replica;
            let file = match (&replica.file, status.has_file_in_force) {
                (None, _) => "file unknown".to_owned(),
                (Some(_), Some(true)) => "file in force".to_owned(),
                (Some(file), _) => format!(
                    "OTHER FILE {}{}",
                    file.short_digest(),
                    file.generation.map(|number| format!(" (generation {number})")).unwrap_or_default()
                ),
            };
            let restart = match replica.pending_restart.as_slice() {
                [] => String::new(),
                keys => format!(", needs a restart for {}", keys.join(", ")),
            };
            print_line(format!(
                "replica {} version {}, started {}, renewed {}, {} log entries behind, {file}{restart}",
                replica.name, replica.version, replica.started_at, status.heartbeat.at, status.lag
            ))?;
        }
        Ok(())
    })
}
