//! `errand dev`: tools for a development server.

use std::path::Path;

use errand::{
    adapters::{
        dev_idp::{self, UserTokenClaims},
        system::{OsEntropy, SystemClock},
    },
    config::dev_folder,
    domain::uri::IssuerUrl,
    ports::{Clock, Entropy},
};

use super::{CliError, print_line};

/// Commands that run a task from start to end. README.md contains the same text.
const QUICKSTART_SCRIPT: &str = include_str!("quickstart.sh");

/// Returns the quickstart commands for a server that has just started.
pub(super) fn quickstart(server: &IssuerUrl) -> String {
    let commands = QUICKSTART_SCRIPT.replace("http://127.0.0.1:8080", server.as_str());
    format!("\nTry it in another terminal, in this directory:\n\n{commands}")
}

pub(super) fn user_token(sub: &str, scope: &str, client: &str) -> Result<(), CliError> {
    let scope = (!scope.is_empty()).then_some(scope);
    let entropy = OsEntropy::new()?;
    let token = dev_idp::issue_user_token(
        &dev_folder(Path::new(".")),
        UserTokenClaims { sub, scope, client },
        SystemClock::new().now(),
        entropy.new_uuid(),
    )?;
    print_line(token)
}
