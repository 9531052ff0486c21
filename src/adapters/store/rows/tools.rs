//! What is known of the tools of resources.

use sqlx::FromRow;

use super::Place;
use crate::{
    domain::{
        id::{ToolDigest, ToolName},
        registry::KnownTools,
        tool::{KnownTool, Sighting, ToolRecord},
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
    pub(crate) fn of(record: &ToolRecord) -> Self {
        let parts = |sighting: &Option<Sighting>| {
            let (digest, text) = (|s: &Sighting| s.digest.to_string(), |s: &Sighting| s.definition.clone());
            let sighting = sighting.as_ref();
            (sighting.map(digest), sighting.map(text), sighting.map(|s| s.at.unix()))
        };
        let (accepted, accepted_definition, accepted_at) = parts(&record.accepted);
        let (seen, seen_definition, seen_at) = parts(&record.seen);
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
        let place = Place { table: "tools", row: &row };
        let sighting = |column, digest: Option<String>, text: Option<String>, at: Option<i64>| match (digest, text, at)
        {
            (None, None, None) => Ok(None),
            (Some(digest), Some(definition), Some(at)) => {
                let sighting =
                    Sighting { digest: place.name(column, &digest)?, definition, at: place.time(column, at)? };
                // A text that somebody changed is not what its digest was accepted for.
                if sighting.is_whole() { Ok(Some(sighting)) } else { Err(place.corrupt(column)) }
            }
            _ => Err(place.corrupt(column)),
        };
        Ok(ToolRecord {
            resource: place.name("resource", &self.resource)?,
            tool: place.name("tool", &self.tool)?,
            accepted: sighting("accepted", self.accepted, self.accepted_definition, self.accepted_at)?,
            accepted_by: self.accepted_by,
            seen: sighting("seen", self.seen, self.seen_definition, self.seen_at)?,
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
            let place = Place { table: "tools", row: &name };
            let digest = |column, text: &Option<String>| {
                text.as_ref().map(|text| place.name::<ToolDigest>(column, text)).transpose()
            };
            let digests = KnownTool { accepted: digest("accepted", &row.accepted)?, seen: digest("seen", &row.seen)? };
            let tool = place.name::<ToolName>("tool", &row.tool)?;
            known.entry(place.name("resource", &row.resource)?).or_default().insert(tool, digests);
        }
        Ok(known)
    }
}
