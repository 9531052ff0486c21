//! Range scans of the revocation log. Where most entries are past their retention, a page is read
//! in several ranges, each from the first retained entry on.

use futures_util::{Stream, StreamExt};
use tokio::task::yield_now;

use super::rows::{LogRow, to_i64};
use crate::{
    domain::revocation::{LogEntry, LogPosition},
    ports::Outage,
};

/// The number of rows after which a read yields to other tasks. A burst may deliver many rows at
/// once, and requests that are answered from memory share the core.
const ROWS_PER_YIELD: usize = 64;

/// Collects the entries of a stream of rows.
pub(crate) async fn read_entries(
    mut rows: impl Stream<Item = Result<LogRow, sqlx::Error>> + Unpin,
) -> Result<Vec<LogEntry>, Outage> {
    let mut entries = Vec::new();
    while let Some(row) = rows.next().await {
        entries.push(row.map_err(Outage::during("read the log"))?.read()?);
        if entries.len().is_multiple_of(ROWS_PER_YIELD) {
            yield_now().await;
        }
    }
    Ok(entries)
}

/// The maximum width of a range, as a multiple of the page size. Wide ranges keep a page of sparse
/// entries from taking a statement for each; the bound keeps each statement short where entries are
/// dense.
const MAX_RANGE_FACTOR: i64 = 16;

/// A page of the log that is being read.
pub(crate) struct LogScan {
    /// The next range begins at the first retained entry after this position.
    pub(crate) position: i64,
    /// The number of positions in the next range.
    pub(crate) width: i64,
    limit: i64,
    entries: Vec<LogEntry>,
}

impl LogScan {
    pub(crate) fn new(seq: LogPosition, limit: u32) -> Self {
        let limit = i64::from(limit);
        Self { position: to_i64(seq.number()), width: limit, limit, entries: Vec::new() }
    }

    /// Returns the number of entries that still fit into the page.
    pub(crate) fn remaining(&self) -> i64 {
        self.limit.saturating_sub(i64::try_from(self.entries.len()).unwrap_or(i64::MAX))
    }

    /// Adds the entries of a range. Returns the page when it is full or when the range was empty.
    pub(crate) fn add_range(&mut self, found: Vec<LogEntry>) -> Option<Vec<LogEntry>> {
        // Continue from the last entry, not from the end of the range. The range may extend beyond
        // the head of the log, and entries that are appended before the next statement would be
        // skipped.
        let last = found.last().map(|entry| to_i64(entry.seq.number()));
        self.entries.extend(found);
        match last {
            Some(last) if self.remaining() > 0 => {
                self.position = last;
                self.width = (self.width * 2).min(self.limit * MAX_RANGE_FACTOR);
                None
            }
            Some(_) | None => Some(std::mem::take(&mut self.entries)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use futures_util::stream;

    use super::*;
    use crate::domain::{
        revocation::{LogAction, NewEntry, Target},
        time::Timestamp,
    };

    /// Reads a page from a log in which every `apart`th entry is retained. Returns its positions
    /// and the number of statements.
    fn scan(apart: usize, limit: u32) -> (Vec<i64>, usize) {
        let mut page = LogScan::new(LogPosition::default(), limit);
        for n in 1.. {
            let positions = (1..=1_000_000_i64).step_by(apart);
            let from = positions.clone().find(|position| *position > page.position);
            let until = from.map_or(0, |from| from + page.width);
            let found = positions.filter(|position| *position > page.position && *position < until);
            let found = found.take(usize::try_from(page.remaining()).unwrap()).map(entry).collect();
            if let Some(entries) = page.add_range(found) {
                return (entries.iter().map(|entry| to_i64(entry.seq.number())).collect(), n);
            }
        }
        unreachable!()
    }

    fn entry(position: i64) -> LogEntry {
        let (now, target) = (Timestamp::EPOCH, Target::Registry);
        let (reason, by) = (String::new(), String::new());
        let entry = NewEntry { verb: LogAction::Revoke, target, reason, by, at: now, forget_after: now };
        LogEntry { seq: LogPosition::new(position.unsigned_abs()), entry }
    }

    /// All rows are available at once, as in a burst.
    #[tokio::test]
    async fn scan_yields_to_other_tasks() {
        let rows = (1..=1000).map(entry).map(|LogEntry { seq, entry }| Ok(LogRow::new(&entry, seq)));
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        });
        assert_eq!(read_entries(stream::iter(rows)).await.unwrap(), (1..=1000).map(entry).collect::<Vec<_>>());
        assert!(turns.load(Ordering::Relaxed) >= 1000 / ROWS_PER_YIELD, "{turns:?}");
        other.abort();
        let failing = stream::iter([Err(sqlx::Error::PoolClosed)]);
        read_entries(failing).await.unwrap_err();
    }

    #[test]
    fn page_needs_few_statements() {
        for (apart, limit, max_statements) in
            [(1, 100, 1), (2, 100, 3), (10, 100, 6), (100, 100, 16), (1_000, 100, 100)]
        {
            let (positions, statements) = scan(apart, limit);
            let want = (1..).step_by(apart).take(100).collect::<Vec<_>>();
            assert_eq!(positions, want, "every {apart}th");
            assert!(statements <= max_statements, "every {apart}th: {statements}");
        }
        assert_eq!(scan(100_000, 100), ((1..=900_001).step_by(100_000).collect(), 11), "up to the end of the log");
        assert_eq!(scan(1, 0), (Vec::new(), 1));
    }

    /// The log grows between two statements of a page, as it does in a burst.
    #[test]
    fn entries_between_statements_are_not_skipped() {
        let mut page = LogScan::new(LogPosition::default(), 10);
        // The head of the log at each statement. All entries are retained.
        for head in [5, 20, 30, 40] {
            let positions = page.position + 1..page.position + 1 + page.width;
            let found = positions.filter(|position| *position <= head).take(usize::try_from(page.remaining()).unwrap());
            if let Some(entries) = page.add_range(found.map(entry).collect()) {
                let positions = entries.iter().map(|entry| to_i64(entry.seq.number())).collect::<Vec<_>>();
                let whole = (1..=i64::try_from(positions.len()).unwrap()).collect::<Vec<_>>();
                assert_eq!(positions, whole, "a reader that continues after the last of them never sees the others");
                return;
            }
        }
        unreachable!()
    }
}
