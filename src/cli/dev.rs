//! `errand dev`: for trying things out beside `errand serve --dev`.

use std::path::Path;

use errand::{
    adapters::{
        dev_idp::{self, UserToken},
        system::{Dice, SystemClock},
    },
    config::dev_folder,
    ports::{Clock, Entropy},
};

use super::{CliFault, say};

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
