//! `errand forget-person`: removal of what is stored about a person.

use errand::{
    app::ForgetReport,
    domain::{id::Subject, requester::Requester, uri::IssuerUrl},
    ports::RequesterRows,
};

use super::{ACTOR, CliError, ForgetArgs, print_line, runtime::with_application};

pub(super) fn forget(args: ForgetArgs) -> Result<(), CliError> {
    let ForgetArgs { config_args, issuer, subject, yes } = args;
    let person = Requester { issuer: issuer.parse::<IssuerUrl>()?, subject: subject.parse::<Subject>()? };
    with_application(&config_args, |application| async move {
        let context = application.system_context()?;
        let report = application.service.forget_person(&person, ACTOR, !yes, &context).await?;
        application.service.shutdown().await;
        print_report(&report, yes)
    })
}

fn print_report(report: &ForgetReport, is_done: bool) -> Result<(), CliError> {
    let ForgetReport { records, values, deleted, left, is_blocked } = report;
    if is_done {
        print_line(format!("{values} values were removed from {records} audit records; their digests are intact"))?;
        print_line(format!("deleted: {}", format_rows(deleted)))?;
        print_line(format!("left: {}", format_rows(left)))?;
    } else {
        print_line(format!("{values} values in {records} audit records are about the person"))?;
        print_line(format!("stored: {}", format_rows(left)))?;
    }
    if *left != RequesterRows::default() {
        print_line(
            "rows are deleted 25 hours after everything about them has ended, and break-glass grants after their review; \
             repeat the command then",
        )?;
    }
    if *is_blocked {
        print_line("a block names the person and stays in force; unblock the person to remove it")?;
    }
    print_line("entries of the revocation log, backups and exports of the audit trail are not changed")?;
    if is_done { Ok(()) } else { print_line("nothing was removed; `--yes` removes it") }
}

fn format_rows(RequesterRows { tokens, tasks, grants, break_glass }: &RequesterRows) -> String {
    format!("{tokens} records of tokens, {tasks} tasks, {grants} grants, {break_glass} break-glass grants")
}
