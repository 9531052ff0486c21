//! Rows of applied configuration files.

use sqlx::FromRow;

use super::{RowContext, to_i64};
use crate::{
    domain::configuration::{AppliedFile, FileVersion},
    ports::Outage,
};

/// `applied_files`
#[derive(FromRow)]
pub(crate) struct AppliedFileRow {
    pub(crate) number: i64,
    pub(crate) digest: String,
    pub(crate) generation: Option<i64>,
    pub(crate) actor: String,
    pub(crate) occurred_at: i64,
}

impl AppliedFileRow {
    pub(crate) fn new(file: &AppliedFile) -> Self {
        Self {
            number: to_i64(file.number),
            digest: file.version.digest.clone(),
            generation: file.version.generation.map(to_i64),
            actor: file.by.clone(),
            occurred_at: file.at.unix(),
        }
    }

    pub(crate) fn read(self) -> Result<AppliedFile, Outage> {
        let context = RowContext { table: "applied_files", row: &self.number };
        let generation = self.generation.map(|number| context.parse_u64("generation", number)).transpose()?;
        Ok(AppliedFile {
            number: context.parse_u64("number", self.number)?,
            at: context.parse_time("occurred_at", self.occurred_at)?,
            version: FileVersion { digest: self.digest, generation },
            by: self.actor,
        })
    }
}
