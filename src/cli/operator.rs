//! Commands for who runs the server. They work on its store, beside it while it runs.

use std::future::Future;

use errand::{
    bootstrap::{self, Application, MigrationPolicy},
    domain::{
        id::{KeyId, Reason, TaskId},
        keys::RotationReason,
    },
};

use super::{CliError, ConfigArgs, check_config, print_line};

pub(super) fn migrate(with: &ConfigArgs) -> Result<(), CliError> {
    let config = check_config::load_selected(with)?;
    block_on(async {
        let store = bootstrap::connect_store(&config).await?;
        store.migrate().await?;
        store.ping().await?;
        print_line("the database has the schema of this version")
    })
}

pub(super) fn list_keys(with: &ConfigArgs) -> Result<(), CliError> {
    with_server(with, |house| async move {
        let keys = house.service.list_keys(&house.system_context()?).await?;
        if keys.is_empty() {
            return print_line("no keys yet: `errand serve` makes the first at its start");
        }
        for (key, state) in keys {
            let retires = key.retires_at.map(|at| format!(", retires {at}")).unwrap_or_default();
            let gone = key.unpublished_at.map(|at| format!(", gone {at}")).unwrap_or_default();
            let state = format!("{state:?}").to_lowercase();
            print_line(format!(
                "{} {} {state}: signs from {}{retires}{gone}",
                key.kid, key.algorithm, key.activates_at
            ))?;
        }
        Ok(())
    })
}

pub(super) fn rotate_keys(with: &ConfigArgs) -> Result<(), CliError> {
    with_server(with, |house| async move {
        let made = house
            .service
            .rotate_keys("admin:command-line", RotationReason::Requested, &house.system_context()?)
            .await?;
        if made.is_empty() {
            return print_line("nothing to do: the next key is already waiting");
        }
        for (algorithm, kid) in made {
            print_line(format!("made {kid} ({algorithm}); `errand keys list` shows from when on it signs"))?;
        }
        house.service.shutdown().await;
        Ok(())
    })
}

pub(super) fn revoke_key(kid: &str, reason: &str, with: &ConfigArgs) -> Result<(), CliError> {
    let kid = kid.parse::<KeyId>()?;
    let reason = reason.parse::<Reason>()?;
    with_server(with, |house| async move {
        let made =
            house.service.revoke_key("admin:command-line", &kid, &reason, None, &house.system_context()?).await?;
        house.service.shutdown().await;
        print_line(format!("removed {kid}: what it signed is inactive, and it is published no more"))?;
        for (algorithm, kid) in made {
            print_line(format!(
                "made {kid} ({algorithm}), which signs from now on; whoever caches the JWKS has to fetch it"
            ))?;
        }
        Ok(())
    })
}

pub(super) fn issue_admin_token(with: &ConfigArgs) -> Result<(), CliError> {
    with_server(with, |house| async move {
        // Before the first start of a server there is no key to sign with.
        house.rotate_due_keys("admin:command-line").await?;
        let issued = house.service.issue_bootstrap_token(&house.system_context()?).await?;
        house.service.shutdown().await;
        print_line(issued.token.expose())
    })
}

pub(super) fn verify_audit(with: &ConfigArgs) -> Result<(), CliError> {
    with_server(with, |house| async move {
        let found = house.service.verify_audit().await?;
        for (writer, head) in &found.heads {
            print_line(format!("chain {}: {} records, head {}", writer.0, head.n, head.hash))?;
        }
        for (writer, finding) in &found.findings {
            print_line(format!("chain {}: {finding}", writer.0))?;
        }
        print_line(format!("{} records in {} chains", found.records, found.chains))?;
        if found.findings.is_empty() {
            print_line("nobody touched them; keep the heads elsewhere, and a removed chain shows too")
        } else {
            Err(CliError::new(format!("{} of the chains were touched", found.findings.len())))
        }
    })
}

pub(super) fn export_audit(with: &ConfigArgs) -> Result<(), CliError> {
    with_server(with, |house| async move {
        let mut written = Ok(());
        house
            .service
            .export_audit(|line| {
                written = serde_json::to_string(line).map_err(CliError::from).and_then(print_line);
                written.is_ok()
            })
            .await?;
        written
    })
}

pub(super) fn print_task_trail(id: &str, after: Option<String>, with: &ConfigArgs) -> Result<(), CliError> {
    let id = id.parse::<TaskId>()?;
    with_server(with, |house| async move {
        let now = house.system_context()?.now;
        let trail = house.service.read_task_trail(id, after).await?;
        let task = &trail.task;
        print_line(format!("task {id}: \"{}\"", task.purpose))?;
        let requester = &task.requester;
        print_line(format!(
            "{} ({}) and {}, until {}",
            requester.subject, requester.issuer, task.root_agent, task.deadline
        ))?;
        if let Some(next) = &trail.next {
            print_line(format!("… and what was before that: --after {next}"))?;
        }
        for step in &trail.entries {
            print_line(format!("{}  {}", step.at(), step.describe()))?;
        }
        print_line(format!("now it is {}", task.state_at(now)))
    })
}

/// Runs something in the house of this configuration.
pub(super) fn with_server<F: Future<Output = Result<(), CliError>>>(
    with: &ConfigArgs,
    work: impl FnOnce(Application) -> F,
) -> Result<(), CliError> {
    let config = check_config::load_selected(with)?;
    block_on(async {
        let house = Application::build(&config, MigrationPolicy::IfEmbedded).await?;
        work(house).await
    })
}

pub(super) fn block_on<F: Future<Output = Result<(), CliError>>>(work: F) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(work)
}
