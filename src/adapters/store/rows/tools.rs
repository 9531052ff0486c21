//! Rows of tool records.

use serde::Serialize;
use sqlx::FromRow;

use super::RowContext;
use crate::{
    domain::{
        id::{ToolDigest, ToolName},
        registry::{
            KnownTools,
            tool::{KnownTool, ObservedDefinition, ToolRecord},
        },
    },
    ports::Outage,
};

/// `tools`
#[derive(FromRow)]
pub(crate) struct ToolRow {
    pub(crate) resource: String,
    pub(crate) tool: String,
    pub(crate) accepted: Option<String>,
    pub(crate) accepted_definition: Option<String>,
    pub(crate) accepted_at: Option<i64>,
    pub(crate) accepted_by: Option<String>,
    pub(crate) observed: Option<String>,
    pub(crate) observed_definition: Option<String>,
    pub(crate) observed_at: Option<i64>,
}

impl ToolRow {
    pub(crate) fn new(record: &ToolRecord) -> Self {
        let parts = |observed: &Option<ObservedDefinition>| {
            let (digest, text) =
                (|s: &ObservedDefinition| s.digest.to_string(), |s: &ObservedDefinition| s.definition.clone());
            let observed = observed.as_ref();
            (observed.map(digest), observed.map(text), observed.map(|s| s.at.unix()))
        };
        let (accepted, accepted_definition, accepted_at) = parts(&record.accepted);
        let (observed, observed_definition, observed_at) = parts(&record.observed);
        Self {
            resource: record.resource.to_string(),
            tool: record.tool.to_string(),
            accepted,
            accepted_definition,
            accepted_at,
            accepted_by: record.accepted_by.clone(),
            observed,
            observed_definition,
            observed_at,
        }
    }

    pub(crate) fn read(self) -> Result<ToolRecord, Outage> {
        let row = format!("{}/{}", self.resource, self.tool);
        let context = RowContext { table: "tools", row: &row };
        let definition =
            |column, digest: Option<String>, text: Option<String>, at: Option<i64>| match (digest, text, at) {
                (None, None, None) => Ok(None),
                (Some(digest), Some(definition), Some(at)) => {
                    let observed = ObservedDefinition {
                        digest: context.parse(column, &digest)?,
                        definition,
                        at: context.parse_time(column, at)?,
                    };
                    // The digest was accepted for another text if this one was changed.
                    if observed.has_valid_digest() { Ok(Some(observed)) } else { Err(context.corrupt(column)) }
                }
                _ => Err(context.corrupt(column)),
            };
        Ok(ToolRecord {
            resource: context.parse("resource", &self.resource)?,
            tool: context.parse("tool", &self.tool)?,
            accepted: definition("accepted", self.accepted, self.accepted_definition, self.accepted_at)?,
            accepted_by: self.accepted_by,
            observed: definition("observed", self.observed, self.observed_definition, self.observed_at)?,
        })
    }
}

/// `tools`: the digests
#[derive(Serialize, FromRow)]
pub(crate) struct KnownToolRow {
    resource: String,
    tool: String,
    accepted: Option<String>,
    observed: Option<String>,
}

impl KnownToolRow {
    pub(crate) fn read_all(rows: Vec<Self>) -> Result<KnownTools, Outage> {
        let mut known = KnownTools::new();
        for row in rows {
            let name = format!("{}/{}", row.resource, row.tool);
            let context = RowContext { table: "tools", row: &name };
            let digest = |column, text: &Option<String>| {
                text.as_ref().map(|text| context.parse::<ToolDigest>(column, text)).transpose()
            };
            let digests = KnownTool {
                accepted: digest("accepted", &row.accepted)?,
                observed: digest("observed", &row.observed)?,
            };
            let tool = context.parse::<ToolName>("tool", &row.tool)?;
            known.entry(context.parse("resource", &row.resource)?).or_default().insert(tool, digests);
        }
        Ok(known)
    }
}
