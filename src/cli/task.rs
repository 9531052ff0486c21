//! `errand task`: the trail of a task.

use errand::domain::id::TaskId;

use super::{CliError, ConfigArgs, print_line, runtime::with_application};

pub(super) fn print_trail(id: &str, after: Option<String>, config_args: &ConfigArgs) -> Result<(), CliError> {
    let id = id.parse::<TaskId>()?;
    with_application(config_args, |application| async move {
        let now = application.system_context()?.now;
        let trail = application.service.read_task_trail(id, after).await?;
        let task = &trail.task;
        print_line(format!("task {id}: \"{}\"", task.purpose))?;
        let requester = &task.requester;
        print_line(format!(
            "requester {} ({}), agent {}, deadline {}",
            requester.subject, requester.issuer, task.root_agent, task.deadline
        ))?;
        if let Some(next) = &trail.next {
            print_line(format!("… earlier entries: --after {next}"))?;
        }
        for entry in &trail.entries {
            print_line(format!("{}  {}", entry.at(), entry.describe()))?;
        }
        print_line(format!("task {}", task.state_at(now)))
    })
}
