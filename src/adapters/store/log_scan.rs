//! How the log is read: a few rows at a time; and where most of it is forgotten, stretch by stretch, each from the first entry
//! that is not.

use futures_util::{Stream, StreamExt};
use tokio::task::yield_now;

use super::rows::{LogRow, to_i64};
use crate::{
    domain::revocation::{LogEntry, LogPosition},
    ports::Outage,
};

/// How many rows are taken in before others get their turn: a whole burst may have come, and requests that are answered from
/// memory share the core.
const ROWS_PER_YIELD: usize = 64;

/// The entries that stand in rows.
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

/// How much longer than a page a stretch gets: then a page of entries that stand far apart does not take a statement for
/// each, and none takes long where they stand close together.
const MAX_RANGE_FACTOR: i64 = 16;

/// A page of the log, as far as it was read.
pub(crate) struct LogScan {
    /// The next stretch begins at the first entry after this place that is not forgotten.
    pub(crate) position: i64,
    /// Over how many places it goes.
    pub(crate) width: i64,
    limit: i64,
    entries: Vec<LogEntry>,
}

impl LogScan {
    pub(crate) fn new(seq: LogPosition, limit: u32) -> Self {
        let limit = i64::from(limit);
        Self { position: to_i64(seq.number()), width: limit, limit, entries: Vec::new() }
    }

    /// How many entries the page may still have.
    pub(crate) fn remaining(&self) -> i64 {
        self.limit.saturating_sub(i64::try_from(self.entries.len()).unwrap_or(i64::MAX))
    }

    /// Takes what was found in a stretch. Returns the page when it is full, or when there was nothing any more.
    pub(crate) fn add_range(&mut self, found: Vec<LogEntry>) -> Option<Vec<LogEntry>> {
        // Not where the stretch ends: that may be beyond the end of the log, and what comes until the next statement stands
        // before it.
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

    /// Reads a page from a log in which every `apart`th entry is not forgotten; in how many statements.
    fn scan(apart: usize, limit: u32) -> (Vec<i64>, usize) {
        let mut page = LogScan::new(LogPosition::default(), limit);
        for n in 1.. {
            let places = (1..=1_000_000_i64).step_by(apart);
            let from = places.clone().find(|place| *place > page.position);
            let until = from.map_or(0, |from| from + page.width);
            let found = places.filter(|place| *place > page.position && *place < until);
            let found = found.take(usize::try_from(page.remaining()).unwrap()).map(entry).collect();
            if let Some(entries) = page.add_range(found) {
                return (entries.iter().map(|entry| to_i64(entry.seq.number())).collect(), n);
            }
        }
        unreachable!()
    }

    fn entry(place: i64) -> LogEntry {
        let (now, target) = (Timestamp::EPOCH, Target::Registry);
        let (reason, by) = (String::new(), String::new());
        let entry = NewEntry { verb: LogAction::Revoke, target, reason, by, at: now, forget_after: now };
        LogEntry { seq: LogPosition::new(place.unsigned_abs()), entry }
    }

    /// Rows that are all there at once, as those of a burst may be.
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
        let broken = stream::iter([Err(sqlx::Error::PoolClosed)]);
        read_entries(broken).await.unwrap_err();
    }

    #[test]
    fn page_needs_few_statements() {
        for (apart, limit, most) in [(1, 100, 1), (2, 100, 3), (10, 100, 6), (100, 100, 16), (1_000, 100, 100)] {
            let (places, statements) = scan(apart, limit);
            let want = (1..).step_by(apart).take(100).collect::<Vec<_>>();
            assert_eq!(places, want, "every {apart}th");
            assert!(statements <= most, "every {apart}th: {statements}");
        }
        assert_eq!(scan(100_000, 100), ((1..=900_001).step_by(100_000).collect(), 11), "to the end of the log");
        assert_eq!(scan(1, 0), (Vec::new(), 1));
    }

    /// The log grows between two statements of a page, as it does in a burst.
    #[test]
    fn entries_between_statements_are_not_skipped() {
        let mut page = LogScan::new(LogPosition::default(), 10);
        // How far the log goes when each of the statements is carried out. All of it is alive.
        for head in [5, 20, 30, 40] {
            let places = page.position + 1..page.position + 1 + page.width;
            let found = places.filter(|place| *place <= head).take(usize::try_from(page.remaining()).unwrap());
            if let Some(entries) = page.add_range(found.map(entry).collect()) {
                let places = entries.iter().map(|entry| to_i64(entry.seq.number())).collect::<Vec<_>>();
                let whole = (1..=i64::try_from(places.len()).unwrap()).collect::<Vec<_>>();
                assert_eq!(places, whole, "whoever goes on after the last of them never sees the others");
                return;
            }
        }
        unreachable!()
    }
}
