//! Which schema the store has, and which one this program knows.

use sqlx::migrate::Migrator;
use thiserror::Error;

use crate::ports::{OP_CHECK_SCHEMA, Outage};

/// Why the store's schema can't be worked with, and what to do about it.
#[derive(Debug, Error)]
pub(crate) enum SchemaError {
    #[error("the store has no schema yet: run `errand migrate`")]
    Missing,
    #[error("the store's schema is at version {found}, this program needs version {known}: run `errand migrate`")]
    Older { found: i64, known: i64 },
    #[error(
        "the store's schema is at version {found}, this program knows only version {known}: run the newer program, whose `errand migrate` brought it there"
    )]
    Newer { found: i64, known: i64 },
}

/// Whether a schema at this version is the one that the program was built with. 0 is no schema at all.
pub(crate) fn check_version(found: i64, migrator: &Migrator) -> Result<(), Outage> {
    let known = migrator.iter().map(|migration| migration.version).max().unwrap_or_default();
    let wrong = match found {
        0 => SchemaError::Missing,
        found if found < known => SchemaError::Older { found, known },
        found if found > known => SchemaError::Newer { found, known },
        _ => return Ok(()),
    };
    Err(Outage { operation: OP_CHECK_SCHEMA, source: wrong.into() })
}
