//! Which schema the store has, and which one this program knows.

use sqlx::migrate::Migrator;
use thiserror::Error;

use crate::ports::{CHECK_SCHEMA, Outage};

/// Why the store's schema can't be worked with, and what to do about it.
#[derive(Debug, Error)]
pub(crate) enum WrongSchema {
    #[error("the store has no schema yet: run `errand migrate`")]
    None,
    #[error("the store's schema is at version {found}, this program needs version {known}: run `errand migrate`")]
    Older { found: i64, known: i64 },
    #[error(
        "the store's schema is at version {found}, this program knows only version {known}: run the newer program, whose `errand migrate` brought it there"
    )]
    Newer { found: i64, known: i64 },
}

/// Whether a schema at this version is the one that the program was built with. 0 is no schema at all.
pub(crate) fn check(found: i64, migrator: &Migrator) -> Result<(), Outage> {
    let known = migrator.iter().map(|migration| migration.version).max().unwrap_or_default();
    let wrong = match found {
        0 => WrongSchema::None,
        found if found < known => WrongSchema::Older { found, known },
        found if found > known => WrongSchema::Newer { found, known },
        _ => return Ok(()),
    };
    Err(Outage { during: CHECK_SCHEMA, source: wrong.into() })
}
