//! `errand audit`: the audit trail.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use errand::{
    adapters::keyring::verify_checkpoint,
    app::{AuditReport, ExportLine, OfflineVerification},
    domain::{audit::checkpoint::Checkpoint, jose::jwk::JwkSet, time::Timestamp},
};
use serde_json::Value;

use super::{ACTOR, AuditPruneArgs, AuditVerifyArgs, CliError, ConfigArgs, print_line, runtime::with_application};

pub(super) fn verify(args: AuditVerifyArgs) -> Result<(), CliError> {
    let AuditVerifyArgs { config, dev, export, checkpoints, keys } = args;
    let kept = read_checkpoints(&checkpoints)?;
    match (export, keys) {
        (Some(export), Some(keys)) => verify_export(&export, &read_keys(&keys)?, &kept),
        (None, Some(keys)) if !kept.is_empty() => verify_kept(&kept, &read_keys(&keys)?),
        (Some(_) | None, Some(_) | None) if config.is_some() || dev => {
            verify_store(&ConfigArgs { file: None, config, dev }, kept)
        }
        (Some(_) | None, Some(_) | None) => Err(CliError::new(
            "nothing to verify; name a server with --config, an export with --export and --keys, or checkpoints with \
             --checkpoint and --keys",
        )),
    }
}

fn verify_store(config_args: &ConfigArgs, kept: Vec<String>) -> Result<(), CliError> {
    with_application(config_args, |application| async move {
        let report = application.service.verify_audit(&kept, &application.system_context()?).await?;
        print_report(&report)
    })
}

/// Verifies an export with public keys alone.
fn verify_export(export: &Path, keys: &JwkSet, kept: &[String]) -> Result<(), CliError> {
    print_report(&read_export(export, keys, kept)?.finish())?;
    print_line("message authentication codes are not part of an export; the server verifies them")
}

/// Verifies every line of an export.
fn read_export<'a>(
    export: &Path,
    keys: &'a JwkSet,
    kept: &[String],
) -> Result<OfflineVerification<impl Fn(&str) -> Option<Vec<u8>> + use<'a>>, CliError> {
    let mut verification = OfflineVerification::new(|text: &str| verify_checkpoint(keys, text), kept);
    let file = fs::File::open(export).map_err(cannot_read(export))?;
    for (n, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.map_err(cannot_read(export))?;
        let parsed = serde_json::from_str::<ExportLine>(&line);
        let parsed = parsed.map_err(|_| {
            CliError::new(format!(
                "{}: line {n} is not a line of an export; export the audit trail again",
                export.display()
            ))
        });
        verification.add(&parsed?);
    }
    Ok(verification)
}

/// Deletes records that an export contains.
pub(super) fn prune(args: AuditPruneArgs) -> Result<(), CliError> {
    let AuditPruneArgs { config_args, before, export, yes } = args;
    let before = Timestamp::parse_rfc3339(&before)
        .ok_or_else(|| CliError::new("`--before` must be a time of RFC 3339, such as 2026-01-31T00:00:00Z"))?;
    with_application(&config_args, |application| async move {
        let service = &application.service;
        let exported = read_export(&export, &service.checkpoint_jwks(), &[])?.finish_complete();
        let exported = exported.map_err(|report| {
            let finding = report.findings.first().map(ToString::to_string).unwrap_or_default();
            CliError::new(format!("{}: not a complete export of this audit trail: {finding}", export.display()))
        })?;
        let context = application.system_context()?;
        let plan = service.plan_prune(before, &exported, &context).await?;
        print_line(format!("{} records in {} chains are older and in the export", plan.records, plan.chains))?;
        if !yes {
            service.shutdown().await;
            return print_line("nothing was deleted; `--yes` deletes them");
        }
        let deleted = service.prune_audit(&plan, ACTOR, &context).await?;
        service.shutdown().await;
        print_line(format!("{deleted} records were deleted; keep {} for as long as you need them", export.display()))
    })
}

/// Verifies checkpoints alone, and shows what they state.
fn verify_kept(kept: &[String], keys: &JwkSet) -> Result<(), CliError> {
    let mut numbers = BTreeMap::new();
    for text in kept {
        let payload = verify_checkpoint(keys, text)
            .ok_or_else(|| CliError::new("a checkpoint is not signed with one of the keys, or was edited"))?;
        let checkpoint = serde_json::from_slice::<Checkpoint>(&payload)?;
        if numbers.insert(checkpoint.number, text).is_some_and(|other| other != text) {
            return Err(CliError::new(format!(
                "two different checkpoints have the number {}: the audit trail was replaced by another one",
                checkpoint.number
            )));
        }
        print_line(format!(
            "checkpoint {} of {} at {}: {} records in {} chains, log position {}",
            checkpoint.number,
            checkpoint.iss,
            checkpoint.iat,
            checkpoint.record_count(),
            checkpoint.writers.len(),
            checkpoint.log
        ))?;
    }
    Ok(())
}

fn print_report(report: &AuditReport) -> Result<(), CliError> {
    for (writer, head) in &report.heads {
        print_line(format!("chain {}: {} records, head {}", writer.0, head.n, head.hash))?;
    }
    for finding in &report.findings {
        print_line(finding.to_string())?;
    }
    let AuditReport { records, chains, checkpoints, uncovered_records, removed_values, .. } = report;
    for (writer, n) in &report.pruned {
        print_line(format!("chain {}: records 1 to {n} were pruned", writer.0))?;
    }
    print_line(format!("{records} records in {chains} chains; checkpoints: {checkpoints}"))?;
    if report.pruned_records > 0 {
        print_line(format!(
            "{} records were pruned, as a signed checkpoint states; an export from before that has them",
            report.pruned_records
        ))?;
    }
    if *removed_values > 0 {
        print_line(format!("{removed_values} personal values were removed; their digests are intact"))?;
    }
    if *uncovered_records > 0 {
        print_line(format!(
            "{uncovered_records} records are not covered by a checkpoint: removed records after the last checkpoint are \
             not detected"
        ))?;
    }
    if report.findings.is_empty() {
        print_line(
            "no tampering detected; compare with checkpoints kept elsewhere to detect an older copy of the database",
        )
    } else {
        Err(CliError::new(format!("tampering detected: {} findings", report.findings.len())))
    }
}

pub(super) fn export(config_args: &ConfigArgs) -> Result<(), CliError> {
    with_application(config_args, |application| async move {
        let mut written = Ok(());
        application
            .service
            .export_audit(&application.system_context()?, |line| {
                written = serde_json::to_string(line).map_err(CliError::from).and_then(print_line);
                written.is_ok()
            })
            .await?;
        application.service.shutdown().await;
        written
    })
}

pub(super) fn sign_checkpoint(config_args: &ConfigArgs) -> Result<(), CliError> {
    with_application(config_args, |application| async move {
        let signed = application.service.sign_checkpoint(&application.system_context()?).await?;
        application.service.shutdown().await;
        print_line(signed.text)
    })
}

pub(super) fn print_keys(config_args: &ConfigArgs) -> Result<(), CliError> {
    with_application(config_args, |application| async move {
        print_line(Value::from(application.service.checkpoint_jwks()).to_string())
    })
}

fn read_keys(path: &Path) -> Result<JwkSet, CliError> {
    let text = fs::read_to_string(path).map_err(cannot_read(path))?;
    let keys = serde_json::from_str::<Value>(&text).ok().and_then(|keys| JwkSet::try_from(keys).ok());
    keys.ok_or_else(|| CliError::new(format!("{} is not a JWK set; `errand audit keys` prints it", path.display())))
}

/// Reads checkpoints, one on each line that is not blank.
fn read_checkpoints(paths: &[PathBuf]) -> Result<Vec<String>, CliError> {
    let mut checkpoints = Vec::new();
    for path in paths {
        let text = fs::read_to_string(path).map_err(cannot_read(path))?;
        checkpoints.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
    }
    Ok(checkpoints)
}

fn cannot_read(path: &Path) -> impl Fn(std::io::Error) -> CliError {
    let path = path.display().to_string();
    move |error| CliError::new(format!("cannot read {path}: {error}"))
}
