//! `errand issuers`: identity providers.

use errand::{
    app::{Actor, IssuerKeysChange},
    domain::id::Reason,
};

use super::{ACTOR, CliError, IssuerKeysArgs, print_line, runtime::with_application};

pub(super) fn refresh(args: IssuerKeysArgs) -> Result<(), CliError> {
    let IssuerKeysArgs { issuer, withdraw, restore, reason, config_args } = args;
    let reason = reason.parse::<Reason>()?;
    with_application(&config_args, |application| async move {
        let change = IssuerKeysChange { withdraw, restore };
        let context = application.system_context()?;
        let receipt = application
            .service
            .refresh_issuer_keys(Actor::Host(ACTOR), &issuer, &change, &reason, None, &context)
            .await?;
        application.service.shutdown().await;
        print_line(format!("every replica fetches the keys of {} again", receipt.issuer))?;
        for kid in receipt.withdrawn {
            print_line(format!("withdrawn: {}", kid.escape_debug()))?;
        }
        Ok(())
    })
}
