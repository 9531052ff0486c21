//! Verification of the stored audit trail.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{
    app::{Error, RequestContext, Service},
    domain::audit::{
        ChainVerification, CheckpointSequence, Head, Pins, SearchColumns, Tampering, WriterId,
        checkpoint::{Checkpoint, CheckpointFault, RegistryState, hash_of},
    },
    ports::{AuditKeys, AuditRow, AuditStore, ErrorChain, Outage},
};

/// The number of records that are read at a time.
const PAGE_SIZE: u32 = 1000;
/// The number of checkpoints that are read at a time.
const CHECKPOINT_PAGE_SIZE: u32 = 100;

/// Something that a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditFinding {
    /// In a chain.
    Chain(WriterId, Tampering),
    /// In the sequence of checkpoints.
    Checkpoint(CheckpointFault),
    /// In the stored registry.
    Registry(String),
}

impl fmt::Display for AuditFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(writer, tampering) => write!(f, "chain {}: {tampering}", writer.0),
            Self::Checkpoint(fault) => fault.fmt(f),
            Self::Registry(fault) => write!(f, "registry: {fault}"),
        }
    }
}

/// The result of a verification.
#[derive(Clone, Debug, Default)]
pub struct AuditReport {
    /// The number of hash chains, one per writer.
    pub chains: u64,
    /// The number of records that were verified.
    pub records: u64,
    /// The number of records that were pruned under a signed checkpoint.
    pub pruned_records: u64,
    /// The last pruned record of each chain that has one.
    pub pruned: Vec<(WriterId, u64)>,
    /// The number of checkpoints.
    pub checkpoints: u64,
    /// The number of records after the last checkpoint. Whether some of them were removed is not
    /// known.
    pub uncovered_records: u64,
    /// The number of personal values that were removed.
    pub removed_values: u64,
    /// What was found.
    pub findings: Vec<AuditFinding>,
    /// The heads of all chains.
    pub heads: Vec<(WriterId, Head)>,
}

impl AuditReport {
    /// Adds the result of one chain. After a fault, the rest of the chain is not verified.
    pub(super) fn add_chain(&mut self, writer: WriterId, chain: &ChainVerification, fault: Option<Tampering>) {
        self.chains += 1;
        self.records += chain.verified_records();
        self.pruned_records += chain.pruned_records();
        self.pruned.extend(Some((writer, chain.pruned_records())).filter(|(_, n)| *n > 0));
        self.uncovered_records += chain.uncovered_records();
        self.removed_values += chain.removed_values;
        self.heads.push((writer, chain.head().clone()));
        self.findings.extend(fault.map(|fault| AuditFinding::Chain(writer, fault)));
    }

    pub(super) fn add_fault(&mut self, fault: CheckpointFault) {
        self.findings.push(AuditFinding::Checkpoint(fault));
    }
}

impl Service {
    /// Verifies the whole audit trail as it is when the verification begins: every chain, every
    /// message authentication code, and the checkpoints, those in `kept` included, which were kept
    /// elsewhere.
    pub async fn verify_audit(&self, kept: &[String], cx: &RequestContext) -> Result<AuditReport, Error> {
        let store = self.store();
        let mut verification = StoreVerification {
            audit: store,
            keys: Arc::clone(&self.inner.ports.audit_keys),
            report: AuditReport::default(),
            sequence: CheckpointSequence::default(),
            pins: Pins::default(),
        };
        verification.read_checkpoints().await?;
        verification.add_kept(kept);
        let state = store.read_audit_state().await?;
        match store.load_registry().await {
            // The keys of all records that have been written are in the log that has been written.
            Ok(_) => drop(self.inner.follower.committed_snapshot(cx.now).await?),
            // The log can't be followed with such a registry.
            Err(outage) => {
                // A store that can't be reached is an outage, not a finding.
                store.ping().await?;
                verification.report.findings.push(AuditFinding::Registry(ErrorChain(&outage).to_string()));
            }
        }
        verification.check_state(&state.registry, state.log.number());
        let pruned = verification.pruned();
        verification.verify_chains(&state.writers, &pruned).await?;
        if verification.report.findings.iter().any(|finding| matches!(finding, AuditFinding::Chain(..))) {
            // Records may have been pruned since the checkpoints were read.
            verification.read_checkpoints().await?;
            if verification.pruned() != pruned {
                let text = "records were pruned meanwhile; verify again";
                return Err(Outage::during("verify the audit trail")(text).into());
            }
        }
        Ok(verification.report)
    }
}

struct StoreVerification<'a> {
    audit: &'a dyn AuditStore,
    keys: Arc<dyn AuditKeys>,
    report: AuditReport,
    sequence: CheckpointSequence,
    pins: Pins,
}

impl StoreVerification<'_> {
    /// Verifies the stored checkpoints after those that have been read. The rest of the sequence
    /// after a fault is not verified.
    async fn read_checkpoints(&mut self) -> Result<(), Outage> {
        loop {
            let after = self.sequence.last_number();
            let page = self.audit.read_checkpoints(after, CHECKPOINT_PAGE_SIZE).await?;
            for stored in &page {
                let payload = self.keys.verify_checkpoint(&stored.text);
                if let Err(fault) = self.sequence.add(&stored.text, payload.as_deref()) {
                    self.report.add_fault(fault);
                    return Ok(());
                }
                self.report.checkpoints += 1;
            }
            if page.is_empty() {
                self.pins.extend(self.sequence.last());
                return Ok(());
            }
        }
    }

    /// Returns the last pruned record of each chain, by the last checkpoint.
    fn pruned(&self) -> BTreeMap<WriterId, Head> {
        self.sequence.last().map(|last| last.pruned.clone()).unwrap_or_default()
    }

    /// Adds checkpoints that were kept elsewhere.
    fn add_kept(&mut self, kept: &[String]) {
        for text in kept {
            let payload = self.keys.verify_checkpoint(text);
            let checkpoint = payload.and_then(|payload| serde_json::from_slice::<Checkpoint>(&payload).ok());
            let added = checkpoint.ok_or(CheckpointFault::Kept).and_then(|checkpoint| {
                self.pins.add(&checkpoint);
                self.sequence.expect(checkpoint.number, &hash_of(text))
            });
            if let Err(fault) = added {
                self.report.add_fault(fault);
            }
        }
    }

    fn check_state(&mut self, registry: &RegistryState, log: u64) {
        let Some(last) = self.sequence.last() else { return };
        // Chains are compared record by record.
        let faults = last.check_progress(log, &last.writers).err();
        let is_changed = !last.registry.can_become(registry);
        let number = last.number;
        for fault in faults.into_iter().chain(is_changed.then_some(CheckpointFault::Registry(number))) {
            self.report.add_fault(fault);
        }
    }

    async fn verify_chains(
        &mut self,
        heads: &BTreeMap<WriterId, Head>,
        pruned: &BTreeMap<WriterId, Head>,
    ) -> Result<(), Outage> {
        let removed =
            self.pins.writers().filter(|writer| !heads.contains_key(writer)).map(|writer| (writer, Head::empty()));
        let heads = heads.iter().map(|(writer, head)| (*writer, head.clone())).chain(removed).collect::<Vec<_>>();
        let mut recorded = Vec::new();
        for (writer, expected) in heads {
            let chain = ChainVerification::new(writer, &self.pins, pruned.get(&writer));
            let (mut chain, fault) = self.verify_chain(writer, chain, &expected).await?;
            recorded.append(&mut chain.recorded_checkpoints);
            self.report.add_chain(writer, &chain, fault);
        }
        self.check_recorded(&recorded).await
    }

    /// Verifies a chain from its first stored record to the head that it had when the verification
    /// began. The next page is read while a page is verified.
    async fn verify_chain(
        &self,
        writer: WriterId,
        mut chain: ChainVerification,
        expected: &Head,
    ) -> Result<(ChainVerification, Option<Tampering>), Outage> {
        let mut page = self.read_page(writer, chain.head().n, expected).await?;
        while let Some(last) = page.last().map(|row| row.n) {
            let keys = Arc::clone(&self.keys);
            let verify = tokio::task::spawn_blocking(move || {
                let fault = page.iter().find_map(|row| verify_row(&mut chain, row, &*keys).err());
                (chain, fault)
            });
            let (verified, next) = tokio::join!(verify, self.read_page(writer, last, expected));
            let (verified, fault) = verified.map_err(Outage::during("verify audit records"))?;
            chain = verified;
            if fault.is_some() {
                return Ok((chain, fault));
            }
            page = next?;
        }
        let fault = self.check_end(writer, &chain, expected).await?;
        Ok((chain, fault))
    }

    async fn read_page(&self, writer: WriterId, after: u64, expected: &Head) -> Result<Vec<AuditRow>, Outage> {
        let remaining = expected.n.saturating_sub(after);
        let limit = u32::try_from(remaining).map_or(PAGE_SIZE, |remaining| remaining.min(PAGE_SIZE));
        if limit == 0 { Ok(Vec::new()) } else { self.audit.read_audit_chain(writer, after, limit).await }
    }

    /// Compares the end of a chain with its stored head and with the checkpoints, and looks for
    /// records after the head.
    async fn check_end(
        &self,
        writer: WriterId,
        chain: &ChainVerification,
        expected: &Head,
    ) -> Result<Option<Tampering>, Outage> {
        let head = chain.head();
        if head.n < expected.n {
            return Ok(Some(Tampering::Truncated { expected: expected.n, found: head.n }));
        }
        if let Err(behind) = chain.finish() {
            return Ok(Some(behind));
        }
        if head != expected {
            return Ok(Some(Tampering::Head(head.n)));
        }
        // A record that is written during the verification moves the head in the same transaction;
        // any other record after the head was not written by the writer.
        let rows = self.audit.read_audit_chain(writer, head.n, PAGE_SIZE).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        let heads = self.audit.list_audit_heads().await?;
        let current = heads.into_iter().find(|(other, _)| *other == writer).map(|(_, head)| head.n);
        Ok(if current >= Some(last.n) { None } else { Some(Tampering::Head(last.n)) })
    }

    /// Checks that every checkpoint that a record names is stored. Some may have been signed since
    /// the checkpoints were read.
    async fn check_recorded(&mut self, recorded: &[(u64, String)]) -> Result<(), Outage> {
        if self.report.findings.iter().any(|finding| matches!(finding, AuditFinding::Checkpoint(_))) {
            // The sequence has not been read to its end.
            return Ok(());
        }
        if recorded.iter().any(|(number, _)| *number > self.sequence.last_number()) {
            self.read_checkpoints().await?;
        }
        let unknown = recorded.iter().filter_map(|(number, hash)| self.sequence.expect(*number, hash).err());
        for fault in unknown.collect::<Vec<_>>() {
            self.report.add_fault(fault);
        }
        Ok(())
    }
}

fn verify_row(chain: &mut ChainVerification, row: &AuditRow, keys: &dyn AuditKeys) -> Result<(), Tampering> {
    let record = chain.add(row.text())?;
    if SearchColumns::from_record(&record) != row.columns {
        return Err(Tampering::Columns(row.n));
    }
    if keys.is_authentic(&row.hash, &row.seal) { Ok(()) } else { Err(Tampering::Seal(row.n)) }
}
