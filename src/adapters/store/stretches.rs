//! How the log is read where most of it is forgotten: stretch by stretch, each from the first entry that is not.

use super::rows::{LogRow, signed};
use crate::{
    domain::revocation::{LogEntry, Seq},
    ports::Outage,
};

/// How much longer than a page a stretch gets: then a page of entries that stand far apart does not take a statement for
/// each, and none takes long where they stand close together.
const LONGEST: i64 = 16;

/// A page of the log, as far as it was read.
pub(crate) struct Stretches {
    /// The next stretch begins at the first entry after this place that is not forgotten.
    pub(crate) after: i64,
    /// Over how many places it goes.
    pub(crate) width: i64,
    limit: i64,
    found: Vec<LogEntry>,
}

impl Stretches {
    pub(crate) fn after(seq: Seq, limit: u32) -> Self {
        let limit = i64::from(limit);
        Self { after: signed(seq.number()), width: limit, limit, found: Vec::new() }
    }

    /// How many entries the page may still have.
    pub(crate) fn left(&self) -> i64 {
        self.limit.saturating_sub(i64::try_from(self.found.len()).unwrap_or(i64::MAX))
    }

    /// Takes what was found in a stretch. Returns the page when it is full, or when there was nothing any more.
    pub(crate) fn take(&mut self, rows: Vec<LogRow>) -> Result<Option<Vec<LogEntry>>, Outage> {
        let first = rows.first().map(LogRow::place);
        for row in rows {
            self.found.push(row.read()?);
        }
        match first {
            Some(first) if self.left() > 0 => {
                self.after = first.saturating_add(self.width - 1);
                self.width = (self.width * 2).min(self.limit * LONGEST);
                Ok(None)
            }
            Some(_) | None => Ok(Some(std::mem::take(&mut self.found))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        revocation::{NewEntry, Target, Verb},
        time::Timestamp,
    };

    /// Reads a page from a log in which every `apart`th entry is not forgotten; in how many statements.
    fn page(apart: usize, limit: u32) -> (Vec<i64>, usize) {
        let mut page = Stretches::after(Seq::default(), limit);
        for n in 1.. {
            let places = (1..=1_000_000_i64).step_by(apart);
            let from = places.clone().find(|place| *place > page.after);
            let until = from.map_or(0, |from| from + page.width);
            let found = places.filter(|place| *place > page.after && *place < until);
            let rows = found.take(usize::try_from(page.left()).unwrap()).map(row).collect();
            if let Some(entries) = page.take(rows).unwrap() {
                return (entries.iter().map(|entry| signed(entry.seq.number())).collect(), n);
            }
        }
        unreachable!()
    }

    fn row(place: i64) -> LogRow {
        let (now, target) = (Timestamp::EPOCH, Target::Registry);
        let (reason, by) = (String::new(), String::new());
        let entry = NewEntry { verb: Verb::Revoke, target, reason, by, at: now, forget_after: now };
        LogRow::of(&entry, Seq::new(place.unsigned_abs()))
    }

    #[test]
    fn a_page_takes_few_statements() {
        for (apart, limit, most) in [(1, 100, 1), (2, 100, 3), (10, 100, 6), (100, 100, 16), (1_000, 100, 100)] {
            let (places, statements) = page(apart, limit);
            let want = (1..).step_by(apart).take(100).collect::<Vec<_>>();
            assert_eq!(places, want, "every {apart}th");
            assert!(statements <= most, "every {apart}th: {statements}");
        }
        assert_eq!(page(100_000, 100), ((1..=900_001).step_by(100_000).collect(), 11), "to the end of the log");
        assert_eq!(page(1, 0), (Vec::new(), 1));
    }
}
