//! `errand admin`: bootstrapping of the administration.

use super::{ACTOR, CliError, ConfigArgs, print_line, runtime::with_application};

pub(super) fn issue_token(config_args: &ConfigArgs) -> Result<(), CliError> {
    with_application(config_args, |application| async move {
        // Before the first start of a server no signing key exists.
        application.rotate_due_keys(ACTOR).await?;
        let issued = application.service.issue_bootstrap_token(&application.system_context()?).await?;
        application.service.shutdown().await;
        print_line(issued.token.expose())
    })
}
