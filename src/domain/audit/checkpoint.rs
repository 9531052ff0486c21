//! Checkpoints of the audit trail: signed statements of how far every chain reaches. Copies that
//! are kept elsewhere detect what the store alone can't show, such as a removed chain.

use std::collections::BTreeMap;

use ring::digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{
    chain::{Head, WriterId},
    record::{Event, Outcome, Record},
};
use crate::domain::{
    encode_base64url,
    time::{Lifetime, Timestamp},
};

/// The `typ` of a checkpoint.
pub const TYP_AUDIT_CHECKPOINT: &str = "errand-audit-checkpoint+jwt";
/// The time after which records need another checkpoint.
pub const CHECKPOINT_INTERVAL: Lifetime = Lifetime::minutes(1);
/// The number of records that need another checkpoint, however recent the last one is.
pub const CHECKPOINT_RECORDS: u64 = 10_000;

/// The registry at the time of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryState {
    /// A digest of all stored objects, secrets, blocks and tools.
    pub digest: String,
    /// The version. Every change increments it.
    pub version: u64,
}

/// A checkpoint: the payload of a signed one. The fields are in canonical order (RFC 8785).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    /// The time of the checkpoint.
    pub iat: Timestamp,
    /// The issuer identifier of the server.
    pub iss: String,
    /// The position of the last entry of the revocation log.
    pub log: u64,
    /// The number, from 1.
    pub number: u64,
    /// The hash of the previous checkpoint; empty for the first.
    pub previous: String,
    /// The record of each chain up to which the records were pruned. They are no longer stored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pruned: BTreeMap<WriterId, Head>,
    /// The registry.
    pub registry: RegistryState,
    /// The head of the chain of every writer there has been.
    pub writers: BTreeMap<WriterId, Head>,
}

impl Checkpoint {
    /// Returns the number of records that the checkpoint covers.
    #[must_use]
    pub fn record_count(&self) -> u64 {
        count_records(&self.writers)
    }

    /// Checks that a later state of the store is one that this state can have become: no chain and
    /// no log entry has gone.
    pub fn check_progress(&self, log: u64, writers: &BTreeMap<WriterId, Head>) -> Result<(), CheckpointFault> {
        for (writer, head) in &self.writers {
            let found = writers.get(writer).map_or(0, |head| head.n);
            if found < head.n {
                let (writer, expected, checkpoint) = (*writer, head.n, self.number);
                return Err(CheckpointFault::LostRecords { writer, expected, found, checkpoint });
            }
        }
        if log < self.log {
            return Err(CheckpointFault::LostLog { expected: self.log, found: log, checkpoint: self.number });
        }
        Ok(())
    }

    /// Checks which records the next checkpoint says were pruned: those that were pruned before,
    /// and further ones that this checkpoint covers.
    pub fn check_pruned(&self, next: &BTreeMap<WriterId, Head>) -> Result<(), CheckpointFault> {
        let fault = |writer: &WriterId| CheckpointFault::Pruned { writer: *writer, checkpoint: self.number };
        for (writer, before) in &self.pruned {
            if !next.get(writer).is_some_and(|head| head == before || head.n > before.n) {
                return Err(fault(writer));
            }
        }
        for (writer, head) in next {
            let is_covered = self.writers.get(writer).is_some_and(|last| head == last || head.n < last.n);
            if head.n == 0 || !is_covered {
                return Err(fault(writer));
            }
        }
        Ok(())
    }
}

impl RegistryState {
    /// Returns whether a later state can have become of this one: at the same version, nothing has
    /// changed, and versions only grow.
    #[must_use]
    pub fn can_become(&self, later: &Self) -> bool {
        later.version > self.version || later == self
    }
}

/// Returns the number of records of all chains.
#[must_use]
pub fn count_records(writers: &BTreeMap<WriterId, Head>) -> u64 {
    writers.values().fold(0, |sum, head| sum.saturating_add(head.n))
}

/// A checkpoint as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// The number.
    pub number: u64,
    /// The hash of the text.
    pub hash: String,
    /// The signed checkpoint, as a compact JWS.
    pub text: String,
}

impl SignedCheckpoint {
    /// Computes the hash of a signed checkpoint.
    #[must_use]
    pub fn new(number: u64, text: String) -> Self {
        Self { number, hash: hash_of(&text), text }
    }
}

/// Returns the hash of a signed checkpoint: SHA-256 of its text, in base64url.
#[must_use]
pub fn hash_of(text: &str) -> String {
    encode_base64url(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

/// Returns whether another checkpoint is due. The record of the last checkpoint itself needs none.
#[must_use]
pub fn is_due(last: Option<&Checkpoint>, records: u64, now: Timestamp) -> bool {
    let Some(last) = last else { return records > 0 };
    let new = records.saturating_sub(last.record_count());
    new > 1 && (new > CHECKPOINT_RECORDS || last.iat.saturating_add(CHECKPOINT_INTERVAL).has_passed(now))
}

/// Returns the record of a checkpoint. A later verification expects the checkpoint that it names.
#[must_use]
pub fn record_of(checkpoint: &SignedCheckpoint, at: Timestamp) -> Record {
    let granted = serde_json::json!({"number": checkpoint.number, "hash": checkpoint.hash});
    Record { granted: Some(granted), ..Record::new(at, Event::AuditCheckpoint, Outcome::Done) }
}

/// Returns the number and the hash of the checkpoint that a record names.
#[must_use]
pub fn recorded_checkpoint(record: &Record) -> Option<(u64, String)> {
    if record.event != Event::AuditCheckpoint || record.outcome != Outcome::Done {
        return None;
    }
    let granted = record.granted.as_ref()?;
    Some((granted.get("number")?.as_u64()?, granted.get("hash")?.as_str()?.to_owned()))
}

/// A fault in the sequence of checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CheckpointFault {
    /// The signature does not verify.
    #[error("the checkpoint after number {0} is not signed with one of the given keys, or was edited")]
    Signature(u64),
    /// The payload is not a checkpoint.
    #[error("the text after checkpoint {0} is not a checkpoint")]
    Malformed(u64),
    /// A checkpoint that was kept elsewhere does not verify.
    #[error("a given checkpoint is not signed with one of the keys, or is not a checkpoint")]
    Kept,
    /// A number is missing.
    #[error("checkpoint {found} follows checkpoint {after}: a checkpoint was removed")]
    Missing {
        /// The last checkpoint in sequence.
        after: u64,
        /// The number found.
        found: u64,
    },
    /// The hash of the previous checkpoint does not match.
    #[error("checkpoint {0} does not follow the previous one: one of the two was replaced")]
    BrokenLink(u64),
    /// Records of a chain have gone.
    #[error(
        "chain {} has {found} records, but checkpoint {checkpoint} names record {expected}: records were deleted",
        .writer.0
    )]
    LostRecords {
        /// The chain.
        writer: WriterId,
        /// The number in the checkpoint.
        expected: u64,
        /// The number of the last record.
        found: u64,
        /// The checkpoint.
        checkpoint: u64,
    },
    /// Entries of the revocation log have gone.
    #[error(
        "the revocation log ends at position {found}, but checkpoint {checkpoint} names position {expected}: entries \
         were deleted"
    )]
    LostLog {
        /// The position in the checkpoint.
        expected: u64,
        /// The last position.
        found: u64,
        /// The checkpoint.
        checkpoint: u64,
    },
    /// The next checkpoint says that records were pruned which the checkpoint does not cover, or
    /// forgets that records were pruned.
    #[error(
        "the records of chain {} that were pruned after checkpoint {checkpoint} are not those that the next checkpoint \
         names",
        .writer.0
    )]
    Pruned {
        /// The chain.
        writer: WriterId,
        /// The checkpoint.
        checkpoint: u64,
    },
    /// A checkpoint that is recorded, or kept elsewhere, is not stored.
    #[error("checkpoint {0} is missing, or is another one than the one that was recorded or kept")]
    Unknown(u64),
    /// The registry differs from the one of the last checkpoint at the same version, or its version
    /// has decreased.
    #[error("the registry was changed outside this server after checkpoint {0}")]
    Registry(u64),
    /// The export does not end with a checkpoint of all its records.
    #[error("the export does not end with a checkpoint of its records: its end was removed")]
    NoFinalCheckpoint,
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn writer(n: u128) -> WriterId {
        WriterId(Uuid::from_u128(n))
    }

    fn heads(counts: &[u64]) -> BTreeMap<WriterId, Head> {
        let head = |n: &u64| Head { n: *n, hash: "h".into() };
        (1..).map(writer).zip(counts.iter().map(head)).collect()
    }

    fn checkpoint(counts: &[u64]) -> Checkpoint {
        Checkpoint {
            iat: Timestamp::from_unix(1000),
            iss: "https://sts.example.com".into(),
            log: 7,
            number: 3,
            previous: "p".into(),
            pruned: BTreeMap::new(),
            registry: RegistryState { digest: "d".into(), version: 1 },
            writers: heads(counts),
        }
    }

    #[test]
    fn serialization_is_canonical() {
        for pruned in [heads(&[]), heads(&[1, 2])] {
            let one = Checkpoint { pruned, ..checkpoint(&[1, 2]) };
            let plain = serde_json::to_string(&one).unwrap();
            assert_eq!(plain, serde_json_canonicalizer::to_string(&one).unwrap());
        }
    }

    #[test]
    fn only_covered_records_are_pruned() {
        let other_hash = |n| BTreeMap::from([(writer(1), Head { n, hash: "x".into() })]);
        for (before, next, want) in [
            (heads(&[]), heads(&[]), true),
            (heads(&[]), heads(&[3]), true),
            (heads(&[]), heads(&[4]), true),
            (heads(&[]), heads(&[5]), false),
            (heads(&[]), heads(&[0]), false),
            (heads(&[]), heads(&[4, 6, 1]), false),
            (heads(&[]), other_hash(3), true),
            (heads(&[]), other_hash(4), false),
            (heads(&[2]), heads(&[2]), true),
            (heads(&[2]), heads(&[3, 1]), true),
            (heads(&[2]), heads(&[1]), false),
            (heads(&[2]), heads(&[]), false),
            (heads(&[2]), other_hash(2), false),
        ] {
            let last = Checkpoint { pruned: before, ..checkpoint(&[4, 6]) };
            assert_eq!(last.check_pruned(&next).is_ok(), want, "{:?} -> {next:?}", last.pruned);
        }
    }

    #[test]
    fn checkpoint_is_due_after_a_minute_or_many_records() {
        let last = checkpoint(&[4, 6]);
        for (records, seconds, want) in [
            (10, 1000, false),
            // The record of the checkpoint itself.
            (11, 9000, false),
            (12, 1059, false),
            (12, 1060, true),
            (10 + CHECKPOINT_RECORDS, 1001, false),
            (11 + CHECKPOINT_RECORDS, 1001, true),
        ] {
            assert_eq!(is_due(Some(&last), records, Timestamp::from_unix(seconds)), want, "{records} {seconds}");
        }
        assert!(is_due(None, 1, Timestamp::EPOCH) && !is_due(None, 0, Timestamp::MAX));
    }

    #[test]
    fn lost_state_is_detected() {
        let last = checkpoint(&[4, 6]);
        assert_eq!(last.check_progress(7, &heads(&[4, 6])), Ok(()));
        assert_eq!(last.check_progress(9, &heads(&[5, 6, 1])), Ok(()));
        let lost =
            |writer, expected, found| Err(CheckpointFault::LostRecords { writer, expected, found, checkpoint: 3 });
        assert_eq!(last.check_progress(9, &heads(&[4, 5])), lost(writer(2), 6, 5));
        assert_eq!(last.check_progress(9, &heads(&[4])), lost(writer(2), 6, 0));
        let log = CheckpointFault::LostLog { expected: 7, found: 6, checkpoint: 3 };
        assert_eq!(last.check_progress(6, &heads(&[4, 6])), Err(log));
    }

    #[test]
    fn registry_changes_with_its_version_only() {
        let state = |digest: &str, version| RegistryState { digest: digest.into(), version };
        for (digest, version, want) in
            [("d", 4, true), ("e", 5, true), ("e", 4, false), ("d", 3, false), ("e", 3, false)]
        {
            assert_eq!(state("d", 4).can_become(&state(digest, version)), want, "{digest} {version}");
        }
    }

    #[test]
    fn record_names_its_checkpoint() {
        let signed = SignedCheckpoint::new(9, "a.b.c".into());
        let record = record_of(&signed, Timestamp::EPOCH);
        assert_eq!(recorded_checkpoint(&record), Some((9, hash_of("a.b.c"))));
        assert_eq!(recorded_checkpoint(&Record { event: Event::KeyRotate, ..record }), None);
    }
}
