//! `[tokens]`: lifetimes of tokens and length of actor chains.

use crate::{
    config::node::Section,
    domain::settings::{TOKEN_LIFETIME_CAP, TokenLimits},
};

pub(in crate::config) fn read_tokens(root: &mut Section<'_>) -> TokenLimits {
    let mut section = root.section("tokens");
    let default = TokenLimits::default();
    let cap = TOKEN_LIFETIME_CAP.as_seconds();
    let hint = "seconds; the maximum is 15 minutes";
    TokenLimits {
        lifetime: section.lifetime("lifetime", default.lifetime, 10..=cap, hint),
        api_token_lifetime: section.lifetime("api_token_lifetime", default.api_token_lifetime, 10..=cap, hint),
        max_chain: section
            .optional("max_chain", |node| node.integer(1..=8, "maximum number of agents in `act`; usually 4"))
            .and_then(|length| usize::try_from(length).ok())
            .unwrap_or(default.max_chain),
        leeway: section.lifetime(
            "leeway",
            default.leeway,
            0..=60,
            "seconds; synchronize the clocks if they differ by more",
        ),
        max_assertion_lifetime: section.lifetime(
            "max_assertion_lifetime",
            default.max_assertion_lifetime,
            10..=3600,
            "seconds; assertions are used at once, so a few minutes are enough",
        ),
    }
}
