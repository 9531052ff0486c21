//! The columns by which records are searched.

use std::collections::BTreeSet;

use super::record::{Record, wire_name};
use crate::domain::{id::ClientId, time::Timestamp};

/// What searches look at: copies of parts of a record's text, made fit for an index where strangers wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchColumns {
    /// When.
    pub at: Timestamp,
    /// The word for what happened.
    pub event: String,
    /// The word for how it ended.
    pub outcome: String,
    /// The requester's issuer.
    pub requester_issuer: Option<String>,
    /// The requester's subject.
    pub requester_subject: Option<String>,
    /// Everybody who acted: all agents of the chain, and the client that called.
    pub agents: BTreeSet<String>,
    /// The task.
    pub task: Option<String>,
    /// The token.
    pub token: Option<String>,
    /// The resource, or what else it was about.
    pub resource: Option<String>,
    /// The request it belongs to.
    pub request_id: Option<String>,
}

impl SearchColumns {
    /// The columns of a record.
    #[must_use]
    pub fn from_record(record: &Record) -> Self {
        let client = record.client.as_ref().map(ClientId::as_str);
        // Who acts may be named by another issuer, as it likes.
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

/// A name as it stands in the search columns, and so as it must be looked for: its first 255 characters, without U+0000.
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
