//! Removal of what is stored about a person.
//!
//! In the audit trail the values that name or describe the person are removed with their salts, and
//! the digests stay, so that the chains verify. Of the rest, rows on which no decision can rest any
//! more are deleted.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    app::{Error, RequestContext, Service},
    domain::{
        audit::{ChainedText, Event, Outcome, PersonalValues, Record, SearchColumns, WriterId, members_about, read},
        settings::MIN_RETENTION,
        task::Requester,
    },
    ports::{AuditRow, Outage, RequesterRows},
};

const OP_FORGET: &str = "forget a person";
/// The number of records that are read at a time.
const PAGE_SIZE: u32 = 1000;

/// What was removed about a person, and what is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForgetReport {
    /// The number of audit records that lost values.
    pub records: u64,
    /// The number of values that they lost.
    pub values: u64,
    /// The rows that were deleted; with a dry run, none.
    pub deleted: RequesterRows,
    /// The rows that are left.
    pub left: RequesterRows,
    /// Whether a block names the person.
    pub is_blocked: bool,
}

impl Service {
    /// Removes what is stored about a person, or only counts it. Tasks and tokens that ended less
    /// than 25 hours ago are left: repeat it later.
    pub async fn forget_person(
        &self,
        person: &Requester,
        by: &str,
        is_dry_run: bool,
        cx: &RequestContext,
    ) -> Result<ForgetReport, Error> {
        let snapshot = self.inner.follower.committed_snapshot(cx.now).await?;
        let is_blocked = snapshot.registry.is_blocked(person);
        let mut report = ForgetReport { is_blocked, ..ForgetReport::default() };
        if !is_dry_run {
            // Without the rights, nothing must be removed in part.
            let columns = SearchColumns::from_record(&Record::new(cx.now, Event::PersonForget, Outcome::Done));
            self.store().replace_personal_values(WriterId(Uuid::nil()), 0, "{}", &columns).await?;
            // A removal that is interrupted must be on record too.
            self.inner.writer.commit_record(record_of(by, json!({"removal": "started"}), cx)).await?;
        }
        for (writer, head) in self.store().list_audit_heads().await? {
            let mut after = 0;
            while after < head.n {
                let rows = self.store().read_audit_chain(writer, after, PAGE_SIZE).await?;
                let Some(last) = rows.last() else { break };
                after = last.n;
                for row in &rows {
                    let removed = self.forget_in_record(row, person, is_dry_run).await?;
                    report.records = report.records.saturating_add(u64::from(removed > 0));
                    report.values = report.values.saturating_add(removed);
                }
            }
        }
        if !is_dry_run {
            let cutoff = cx.now.saturating_sub(MIN_RETENTION);
            report.deleted = self.store().delete_requester_rows(person, cutoff).await?;
            let RequesterRows { tokens, tasks, grants, break_glass } = report.deleted;
            let granted = json!({"removal": "completed", "records": report.records, "values": report.values,
                "tokens": tokens, "tasks": tasks, "grants": grants, "break_glass": break_glass});
            self.inner.writer.commit_record(record_of(by, granted, cx)).await?;
        }
        report.left = self.store().count_requester_rows(person).await?;
        Ok(report)
    }

    /// Removes the values of a record that are about a person. Returns their number.
    async fn forget_in_record(&self, row: &AuditRow, person: &Requester, is_dry_run: bool) -> Result<u64, Outage> {
        let restored = read(row.writer, row.text()).map_err(Outage::during(OP_FORGET))?;
        let members = members_about(&restored.record, person);
        let mut personal = serde_json::from_str::<PersonalValues>(&row.personal).map_err(Outage::during(OP_FORGET))?;
        let removed = personal.remove(&members);
        if removed > 0 && !is_dry_run {
            let personal = serde_json::to_string(&personal).map_err(Outage::during(OP_FORGET))?;
            let text = ChainedText { personal: &personal, ..row.text() };
            let left = read(row.writer, text).map_err(Outage::during(OP_FORGET))?;
            let columns = SearchColumns::from_record(&left.record);
            self.store().replace_personal_values(row.writer, row.n, &personal, &columns).await?;
        }
        Ok(removed)
    }
}

/// Returns the record of a removal. It does not name the person.
fn record_of(by: &str, granted: Value, cx: &RequestContext) -> Record {
    Record {
        admin: Some(by.to_owned()),
        granted: Some(granted),
        request_id: Some(cx.request_id.clone()),
        ..Record::new(cx.now, Event::PersonForget, Outcome::Done)
    }
}
