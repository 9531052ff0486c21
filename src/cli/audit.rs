//! `errand audit`: the audit trail.

use super::{CliError, ConfigArgs, print_line, runtime::with_application};

pub(super) fn verify(config_args: &ConfigArgs) -> Result<(), CliError> {
    with_application(config_args, |application| async move {
        let report = application.service.verify_audit().await?;
        for (writer, head) in &report.heads {
            print_line(format!("chain {}: {} records, head {}", writer.0, head.n, head.hash))?;
        }
        for (writer, finding) in &report.findings {
            print_line(format!("chain {}: {finding}", writer.0))?;
        }
        print_line(format!("records: {}, chains: {}", report.records, report.chains))?;
        if report.findings.is_empty() {
            print_line("no tampering detected; keep these heads elsewhere to also detect removed or rewritten chains")
        } else {
            Err(CliError::new(format!("tampering detected; affected chains: {}", report.findings.len())))
        }
    })
}

pub(super) fn export(config_args: &ConfigArgs) -> Result<(), CliError> {
    with_application(config_args, |application| async move {
        let mut written = Ok(());
        application
            .service
            .export_audit(|line| {
                written = serde_json::to_string(line).map_err(CliError::from).and_then(print_line);
                written.is_ok()
            })
            .await?;
        written
    })
}
