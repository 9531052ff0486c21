//! The audit trail, read as a whole: verified and exported.

use serde::Serialize;

use crate::{
    app::{Failure, Service},
    domain::audit::{Head, Tampering, Writer, verify},
    ports::{AuditColumns, AuditRow},
};

const PAGE: u32 = 1000;

/// What a verification found.
#[derive(Debug, Default, Serialize)]
pub struct Verification {
    /// How many writers' chains were read.
    pub chains: u64,
    /// How many records.
    pub records: u64,
    /// What somebody did to them: the writer and the finding. Empty when nobody touched anything.
    pub findings: Vec<(Writer, String)>,
    /// The heads of all chains. Kept elsewhere, they prove later that no whole chain was removed.
    pub heads: Vec<(Writer, Head)>,
}

/// One exported line.
#[derive(Debug, Serialize)]
pub struct Exported {
    /// The record with its place and the hash before it, as it was chained.
    pub body: Box<serde_json::value::RawValue>,
    /// The hash of that text.
    pub hash: String,
}

impl Service {
    /// Reads every chain from its first record and says what somebody did to it.
    pub async fn verify_audit(&self) -> Result<Verification, Failure> {
        let mut found = Verification::default();
        for (writer, expected) in self.store().audit_heads().await? {
            found.chains += 1;
            let finding = self.verify_chain(writer, &expected, &mut found.records).await?;
            found.findings.extend(finding.map(|tampering| (writer, tampering.to_string())));
            found.heads.push((writer, expected));
        }
        Ok(found)
    }

    async fn verify_chain(
        &self,
        writer: Writer,
        expected: &Head,
        records: &mut u64,
    ) -> Result<Option<Tampering>, Failure> {
        let mut head = Head::empty();
        loop {
            let rows = self.store().audit_chain(writer, head.n, PAGE).await?;
            if rows.is_empty() {
                break;
            }
            for row in rows {
                if let Err(tampering) = check(writer, &mut head, &row) {
                    return Ok(Some(tampering));
                }
                *records += 1;
            }
        }
        Ok(if head.n < expected.n {
            Some(Tampering::Truncated { expected: expected.n, found: head.n })
        } else if head != *expected {
            Some(Tampering::Head(head.n))
        } else {
            None
        })
    }

    /// Hands every record, chain by chain, to `line`, until it says stop by returning `false`.
    pub async fn export_audit(&self, mut line: impl FnMut(&Exported) -> bool) -> Result<(), Failure> {
        for (writer, _) in self.store().audit_heads().await? {
            let mut after = 0;
            loop {
                let rows = self.store().audit_chain(writer, after, PAGE).await?;
                let Some(last) = rows.last() else { break };
                after = last.n;
                for row in rows {
                    let body = serde_json::value::RawValue::from_string(row.body)
                        .map_err(crate::ports::Outage::during("read an audit record"))?;
                    if !line(&Exported { body, hash: row.hash }) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }
}

fn check(writer: Writer, head: &mut Head, row: &AuditRow) -> Result<(), Tampering> {
    let record = verify(writer, head, row.n, &row.body, &row.hash)?;
    if AuditColumns::of(&record) == row.columns { Ok(()) } else { Err(Tampering::Columns(row.n)) }
}
