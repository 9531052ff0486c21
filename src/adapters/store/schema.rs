//! The version check of the store's schema.

use sqlx::{FromRow, migrate::Migrator};
use thiserror::Error;

/// A reason why the program can't work with the store's schema, with the remedy.
#[derive(Debug, Error)]
pub(crate) enum SchemaError {
    #[error("the store has no schema yet; run `errand migrate`")]
    Missing,
    #[error("the store's schema is at version {found}, but this program needs version {known}; run `errand migrate`")]
    Older { found: i64, known: i64 },
    #[error(
        "the store's schema is at version {found}, but this program knows only version {known}; run the newer program that migrated it"
    )]
    Newer { found: i64, known: i64 },
    #[error("the store's schema was made by a development version of this program and can't be migrated; {remedy}")]
    Unreleased { remedy: String },
}

/// A row of `_sqlx_migrations`.
#[derive(Debug, FromRow)]
pub(crate) struct AppliedMigration {
    version: i64,
    checksum: Vec<u8>,
}

/// Checks that the applied migrations are those of the program. `recreate` is the remedy for a
/// schema that can't be migrated.
pub(crate) fn check_current(
    applied: &[AppliedMigration],
    migrator: &Migrator,
    recreate: impl FnOnce() -> String,
) -> Result<(), SchemaError> {
    let known = migrator.iter().map(|migration| migration.version).max().unwrap_or_default();
    // A released migration never changes. A migration with another checksum therefore dates from
    // before the release.
    let is_unreleased = |one: &AppliedMigration| {
        migrator.iter().any(|known| known.version == one.version && *known.checksum != *one.checksum)
    };
    if applied.iter().any(is_unreleased) {
        return Err(SchemaError::Unreleased { remedy: recreate() });
    }
    match applied.iter().map(|one| one.version).max() {
        None => Err(SchemaError::Missing),
        Some(found) if found < known => Err(SchemaError::Older { found, known }),
        Some(found) if found > known => Err(SchemaError::Newer { found, known }),
        Some(_) => Ok(()),
    }
}

/// Checks that the program can migrate the schema, or has done so already.
pub(crate) fn check_migratable(
    applied: &[AppliedMigration],
    migrator: &Migrator,
    recreate: impl FnOnce() -> String,
) -> Result<(), SchemaError> {
    match check_current(applied, migrator, recreate) {
        Ok(()) | Err(SchemaError::Missing | SchemaError::Older { .. }) => Ok(()),
        Err(error @ (SchemaError::Newer { .. } | SchemaError::Unreleased { .. })) => Err(error),
    }
}
