//! Verification of chains against checkpoints, record by record.

use std::collections::BTreeMap;

use super::{
    chain::{ChainedText, Head, Tampering, WriterId, verify},
    checkpoint::{Checkpoint, CheckpointFault, hash_of, recorded_checkpoint},
    record::Record,
};

/// The records that checkpoints name: for each chain, the hash at a number.
#[derive(Clone, Debug, Default)]
pub struct Pins(BTreeMap<WriterId, BTreeMap<u64, Pin>>);

#[derive(Clone, Debug)]
struct Pin {
    checkpoint: u64,
    hash: String,
}

impl Pins {
    /// Adds the heads of a checkpoint.
    pub fn add(&mut self, checkpoint: &Checkpoint) {
        for (writer, head) in &checkpoint.writers {
            let pin = Pin { checkpoint: checkpoint.number, hash: head.hash.clone() };
            if head.n > 0 {
                // Two checkpoints may name the same number; a contradiction is found in the
                // sequence of checkpoints, or because only one of them is kept elsewhere.
                self.0.entry(*writer).or_default().entry(head.n).or_insert(pin);
            }
        }
    }

    /// Adds the heads of a checkpoint, if there is one.
    pub fn extend(&mut self, checkpoint: Option<&Checkpoint>) {
        if let Some(checkpoint) = checkpoint {
            self.add(checkpoint);
        }
    }

    /// Returns the writers whose chains the checkpoints name.
    pub fn writers(&self) -> impl Iterator<Item = WriterId> {
        self.0.keys().copied()
    }
}

/// The verification of one chain.
#[derive(Debug)]
pub struct ChainVerification {
    writer: WriterId,
    head: Head,
    pins: BTreeMap<u64, Pin>,
    /// The number of the last record that was pruned; 0 if none was.
    pruned: u64,
    /// The number of personal values that were removed.
    pub removed_values: u64,
    /// The checkpoints that records name: number and hash.
    pub recorded_checkpoints: Vec<(u64, String)>,
}

impl ChainVerification {
    /// Begins at the first record of a chain, or after the records that were pruned. `pruned` is
    /// the last of them, as the last checkpoint names it.
    #[must_use]
    pub fn new(writer: WriterId, pins: &Pins, pruned: Option<&Head>) -> Self {
        let pins = pins.0.get(&writer).cloned().unwrap_or_default();
        let head = pruned.cloned().unwrap_or_else(Head::empty);
        Self { writer, pruned: head.n, head, pins, removed_values: 0, recorded_checkpoints: Vec::new() }
    }

    /// Returns the number of records that were pruned before the first verified one.
    #[must_use]
    pub fn pruned_records(&self) -> u64 {
        self.pruned
    }

    /// Returns the number of verified records.
    #[must_use]
    pub fn verified_records(&self) -> u64 {
        self.head.n.saturating_sub(self.pruned)
    }

    /// Compares the last record of this chain so far with the checkpoints.
    fn check_pin(&self) -> Result<(), Tampering> {
        let n = self.head.n;
        match self.pins.get(&n) {
            Some(pin) if pin.hash != self.head.hash => {
                Err(Tampering::DiffersFromCheckpoint { n, checkpoint: pin.checkpoint })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Returns the head of the records that were verified.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Verifies the next record, and returns it.
    pub fn add(&mut self, text: ChainedText<'_>) -> Result<Record, Tampering> {
        // The first record follows one that was pruned.
        self.check_pin()?;
        let restored = verify(self.writer, &mut self.head, text)?;
        self.check_pin()?;
        self.removed_values = self.removed_values.saturating_add(restored.removed_values);
        self.recorded_checkpoints.extend(recorded_checkpoint(&restored.record));
        Ok(restored.record)
    }

    /// Checks that the chain reaches as far as the checkpoints say. Records that were pruned can't
    /// be compared, except for the last of them.
    pub fn finish(&self) -> Result<(), Tampering> {
        self.check_pin()?;
        match self.pins.last_key_value() {
            Some((expected, pin)) if *expected > self.head.n => {
                Err(Tampering::BehindCheckpoint { expected: *expected, found: self.head.n, checkpoint: pin.checkpoint })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Adds the head that a checkpoint names for the end of the chain, and checks that the chain
    /// ends there.
    pub fn check_final_head(&mut self, head: &Head, checkpoint: u64) -> Result<(), Tampering> {
        if head.n > 0 {
            self.pins.insert(head.n, Pin { checkpoint, hash: head.hash.clone() });
        }
        self.finish()?;
        if self.head == *head {
            Ok(())
        } else if self.head.n == head.n {
            Err(Tampering::DiffersFromCheckpoint { n: head.n, checkpoint })
        } else {
            Err(Tampering::Head(self.head.n))
        }
    }

    /// Returns the number of records after the last one that a checkpoint names.
    #[must_use]
    pub fn uncovered_records(&self) -> u64 {
        let covered = self.pins.last_key_value().map_or(0, |(n, _)| *n).max(self.pruned);
        self.head.n.saturating_sub(covered)
    }
}

/// The verification of a sequence of checkpoints, in order. Signatures are the caller's to verify.
#[derive(Debug, Default)]
pub struct CheckpointSequence {
    last: Option<Checkpoint>,
    hashes: BTreeMap<u64, String>,
}

impl CheckpointSequence {
    /// Returns the last checkpoint.
    #[must_use]
    pub fn last(&self) -> Option<&Checkpoint> {
        self.last.as_ref()
    }

    /// Returns the number of the last checkpoint, 0 if there is none.
    #[must_use]
    pub fn last_number(&self) -> u64 {
        self.last.as_ref().map_or(0, |last| last.number)
    }

    /// Returns the number of checkpoints.
    #[must_use]
    pub fn count(&self) -> usize {
        self.hashes.len()
    }

    /// Adds the next checkpoint: its signed text, and the verified payload, or `None` if the
    /// signature did not verify.
    pub fn add(&mut self, text: &str, payload: Option<&[u8]>) -> Result<&Checkpoint, CheckpointFault> {
        let after = self.last_number();
        let payload = payload.ok_or(CheckpointFault::Signature(after))?;
        let next = serde_json::from_slice::<Checkpoint>(payload).map_err(|_| CheckpointFault::Malformed(after))?;
        if next.number != after.saturating_add(1) {
            return Err(CheckpointFault::Missing { after, found: next.number });
        }
        if next.previous != self.hashes.get(&after).map_or("", String::as_str) {
            return Err(CheckpointFault::BrokenLink(next.number));
        }
        match &self.last {
            Some(last) => {
                last.check_progress(next.log, &next.writers)?;
                last.check_pruned(&next.pruned)?;
            }
            // Nothing covers what the first checkpoint would say.
            None if !next.pruned.is_empty() => return Err(CheckpointFault::Malformed(after)),
            None => {}
        }
        self.hashes.insert(next.number, hash_of(text));
        Ok(self.last.insert(next))
    }

    /// Checks that the sequence contains a checkpoint that a record names or that was kept
    /// elsewhere.
    pub fn expect(&self, number: u64, hash: &str) -> Result<(), CheckpointFault> {
        let is_known = self.hashes.get(&number).is_some_and(|known| known == hash);
        if is_known { Ok(()) } else { Err(CheckpointFault::Unknown(number)) }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        audit::{Event, Outcome, SALT_LEN, checkpoint::RegistryState, link},
        time::Timestamp,
    };

    const WRITER: WriterId = WriterId(Uuid::nil());

    fn checkpoint(number: u64, previous: &str, head: &Head) -> Checkpoint {
        Checkpoint {
            iat: Timestamp::EPOCH,
            iss: "https://sts.example.com".into(),
            log: number,
            number,
            previous: previous.into(),
            pruned: BTreeMap::new(),
            registry: RegistryState { digest: "d".into(), version: 1 },
            writers: BTreeMap::from([(WRITER, head.clone())]),
        }
    }

    /// Returns a chain of records and its head after each.
    fn chain(reason: &str) -> Vec<(crate::domain::audit::Linked, Head)> {
        let mut head = Head::empty();
        let record =
            Record { reason: Some(reason.into()), ..Record::new(Timestamp::EPOCH, Event::Revocation, Outcome::Done) };
        (0..4).map(|_| (link(WRITER, &mut head, &record, || [1; SALT_LEN]), head.clone())).collect()
    }

    fn verify_all(rows: &[(crate::domain::audit::Linked, Head)], pins: &Pins) -> Result<u64, Tampering> {
        verify_after(None, rows, pins).map(|chain| chain.uncovered_records())
    }

    fn verify_after(
        pruned: Option<&Head>,
        rows: &[(crate::domain::audit::Linked, Head)],
        pins: &Pins,
    ) -> Result<ChainVerification, Tampering> {
        let mut chain = ChainVerification::new(WRITER, pins, pruned);
        for (row, _) in rows {
            let personal = serde_json::to_string(&row.personal).unwrap();
            chain.add(ChainedText { n: row.n, body: &row.body, personal: &personal, hash: &row.hash })?;
        }
        chain.finish()?;
        Ok(chain)
    }

    #[test]
    fn chain_is_verified_after_its_pruned_records() {
        let rows = chain("the truth");
        let mut pins = Pins::default();
        pins.add(&checkpoint(1, "", &rows[0].1));
        pins.add(&checkpoint(2, "", &rows[1].1));
        pins.add(&checkpoint(3, "", &rows[3].1));
        let pruned = &rows[1].1;
        let verified = verify_after(Some(pruned), &rows[2..], &pins).unwrap();
        assert_eq!((verified.pruned_records(), verified.verified_records(), verified.uncovered_records()), (2, 2, 0));
        let whole = verify_after(Some(&rows[3].1), &[], &pins).unwrap();
        assert_eq!((whole.pruned_records(), whole.verified_records()), (4, 0), "the chain has ended");
        // Another record is missing than those that were pruned.
        let gap = verify_after(Some(pruned), &rows[3..], &pins).unwrap_err();
        assert_eq!(gap, Tampering::Gap { after: 2, found: 4 });
        let behind = Tampering::BehindCheckpoint { expected: 4, found: 3, checkpoint: 3 };
        assert_eq!(verify_after(Some(pruned), &rows[2..3], &pins).unwrap_err(), behind);
        // The last pruned record is another one than an earlier checkpoint names.
        let lie = chain("a lie");
        let rewritten = Tampering::DiffersFromCheckpoint { n: 2, checkpoint: 2 };
        assert_eq!(verify_after(Some(&lie[1].1), &lie[2..], &pins).unwrap_err(), rewritten);
        assert_eq!(verify_after(Some(&lie[1].1), &[], &pins).unwrap_err(), rewritten);
    }

    #[test]
    fn chain_is_verified_against_checkpoints() {
        let rows = chain("the truth");
        let mut pins = Pins::default();
        assert_eq!(verify_all(&rows, &pins), Ok(4), "nothing is covered");
        pins.add(&checkpoint(1, "", &rows[1].1));
        pins.add(&checkpoint(2, "", &rows[2].1));
        assert_eq!(verify_all(&rows, &pins), Ok(1));
        assert_eq!(verify_all(&rows[..3], &pins), Ok(0), "records after the last checkpoint can be removed");
        let behind = Tampering::BehindCheckpoint { expected: 3, found: 2, checkpoint: 2 };
        assert_eq!(verify_all(&rows[..2], &pins), Err(behind));
        let behind = Tampering::BehindCheckpoint { expected: 3, found: 0, checkpoint: 2 };
        assert_eq!(verify_all(&[], &pins), Err(behind), "a removed chain");
        let rewritten = Tampering::DiffersFromCheckpoint { n: 2, checkpoint: 1 };
        assert_eq!(verify_all(&chain("a lie"), &pins), Err(rewritten));
    }

    #[test]
    fn checkpoints_form_a_sequence() {
        let rows = chain("x");
        let payload = |one: &Checkpoint| serde_json::to_vec(one).unwrap();
        let first = checkpoint(1, "", &rows[0].1);
        let second = checkpoint(2, &hash_of("first"), &rows[1].1);
        let third = checkpoint(3, &hash_of("second"), &rows[2].1);
        let mut all = CheckpointSequence::default();
        for (text, one) in [("first", &first), ("second", &second), ("third", &third)] {
            all.add(text, Some(&payload(one))).unwrap();
        }
        assert_eq!((all.count(), all.last()), (3, Some(&third)));
        assert_eq!(all.expect(2, &hash_of("second")), Ok(()));
        assert_eq!(all.expect(2, &hash_of("first")), Err(CheckpointFault::Unknown(2)));
        assert_eq!(all.expect(4, &hash_of("x")), Err(CheckpointFault::Unknown(4)));

        let error = |text: &str, one: &Checkpoint| {
            let mut some = CheckpointSequence::default();
            some.add("first", Some(&payload(&first))).unwrap();
            some.add(text, Some(&payload(one))).unwrap_err()
        };
        assert_eq!(error("third", &third), CheckpointFault::Missing { after: 1, found: 3 });
        assert_eq!(error("x", &checkpoint(2, "x", &rows[1].1)), CheckpointFault::BrokenLink(2));
        let fewer = Checkpoint { writers: BTreeMap::new(), ..second.clone() };
        assert!(matches!(error("x", &fewer), CheckpointFault::LostRecords { expected: 1, found: 0, .. }));
        let mut empty = CheckpointSequence::default();
        assert_eq!(empty.add("second", Some(&payload(&second))), Err(CheckpointFault::Missing { after: 0, found: 2 }));
        assert_eq!(empty.add("x", None), Err(CheckpointFault::Signature(0)));
        assert_eq!(empty.add("x", Some(b"{}")), Err(CheckpointFault::Malformed(0)));
    }
}
