//! `errand dev`: for trying things out beside `errand serve --dev`.

use std::path::Path;

use errand::{
    adapters::{
        dev_idp::{self, UserToken},
        system::{Dice, SystemClock},
    },
    config::dev_folder,
    domain::uri::IssuerUrl,
    ports::{Clock, Entropy},
};

use super::{CliFault, say};

/// One errand from end to end, in commands to paste; README.md has the same.
const TRY_IT: &str = include_str!("try-it.sh");

/// What to paste to try out the server that has just been started.
pub(super) fn try_it(server: &IssuerUrl) -> String {
    let commands = TRY_IT.replace("http://127.0.0.1:8080", server.as_str());
    format!("\nTry it, in another terminal and this folder:\n\n{commands}")
}

pub(super) fn user_token(sub: &str, scope: &str, client: &str) -> Result<(), CliFault> {
    let scope = (!scope.is_empty()).then_some(scope);
    let dice = Dice::new()?;
    let token = dev_idp::user_token(
        &dev_folder(Path::new(".")),
        UserToken { sub, scope, client },
        SystemClock::new().now(),
        dice.uuid(),
    )?;
    say(token)
}
