//! Rows with a tag: a message authentication code of the table and of all values.

use std::error::Error as StdError;

use serde::Serialize;
use sqlx::FromRow;
use thiserror::Error;

use super::CorruptRowError;
use crate::{
    domain::revocation::UnknownEntryError,
    ports::{Outage, StoreSealer, TamperingError},
};

/// A row of a table whose rows have tags.
///
/// The tag covers the name of the table and the row as JSON, with the columns in the order of the
/// fields. NULL, an empty text and a number are thus distinct, and no two rows have the same text.
pub(crate) trait TaggedRow: Serialize {
    /// The table.
    const TABLE: &'static str;

    /// Returns the primary key, for errors.
    fn key(&self) -> String;
}

/// A row with its tag.
#[derive(Clone, Debug, Serialize, FromRow)]
pub(crate) struct Tagged<T> {
    #[serde(flatten)]
    #[sqlx(flatten)]
    row: T,
    tag: String,
}

impl<T: TaggedRow> Tagged<T> {
    /// Computes the tag of a row that is to be written.
    pub(crate) fn new(row: T, sealer: &dyn StoreSealer) -> Result<Self, Outage> {
        Ok(Self { tag: sealer.tag_row(&tagged_text(&row)?)?, row })
    }

    /// Returns the tag.
    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    /// Returns the row without regard to the tag.
    pub(crate) fn unverified(&self) -> &T {
        &self.row
    }

    /// Verifies the tag, and returns the row.
    pub(crate) fn verify(self, sealer: &dyn StoreSealer) -> Result<T, Outage> {
        self.read(sealer, Ok)
    }

    /// Parses the row and verifies the tag. The error of a wrong tag names a value that can't be
    /// parsed too. An entry of the log that a newer version wrote is reported as such: it may tag
    /// columns that this one does not know.
    pub(crate) fn read<V>(
        self,
        sealer: &dyn StoreSealer,
        parse: impl FnOnce(T) -> Result<V, Outage>,
    ) -> Result<V, Outage> {
        let is_authentic = sealer.is_row_authentic(&tagged_text(&self.row)?, &self.tag)?;
        let tampering = TamperingError::Row { table: T::TABLE, row: self.row.key() };
        let parsed = parse(self.row);
        if is_authentic {
            return parsed;
        }
        Err(match parsed {
            Err(newer) if newer.unknown_entry().is_some_and(UnknownEntryError::needs_newer_version) => newer,
            Err(Outage { operation, source: reason }) if reason.is::<CorruptRowError>() => {
                Outage::during(operation)(TamperedValueError { reason, tampering })
            }
            Ok(_) | Err(_) => Outage::during("read a row")(tampering),
        })
    }
}

/// A row with a wrong tag has a value that can't be parsed.
#[derive(Debug, Error)]
#[error("{reason}")]
struct TamperedValueError {
    reason: Box<dyn StdError + Send + Sync>,
    #[source]
    tampering: TamperingError,
}

/// Tags rows that are to be written.
pub(crate) fn tag_all<T: TaggedRow>(
    rows: impl IntoIterator<Item = Result<T, Outage>>,
    sealer: &dyn StoreSealer,
) -> Result<Vec<Tagged<T>>, Outage> {
    rows.into_iter().map(|row| Tagged::new(row?, sealer)).collect()
}

/// A read of rows of which each is work to do: one that was tampered with is reported and left out,
/// so that it does not stop the others, however many precede them.
pub(crate) struct WorkScan {
    wanted: i64,
    /// The number of rows that the last statement found and that are left out.
    tampered: i64,
}

impl WorkScan {
    /// Starts a read of at most `wanted` rows that are authentic.
    pub(crate) fn new(wanted: u32) -> Self {
        Self { wanted: wanted.into(), tampered: 0 }
    }

    /// Returns the number of rows that the next statement reads.
    pub(crate) fn limit(&self) -> i64 {
        self.wanted.saturating_add(self.tampered)
    }

    /// Verifies and parses the rows of a statement. Returns `None` if another statement must read
    /// more of them.
    pub(crate) fn add<T: TaggedRow, V>(
        &mut self,
        rows: Vec<Tagged<T>>,
        sealer: &dyn StoreSealer,
        parse: impl Fn(T) -> Result<V, Outage>,
    ) -> Result<Option<Vec<V>>, Outage> {
        let has_more = i64::try_from(rows.len()).is_ok_and(|count| count >= self.limit());
        let (mut found, mut tampered, mut first) = (Vec::with_capacity(rows.len()), 0, None);
        for row in rows {
            match row.verify(sealer) {
                Ok(row) => found.push(parse(row)?),
                Err(outage) => {
                    let Some(tampering) = outage.tampering() else { return Err(outage) };
                    tampered += 1;
                    first.get_or_insert_with(|| tampering.clone());
                }
            }
        }
        if has_more && tampered > self.tampered {
            self.tampered = tampered;
            return Ok(None);
        }
        if let Some(first) = first {
            tracing::error!(table = T::TABLE, rows = tampered, "rows are left out: {first}");
        }
        Ok(Some(found))
    }
}

fn tagged_text<T: TaggedRow>(row: &T) -> Result<String, Outage> {
    serde_json::to_string(&(T::TABLE, row)).map_err(Outage::during("compute the tag of a row"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::store::plain_sealer::PlainSealer;

    #[derive(Clone, Debug, Serialize)]
    struct Row(i64);

    impl TaggedRow for Row {
        const TABLE: &'static str = "rows";

        fn key(&self) -> String {
            self.0.to_string()
        }
    }

    /// Reads at most `wanted` of 20 rows. The first `tampered` have a wrong tag.
    fn read(tampered: i64, wanted: u32) -> Vec<i64> {
        let row = |n| {
            let row = Tagged::new(Row(n), &PlainSealer).unwrap();
            if n < tampered { Tagged { tag: "other".into(), ..row } } else { row }
        };
        let mut scan = WorkScan::new(wanted);
        for _ in 0..=20 {
            let rows = (0..20.min(scan.limit())).map(row).collect();
            if let Some(found) = scan.add(rows, &PlainSealer, |Row(n)| Ok(n)).unwrap() {
                return found;
            }
        }
        unreachable!("the read does not end")
    }

    #[test]
    fn tampered_rows_leave_room_for_others() {
        for wanted in [0, 1, 3, 20, 30] {
            for tampered in [0, 1, 2, 3, 5, 19, 20] {
                let expected = (tampered..20).take(usize::try_from(wanted).unwrap()).collect::<Vec<_>>();
                assert_eq!(read(tampered, wanted), expected, "{tampered} {wanted}");
            }
        }
    }

    #[test]
    fn authentic_row_that_cannot_be_parsed_is_an_outage() {
        let rows = vec![Tagged::new(Row(1), &PlainSealer).unwrap()];
        let failed = |_| Err::<i64, _>(Outage::during("parse")("in a test"));
        assert!(WorkScan::new(9).add(rows, &PlainSealer, failed).is_err());
    }
}
