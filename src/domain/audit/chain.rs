//! Hash chain of audit records. Each writer links its records by SHA-256, so that editing, deleting
//! or reordering a record breaks the chain. A party that can write the store can compute another
//! chain. Message authentication codes and [checkpoints](super::checkpoint) detect that.

use ring::digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use super::{
    personal::{HashedRecord, PersonalValues, RestoredRecord, SALT_LEN},
    record::Record,
};
use crate::domain::{encode_base64url, encoding::jcs};

/// The writer of a chain: one start of a server, or the commands on one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WriterId(pub Uuid);

impl WriterId {
    /// Returns the writer of the commands on a host. They share one chain, because each of them
    /// writes a few records at most.
    #[must_use]
    pub fn of_commands(host: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, format!("errand command-line\n{host}").as_bytes());
        Self(uuid::Builder::from_custom_bytes(digest.as_ref().first_chunk().copied().unwrap_or_default()).into_uuid())
    }
}

/// The head of a writer's chain: the number of records and the hash of the last one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The hash of the last record; the empty string for an empty chain.
    pub hash: String,
    /// The number of the last record; 0 for an empty chain.
    pub n: u64,
}

impl Head {
    /// Returns the head of an empty chain.
    #[must_use]
    pub fn empty() -> Self {
        Self { n: 0, hash: String::new() }
    }
}

/// The message authentication code of a record, and the number of its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The number of the key.
    pub epoch: u64,
    /// HMAC-SHA-256 over the hash of the record, in base64url.
    pub mac: String,
}

/// A record at its position in a chain. `body` is stored verbatim, and the hash is over its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linked {
    /// The writer.
    pub writer: WriterId,
    /// The number in the writer's chain, from 1.
    pub n: u64,
    /// The canonical text: writer, number, previous hash, and record with digests in place of
    /// personal values.
    pub body: String,
    /// The personal values.
    pub personal: PersonalValues,
    /// The SHA-256 of the body, in base64url.
    pub hash: String,
}

/// A stored record: what a verification reads.
#[derive(Clone, Copy, Debug)]
pub struct ChainedText<'a> {
    /// The number in the chain.
    pub n: u64,
    /// The hashed text.
    pub body: &'a str,
    /// The personal values, as JSON.
    pub personal: &'a str,
    /// The hash.
    pub hash: &'a str,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordBody<T> {
    n: u64,
    prev: T,
    record: HashedRecord,
    writer: WriterId,
}

/// Appends a record to a chain and advances the head. `salt` returns a new salt for each personal
/// value.
#[must_use]
pub fn link(writer: WriterId, head: &mut Head, record: &Record, salt: impl FnMut() -> [u8; SALT_LEN]) -> Linked {
    let n = head.n.saturating_add(1);
    let (record, personal) = HashedRecord::new(record, salt);
    // A struct of strings and numbers always has a canonical form.
    let body = jcs::to_string(&RecordBody { n, prev: &head.hash, record, writer }).unwrap_or_default();
    let hash = digest_of(&body);
    *head = Head { n, hash: hash.clone() };
    Linked { writer, n, body, personal, hash }
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
    /// The message authentication code does not match: the record was not written by a server.
    #[error("record {0} was not written by this server: its message authentication code does not match")]
    Seal(u64),
    /// The record is not the one that a checkpoint names.
    #[error("record {n} differs from the one that checkpoint {checkpoint} names: the chain was rewritten")]
    DiffersFromCheckpoint {
        /// The number of the record.
        n: u64,
        /// The number of the checkpoint.
        checkpoint: u64,
    },
    /// The chain ends before the record that a checkpoint names.
    #[error(
        "the chain ends at record {found}, but checkpoint {checkpoint} names record {expected}: records were deleted"
    )]
    BehindCheckpoint {
        /// The number in the checkpoint.
        expected: u64,
        /// The last record found.
        found: u64,
        /// The number of the checkpoint.
        checkpoint: u64,
    },
    /// The head does not name the last record.
    #[error("the chain head does not match its last record {0}: the head or the record was replaced")]
    Head(u64),
}

/// Verifies one record against the head of the records before it, advances the head, and returns
/// the record.
pub fn verify(writer: WriterId, head: &mut Head, text: ChainedText<'_>) -> Result<RestoredRecord, Tampering> {
    let n = text.n;
    if n != head.n.saturating_add(1) {
        return Err(Tampering::Gap { after: head.n, found: n });
    }
    let (prev, restored) = restore(writer, text)?;
    if prev != head.hash {
        return Err(Tampering::BrokenLink(n));
    }
    *head = Head { n, hash: text.hash.to_owned() };
    Ok(restored)
}

/// Verifies one record in isolation: its text, its hash and its number. Its place among the other
/// records is not checked.
pub fn read(writer: WriterId, text: ChainedText<'_>) -> Result<RestoredRecord, Tampering> {
    restore(writer, text).map(|(_, restored)| restored)
}

/// Restores a record from its stored text. Also returns the hash of the previous record.
fn restore(writer: WriterId, text: ChainedText<'_>) -> Result<(String, RestoredRecord), Tampering> {
    let edited = || Tampering::Edited(text.n);
    if digest_of(text.body) != text.hash {
        return Err(edited());
    }
    let parsed = serde_json::from_str::<RecordBody<String>>(text.body).map_err(|_| edited())?;
    if parsed.n != text.n || parsed.writer != writer {
        return Err(edited());
    }
    let personal = serde_json::from_str(text.personal).map_err(|_| edited())?;
    let restored = parsed.record.restore(personal).map_err(|_| edited())?;
    Ok((parsed.prev, restored))
}

fn digest_of(body: &str) -> String {
    encode_base64url(digest::digest(&digest::SHA256, body.as_bytes()).as_ref())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{
        audit::{Event, Outcome},
        time::Timestamp,
    };

    fn sample(n: u64) -> Record {
        let at = Timestamp::from_unix(i64::try_from(n).unwrap());
        let mut record = Record::new(at, Event::TokenIssue, Outcome::Done);
        record.purpose = Some("quarterly report".into());
        record.requested = Some(json!({"scope": "files:read", "n": n}));
        record
    }

    fn salts() -> impl FnMut() -> [u8; SALT_LEN] {
        let mut next = 0;
        move || {
            next += 1;
            [next; SALT_LEN]
        }
    }

    fn chain(length: u64) -> Vec<Linked> {
        let (mut head, mut salt) = (Head::empty(), salts());
        (0..length).map(|n| link(WriterId(Uuid::nil()), &mut head, &sample(n), &mut salt)).collect()
    }

    fn verify_row(head: &mut Head, row: &Linked) -> Result<RestoredRecord, Tampering> {
        let personal = serde_json::to_string(&row.personal).unwrap();
        verify(row.writer, head, ChainedText { n: row.n, body: &row.body, personal: &personal, hash: &row.hash })
    }

    fn check(rows: &[Linked]) -> Result<u64, Tampering> {
        let mut head = Head::empty();
        for row in rows {
            verify_row(&mut head, row)?;
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

        let mut exchanged = chain(5);
        exchanged[2].personal = chain(4)[1].personal.clone();
        assert_eq!(check(&exchanged), Err(Tampering::Edited(3)), "the personal values of another record");
    }

    #[test]
    fn personal_values_are_outside_the_hashed_text() {
        let rows = chain(3);
        assert!(rows.iter().all(|row| !row.body.contains("quarterly") && !row.body.contains("files:read")));
        let digests = rows.iter().map(|row| {
            let body: serde_json::Value = serde_json::from_str(&row.body).unwrap();
            body["record"]["purpose"].as_str().unwrap().to_owned()
        });
        let digests = digests.collect::<std::collections::BTreeSet<_>>();
        assert_eq!(digests.len(), 3, "equal values have different digests");
        let mut head = Head::empty();
        for (n, row) in (0..).zip(&rows) {
            assert_eq!(verify_row(&mut head, row), Ok(RestoredRecord { record: sample(n), removed_values: 0 }));
        }
    }

    /// A removed value leaves the chain intact. A changed or an added one does not.
    #[test]
    fn personal_values_can_be_removed() {
        let mut rows = chain(3);
        rows[1].personal = PersonalValues::default();
        let mut head = Head::empty();
        verify_row(&mut head, &rows[0]).unwrap();
        let without = Record { purpose: None, requested: None, ..sample(1) };
        assert_eq!(verify_row(&mut head, &rows[1]), Ok(RestoredRecord { record: without, removed_values: 2 }));
        assert!(verify_row(&mut head, &rows[2]).is_ok());

        let text = serde_json::to_string(&chain(2)[0].personal).unwrap();
        for (from, to) in [
            ("quarterly", "monthly"),
            ("files:read", "files:all"),
            ("purpose", "reason"),
            ("{", "{\"by\":[\"\",\"x\"],"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            rows[0].personal = serde_json::from_str(&changed).unwrap();
            assert_eq!(check(&rows[..1]), Err(Tampering::Edited(1)), "{from}");
        }
        // The first character of a value moves to the end of its salt, with the same digest.
        let mut values = serde_json::from_str::<serde_json::Value>(&text).unwrap();
        let [salt, value] = &mut values["purpose"].as_array_mut().unwrap()[..] else { panic!("{text}") };
        let (first, rest) = value.as_str().unwrap().split_at_checked(1).unwrap();
        let moved = [&crate::domain::decode_base64url(salt.as_str().unwrap()).unwrap(), first.as_bytes()].concat();
        (*salt, *value) = (crate::domain::encode_base64url(&moved).into(), rest.into());
        rows[0].personal = serde_json::from_value(values).unwrap();
        assert_eq!(check(&rows[..1]), Err(Tampering::Edited(1)), "a longer salt");
    }
}
