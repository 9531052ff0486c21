//! Range scans of the revocation log. Where most entries are past their retention, a page is read
//! in several ranges, each from the first retained entry on.

use futures_util::{Stream, StreamExt};
use tokio::task::yield_now;

use super::rows::{LogRow, Tagged, to_i64};
use crate::{
    domain::revocation::{LinkedEntry, LogPosition},
    ports::{Outage, StoreSealer, TamperingError},
};

/// The number of rows after which a read yields to other tasks. A burst may deliver many rows at
/// once, and requests that are answered from memory share the core.
const ROWS_PER_YIELD: usize = 64;
const OP_READ_LOG: &str = "read the log";

/// Collects the entries of a stream of rows, and verifies each. With `after`, they must be all the
/// entries after this position: none is missing, and each continues the one before it.
pub(crate) async fn read_entries(
    mut rows: impl Stream<Item = Result<Tagged<LogRow>, sqlx::Error>> + Unpin,
    after: Option<LogPosition>,
    sealer: &dyn StoreSealer,
) -> Result<Vec<LinkedEntry>, Outage> {
    let tampering = Outage::during::<TamperingError>;
    let mut entries = Vec::new();
    let mut expected = after.map(|after| (to_i64(after.number()).saturating_add(1), None::<String>));
    while let Some(row) = rows.next().await {
        let row = row.map_err(Outage::during(OP_READ_LOG))?;
        let (seq, previous, tag) =
            (row.unverified().seq(), row.unverified().previous().to_owned(), row.tag().to_owned());
        if let Some((next, _)) = &expected
            && seq != *next
        {
            return Err(tampering(OP_READ_LOG)(TamperingError::MissingLogEntry(next.unsigned_abs())));
        }
        let entry = row.read(sealer, LogRow::read)?;
        if let Some((next, last_tag)) = &mut expected {
            if last_tag.as_ref().is_some_and(|last_tag| *last_tag != previous) {
                return Err(tampering(OP_READ_LOG)(TamperingError::UnlinkedLogEntry(seq.unsigned_abs())));
            }
            (*next, *last_tag) = (seq.saturating_add(1), Some(tag.clone()));
        }
        entries.push(LinkedEntry { entry, previous, tag });
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
    entries: Vec<LinkedEntry>,
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
    pub(crate) fn add_range(&mut self, found: Vec<LinkedEntry>) -> Option<Vec<LinkedEntry>> {
        // Continue from the last entry, not from the end of the range. The range may extend beyond
        // the head of the log, and entries that are appended before the next statement would be
        // skipped.
        let last = found.last().map(|linked| to_i64(linked.entry.seq.number()));
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
    use crate::{
        adapters::store::plain_sealer::PlainSealer,
        domain::{
            revocation::{LogAction, LogEntry, NewEntry, Target},
            time::Timestamp,
        },
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
            let found = found.take(usize::try_from(page.remaining()).unwrap()).map(linked).collect();
            if let Some(entries) = page.add_range(found) {
                return (entries.iter().map(|linked| to_i64(linked.entry.seq.number())).collect(), n);
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

    fn linked(position: i64) -> LinkedEntry {
        LinkedEntry { entry: entry(position), previous: String::new(), tag: String::new() }
    }

    /// Returns the rows of a log.
    fn log(positions: std::ops::RangeInclusive<i64>) -> Vec<Tagged<LogRow>> {
        let mut link = String::new();
        let row = |LogEntry { seq, entry }| {
            let row = Tagged::new(LogRow::new(&entry, seq, &link), &PlainSealer).unwrap();
            row.tag().clone_into(&mut link);
            row
        };
        positions.map(entry).map(row).collect()
    }

    /// All rows are available at once, as in a burst.
    #[tokio::test]
    async fn scan_yields_to_other_tasks() {
        let rows = log(1..=1000).into_iter().map(Ok);
        let turns = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&turns);
        let other = tokio::spawn(async move {
            loop {
                counted.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        });
        let read = read_entries(stream::iter(rows), Some(LogPosition::default()), &PlainSealer).await;
        let read = read.unwrap().into_iter().map(|linked| linked.entry).collect::<Vec<_>>();
        assert_eq!(read, (1..=1000).map(entry).collect::<Vec<_>>());
        assert!(turns.load(Ordering::Relaxed) >= 1000 / ROWS_PER_YIELD, "{turns:?}");
        other.abort();
        let failing = stream::iter([Err(sqlx::Error::PoolClosed)]);
        read_entries(failing, None, &PlainSealer).await.unwrap_err();
    }

    /// No entry can be missing, moved or put in the place of another where all are read.
    #[tokio::test]
    async fn pages_are_without_gaps_and_linked() {
        let read = async |rows: Vec<Tagged<LogRow>>, after: Option<u64>| {
            let rows = stream::iter(rows.into_iter().map(Ok));
            let read = read_entries(rows, after.map(LogPosition::new), &PlainSealer).await;
            read.map(|entries| entries.len()).map_err(|outage| outage.tampering().cloned().unwrap())
        };
        assert_eq!(read(log(1..=9), Some(0)).await, Ok(9));
        assert_eq!(read(log(1..=9), Some(1)).await, Err(TamperingError::MissingLogEntry(2)), "not what was asked for");
        let without = |n: usize| {
            let mut rows = log(1..=9);
            rows.remove(n);
            rows
        };
        for n in 0..8_u64 {
            let rows = || without(usize::try_from(n).unwrap());
            assert_eq!(read(rows(), Some(0)).await, Err(TamperingError::MissingLogEntry(n + 1)));
            assert_eq!(read(rows(), None).await, Ok(8), "a reader that skips entries expects gaps");
        }
        // An entry of another log with the same position and content.
        let mut rows = log(1..=9);
        rows.splice(4..5, log(5..=5));
        assert_eq!(read(rows, Some(0)).await, Err(TamperingError::UnlinkedLogEntry(5)));
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
            if let Some(entries) = page.add_range(found.map(linked).collect()) {
                let positions = entries.iter().map(|linked| to_i64(linked.entry.seq.number())).collect::<Vec<_>>();
                let whole = (1..=i64::try_from(positions.len()).unwrap()).collect::<Vec<_>>();
                assert_eq!(positions, whole, "a reader that continues after the last of them never sees the others");
                return;
            }
        }
        unreachable!()
    }
}
