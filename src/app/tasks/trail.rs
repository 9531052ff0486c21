//! The audit trail of one task: intent, privilege, calls and outcome in one list.

use crate::{
    app::{Error, Service},
    domain::{
        audit::{self, Event, Record, describe},
        id::TaskId,
        task::Task,
        time::Timestamp,
    },
    ports::{AuditFilter, AuditRow, PageRequest},
};

/// How many records are read at a time.
const PAGE_SIZE: u32 = 1000;
/// The maximum number of records of a trail.
const MAX_TRAIL_RECORDS: usize = 10_000;
/// The size of records after which no further page is read.
const MAX_TRAIL_BYTES: usize = 4 << 20;

/// A task and its audit records, oldest first.
#[derive(Debug)]
pub struct TaskTrail {
    /// The task.
    pub task: Task,
    /// The entries.
    pub entries: Vec<TrailEntry>,
    /// The cursor of the older entries, if there are more.
    pub next: Option<String>,
}

/// One entry of a trail.
#[derive(Debug)]
pub enum TrailEntry {
    /// An intact record.
    Record(Box<Record>),
    /// A record that was edited in the store.
    Edited(Box<AuditRow>),
}

impl TrailEntry {
    /// Returns the time of the entry.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Record(record) => record.at,
            Self::Edited(row) => row.columns.at,
        }
    }

    /// Returns the category of the entry, in one word.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Record(record) => describe::category(record),
            Self::Edited(_) => "edited",
        }
    }

    /// Describes the entry in a sentence.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Record(record) => describe::describe(record),
            Self::Edited(row) => {
                format!("record {} of {} was edited: its original content is not known", row.n, row.writer.0)
            }
        }
    }
}

impl Service {
    /// Returns the newest reported calls of a task, oldest first, and whether there are more.
    pub(super) async fn list_reported_calls(&self, id: TaskId) -> Result<(Vec<Record>, bool), Error> {
        let filter = AuditFilter { task: Some(id), event: Some(Event::ToolCall), ..AuditFilter::default() };
        let page = self.store().list_audit_records(&filter, &PageRequest { cursor: None, limit: PAGE_SIZE }).await?;
        // An edited record has no reliable content and is left out; the trail shows that it exists.
        let read = |row: &AuditRow| audit::read(row.writer, row.text()).ok().map(|restored| restored.record);
        Ok((page.items.iter().rev().filter_map(read).collect(), page.next.is_some()))
    }

    /// Returns a task and its audit records, oldest first. A long trail is returned in parts: the
    /// newest part first, and the part before it with the cursor `after`. Records of the same
    /// second and replica keep their order.
    pub async fn read_task_trail(&self, id: TaskId, after: Option<String>) -> Result<TaskTrail, Error> {
        let task = self.read_task(id).await?;
        let filter = AuditFilter { task: Some(id), ..AuditFilter::default() };
        let mut page = PageRequest { cursor: after, limit: PAGE_SIZE };
        let (mut rows, mut bytes) = (Vec::new(), 0);
        let next = loop {
            let records = self.store().list_audit_records(&filter, &page).await?;
            bytes += records.items.iter().map(|row| row.body.len().saturating_add(row.personal.len())).sum::<usize>();
            rows.extend(records.items);
            if records.next.is_none() || rows.len() >= MAX_TRAIL_RECORDS || bytes >= MAX_TRAIL_BYTES {
                break records.next;
            }
            page.cursor = records.next;
        };
        let entries = rows.into_iter().rev().map(|row| match audit::read(row.writer, row.text()) {
            Ok(restored) => TrailEntry::Record(Box::new(restored.record)),
            Err(_) => TrailEntry::Edited(Box::new(row)),
        });
        let mut entries = entries.collect::<Vec<_>>();
        // The intent comes first among records of the same second, whichever replica wrote them.
        entries.sort_by_key(|entry| (entry.at(), entry.category() != "intent"));
        Ok(TaskTrail { task, entries, next })
    }
}
