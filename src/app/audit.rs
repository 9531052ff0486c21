//! The audit trail, read as a whole: verified and exported.

use serde::Serialize;

use crate::{
    app::{Error, Service},
    domain::audit::{Head, SearchColumns, Tampering, WriterId, verify},
    ports::AuditRow,
};

const PAGE_SIZE: u32 = 1000;

/// What a verification found.
#[derive(Debug, Default, Serialize)]
pub struct AuditReport {
    /// How many writers' chains were read.
    pub chains: u64,
    /// How many records.
    pub records: u64,
    /// What somebody did to them: the writer and the finding. Empty when nobody touched anything.
    pub findings: Vec<(WriterId, String)>,
    /// The heads of all chains. Kept elsewhere, they prove later that no whole chain was removed.
    pub heads: Vec<(WriterId, Head)>,
}

/// One exported line.
#[derive(Debug, Serialize)]
pub struct ExportedRecord {
    /// The record with its place and the hash before it, as it was chained.
    pub body: Box<serde_json::value::RawValue>,
    /// The hash of that text.
    pub hash: String,
}

impl Service {
    /// Reads every chain, from its first record to where it ended when this began, and says what somebody did to it.
    pub async fn verify_audit(&self) -> Result<AuditReport, Error> {
        let mut found = AuditReport::default();
        for (writer, expected) in self.store().list_audit_heads().await? {
            found.chains += 1;
            let finding = self.verify_chain(writer, &expected, &mut found.records).await?;
            found.findings.extend(finding.map(|tampering| (writer, tampering.to_string())));
            found.heads.push((writer, expected));
        }
        Ok(found)
    }

    async fn verify_chain(
        &self,
        writer: WriterId,
        expected: &Head,
        records: &mut u64,
    ) -> Result<Option<Tampering>, Error> {
        let mut head = Head::empty();
        while head.n < expected.n {
            let left = u32::try_from(expected.n - head.n).map_or(PAGE_SIZE, |left| left.min(PAGE_SIZE));
            let rows = self.store().read_audit_chain(writer, head.n, left).await?;
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

    /// Looks for records behind the end of a chain. One that is written while we read moves the end on in the same
    /// transaction; any other is nobody's.
    async fn check_after_head(&self, writer: WriterId, end: &Head) -> Result<Option<Tampering>, Error> {
        let rows = self.store().read_audit_chain(writer, end.n, PAGE_SIZE).await?;
        let Some(last) = rows.last() else { return Ok(None) };
        let heads = self.store().list_audit_heads().await?;
        let end = heads.into_iter().find(|(other, _)| *other == writer).map(|(_, head)| head.n);
        Ok(if end >= Some(last.n) { None } else { Some(Tampering::Head(last.n)) })
    }

    /// Hands every record, chain by chain, to `line`, until it says stop by returning `false`.
    pub async fn export_audit(&self, mut line: impl FnMut(&ExportedRecord) -> bool) -> Result<(), Error> {
        for (writer, _) in self.store().list_audit_heads().await? {
            let mut after = 0;
            loop {
                let rows = self.store().read_audit_chain(writer, after, PAGE_SIZE).await?;
                let Some(last) = rows.last() else { break };
                after = last.n;
                for row in rows {
                    let body = serde_json::value::RawValue::from_string(row.body)
                        .map_err(crate::ports::Outage::during("read an audit record"))?;
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
