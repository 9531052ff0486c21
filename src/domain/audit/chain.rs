//! Hash chain of audit records. Each writer links its records by SHA-256, so that editing, deleting
//! or reordering a record is detected.

use ring::digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::record::Record;
use crate::domain::{encode_base64url, encoding::jcs};

/// The writer of a chain: one start of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WriterId(pub Uuid);

/// The head of a writer's chain: the number of records and the hash of the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The number of the last record; 0 for an empty chain.
    pub n: u64,
    /// The hash of the last record; the empty string for an empty chain.
    pub hash: String,
}

impl Head {
    /// Returns the head of an empty chain.
    #[must_use]
    pub fn empty() -> Self {
        Self { n: 0, hash: String::new() }
    }
}

/// A record at its position in a chain. `body` is stored verbatim, and the hash is over its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The writer.
    pub writer: WriterId,
    /// The number in the writer's chain, from 1.
    pub n: u64,
    /// The canonical text: writer, number, previous hash and record.
    pub body: String,
    /// The SHA-256 of the body, in base64url.
    pub hash: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordBody<T, R> {
    n: u64,
    prev: T,
    record: R,
    writer: WriterId,
}

fn parse_body(body: &str) -> Option<RecordBody<String, Record>> {
    serde_json::from_str(body).ok()
}

/// Appends a record to a chain and advances the head.
#[must_use]
pub fn link(writer: WriterId, head: &mut Head, record: &Record) -> Linked {
    let n = head.n.saturating_add(1);
    // A struct of strings, numbers and JSON values always has a canonical form.
    let body = jcs::to_string(&RecordBody { n, prev: &head.hash, record, writer }).unwrap_or_default();
    let hash = digest_of(&body);
    *head = Head { n, hash: hash.clone() };
    Linked { writer, n, body, hash }
}

/// Tampering that the verification of a chain detects.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Tampering {
    /// A record is missing or misplaced: `found` follows `after`.
    #[error("record {found} follows record {after}: a record was deleted or moved")]
    Gap {
        /// The last verified record.
        after: u64,
        /// The record found after it.
        found: u64,
    },
    /// The previous hash does not match: one of the two records was replaced.
    #[error("record {0} does not follow the previous record: one of the two was replaced")]
    BrokenLink(u64),
    /// The text does not match its hash or cannot be parsed.
    #[error("record {0} was edited")]
    Edited(u64),
    /// The search columns differ from the text.
    #[error("the search columns of record {0} were edited")]
    Columns(u64),
    /// The chain ends before the record that its head names.
    #[error("the chain ends at record {found} of {expected}: records were deleted from its end")]
    Truncated {
        /// The number in the head.
        expected: u64,
        /// The last record found.
        found: u64,
    },
    /// The head does not name the last record.
    #[error("the chain head does not match its last record {0}: the head or the record was replaced")]
    Head(u64),
}

/// Verifies one record against the head of the records before it, advances the head, and returns
/// the record.
pub fn verify(writer: WriterId, head: &mut Head, n: u64, body: &str, hash: &str) -> Result<Record, Tampering> {
    if n != head.n.saturating_add(1) {
        return Err(Tampering::Gap { after: head.n, found: n });
    }
    if digest_of(body) != hash {
        return Err(Tampering::Edited(n));
    }
    let parsed = parse_body(body).ok_or(Tampering::Edited(n))?;
    if parsed.n != n || parsed.writer != writer {
        return Err(Tampering::Edited(n));
    }
    if parsed.prev != head.hash {
        return Err(Tampering::BrokenLink(n));
    }
    *head = Head { n, hash: hash.to_owned() };
    Ok(parsed.record)
}

/// Verifies one record in isolation: its text, its hash and its number. Its place among the other
/// records is not checked.
pub fn read(writer: WriterId, n: u64, body: &str, hash: &str) -> Result<Record, Tampering> {
    let parsed = parse_body(body).ok_or(Tampering::Edited(n))?;
    if digest_of(body) == hash && parsed.n == n && parsed.writer == writer {
        Ok(parsed.record)
    } else {
        Err(Tampering::Edited(n))
    }
}

fn digest_of(body: &str) -> String {
    encode_base64url(digest::digest(&digest::SHA256, body.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        audit::{Event, Outcome},
        time::Timestamp,
    };

    fn chain(length: u64) -> Vec<Linked> {
        let mut head = Head::empty();
        (0..length)
            .map(|n| {
                let at = Timestamp::from_unix(i64::try_from(n).unwrap());
                link(WriterId(Uuid::nil()), &mut head, &Record::new(at, Event::TokenIssue, Outcome::Done))
            })
            .collect()
    }

    fn check(rows: &[Linked]) -> Result<u64, Tampering> {
        let mut head = Head::empty();
        for row in rows {
            verify(row.writer, &mut head, row.n, &row.body, &row.hash)?;
        }
        Ok(head.n)
    }

    #[test]
    fn tampered_chain_is_detected() {
        assert_eq!(check(&chain(5)), Ok(5));

        let mut deleted = chain(5);
        deleted.remove(2);
        assert_eq!(check(&deleted), Err(Tampering::Gap { after: 2, found: 4 }));

        let mut edited = chain(5);
        edited[2].body = edited[2].body.replace("token.issue", "revocation");
        assert_eq!(check(&edited), Err(Tampering::Edited(3)));

        let mut edited_with_its_hash = edited.clone();
        edited_with_its_hash[2].hash = digest_of(&edited[2].body);
        assert_eq!(check(&edited_with_its_hash), Err(Tampering::BrokenLink(4)));

        let mut reordered = chain(5);
        reordered.swap(1, 2);
        assert!(matches!(check(&reordered), Err(Tampering::Gap { .. })));

        let mut renumbered = chain(5);
        renumbered.swap(1, 2);
        (renumbered[1].n, renumbered[2].n) = (2, 3);
        assert_eq!(check(&renumbered), Err(Tampering::Edited(2)));
    }
}
