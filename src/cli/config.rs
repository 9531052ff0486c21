//! `errand config`: the configuration file and the store.

use errand::{
    adapters::system::host_name,
    app::{ApplyOptions, FileComparison},
    bootstrap::{Application, MigrationPolicy},
    config::env_var,
    domain::configuration::FileOrder,
};

use super::{ACTOR, CliError, ConfigArgs, ReloadArgs, check_config, print_line, runtime::block_on};

/// Prints what an application of the file would change.
pub(super) fn diff(config_args: &ConfigArgs) -> Result<(), CliError> {
    let config = check_config::load_selected(config_args)?;
    block_on(async {
        let application = Application::build_for_command(&config, MigrationPolicy::IfEmbedded).await?;
        let FileComparison { version, relation, differences, ended_tasks } = application.compare_file(&config).await?;
        if differences.is_empty() {
            print_line("the file declares what is in the store")?;
        }
        for difference in &differences {
            print_line(difference)?;
        }
        if ended_tasks.count > 0 {
            let bound = if ended_tasks.is_complete { "" } else { "at least " };
            print_line(format!(
                "ends {bound}{} live tasks; `--accept-ending {}` accepts that",
                ended_tasks.count, ended_tasks.count
            ))?;
        }
        for task in &ended_tasks.sample {
            print_line(format!("  task {} of {}", task.id, task.root_agent))?;
        }
        if let Err(reason) = relation {
            print_line(format!("refused: {reason}; `errand config reload --return-to-older` accepts that"))?;
        }
        let generation = version.generation.map(|number| format!(", generation {number}")).unwrap_or_default();
        print_line(format!("file {}{generation}", version.short_digest()))
    })
}

/// Applies the file to the store, and makes every running replica read its own file again.
pub(super) fn reload(arguments: &ReloadArgs) -> Result<(), CliError> {
    let config = check_config::load_selected(&arguments.config_args)?;
    block_on(async {
        let application = Application::build_for_command(&config, MigrationPolicy::IfEmbedded).await?;
        let options = ApplyOptions {
            actor: ACTOR.to_owned(),
            applied_by: operator_name(),
            order: if arguments.return_to_older { FileOrder::AcceptOlder } else { FileOrder::NewerOnly },
            max_ended_tasks: arguments.accept_ending,
            accepts_other_issuer: arguments.config_args.dev,
        };
        let changes = application.apply_file(&config, &options).await?;
        let cx = application.system_context()?;
        application.service.request_reload(ACTOR, &options.applied_by, &cx).await?;
        application.service.shutdown().await;
        for change in &changes {
            print_line(change)?;
        }
        print_line(match changes.len() {
            0 => "the file was applied before; nothing has changed".to_owned(),
            1 => "1 change applied".to_owned(),
            count => format!("{count} changes applied"),
        })?;
        print_line("every running replica reads its file again; `errand status` shows what needs a restart")
    })
}

/// Returns the operator of a command: the user of the operating system, and the host.
fn operator_name() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].into_iter().find_map(env_var).unwrap_or_else(|| "unknown user".into());
    format!("{ACTOR} ({user} on {})", host_name())
}
