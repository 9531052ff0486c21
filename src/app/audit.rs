//! Verification and export of the audit trail.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    app::{Error, Service},
    domain::audit::{Head, SearchColumns, Tampering, WriterId, verify},
    ports::{AuditRow, AuditStore, Outage},
};

const PAGE_SIZE: u32 = 1000;

/// The result of a verification.
#[derive(Debug, Default, Serialize)]
pub struct AuditReport {
    /// The number of hash chains, one per writer.
    pub chains: u64,
    /// The number of records.
    pub records: u64,
    /// The tampering that was detected, by writer.
    pub findings: Vec<(WriterId, String)>,
    /// The heads of all chains. Stored elsewhere, they also show later whether a whole chain was
    /// removed.
    pub heads: Vec<(WriterId, Head)>,
}

/// One line of an export.
#[derive(Debug, Serialize)]
pub struct ExportedRecord {
    /// The record with its number and the previous hash, as it was chained.
    pub body: Box<RawValue>,
    /// The hash of that text.
    pub hash: String,
}

impl Service {
    /// Verifies every hash chain, from its first record to its head when the verification began.
    pub async fn verify_audit(&self) -> Result<AuditReport, Error> {
        Ok(AuditTrail { audit: self.store() }.verify().await?)
    }

    /// Passes every record, chain by chain, to `line` until it returns `false`.
    pub async fn export_audit(&self, line: impl FnMut(&ExportedRecord) -> bool) -> Result<(), Error> {
        Ok(AuditTrail { audit: self.store() }.export(line).await?)
    }
}

/// The audit trail in the store.
struct AuditTrail<'a> {
    audit: &'a dyn AuditStore,
}

impl AuditTrail<'_> {
    async fn verify(&self) -> Result<AuditReport, Outage> {
        let mut report = AuditReport::default();
        for (writer, expected) in self.audit.list_audit_heads().await? {
            report.chains += 1;
            let finding = self.verify_chain(writer, &expected, &mut report.records).await?;
            report.findings.extend(finding.map(|tampering| (writer, tampering.to_string())));
            report.heads.push((writer, expected));
        }
        Ok(report)
    }

    async fn verify_chain(
        &self,
        writer: WriterId,
        expected: &Head,
        records: &mut u64,
    ) -> Result<Option<Tampering>, Outage> {
        let mut head = Head::empty();
        while head.n < expected.n {
            let limit = u32::try_from(expected.n - head.n).map_or(PAGE_SIZE, |remaining| remaining.min(PAGE_SIZE));
            let rows = self.audit.read_audit_chain(writer, head.n, limit).await?;
            if rows.is_empty() {
                return Ok(Some(Tampering::Truncated { expected: expected.n, found: head.n }));
            }
            for row in rows {
                if let Err(tampering) = check_record(writer, &mut head, &row) {
                    return Ok(Some(tampering));
                }
                *records += 1;
            }
        }
        if head == *expected {
            self.check_after_head(writer, expected).await
        } else {
            Ok(Some(Tampering::Head(head.n)))
        }
    }

    /// Looks for records after the head of a chain. A record that is written during the
    /// verification moves the head in the same transaction; any other record after the head was not
    /// written by the writer.
    async fn check_after_head(&self, writer: WriterId, head: &Head) -> Result<Option<Tampering>, Outage> {
        let rows = self.audit.read_audit_chain(writer, head.n, PAGE_SIZE).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        let heads = self.audit.list_audit_heads().await?;
        let current = heads.into_iter().find(|(other, _)| *other == writer).map(|(_, head)| head.n);
        Ok(if current >= Some(last.n) { None } else { Some(Tampering::Head(last.n)) })
    }

    async fn export(&self, mut line: impl FnMut(&ExportedRecord) -> bool) -> Result<(), Outage> {
        for (writer, _) in self.audit.list_audit_heads().await? {
            let mut after = 0;
            loop {
                let rows = self.audit.read_audit_chain(writer, after, PAGE_SIZE).await?;
                let Some(last) = rows.last() else { break };
                after = last.n;
                for row in rows {
                    let body = RawValue::from_string(row.body).map_err(Outage::during("read an audit record"))?;
                    if !line(&ExportedRecord { body, hash: row.hash }) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

fn check_record(writer: WriterId, head: &mut Head, row: &AuditRow) -> Result<(), Tampering> {
    let record = verify(writer, head, row.n, &row.body, &row.hash)?;
    if SearchColumns::from_record(&record) == row.columns { Ok(()) } else { Err(Tampering::Columns(row.n)) }
}
