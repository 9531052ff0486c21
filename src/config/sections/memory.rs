//! `[memory]`: limits of in-memory caches.

use crate::{config::node::Section, domain::settings::MemoryLimits};

pub(in crate::config) fn read_memory(root: &mut Section<'_>) -> MemoryLimits {
    let mut section = root.section("memory");
    let default = MemoryLimits::default();
    MemoryLimits {
        verified_tokens: section.number(
            "verified_tokens",
            default.verified_tokens,
            0..=16_777_216,
            "maximum cached tokens; 0 switches the cache off",
        ),
        verified_megabytes: section.number(
            "verified_megabytes",
            default.verified_megabytes,
            1..=65_536,
            "MiB; a token takes about five to ten KiB",
        ),
    }
}
