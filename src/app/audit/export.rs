//! Export of the audit trail, and the verification of an export without a store.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{checkpoints::read_last_checkpoint, verification::AuditReport};
use crate::{
    app::{Error, RequestContext, Service},
    domain::audit::{
        ChainVerification, ChainedText, CheckpointSequence, Pins, Tampering, WriterId,
        checkpoint::{Checkpoint, CheckpointFault, hash_of},
    },
    ports::Outage,
};

const RECORD_PAGE_SIZE: u32 = 1000;
const CHECKPOINT_PAGE_SIZE: u32 = 100;

/// A record in an export.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExportedRecord {
    /// The writer of the chain.
    pub writer: WriterId,
    /// The number in the chain.
    pub n: u64,
    /// The hashed text.
    pub body: String,
    /// The hash.
    pub hash: String,
    /// The personal values, as JSON.
    pub personal: String,
}

/// One line of an export.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportLine {
    /// A signed checkpoint.
    Checkpoint(String),
    /// A record.
    Record(ExportedRecord),
}

impl Service {
    /// Passes the audit trail to `line` until it returns `false`: the checkpoints so far, every
    /// stored record, chain by chain, and a new checkpoint that covers exactly these records and
    /// those that were pruned.
    pub async fn export_audit(
        &self,
        cx: &RequestContext,
        mut line: impl FnMut(&ExportLine) -> bool,
    ) -> Result<(), Error> {
        let store = self.store();
        let signed = self.sign_checkpoint(cx).await?;
        let mut after = 0;
        loop {
            let page = store.read_checkpoints(after, CHECKPOINT_PAGE_SIZE).await?;
            let earlier = page.into_iter().take_while(|checkpoint| checkpoint.number < signed.number);
            let earlier = earlier.collect::<Vec<_>>();
            let Some(last) = earlier.last() else { break };
            after = last.number;
            if !earlier.into_iter().all(|checkpoint| line(&ExportLine::Checkpoint(checkpoint.text))) {
                return Ok(());
            }
        }
        let checkpoint = read_checkpoint(self.inner.ports.audit_keys.verify_checkpoint(&signed.text));
        let checkpoint = checkpoint.ok_or_else(|| Outage::during("read a checkpoint")("it does not verify"))?;
        for (writer, head) in checkpoint.writers {
            let mut after = checkpoint.pruned.get(&writer).map_or(0, |pruned| pruned.n);
            while after < head.n {
                let limit = u32::try_from(head.n - after).map_or(RECORD_PAGE_SIZE, |left| left.min(RECORD_PAGE_SIZE));
                let rows = store.read_audit_chain(writer, after, limit).await?;
                let Some(last) = rows.last() else { break };
                after = last.n;
                for row in rows {
                    let (n, body, hash, personal) = (row.n, row.body, row.hash, row.personal);
                    if !line(&ExportLine::Record(ExportedRecord { writer, n, body, hash, personal })) {
                        return Ok(());
                    }
                }
            }
        }
        let state = store.read_audit_state().await?;
        let last = read_last_checkpoint(&*self.inner.ports.audit_keys, &state)?;
        if last.is_none_or(|last| last.pruned != checkpoint.pruned) {
            return Err(Outage::during("export the audit trail")("records were pruned meanwhile; export again").into());
        }
        line(&ExportLine::Checkpoint(signed.text));
        Ok(())
    }
}

/// A complete export: what a prune depends on.
#[derive(Debug)]
pub struct VerifiedExport {
    /// The last checkpoint. It covers every record of the export.
    pub(super) checkpoint: Checkpoint,
    /// Its signed text.
    pub(super) text: String,
}

/// The verification of an export, line by line, with public keys alone. It checks the chains and
/// the checkpoints. Message authentication codes need the keys of the server and are not exported.
pub struct OfflineVerification<V> {
    /// Returns the payload of a checkpoint if its signature verifies.
    verify: V,
    report: AuditReport,
    sequence: CheckpointSequence,
    pins: Pins,
    /// The checkpoints that were kept elsewhere: number and hash.
    kept: Vec<(u64, String)>,
    chains: BTreeMap<WriterId, (ChainVerification, Option<Tampering>)>,
    /// Whether the last line was a checkpoint.
    ends_with_checkpoint: bool,
    has_sequence_fault: bool,
    /// The text of the last checkpoint.
    last_text: Option<String>,
}

impl<V> std::fmt::Debug for OfflineVerification<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OfflineVerification").field("report", &self.report).finish_non_exhaustive()
    }
}

impl<V: Fn(&str) -> Option<Vec<u8>>> OfflineVerification<V> {
    /// Begins a verification. `verify` returns the payload of a checkpoint whose signature
    /// verifies, and `kept` are checkpoints that were kept elsewhere.
    #[must_use]
    pub fn new(verify: V, kept: &[String]) -> Self {
        let mut verification = Self {
            verify,
            report: AuditReport::default(),
            sequence: CheckpointSequence::default(),
            pins: Pins::default(),
            kept: Vec::new(),
            chains: BTreeMap::new(),
            ends_with_checkpoint: false,
            has_sequence_fault: false,
            last_text: None,
        };
        for text in kept {
            match read_checkpoint((verification.verify)(text)) {
                Some(checkpoint) => {
                    verification.pins.add(&checkpoint);
                    verification.kept.push((checkpoint.number, hash_of(text)));
                }
                None => verification.report.add_fault(CheckpointFault::Kept),
            }
        }
        verification
    }

    /// Verifies the next line of the export.
    pub fn add(&mut self, line: &ExportLine) {
        match line {
            ExportLine::Checkpoint(text) => self.add_checkpoint(text),
            ExportLine::Record(record) => self.add_record(record),
        }
    }

    /// Ends the verification, after the last line. Returns what a prune depends on, unless
    /// something was found.
    pub fn finish_complete(mut self) -> Result<VerifiedExport, Box<AuditReport>> {
        let last = self.sequence.last().cloned().zip(self.last_text.take());
        let report = self.finish();
        match last {
            Some((checkpoint, text)) if report.findings.is_empty() => Ok(VerifiedExport { checkpoint, text }),
            Some(_) | None => Err(Box::new(report)),
        }
    }

    /// Ends the verification, after the last line.
    #[must_use]
    pub fn finish(mut self) -> AuditReport {
        if !self.has_sequence_fault {
            self.check_end();
        }
        for (writer, (chain, fault)) in self.chains {
            self.report.add_chain(writer, &chain, fault.or_else(|| chain.finish().err()));
        }
        self.report
    }

    fn add_checkpoint(&mut self, text: &str) {
        self.ends_with_checkpoint = true;
        if self.has_sequence_fault {
            return;
        }
        let payload = (self.verify)(text);
        match self.sequence.add(text, payload.as_deref()) {
            Ok(_) => {
                self.report.checkpoints += 1;
                self.last_text = Some(text.to_owned());
            }
            Err(fault) => {
                self.has_sequence_fault = true;
                self.report.add_fault(fault);
            }
        }
    }

    fn add_record(&mut self, record: &ExportedRecord) {
        self.ends_with_checkpoint = false;
        if self.chains.is_empty() {
            // The checkpoints that were signed before the export come before the records.
            self.pins.extend(self.sequence.last());
        }
        let (pins, writer) = (&self.pins, record.writer);
        let pruned = self.sequence.last().and_then(|last| last.pruned.get(&writer));
        let (chain, fault) =
            self.chains.entry(writer).or_insert_with(|| (ChainVerification::new(writer, pins, pruned), None));
        if fault.is_none() {
            let ExportedRecord { n, body, hash, personal, .. } = record;
            *fault = chain.add(ChainedText { n: *n, body, personal, hash }).err();
        }
    }

    /// Checks that the last checkpoint covers exactly the records of the export, and that the
    /// sequence contains every checkpoint that records name or that was kept elsewhere.
    fn check_end(&mut self) {
        let Some(last) = self.sequence.last().filter(|_| self.ends_with_checkpoint) else {
            self.report.add_fault(CheckpointFault::NoFinalCheckpoint);
            return;
        };
        for (writer, head) in &last.writers {
            // A chain without records has none, or they were pruned.
            let empty = || (ChainVerification::new(*writer, &self.pins, last.pruned.get(writer)), None);
            let (chain, fault) = self.chains.entry(*writer).or_insert_with(empty);
            let pruned = last.pruned.get(writer).map_or(0, |pruned| pruned.n);
            if fault.is_none() && chain.pruned_records() != pruned {
                *fault = Some(Tampering::Gap { after: chain.pruned_records(), found: pruned });
            }
            if fault.is_none() {
                *fault = chain.check_final_head(head, last.number).err();
            }
        }
        for (writer, (_, fault)) in &mut self.chains {
            if !last.writers.contains_key(writer) && fault.is_none() {
                *fault = Some(Tampering::Head(0));
            }
        }
        let recorded = self.chains.values().flat_map(|(chain, _)| chain.recorded_checkpoints.clone());
        let expected = recorded.chain(std::mem::take(&mut self.kept)).collect::<Vec<_>>();
        for (number, hash) in expected {
            if let Err(fault) = self.sequence.expect(number, &hash) {
                self.report.add_fault(fault);
            }
        }
    }
}

/// Reads the verified payload of a checkpoint.
pub(super) fn read_checkpoint(payload: Option<Vec<u8>>) -> Option<Checkpoint> {
    serde_json::from_slice(&payload?).ok()
}
