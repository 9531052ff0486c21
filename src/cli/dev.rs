//! `errand dev`: for trying things out beside `errand serve --dev`.

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

/// One errand from end to end, in commands to paste; README.md has the same.
const QUICKSTART_SCRIPT: &str = include_str!("try-it.sh");

/// What to paste to try out the server that has just been started.
pub(super) fn quickstart(server: &IssuerUrl) -> String {
    let commands = QUICKSTART_SCRIPT.replace("http://127.0.0.1:8080", server.as_str());
    format!("\nTry it, in another terminal and this folder:\n\n{commands}")
}

pub(super) fn user_token(sub: &str, scope: &str, client: &str) -> Result<(), CliError> {
    let scope = (!scope.is_empty()).then_some(scope);
    let dice = OsEntropy::new()?;
    let token = dev_idp::issue_user_token(
        &dev_folder(Path::new(".")),
        UserTokenClaims { sub, scope, client },
        SystemClock::new().now(),
        dice.new_uuid(),
    )?;
    print_line(token)
}
