//! What is known of the tools of resources.

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
    pub(crate) seen: Option<String>,
    pub(crate) seen_definition: Option<String>,
    pub(crate) seen_at: Option<i64>,
}

impl ToolRow {
    pub(crate) fn new(record: &ToolRecord) -> Self {
        let parts = |sighting: &Option<ObservedDefinition>| {
            let (digest, text) =
                (|s: &ObservedDefinition| s.digest.to_string(), |s: &ObservedDefinition| s.definition.clone());
            let sighting = sighting.as_ref();
            (sighting.map(digest), sighting.map(text), sighting.map(|s| s.at.unix()))
        };
        let (accepted, accepted_definition, accepted_at) = parts(&record.accepted);
        let (seen, seen_definition, seen_at) = parts(&record.observed);
        Self {
            resource: record.resource.to_string(),
            tool: record.tool.to_string(),
            accepted,
            accepted_definition,
            accepted_at,
            accepted_by: record.accepted_by.clone(),
            seen,
            seen_definition,
            seen_at,
        }
    }

    pub(crate) fn read(self) -> Result<ToolRecord, Outage> {
        let row = format!("{}/{}", self.resource, self.tool);
        let place = RowContext { table: "tools", row: &row };
        let sighting = |column, digest: Option<String>, text: Option<String>, at: Option<i64>| match (digest, text, at)
        {
            (None, None, None) => Ok(None),
            (Some(digest), Some(definition), Some(at)) => {
                let sighting = ObservedDefinition {
                    digest: place.parse(column, &digest)?,
                    definition,
                    at: place.parse_time(column, at)?,
                };
                // A text that somebody changed is not what its digest was accepted for.
                if sighting.has_valid_digest() { Ok(Some(sighting)) } else { Err(place.corrupt(column)) }
            }
            _ => Err(place.corrupt(column)),
        };
        Ok(ToolRecord {
            resource: place.parse("resource", &self.resource)?,
            tool: place.parse("tool", &self.tool)?,
            accepted: sighting("accepted", self.accepted, self.accepted_definition, self.accepted_at)?,
            accepted_by: self.accepted_by,
            observed: sighting("seen", self.seen, self.seen_definition, self.seen_at)?,
        })
    }
}

/// The digests of `tools`.
#[derive(FromRow)]
pub(crate) struct KnownToolRow {
    resource: String,
    tool: String,
    accepted: Option<String>,
    seen: Option<String>,
}

impl KnownToolRow {
    pub(crate) fn read_all(rows: Vec<Self>) -> Result<KnownTools, Outage> {
        let mut known = KnownTools::new();
        for row in rows {
            let name = format!("{}/{}", row.resource, row.tool);
            let place = RowContext { table: "tools", row: &name };
            let digest = |column, text: &Option<String>| {
                text.as_ref().map(|text| place.parse::<ToolDigest>(column, text)).transpose()
            };
            let digests =
                KnownTool { accepted: digest("accepted", &row.accepted)?, observed: digest("seen", &row.seen)? };
            let tool = place.parse::<ToolName>("tool", &row.tool)?;
            known.entry(place.parse("resource", &row.resource)?).or_default().insert(tool, digests);
        }
        Ok(known)
    }
}
