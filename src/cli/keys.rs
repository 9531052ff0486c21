//! `errand keys`: signing keys and the key-encryption key.

use errand::domain::{
    id::{KeyId, Reason},
    keys::RotationReason,
};

use super::{ACTOR, CliError, ConfigArgs, print_line, runtime::with_application};

pub(super) fn list(config_args: &ConfigArgs) -> Result<(), CliError> {
    with_application(config_args, |application| async move {
        let keys = application.service.list_keys(&application.system_context()?).await?;
        if keys.is_empty() {
            return print_line("no keys yet; `errand serve` creates the first one at start");
        }
        for (key, state) in keys {
            let retires = key.retires_at.map(|at| format!(", retires {at}")).unwrap_or_default();
            let unpublished = key.unpublished_at.map(|at| format!(", unpublished {at}")).unwrap_or_default();
            let state = format!("{state:?}").to_lowercase();
            print_line(format!(
                "{} {} {state}: signs from {}{retires}{unpublished}",
                key.kid, key.algorithm, key.activates_at
            ))?;
        }
        Ok(())
    })
}

pub(super) fn rotate(at_once: bool, config_args: &ConfigArgs) -> Result<(), CliError> {
    with_application(config_args, |application| async move {
        let reason = if at_once { RotationReason::Immediate } else { RotationReason::Requested };
        let created = application.service.rotate_keys(ACTOR, reason, &application.system_context()?).await?;
        if created.is_empty() {
            return print_line("nothing to do; the next key is already published");
        }
        for (algorithm, kid) in created {
            print_line(if at_once {
                format!("{kid} ({algorithm}) signs from now on; verifiers with a cached JWKS must fetch it again")
            } else {
                format!("created {kid} ({algorithm}); `errand keys list` shows when it starts to sign")
            })?;
        }
        application.service.shutdown().await;
        Ok(())
    })
}

pub(super) fn rekey(config_args: &ConfigArgs) -> Result<(), CliError> {
    with_application(config_args, |application| async move {
        let resealed = application.service.rekey(ACTOR, &application.system_context()?).await?;
        application.service.shutdown().await;
        if resealed == 0 {
            return print_line("nothing to do; every stored key is encrypted with the current key-encryption key");
        }
        print_line(format!("encrypted {resealed} stored keys with the current key-encryption key"))?;
        print_line(
            "remove `previous_encryption_key_files` from every replica; backups of the database still need the previous key",
        )
    })
}

pub(super) fn revoke(kid: &str, reason: &str, config_args: &ConfigArgs) -> Result<(), CliError> {
    let kid = kid.parse::<KeyId>()?;
    let reason = reason.parse::<Reason>()?;
    with_application(config_args, |application| async move {
        let context = application.system_context()?;
        let created = application.service.revoke_key(ACTOR, &kid, &reason, None, &context).await?;
        application.service.shutdown().await;
        print_line(format!("removed {kid}; it is no longer published, and tokens that it signed are inactive"))?;
        for (algorithm, kid) in created {
            print_line(format!(
                "created {kid} ({algorithm}), which signs from now on; verifiers with a cached JWKS must fetch it again"
            ))?;
        }
        Ok(())
    })
}
