//! `errand stop`: suspends every agent, and resumes them.

use errand::{
    app::{AdminAction, Revocation, RevocationTarget},
    domain::registry::client::ADMIN_SCOPE,
};

use super::{CliError, StopArgs, print_line, runtime::with_application};

/// Suspends all agents, or resumes them. Without `--yes`, shows what would be suspended.
pub(super) fn stop(arguments: &StopArgs) -> Result<(), CliError> {
    let reason = arguments.reason.as_deref().unwrap_or_default();
    let action = if arguments.resume { AdminAction::Resume } else { AdminAction::Suspend };
    // A dry run needs no reason, and is not recorded.
    let reason = if reason.is_empty() && !arguments.yes { "dry run" } else { reason };
    let reason =
        reason.parse().map_err(|_| CliError::new("a reason is needed for the audit trail: `--reason TEXT`"))?;
    with_application(&arguments.config_args, |application| async move {
        let (service, cx) = (&application.service, application.system_context()?);
        // The command acts as an admin whose token was issued on this host; both are recorded.
        application.rotate_due_keys(super::ACTOR).await?;
        let token = service.issue_bootstrap_token(&cx).await?.token;
        let admin = service.authorize(&token, &[ADMIN_SCOPE], "errand stop", &cx).await?;
        let revocation = Revocation { target: RevocationTarget::AllAgents, action, reason, idempotency_key: None };
        if !arguments.yes {
            if action == AdminAction::Suspend {
                let dry_run = service.dry_run(&admin, &revocation, &cx).await?;
                let bound = if dry_run.is_complete { "" } else { "at least " };
                print_line(format!(
                    "would suspend {bound}{} live tokens in {} tasks of {} agents, and issue no token to any agent",
                    dry_run.token_count,
                    dry_run.task_count(),
                    dry_run.agent_count()
                ))?;
            }
            service.shutdown().await;
            return print_line("nothing was changed; repeat the command with `--yes` and `--reason TEXT`");
        }
        let receipt = service.revoke(&admin, revocation, &cx).await;
        service.shutdown().await;
        let receipt = receipt?;
        let done = if arguments.resume {
            "all agents are resumed, except those that are suspended or blocked one by one"
        } else {
            "all agents are suspended; `errand stop --all --resume` resumes them"
        };
        let replicas = receipt.propagation.acknowledged;
        print_line(format!("{done} (log position {}, acknowledged by {replicas} replicas)", receipt.seq.number()))
    })
}
