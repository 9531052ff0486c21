//! `[four_eyes]`: acts of admins that need a second person.

use crate::{config::node::Section, domain::four_eyes::FourEyes};

pub(in crate::config) fn read_four_eyes(root: &mut Section<'_>) -> FourEyes {
    let mut section = root.section("four_eyes");
    match section.optional("required", |node| node.boolean()) {
        None => FourEyes::WithTwoOperators,
        Some(true) => FourEyes::Always,
        Some(false) => FourEyes::Never,
    }
}
