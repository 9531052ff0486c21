//! Search columns of audit records.

use std::collections::BTreeSet;

use super::record::{Record, wire_name};
use crate::domain::{id::ClientId, time::Timestamp};

/// The values by which records are searched. They are copies of parts of a record, normalized for
/// an index because other parties wrote some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchColumns {
    /// The time of the event.
    pub at: Timestamp,
    /// The wire name of the event.
    pub event: String,
    /// The wire name of the outcome.
    pub outcome: String,
    /// The requester's issuer.
    pub requester_issuer: Option<String>,
    /// The requester's subject.
    pub requester_subject: Option<String>,
    /// Every party that acted: all agents of the chain and the client that called.
    pub agents: BTreeSet<String>,
    /// The task.
    pub task: Option<String>,
    /// The token.
    pub token: Option<String>,
    /// The resource, or another subject of the event.
    pub resource: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
}

impl SearchColumns {
    /// Returns the search columns of a record.
    #[must_use]
    pub fn from_record(record: &Record) -> Self {
        let client = record.client.as_ref().map(ClientId::as_str);
        // Another issuer may have chosen the name of an actor freely.
        let agents = record.agents.iter().map(String::as_str).chain(client).filter(|name| !name.is_empty());
        Self {
            at: record.at,
            event: wire_name(record.event),
            outcome: wire_name(record.outcome),
            requester_issuer: record.requester.as_ref().map(|r| r.issuer.to_string()),
            requester_subject: record.requester.as_ref().map(|r| r.subject.to_string()),
            agents: agents.map(normalize_search_name).collect(),
            task: record.task.map(|id| id.to_string()),
            token: record.token.map(|id| id.to_string()),
            resource: record.resource.as_deref().map(normalize_search_name),
            request_id: record.request_id.as_ref().map(ToString::to_string),
        }
    }
}

/// Normalizes a name for the search columns and for look-ups in them: the first 255 characters,
/// with U+0000 replaced.
#[must_use]
pub fn normalize_search_name(name: &str) -> String {
    name.replace('\0', "\u{fffd}").chars().take(255).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::audit::{Event, Outcome};

    #[test]
    fn search_columns_name_every_actor() {
        let mut record = Record::new(Timestamp::EPOCH, Event::TokenIssue, Outcome::Refused);
        record.agents = vec!["reader".into(), "planner".into(), String::new(), format!("a\0{}", "🦀".repeat(300))];
        record.client = "reader".parse().ok();
        let columns = SearchColumns::from_record(&record);
        let long = format!("a\u{fffd}{}", "🦀".repeat(253));
        assert_eq!(columns.agents, BTreeSet::from([long, "planner".into(), "reader".into()]));
        assert_eq!((columns.event.as_str(), columns.outcome.as_str()), ("token.issue", "refused"));
    }
}
